from dataclasses import FrozenInstanceError, fields

import pytest

from engine.policy import Policy
from engine.settings import EngineSettings, SettingError, settings_table


def test_without_an_environment_the_defaults_hold() -> None:
    settings = EngineSettings.from_environment({})
    assert settings == EngineSettings()
    assert settings.policy == Policy()
    assert (settings.partitions, settings.time_zone, settings.currency) == (64, "Asia/Seoul", "KRW")


@pytest.mark.requirement("R0.8")
def test_the_policies_have_the_defaults_of_the_specification() -> None:
    policy = Policy()
    assert (policy.charge_min, policy.charge_max, policy.balance_max) == (1, 10_000_000, 100_000_000)
    assert (policy.payment_max, policy.unit_price_max) == (50_000_000, 100_000_000)
    assert (policy.line_quantity_max, policy.lines_max) == (100_000, 500)
    assert (policy.discount_min, policy.discount_max) == (1, 1_000_000)
    assert policy.payment_deadline_ms == 86_400_000


def test_each_setting_is_read_from_its_variable() -> None:
    for entry in fields(EngineSettings):
        text = {"time_zone": "Europe/Berlin", "redis_url": "unix:///tmp/x", "currency": "EUR"}.get(entry.name, "17")
        settings = EngineSettings.from_environment({f"FIRSTCOME_{entry.name.upper()}": text})
        assert str(getattr(settings, entry.name)) == text
        assert getattr(settings, entry.name) != getattr(EngineSettings(), entry.name)


def test_every_limit_that_is_a_setting_reaches_the_policy() -> None:
    policy = EngineSettings.from_environment({"FIRSTCOME_CHARGE_MAX": "5", "FIRSTCOME_PAYMENT_DEADLINE_MS": "9"}).policy
    assert (policy.charge_max, policy.payment_deadline_ms) == (5, 9)


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert EngineSettings.from_environment({"FIRSTCOME_PARTITIONS": ""}) == EngineSettings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FIRSTCOME_PARTITIONS", "many"), ("FIRSTCOME_PARTITIONS", "0"), ("FIRSTCOME_PARTITIONS", "1025"),
        ("FIRSTCOME_PARTITIONS", "-1"), ("FIRSTCOME_PARTITIONS", "1.5"), ("FIRSTCOME_TIME_ZONE", "Seoul"),
        ("FIRSTCOME_TIME_ZONE", "../etc/passwd"), ("FIRSTCOME_CHARGE_MAX", "-5"), ("FIRSTCOME_CHARGE_MAX", "1e6"),
        ("FIRSTCOME_BACKLOG_MAX", "x"), ("FIRSTCOME_REDIS_URL", "nonsense"), ("FIRSTCOME_REDIS_URL", "redis://a:b"),
        ("FIRSTCOME_REDIS_URL", "redis://localhost/1"), ("FIRSTCOME_REDIS_URL", "redis+cluster://a,,b"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingError, match=variable):
        EngineSettings.from_environment({variable: text})


@pytest.mark.requirement("R0.8")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"CHARGE_MIN": "500", "CHARGE_MAX": "5"}, "FIRSTCOME_CHARGE_MAX is 5, .* than FIRSTCOME_CHARGE_MIN, .* 500"),
        ({"DISCOUNT_MIN": "2000000"}, "FIRSTCOME_DISCOUNT_MAX is 1000000, .* FIRSTCOME_DISCOUNT_MIN, .* 2000000"),
        ({"CURRENCY": "won"}, "FIRSTCOME_CURRENCY must be a code of ISO 4217 such as KRW, not 'won'"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(settings: dict[str, str], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        EngineSettings.from_environment({f"FIRSTCOME_{name}": value for name, value in settings.items()})


def test_limits_that_lua_could_not_keep_exactly_are_refused() -> None:
    with pytest.raises(SettingError, match="FIRSTCOME_BALANCE_MAX"):
        EngineSettings.from_environment({"FIRSTCOME_BALANCE_MAX": str(2**53)})


def test_the_table_says_of_each_setting_its_variable_default_unit_and_reason() -> None:
    rows = settings_table(EngineSettings)
    assert [row.variable for row in rows] == [f"FIRSTCOME_{entry.name.upper()}" for entry in fields(EngineSettings)]
    assert all(row.unit and row.reason for row in rows)
    assert next(row.default for row in rows if row.variable == "FIRSTCOME_LINES_MAX") == "500"


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        EngineSettings().partitions = 3  # type: ignore[misc]
