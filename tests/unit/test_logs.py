"""A process's log: a setting says how it is written, and a request's id is on the line that tells of it."""

import json
import subprocess
import sys

import pytest

from api.commands.api import environment
from api.commands.logs import LogSettings
from engine.settings import SettingError

SCRIPT = """
import logging
from api.commands.logs import configure_logs
configure_logs()
logging.getLogger("firstcome.test").warning("It waits", extra={"request_id": "r-1"})
logging.getLogger("firstcome.test").info("It is over")
"""


def written(**settings: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment(**settings), capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_a_line_is_json_with_its_level_logger_and_request() -> None:
    (line,) = written(FIRSTCOME_LOG_LEVEL="warning")
    event = json.loads(line)
    assert event.pop("timestamp")
    assert event == {"event": "It waits", "level": "warning", "logger": "firstcome.test", "request_id": "r-1"}


def test_a_line_may_be_made_for_people() -> None:
    lines = written(FIRSTCOME_LOG_FORMAT="readable")
    assert len(lines) == 2
    assert not any(line.startswith("{") for line in lines)


@pytest.mark.parametrize("setting", ["FIRSTCOME_LOG_FORMAT", "FIRSTCOME_LOG_LEVEL"])
def test_another_word_is_refused_by_name(setting: str) -> None:
    with pytest.raises(SettingError, match=setting):
        LogSettings.from_environment({setting: "loud"})


def test_a_line_for_people_shows_no_variables_of_what_failed() -> None:
    script = SCRIPT + (
        "def charge(token):\n    raise ValueError('it failed')\n"
        "try:\n    charge('s3' + 'cret')\n"
        "except ValueError:\n    logging.getLogger('firstcome.test').exception('Broken')\n"
    )
    readable = environment(FIRSTCOME_LOG_FORMAT="readable")
    done = subprocess.run([sys.executable, "-c", script], env=readable, capture_output=True, text=True, check=True)
    assert "ValueError: it failed" in done.stderr
    assert "s3cret" not in done.stderr
