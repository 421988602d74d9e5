"""The console in a real browser: it follows a rush for minutes without growing, and shows what a person needs.

`CONSOLE_RUSH_S` says for how long (600 s), `CONSOLE_SCREENSHOTS` names a folder that keeps the pictures.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from api.authentication import make_token, read_keys
from api.settings import ApiSettings
from persistence.webhooks import make_secret
from tests.browser import CONTRAST, WIDTHS, opened_browser
from tests.running_shop import RunningShop, charge, eventually, place, put_campaign, put_product
from tests.servers import Databases
from tests.shop_servers import opened_shop

RUSH_S: Final = float(os.environ.get("CONSOLE_RUSH_S", "600"))
SHOPPERS_PER_S: Final = 8
WARM_S: Final = min(140.0, RUSH_S / 3)
"""By then every line of the page has all of its points, and each list its members."""
SAMPLES: Final = 10
SHOWN_WITHIN_MS: Final = 20_000
SECRET: Final = "the-secret-of-these-tests-is-long-enough"
NOBODY: Final[dict[str, Any]] = {
    # Nobody listens there.
    "data_platform_url": "http://127.0.0.1:9",
    "data_platform_secrets": make_secret(),
    "delivery_late_ms": 2_000,
    "user_rate": 0,
    "address_rate": 0,
}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as browser:
        yield browser


@contextmanager
def shopping(shop: RunningShop, campaign: str, product: str) -> Iterator[None]:
    """Each shopper takes a coupon while there are any, and buys something, so many a second."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def shop_on() -> None:
        try:
            with httpx.Client(base_url=shop.url(1), verify=False, timeout=30) as client:
                for number in count():
                    user = f"shopper-{number}"
                    charge(client, user, 1_000)
                    client.post(f"/v1/users/{user}/coupons", json={"campaign_id": campaign})
                    assert place(client, user, (product, "one", 1), at="checkout").is_success
                    if stop.wait(1 / SHOPPERS_PER_S):
                        return
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=shop_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []


def until(page: Any, condition: str) -> None:
    """Waits for a condition that is written in JavaScript. The page itself may evaluate no text, so we do."""
    eventually(lambda: bool(page.evaluate(condition)), within_s=SHOWN_WITHIN_MS / 1000, what=condition)


def measure(session: Any) -> dict[str, float]:
    """What the page holds once its garbage is collected."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
    return {name: metrics[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}


def picture(page: Any, name: str, folder: Path) -> None:
    """Each width, light and dark; nothing may stick out, and no text be too faint to read."""
    for width, (across, down) in WIDTHS.items():
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": across, "height": down})
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} is too narrow"
            assert page.evaluate(CONTRAST) == [], f"{width} {scheme}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("CONSOLE_SCREENSHOTS", tmp_path_factory.mktemp("pictures")))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.timeout(3 * RUSH_S + 300)
def test_the_page_follows_a_rush_live_and_does_not_grow(databases: Databases, browser: Any, pictures: Path) -> None:
    with opened_shop(databases, api_count=2, **NOBODY) as shop:
        put_product(shop.client(), "tea", price=10, one=1_000_000)
        coupons = int(SHOPPERS_PER_S * WARM_S * 0.25)
        put_campaign(shop.client(), "rush", name="The rush", quantity=coupons)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{shop.url()}/console")
        page.locator("#verdict", has_text="All is well").wait_for(timeout=SHOWN_WITHIN_MS)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        with shopping(shop, "rush", "tea"):
            began_s = time.monotonic()
            page.locator("#campaigns li", has_text=f"of {coupons} left").wait_for(timeout=SHOWN_WITHIN_MS)
            until(page, "Number(document.getElementById('accepted').textContent) >= 4")
            until(page, "Number(document.getElementById('durable').textContent) >= 4")
            page.locator("#sellers li", has_text="Product tea").wait_for(timeout=SHOWN_WITHIN_MS)
            # Nobody takes the deliveries: how many wait, and for how long, and what to do.
            say = page.locator("#deliveries-say", has_text=re.compile(r"\d+ pending, the oldest for \d"))
            say.wait_for(timeout=SHOWN_WITHIN_MS)
            alarm = page.locator("#alarm-list li", has_text="delivery late")
            alarm.wait_for(timeout=SHOWN_WITHIN_MS)
            picture(page, "rush", pictures)
            page.wait_for_timeout(1000 * max(0.0, WARM_S - (time.monotonic() - began_s)))
            page.locator("#campaigns li", has_text="all gone").wait_for(timeout=1000 * RUSH_S)
            page.locator("#refused-note", has_text="coupons-exhausted").wait_for(timeout=SHOWN_WITHIN_MS)
            held = [measure(session)]
            sold = page.locator("#sellers .value").first.text_content()
            for _ in range(SAMPLES):
                page.wait_for_timeout(1000 * (RUSH_S - WARM_S) / SAMPLES)
                held.append(measure(session))
            assert page.locator("#sellers .value").first.text_content() != sold
            assert page.evaluate("document.body.classList.contains('stale')") is False
        (pictures / "held.txt").write_text("\n".join(map(str, held)))
        assert max(each["Nodes"] for each in held) <= held[0]["Nodes"] + 20
        assert max(each["JSEventListeners"] for each in held) <= held[0]["JSEventListeners"]
        assert held[-1]["JSHeapUsedSize"] <= held[0]["JSHeapUsedSize"] * 1.1 + 100_000
        assert errors == []
        with page.context.expect_page() as opened:
            alarm.get_by_role("link", name="Runbook").click()
        assert opened.value.url == f"{shop.url()}/runbook#delivery_late"
        opened.value.locator("#delivery_late", has_text="is away, slow, or refuses").wait_for()
        page.context.close()


def test_nothing_is_said_of_the_shop_before_something_is_known_and_then_by_what_measure(
    databases: Databases, browser: Any
) -> None:
    with opened_shop(databases, **NOBODY) as shop:
        page = browser.new_page(locale="en-US", timezone_id="Asia/Seoul")
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.route("**/console/events", hold)
        page.goto(f"{shop.url()}/console")
        eventually(
            lambda: bool(page.wait_for_timeout(50) or held),
            within_s=SHOWN_WITHIN_MS / 1000,
            what="the page asks for it",
        )
        page.wait_for_timeout(1_500)
        assert page.locator("body").inner_text().split("\n\n") == ["Firstcome", "Connecting …"]
        held[0].continue_()
        page.locator("#panels").wait_for(timeout=SHOWN_WITHIN_MS)
        assert page.locator("#verdict").text_content() == "All is well"
        assert re.fullmatch(r"as of \d+:\d\d:\d\d [AP]M GMT\+9", page.locator("#fresh").text_content())
        charge(shop.client(), "mina")
        for name in ("accepted", "durable"):
            until(page, f"Number(document.getElementById('{name}-most').textContent.replace('max ', '')) > 0")
        assert page.locator("#lag-most").text_content().endswith((" ms", " s"))
        assert page.locator("#durable-note").text_content() == "changes made durable per second"
        page.context.close()


def test_who_has_no_token_is_asked_for_one_and_keys_alone_lead_everywhere(
    databases: Databases, browser: Any, pictures: Path
) -> None:
    settings = ApiSettings(token_secret=SECRET)
    keys = read_keys(settings)
    assert keys is not None
    token = make_token(keys, settings, "an-operator", is_operator=True, valid_s=600)
    user = make_token(keys, settings, "mina", is_operator=False, valid_s=600)
    with opened_shop(databases, token_secret=SECRET) as shop:
        page = browser.new_page()
        page.goto(f"{shop.url()}/console")
        field = page.get_by_role("textbox", name="Token")
        field.wait_for(timeout=SHOWN_WITHIN_MS)
        assert page.evaluate("document.activeElement.id") == "token"
        assert page.locator("#verdict").text_content() == "A token is needed"
        # Nothing is known yet, so nothing is said of it.
        assert page.locator("#panels").is_hidden()
        picture(page, "token", pictures)
        # A user's token is no operator's; what is wrong is said, and asked again.
        page.keyboard.type(user)
        page.keyboard.press("Enter")
        until(page, "document.getElementById('login-why').textContent.includes('admin')")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        page.locator("#verdict", has_text="All is well").wait_for(timeout=SHOWN_WITHIN_MS)
        assert field.is_hidden()
        assert token not in page.content()
        page.reload()
        page.locator("#verdict", has_text="All is well").wait_for(timeout=SHOWN_WITHIN_MS)
        _walk_with_keys(page)
        _is_well_described(page)
        picture(page, "well", pictures)
        page.context.close()


def _walk_with_keys(page: Any) -> None:
    page.locator("#panels").wait_for(timeout=SHOWN_WITHIN_MS)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.locator("#rows tr").nth(63).wait_for(timeout=SHOWN_WITHIN_MS)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Lag and backlog of each partition"


def _is_well_described(page: Any) -> None:
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("banner").count() == 1
    assert page.get_by_role("status").text_content() == "All is well"
    headings = [heading.text_content() for heading in page.get_by_role("heading").all()]
    assert headings[0] == "Firstcome"
    assert {"Accepted", "Refused", "Durable", "Lag", "Partitions", "Deliveries to the data platform"} <= set(headings)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('section, form, input, button, [role=region]')].filter(node =>"
        " node.checkVisibility() && !node.ariaLabel && !node.textContent.trim() && !(node.labels || []).length"
        " && !document.getElementById(node.getAttribute('aria-labelledby'))).map(node => node.outerHTML)"
    )
    assert unnamed == []
