"""A password in a URL is not for people to read, however badly the URL is written."""

import traceback

import pytest

from engine.settings import SettingError, without_password
from persistence.database import libpq_url
from persistence.settings import HistorySettings, OwnerSettings, WorkerSettings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://u:s3cret@h", "rediss://u:***@h"),
        ("unix://u:s3cret@/run/redis.sock", "unix://u:***@/run/redis.sock"),
        ("redis://u:s3@cret@h", "redis://u:***@h"),
        ("redis://u:s3/cret@h", "redis://u:***@h"),
        ("redis://u:s3:cret@h", "redis://u:***@h"),
        ("u:s3cret@h", "u:***@h"),
        ("postgresql://shop@/shop?host=/run/pg", "postgresql://shop@/shop?host=/run/pg"),
        ("postgresql://u:u@h/u", "postgresql://u:***@h/u"),
        (
            "postgresql://h/shop?user=u&password=s3cret&sslmode=require",
            "postgresql://h/shop?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/shop?sslpassword=s3cret", "postgresql://h/shop?sslpassword=***"),
        ("host=h password=s3cret user=u", "host=h password=*** user=u"),
        ("host=h password = 's3 cret' user=u", "host=h password = *** user=u"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert "cret" not in shown


def test_a_url_that_is_refused_is_shown_without_its_password() -> None:
    with pytest.raises(ValueError, match="begins with postgresql://") as refused:
        libpq_url("mysql://u:s3cret@h/shop")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("password", ["s3cret%zz", "s3cret%00", "s3 cret"])
@pytest.mark.parametrize("settings", [HistorySettings, WorkerSettings, OwnerSettings])
def test_what_libpq_cannot_read_of_a_url_is_not_quoted(
    password: str, settings: type[HistorySettings | WorkerSettings | OwnerSettings]
) -> None:
    with pytest.raises(SettingError, match=r"FIRSTCOME_DATABASE_URL: .*%20, %25 or %40") as refused:
        settings(database_url=f"postgresql://u:{password}@h/shop")
    assert "cret" not in "".join(traceback.format_exception(refused.value))
