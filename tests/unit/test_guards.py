"""The guards, each by itself: memory, rates, addresses, origins, entity tags."""

from __future__ import annotations

import pytest

from api.entity_tags import entity_tag, is_known
from api.guards.addresses import FORWARDS_MAX, TrustedProxies
from api.guards.origins import CrossOrigin
from api.guards.rates import RateLimit
from api.guards.recent import Recent
from api.settings import ApiSettings
from engine.settings import SettingError

SHOP = b"https://shop.example"
ASKS_FIRST = {b"origin": SHOP, b"access-control-request-method": b"POST"}


def test_a_bounded_memory_keeps_the_last_and_never_more_than_twice_what_it_must() -> None:
    recent: Recent[int, int] = Recent(10)
    for number in range(1000):
        recent.put(number, -number)
        assert len(recent) <= 20
        for kept in range(max(0, number - 9), number + 1):
            assert recent.get(kept) == -kept
    assert recent.get(0) is None


def test_a_value_that_is_put_again_takes_no_more_room() -> None:
    recent: Recent[str, int] = Recent(2)
    for number in range(10):
        recent.put("a", number)
        recent.put("b", number)
    assert (recent.get("a"), recent.get("b"), len(recent)) == (9, 9, 2)


def test_a_sender_has_a_burst_and_then_the_rate() -> None:
    now = 1000.0
    rates = RateLimit(10, 5, now=lambda: now)
    assert [rates.take("mina") for _ in range(5)] == [0.0] * 5
    assert rates.take("mina") == pytest.approx(0.1)
    assert rates.take("jun") == 0.0
    now += 0.1
    assert rates.wait_s("mina") == 0.0
    assert rates.take("mina") == 0.0
    assert rates.take("mina") == pytest.approx(0.1)
    now += 3600
    assert [rates.take("mina") for _ in range(6)][:5] == [0.0] * 5


def test_what_is_refused_costs_nothing() -> None:
    now = 1000.0
    rates = RateLimit(1, 1, now=lambda: now)
    assert rates.take("mina") == 0.0
    for _ in range(100):
        assert rates.take("mina") == pytest.approx(1)
        assert rates.wait_s("mina") == pytest.approx(1)
    now += 1
    assert rates.take("mina") == 0.0


def test_a_rate_of_nothing_is_no_limit() -> None:
    rates = RateLimit(0, 0)
    assert {rates.take("mina") for _ in range(1000)} == {0.0}
    assert rates.wait_s("mina") == 0.0


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", b"198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"1.1.1.1, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db8::7]:4711", "2001:db8::/64"),
        ("10.0.0.1", b"nonsense", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"\xff, ,", "10.0.0.1"),
        ("10.0.0.1", b"10.0.0.2", "10.0.0.2"),
        ("::ffff:10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("2001:db8::1:2:3:4", None, "2001:db8::/64"),
        ("2001:db8:0:1::9", b"198.51.100.1", "198.51.100.1"),
        ("", b"198.51.100.1", ""),
    ],
)
def test_only_a_trusted_proxy_says_for_whom_it_asks(peer: str, forwarded: bytes | None, expected: str) -> None:
    assert TrustedProxies("10.0.0.0/8, 2001:db8:0:1::/64").client(peer, forwarded) == expected


def test_by_default_nobody_is_trusted() -> None:
    assert TrustedProxies().client("127.0.0.1", b"198.51.100.1") == "127.0.0.1"


def test_a_long_chain_of_proxies_is_not_followed_to_its_end() -> None:
    chain = b", ".join([b"198.51.100.1", *[b"10.0.0.2"] * FORWARDS_MAX])
    assert TrustedProxies("10.0.0.0/8").client("10.0.0.1", chain) == "10.0.0.2"


def test_only_listed_origins_may_read() -> None:
    origins = CrossOrigin("https://shop.example, http://localhost:3000")
    assert dict(origins.answer_headers(SHOP)) == {
        b"vary": b"Origin",
        b"access-control-allow-origin": SHOP,
        b"access-control-expose-headers": b"Location, ETag, Retry-After, Idempotent-Replayed, Preference-Applied",
    }
    for other in (None, b"null", b"https://shop.example.evil", b"http://shop.example", b"https://SHOP.example"):
        assert dict(origins.answer_headers(other)) == {b"vary": b"Origin"}


def test_a_browser_is_told_what_it_may_ask() -> None:
    told = dict(CrossOrigin("https://shop.example").preflight_headers(ASKS_FIRST, "GET, HEAD, POST") or ())
    assert told[b"access-control-allow-origin"] == SHOP
    assert told[b"access-control-allow-methods"] == b"GET, HEAD, POST"
    assert b"Authorization" in told[b"access-control-allow-headers"].split(b", ")
    assert b"access-control-allow-credentials" not in told


def test_another_pages_question_is_answered_without_leave() -> None:
    elsewhere = {**ASKS_FIRST, b"origin": b"https://elsewhere.example"}
    assert CrossOrigin("https://shop.example").preflight_headers(elsewhere, "GET") == ((b"vary", b"Origin"),)
    assert CrossOrigin("https://shop.example").preflight_headers({b"origin": SHOP}, "GET") is None


def test_where_none_is_listed_no_page_may_ask() -> None:
    assert not CrossOrigin("").allows_some
    assert not CrossOrigin(" , ").allows_some
    assert CrossOrigin("*").allows_some


def test_every_origin_may_be_let_in() -> None:
    origins = CrossOrigin("*")
    assert dict(origins.answer_headers(None))[b"access-control-allow-origin"] == b"*"
    assert dict(origins.preflight_headers(ASKS_FIRST, "GET") or ())[b"access-control-allow-origin"] == b"*"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CORS_ORIGINS", "shop.example"),
        ("CORS_ORIGINS", "https://shop.example/"),
        ("CORS_ORIGINS", "https://shop.example/page"),
        ("CORS_ORIGINS", "null"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("CONNECTIONS_MAX", "0"),
        ("REQUESTS_IN_FLIGHT_MAX", "0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_name(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"FIRSTCOME_{variable}"):
        ApiSettings.from_environment({f"FIRSTCOME_{variable}": value})


@pytest.mark.parametrize("known", [b"%b", b"W/%b", b'"a", %b', b'"a,b" ,W/%b', b"*", b" * "])
def test_a_tag_that_the_client_has_is_known(known: bytes) -> None:
    tag = entity_tag(b"{}")
    assert is_known(tag, known.replace(b"%b", tag))


@pytest.mark.parametrize("other", [b"", b'""', b'"x"', b"**", b"null", b'"', b"\xff"])
def test_another_tag_is_not(other: bytes) -> None:
    assert not is_known(entity_tag(b"{}"), other)


def test_another_answer_has_another_tag() -> None:
    assert entity_tag(b"a") == entity_tag(b"a") != entity_tag(b"b")
