"""The console's stream, page and alarms, over two API processes."""

import re
import signal
from itertools import islice

import httpx
import psycopg

from api.console import Rates, conditions
from api.system import ShopSnapshot
from persistence.alarms import KINDS
from persistence.oversight import DeliveryBacklog, InstallationState
from tests.console_stream import watching
from tests.running_shop import RunningShop, charge, eventually, place, put_campaign, put_product


def test_the_stream_shows_what_every_api_process_does(
    shop: RunningShop, client: httpx.Client, product: str, campaign: str
) -> None:
    put_product(client, product, price=10)
    put_campaign(client, campaign, quantity=2)
    with watching(shop.url(0)) as sights:
        first = next(sights)
        assert (first["trusted"], first["redis"], first["postgres"], first["alarms"]) == (64, True, True, [])
        assert [partition[:2] for partition in first["partitions"]] == [[index, "trusted"] for index in range(64)]
        seen: dict[str, float] = {}
        for number, sight in enumerate(sights):
            if number < 3:
                # All of it at the other process.
                user = f"console-{product}-{number}"
                charge(shop.client(1), user)
                assert place(shop.client(1), user, (product, "one", 1), at="checkout").is_success
                shop.client(1).post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
            for name, rate in sight["rates"].items():
                seen[name] = seen.get(name, 0.0) + rate
            shown = {item["campaign_id"]: item["remaining"] for item in sight["campaigns"]}
            if seen.get("refused") and seen.get("durable") and shown.get(campaign) == 0:
                break
            assert number < 15, seen
        assert all(seen[name] > 0 for name in ("accepted", "orders", "coupons", "charges", "decided"))
        assert sight["processes"] == 2
        assert sight["workers"] == 1
        assert sight["waiting"]["waiting"] >= 3
        assert sight["deliveries"][0]["state"] == "pending"


def test_alarms_of_one_kind_are_one_entry_with_their_number(shop: RunningShop, client: httpx.Client) -> None:
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO alarm (kind, partition, subject, detail, remedy) VALUES (%s, %s, 'a test', 'broken', 'mend')",
            [("partition_untrusted", number) for number in range(64)] + [("partition_stopped", 7)],
        )
        try:
            newest = client.get("/admin/v1/alarms", params={"state": "open", "limit": 2}).json()["items"]
            wanted = [newest[0] | {"count": 1}, newest[1] | {"count": 64}]
            with watching(shop.url()) as sights:
                assert any(sight["alarms"] == wanted for sight in islice(sights, 5))
            assert client.get("/admin/v1/status").json()["alarms_open"] == 65
        finally:
            connection.execute("DELETE FROM alarm WHERE subject = 'a test'")


def test_the_runbook_has_an_entry_for_whatever_the_console_leads_to(shop: RunningShop) -> None:
    with httpx.Client(base_url=shop.url(), verify=False) as plain:
        page = plain.get("/runbook")
    assert page.headers["content-type"].startswith("text/html")
    places = set(re.findall(r'<section id="([^"]+)">', page.text))
    assert places >= set(KINDS)
    nothing = ShopSnapshot(redis_is_there=False, progress=None, partitions=[])
    idle = ShopSnapshot(
        redis_is_there=True, progress=InstallationState(1, (), "18", "1", 0, 0, DeliveryBacklog(0, 0, 0)), partitions=[]
    )
    led_to = [found["runbook"] for found in (*conditions(nothing), *conditions(idle))]
    assert len(led_to) == 3
    assert {each.removeprefix("/runbook#") for each in led_to} <= places


def test_the_page_and_its_files_ask_nobody_else(shop: RunningShop) -> None:
    with httpx.Client(base_url=shop.url(), verify=False) as plain:
        page = plain.get("/console")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        for file, kind in (
            ("console.css", "text/css"),
            ("console.js", "text/javascript"),
        ):
            assert f"console/{file}" in page.text
            answer = plain.get(f"/console/{file}")
            assert answer.headers["content-type"].startswith(kind)
            assert "//" not in answer.text.replace("// ", "")
        assert "http" not in page.text
        assert plain.get("/console/../app.py").status_code == 404


def test_a_stream_ends_when_its_process_stops(shop: RunningShop) -> None:
    with watching(shop.url(1)) as sights:
        next(sights)
        shop.apis[1].signal(signal.SIGTERM)
        for _ in sights:
            pass
        eventually(
            lambda: not shop.apis[1].running, within_s=8, what="the API has stopped without waiting for the page"
        )
    shop.apis[1].start()
    shop.wait_until_ready()


def test_rates_are_of_all_sources_and_begin_with_the_second_look() -> None:
    rates = Rates()
    assert rates.of({"a": {"x": 5}}, 10.0) == {}
    assert rates.of({"a": {"x": 9}, "b": {"x": 100}}, 12.0) == {"x": 2.0}
    assert rates.of({"b": {"x": 103}}, 13.0) == {"x": 3.0}


def test_what_is_out_of_reach_is_shown_though_nobody_can_raise_an_alarm() -> None:
    found = conditions(ShopSnapshot(redis_is_there=False, progress=None, partitions=[]))
    assert [each["kind"] for each in found] == ["redis_unreachable", "postgres_unreachable"]
    assert all(each["remedy"] for each in found)


def test_a_problem_is_explained_to_people_and_to_programs(shop: RunningShop) -> None:
    with httpx.Client(base_url=shop.url(), verify=False) as plain:
        page = plain.get("/problems/out-of-stock", headers={"Accept": "text/html,application/xhtml+xml"})
        document = plain.get("/problems/out-of-stock", headers={"Accept": "application/json"})
        text = plain.get("/problems/out-of-stock")
    assert page.headers["content-type"].startswith("text/html")
    assert "<h2>What to do</h2>" in page.text
    assert document.headers["vary"] == "Accept"
    assert document.json()["status"] == 409
    assert document.json()["members"] == ["lines"]
    assert document.json()["examples"][0]["type"] == "/problems/out-of-stock"
    assert text.headers["content-type"].startswith("text/plain")
