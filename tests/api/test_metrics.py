"""`/metrics` of API and worker: what happened is counted, and what is counted stays few."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import make_app
from api.authentication import make_token, read_keys
from api.commands.listening import free_port, http_url
from api.commands.processes import wait_until
from api.operations import OPERATIONS
from api.problems import PROBLEMS
from api.request_counts import OUTCOMES
from api.settings import ApiSettings
from engine.settings import EngineSettings
from persistence.alarms import KINDS
from persistence.settings import HistorySettings
from persistence.webhooks import make_secret
from tests.running_shop import PARTITIONS, ROOT, RunningShop, charge, place, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

WITHIN_S = 20
API_SAMPLES_MAX = 1_500
WORKER_SAMPLES_MAX = 1_000

LABELS: Mapping[str, set[str]] = {
    "operation": {operation.operation_id for operation in OPERATIONS} | {"none"},
    "outcome": {*OUTCOMES, "delivered", "failed", "dead"},
    "problem": {*PROBLEMS, "other"},
    "partition": set(map(str, range(PARTITIONS))),
    "kind": set(KINDS),
    "duty": {"writer", "settler", "sweeper", "auditor", "dispatcher", "trust", "watch"},
}
"""Every label, and every value that it may have."""

Samples = dict[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    """Every sample by its name and its labels' values, in the order of the labels' names."""
    answer = httpx.get(f"{url}/metrics", trust_env=False)
    assert answer.status_code == httpx.codes.OK
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    for sample in samples:
        for label, value in sample.labels.items():
            assert label in {"le", "version"} or value in LABELS[label], sample
    found = {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value for sample in samples
    }
    assert len(found) == len(samples)
    return found


@pytest.fixture(scope="module")
def worker_url() -> str:
    return http_url("127.0.0.1", free_port())


@pytest.fixture(scope="module")
def counted_shop(databases: Databases, worker_url: str) -> Iterator[RunningShop]:
    port = worker_url.rpartition(":")[2]
    platform: dict[str, Any] = {"data_platform_url": "http://127.0.0.1:9", "data_platform_secrets": make_secret()}
    with opened_shop(databases, worker_metrics_port=port, **platform) as shop:
        yield shop


def test_what_a_shop_does_is_on_its_metrics(counted_shop: RunningShop, worker_url: str) -> None:
    client = counted_shop.client()
    before = scrape(counted_shop.url())
    put_product(client, "counted", M=1)
    charge(client, "mina", 10_000)
    assert place(client, "mina", ("counted", "M", 1), at="checkout").status_code == httpx.codes.CREATED
    assert place(client, "mina", ("counted", "M", 1), at="checkout").status_code == httpx.codes.CONFLICT
    client.get("/no/such/address")
    after = scrape(counted_shop.url())
    changes = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    for name in (
        ("firstcome_requests_total", "checkout", "done"),
        ("firstcome_requests_total", "checkout", "refused"),
        ("firstcome_refusals_total", "checkout", "out-of-stock"),
        ("firstcome_refusals_total", "none", "not-found"),
        ("firstcome_requests_total", "charge_balance", "done"),
    ):
        assert changes[name] == 1, name
    assert changes["firstcome_request_seconds_bucket", "+Inf", "checkout"] == 2
    assert 0 < changes["firstcome_request_seconds_sum", "checkout"] < 10
    assert changes["firstcome_lane_sent_total",] >= 6
    assert after["firstcome_api_processes",] == 1
    assert len(after) <= API_SAMPLES_MAX


def test_the_worker_shows_every_partition_and_every_duty(counted_shop: RunningShop, worker_url: str) -> None:
    client = counted_shop.client()
    put_product(client, "shown", M=1)
    charge(client, "ann", 10_000)
    place(client, "ann", ("shown", "M", 1), at="checkout")
    counted_shop.settle()

    def is_seen() -> bool:
        seen = scrape(worker_url)
        return seen["firstcome_settler_confirmed_total",] >= 1 and seen.get(("firstcome_deliveries_waiting",), 0) >= 1

    wait_until(is_seen, timeout_s=WITHIN_S, what="the worker's metrics show what it did")
    seen = scrape(worker_url)
    for partition in map(str, range(PARTITIONS)):
        assert seen["firstcome_partition_trusted", partition] == 1
        assert seen["firstcome_partition_stopped", partition] == 0
        sequence = seen["firstcome_partition_sequence", partition]
        durable = seen["firstcome_partition_durable_sequence", partition]
        assert seen["firstcome_partition_backlog_events", partition] == max(0, sequence - durable)
        assert seen["firstcome_partition_lag_seconds", partition] < WITHIN_S
    assert seen["firstcome_backlog_limit_events",] == EngineSettings().backlog_max
    assert seen["firstcome_writer_batch_events_sum",] >= 5
    assert seen["firstcome_workers",] == 1
    assert {seen["firstcome_duty_running", duty] for duty in LABELS["duty"]} == {1}
    assert {seen["firstcome_alarms_open", kind] for kind in KINDS} == {0}
    assert len(seen) <= WORKER_SAMPLES_MAX


def test_nobody_is_named_on_a_metric(counted_shop: RunningShop, worker_url: str) -> None:
    charge(counted_shop.client(), "somebody-of-note", 12_345)
    for url in (counted_shop.url(), worker_url):
        page = httpx.get(f"{url}/metrics", trust_env=False).text
        assert not re.search(r"somebody|12345|user_id", page)


EXPRESSION = re.compile(r'^ +expr: (.+)$|"expr": "((?:[^"\\\\]|\\\\.)+)"', re.MULTILINE)
MATCHER = re.compile(r'(\w+)=~?"([^"]+)"')


@pytest.mark.parametrize("file", ["prometheus/alerts.yml", "grafana/dashboards/firstcome.json"])
def test_every_metric_that_an_alert_or_the_dashboard_names_is_there(
    file: str, counted_shop: RunningShop, worker_url: str
) -> None:
    looked_at = {"firstcome_workers", "firstcome_partition_lag_seconds"}
    wait_until(
        lambda: looked_at <= {name[0] for name in scrape(worker_url)}, timeout_s=WITHIN_S, what="the worker has looked"
    )
    samples = {**scrape(counted_shop.url()), **scrape(worker_url)}
    names = {name[0] for name in samples}
    text = (ROOT / "deploy" / file).read_text(encoding="utf-8")
    expressions = [(found[1] or found[2]).replace('\\"', '"') for found in EXPRESSION.finditer(text)]
    assert len(expressions) > 20
    for expression in expressions:
        for name in re.findall(r"\b(?:firstcome|process)_\w+", re.sub(r'"[^"]*"', "", expression)):
            assert name in names, expression
        for label, value in MATCHER.findall(expression):
            assert label == "job" or LABELS[label] >= set(value.split("|")), expression


async def test_where_tokens_are_asked_for_only_operators_read_the_metrics() -> None:
    settings = ApiSettings(token_secret="the-secret-of-these-tests-is-long-enough", user_rate=0, address_rate=0)
    keys = read_keys(settings)
    assert keys is not None
    app = make_app(EngineSettings(), settings, HistorySettings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        for is_operator, status in ((None, 401), (False, 403), (True, 200)):
            headers = {}
            if is_operator is not None:
                token = make_token(keys, settings, "mina", is_operator=is_operator, valid_s=60)
                headers["Authorization"] = f"Bearer {token}"
            answer = await client.get("/metrics", headers=headers)
            assert answer.status_code == status
            assert ("firstcome_requests_total" in answer.text) == (status == 200)
        assert (await client.post("/metrics")).status_code == httpx.codes.METHOD_NOT_ALLOWED
