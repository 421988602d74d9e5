"""What is sent to the data platform: batches, their ids, and the secrets that they are signed with."""

import pytest

from engine.settings import SettingError
from persistence.settings import WorkerSettings
from persistence.webhooks import BATCH_BYTES_MAX, Delivery, batch_id, in_batches, make_secret, read_secrets


def _delivery(number: int, *, refused: bool = False, size: int = 10) -> Delivery:
    return Delivery(number, int(refused), refused, f"0:1-{number}", f"u{number}", None, b"x" * size)


def _numbers(batches: list[list[Delivery]]) -> list[list[int]]:
    return [[delivery.id for delivery in batch] for batch in batches]


def test_deliveries_are_divided_in_their_order() -> None:
    assert _numbers(in_batches([_delivery(number) for number in range(5)], 2)) == [[0, 1], [2, 3], [4]]
    assert in_batches([], 2) == []


def test_what_was_refused_goes_alone() -> None:
    deliveries = [_delivery(1), _delivery(2, refused=True), _delivery(3)]
    assert _numbers(in_batches(deliveries, 10)) == [[2], [1, 3]]


def test_a_batch_has_a_bounded_size_and_what_is_larger_goes_alone() -> None:
    large = BATCH_BYTES_MAX // 2
    deliveries = [_delivery(number, size=large) for number in (1, 2, 3)]
    assert _numbers(in_batches([*deliveries, _delivery(4, size=3 * large)], 10)) == [[1, 2], [3], [4]]


def test_the_same_events_have_the_same_message_id_and_others_another() -> None:
    first, second = _delivery(1), _delivery(2)
    assert batch_id([first, second]) == batch_id([_delivery(1, refused=True), second])
    assert len({batch_id([first]), batch_id([second]), batch_id([first, second])}) == 3


def test_one_secret_or_two_are_taken() -> None:
    old, new = make_secret(), make_secret()
    assert old != new
    assert read_secrets(f"{new}  {old}") == (new, old)


SECRET = "whsec_" + "A" * 43 + "="


@pytest.mark.parametrize(
    ("url", "secrets", "named"),
    [
        ("http://platform/", "", "FIRSTCOME_DATA_PLATFORM_SECRETS must hold"),
        ("http://platform/", "whsec_c2hvcnQ=", "FIRSTCOME_DATA_PLATFORM_SECRETS"),
        ("http://platform/", SECRET.removeprefix("whsec_"), "FIRSTCOME_DATA_PLATFORM_SECRETS"),
        ("http://platform/", " ".join([SECRET] * 3), "at most 2"),
        ("platform:8081", SECRET, "FIRSTCOME_DATA_PLATFORM_URL"),
        ("ftp://platform/", SECRET, "FIRSTCOME_DATA_PLATFORM_URL"),
        ("http://", SECRET, "FIRSTCOME_DATA_PLATFORM_URL"),
    ],
)
def test_an_address_or_a_secret_that_cannot_serve_is_refused_by_name_and_never_shown(
    url: str, secrets: str, named: str
) -> None:
    with pytest.raises(SettingError, match=named) as refusal:
        WorkerSettings(data_platform_url=url, data_platform_secrets=secrets)
    assert not secrets or secrets not in str(refusal.value)
    assert secrets == "" or all(secret not in str(refusal.value) for secret in secrets.split())


def test_the_settings_do_not_show_the_secret() -> None:
    secret = make_secret()
    assert secret not in repr(WorkerSettings(data_platform_url="http://platform/", data_platform_secrets=secret))
