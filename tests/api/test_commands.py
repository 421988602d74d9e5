"""The command line: its help, what it refuses, how it supervises."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from api.commands import COMMANDS, main
from api.commands.api import environment, program
from api.commands.checks import Check
from api.commands.data_folder import Addresses
from api.commands.doctor import examine
from api.commands.listening import (
    BUS_PORT_OFFSET,
    FREE_PORTS,
    CannotListen,
    KeptPorts,
    free_port,
    http_url,
    listen,
    require_loopback,
)
from api.commands.processes import ChildProcess, Supervisor, stop_signals, wait_until
from api.commands.rebuild import Shown, outcome
from api.commands.redis_memory import SAMPLE_MAX, sample
from api.commands.stores import NoShop, stores_environment, telling_of_no_shop
from engine.errors import Unavailable
from engine.keys import Keys
from engine.partitions import Partitions
from persistence.database import DatabaseUnavailable
from persistence.migrations import current_revision, head_revision
from persistence.reconcile import Reconciled
from persistence.webhooks import make_secret
from tests.servers import redis_client

WITHIN_S = 20


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.remedy for check in checks if check.failed}


def test_help_lists_every_command_in_one_line_each() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line[2:3].isalpha()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert f"main {command}" in result.output


def test_help_does_not_import_the_commands() -> None:
    script = (
        "import sys, api.commands as c; c.main(['--help'], standalone_mode=False); assert 'uvicorn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["api", "up"])
def test_without_a_key_only_this_machine_is_served(command: str, tmp_path: Path) -> None:
    where = ["--data", str(tmp_path / "data")] if command == "up" else []
    result = CliRunner().invoke(main, [command, "--host", "0.0.0.0", *where])
    assert result.exit_code == 1
    assert "no authentication" in result.output
    assert "FIRSTCOME_TOKEN_SECRET" in result.output
    assert "--host at 127.0.0.1" in " ".join(result.output.split())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["api", "up", "mock"])
def test_a_key_that_cannot_be_used_ends_a_command_before_it_begins(command: str, tmp_path: Path) -> None:
    where = ["--data", str(tmp_path / "data")] if command == "up" else []
    result = CliRunner().invoke(main, [command, *where], env={"FIRSTCOME_TOKEN_SECRET": "short"})
    assert result.exit_code == 1
    assert "a secret of 5 bytes" in result.output
    assert not (tmp_path / "data").exists()


def test_an_inherited_socket_that_others_reach_is_not_served_without_a_key() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        handle = os.dup(listener.fileno())
        result = CliRunner().invoke(main, ["api", "--fd", str(handle)])
    assert result.exit_code == 1
    assert "no authentication" in result.output


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_addresses_are_served(host: str) -> None:
    require_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_other_addresses_are_refused(host: str) -> None:
    with pytest.raises(CannotListen):
        require_loopback(host)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_in_use_is_refused_with_its_holder(processes: int) -> None:
    holders = listen("127.0.0.1", 0, 2)
    port = holders[0].getsockname()[1]
    try:
        with pytest.raises(CannotListen, match=rf"port {port} is in use.*--port") as refused:
            listen("127.0.0.1", port, processes)
        if sys.platform == "linux":
            assert f"process {os.getpid()} " in str(refused.value)
    finally:
        for holder in set(holders):
            holder.close()


def test_a_free_port_is_none_that_an_outgoing_connection_could_take_before_it_is_used() -> None:
    assert max(FREE_PORTS) + BUS_PORT_OFFSET < 32_768
    given = [free_port(with_bus=True) for _ in range(50)]
    assert set(given) <= set(FREE_PORTS)
    assert len(set(given)) == len(given)


@pytest.mark.parametrize("above", [0, BUS_PORT_OFFSET])
def test_a_port_in_use_is_passed_over(above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held, other = free_port(with_bus=True), free_port(with_bus=True)
    with socket.create_server(("127.0.0.1", held + above)):
        monkeypatch.setattr("api.commands.listening._CANDIDATES", iter([held, other]))
        assert free_port(with_bus=True) == other
        monkeypatch.setattr("api.commands.listening._CANDIDATES", iter([held]))
        with pytest.raises(CannotListen, match="no port from 15000 to 21999 is free: stop"):
            free_port(with_bus=True)


def test_a_part_of_a_shop_has_the_port_of_its_last_start_again_while_that_is_free(tmp_path: Path) -> None:
    file, api = tmp_path / "ports", free_port()
    first = KeptPorts(file, taken=api)
    ports = {part: first.of(part) for part in ("receiver", "worker-1", "worker-2")}
    assert len({api, *ports.values()}) == 4
    again = KeptPorts(file, taken=api)
    assert {part: again.of(part) for part in ports} == ports
    with socket.create_server(("127.0.0.1", ports["receiver"])):
        other = KeptPorts(file, taken=ports["worker-1"])
        assert other.of("receiver") not in ports.values()
        assert other.of("worker-1") not in ports.values()
        assert other.of("worker-2") == ports["worker-2"]
    file.write_text("nonsense")
    assert KeptPorts(file, taken=api).of("receiver") in FREE_PORTS


def test_up_refuses_a_port_in_use_before_it_starts_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        result = CliRunner().invoke(main, ["up", "--port", port, "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert f"port {port} is in use" in result.output
    assert not (tmp_path / "valkey").exists()


def test_a_child_that_ends_is_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    child = ChildProcess("the child", ["sleep", "60"], tmp_path / "log")
    supervisor = Supervisor([child], tell=told.append)
    supervisor.start()
    try:
        first = child.pid
        child.signal(signal.SIGKILL)

        def runs_again() -> bool:
            supervisor.look()
            return child.running and child.pid != first

        wait_until(runs_again, timeout_s=WITHIN_S, what="the child runs again")
        assert len(told) == 1
        assert told[0].startswith("the child was ended from outside, by SIGKILL\nthe child starts again in ")
    finally:
        supervisor.close()
    assert not child.running


def test_a_child_that_is_killed_is_no_riddle_and_its_last_words_are_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("what an earlier one said\n")
    child = ChildProcess("the child", [sys.executable, "-c", "print('alive', flush=True); input()"], log)
    child.start()
    try:
        wait_until(lambda: not child.running, timeout_s=WITHIN_S, what="the child has ended, for lack of input")
        assert "last words" in str(child.failure())
        assert "alive" in str(child.failure())
        assert "earlier" not in str(child.failure())
    finally:
        child.stop()
    sleeper = ChildProcess("the sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], log)
    sleeper.start()
    sleeper.kill()
    assert str(sleeper.failure()) == "the sleeper was ended from outside, by SIGKILL"


def test_stop_signals_are_noted_and_given_back() -> None:
    stopping = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals(stopping):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(1)
    assert signal.getsignal(signal.SIGTERM) == before


def test_migrate_brings_an_empty_database_to_the_newest_revision(empty_database_url: str) -> None:
    for _ in range(2):
        result = CliRunner().invoke(main, ["migrate"], env={"FIRSTCOME_DATABASE_URL": empty_database_url})
        assert result.exit_code == 0, result.output
        assert current_revision(empty_database_url) == head_revision()


def test_doctor_finds_nothing_wrong_with_good_servers(redis_url: str, database_url: str) -> None:
    settings = {"FIRSTCOME_REDIS_URL": redis_url, "FIRSTCOME_DATABASE_URL": database_url}
    assert failed(examine(settings)) == {}
    result = CliRunner().invoke(main, ["doctor"], env=settings)
    assert result.exit_code == 0, result.output
    assert "Next: firstcome worker & firstcome api" in result.output


def test_doctor_says_what_an_entity_takes_in_redis(redis_url: str, database_url: str) -> None:
    with redis_client(redis_url) as client:
        keys = Keys(Partitions(4))
        for number in range(SAMPLE_MAX + 50):
            client.hset(keys.wallet(1, f"user-{number}"), mapping={"balance": number, "seq": "1-1"})
            client.xadd(keys.events(1), {"type": "wallet.charged", "user": f"user-{number}"})
        client.hset(keys.order(2, "an-order"), mapping={"status": "completed", "lines": "x" * 500})
        found = sample(client)
    assert {kind: each.count for kind, each in found.by_kind.items() if each.count} == {
        "user": SAMPLE_MAX,
        "events": SAMPLE_MAX + 50,
        "order": 1,
    }
    assert 30 < found.by_kind["user"].bytes / SAMPLE_MAX < 500 < found.by_kind["order"].bytes < 1_000
    (memory,) = [
        check
        for check in examine({"FIRSTCOME_REDIS_URL": redis_url, "FIRSTCOME_DATABASE_URL": database_url})
        if check.name == "memory"
    ]
    assert re.search(r"used; by a sample: user \d+ bytes, order \d+ bytes, event \d+ bytes$", memory.found)


def test_a_rebuild_says_how_fast_users_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    shown = Shown()
    for section, rows in (("users", 2_000), ("orders", 5), ("users", 10_000)):
        shown.show(section, rows)
    assert (shown.users_per_s, shown.rows) == (4_000, 10_005)


def test_doctor_names_the_remedy_for_servers_that_do_not_answer(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "FIRSTCOME_REDIS_URL": f"redis://user:secret@127.0.0.1:{port}",
        "FIRSTCOME_DATABASE_URL": f"postgresql://user:secret@127.0.0.1:{port}/shop",
    }
    assert failed(examine(settings)).keys() == {"Redis", "PostgreSQL"}
    result = CliRunner().invoke(main, ["doctor", "--data", str(tmp_path)], env=settings)
    assert result.exit_code == 1
    assert "FIRSTCOME_REDIS_URL" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_doctor_breaks_no_address(columns: str) -> None:
    port = free_port()
    urls = f"redis://127.0.0.1:{port}/0", f"postgresql://somebody@127.0.0.1:{port}/a-database-with-a-long-name"
    settings = {"FIRSTCOME_REDIS_URL": urls[0], "FIRSTCOME_DATABASE_URL": urls[1], "COLUMNS": columns}
    output = CliRunner().invoke(main, ["doctor"], env=settings).output
    assert all(f"{url}:" in output.split() for url in urls)
    assert output.count("FIRSTCOME_REDIS_URL") == 1


def test_doctor_sees_a_server_that_loses_data(redis_flavour_url: str, empty_database_url: str) -> None:
    with redis_client(redis_flavour_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = failed(
                examine({"FIRSTCOME_REDIS_URL": redis_flavour_url, "FIRSTCOME_DATABASE_URL": empty_database_url})
            )
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert found.keys() == {"maxmemory-policy", "schema"}
    assert "noeviction" in found["maxmemory-policy"]
    assert "firstcome migrate" in found["schema"]


def test_doctor_tells_of_a_variable_that_is_no_setting_and_of_the_one_that_it_may_mean() -> None:
    settings, *_ = examine(
        {"FIRSTCOME_PAYMENT_DEADLINE": "3", "FIRSTCOME_": "", "FIRSTCOME_CHARGE_MAX": "5", "HOME": ""}
    )
    assert not settings.failed
    assert settings.advice == (
        "FIRSTCOME_ is no setting. FIRSTCOME_PAYMENT_DEADLINE is no setting; FIRSTCOME_PAYMENT_DEADLINE_MS is"
    )


def test_up_refuses_a_setting_before_it_starts_anything(tmp_path: Path) -> None:
    env = {"FIRSTCOME_PAYMENT_DEADLINE_MS": "abc"}
    result = CliRunner().invoke(main, ["up", "--port", "0", "--data", str(tmp_path / "data")], env=env)
    assert (result.exit_code, (tmp_path / "data").exists()) == (1, False)
    assert "FIRSTCOME_PAYMENT_DEADLINE_MS must be a number, not 'abc'" in result.output


def test_doctor_refuses_settings_that_any_part_of_the_program_cannot_use() -> None:
    wrong = {
        "FIRSTCOME_PARTITIONS": "many",
        "FIRSTCOME_CORS_ORIGINS": "shop.example",
        "FIRSTCOME_TOKEN_KEY_FILE": "/nowhere",
        "FIRSTCOME_LOG_FORMAT": "xml",
        "FIRSTCOME_TRACES": "perhaps",
        "FIRSTCOME_BATCH_EVENTS_MAX": "0",
        "FIRSTCOME_HISTORY_POOL_SIZE": "few",
    }
    for variable, value in wrong.items():
        (check,) = examine({variable: value})
        assert (check.name, check.failed) == ("settings", True)
        assert variable in check.remedy
    assert len(examine(wrong)) == len(wrong) - 1, "one of each part, and its keys are the API's too"


@pytest.mark.parametrize("error", [Unavailable("nobody listens"), DatabaseUnavailable("nobody listens")])
def test_who_asks_after_a_shop_that_is_not_there_is_told_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTCOME_REDIS_URL", "")
    monkeypatch.setenv("FIRSTCOME_DATABASE_URL", "")
    with (
        pytest.raises(NoShop, match=rf"^no shop runs on {tmp_path}, and nothing answers at \w+://\S+: start.*--data"),
        telling_of_no_shop(tmp_path),
    ):
        raise error
    monkeypatch.setenv("FIRSTCOME_REDIS_URL", "redis://elsewhere")
    with pytest.raises(type(error)), telling_of_no_shop(tmp_path):
        raise error
    monkeypatch.setenv("FIRSTCOME_REDIS_URL", "")
    Addresses(1, "http://shop", "redis://shop", "postgresql://shop").write(tmp_path)
    assert stores_environment(tmp_path)["FIRSTCOME_REDIS_URL"] == "redis://shop"
    with pytest.raises(type(error)), telling_of_no_shop(tmp_path):
        raise error


def test_a_rebuild_names_the_partitions_that_there_are_not() -> None:
    result = CliRunner().invoke(main, ["rebuild", "--partition", "99"])
    assert (result.exit_code, "there are 64 partitions, 0 to 63: not 99" in result.output) == (2, True)


@pytest.mark.parametrize("command", ["audit", "events", "rebuild", "doctor"])
def test_a_folder_that_is_named_and_has_no_shop_is_not_another_name_for_the_servers_of_this_machine(
    command: str, tmp_path: Path
) -> None:
    nowhere = {"FIRSTCOME_REDIS_URL": "", "FIRSTCOME_DATABASE_URL": ""}
    for folder, why in ((tmp_path / "none", "the folder is not there"), (tmp_path, "none was started there")):
        result = CliRunner().invoke(main, [command, "--data", str(folder)], env=nowhere)
        assert result.exit_code == 2
        assert result.output.startswith(f"Error: no shop runs on {folder}: {why}")


def test_the_data_folder_may_follow_the_command_of_a_group(tmp_path: Path) -> None:
    nowhere = {"FIRSTCOME_REDIS_URL": "", "FIRSTCOME_DATABASE_URL": ""}
    for arguments in (["show", "3"], ["retry", "3"], ["set-aside", "3"]):
        result = CliRunner().invoke(main, ["events", *arguments, "--data", str(tmp_path / "none")], env=nowhere)
        assert (result.exit_code, f"no shop runs on {tmp_path / 'none'}" in result.output) == (2, True)


@pytest.mark.parametrize("command", ["audit", "events", "rebuild"])
def test_servers_that_cannot_be_asked_are_told_of_once_and_end_every_command_alike(command: str) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    nowhere = {"FIRSTCOME_REDIS_URL": url, "FIRSTCOME_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run([*program(), command], env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: Redis cannot be asked now")
    assert (done.stderr.count(url), done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("command", ["audit", "events", "rebuild"])
def test_help_tells_a_no_from_a_shop_that_could_not_be_asked(command: str) -> None:
    text = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    assert re.search(r"Exit code.* 1: .* 2: .*(could not be asked|could be looked at)", text)


def test_a_list_of_commands_cuts_no_line_short() -> None:
    for arguments in (["--help"], ["events", "--help"]):
        assert "..." not in CliRunner().invoke(main, arguments).output.partition("Commands:")[2]


def test_a_rebuild_leaves_out_what_there_was_none_of() -> None:
    shown = Shown()
    assert outcome(1, shown, 0.31, Reconciled()) == "1 partition rebuilt in 0.3 s."
    shown.show("orders", 1_234)
    assert outcome(64, shown, 2, Reconciled(adopted=1, short=2)) == (
        "64 partitions rebuilt from 1,234 rows in 2.0 s. Reconciled: 1 reservation adopted (2 units short)."
    )


def test_ctrl_c_says_what_it_has_stopped(tmp_path: Path) -> None:
    command = ChildProcess("mock", [*program(), "mock", "--port", "0"], tmp_path / "log", stop_signal=signal.SIGINT)
    # Whoever runs the tests in the background has Ctrl-C ignored, and what they start would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command.start()
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        wait_until(lambda: "Mock API on" in command.log_tail(), timeout_s=WITHIN_S, what="the mock listens")
    finally:
        command.stop()
    assert command.exit_code == 1
    assert command.log_tail(lines=1) == "Stopped; nothing is left running."


@pytest.mark.parametrize("command", ["mock", "receiver"])
def test_what_listens_says_who_has_its_port(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ["--file", str(tmp_path / "received")] if command == "receiver" else []
        secret = {"FIRSTCOME_DATA_PLATFORM_SECRETS": make_secret()}
        result = CliRunner().invoke(main, [command, "--port", str(port), *options], env=secret)
    assert result.exit_code == 1
    assert re.search(rf"port {port} is in use by process {os.getpid()} .*--port", result.output)


def test_files_and_folders_that_cannot_be_used_are_named_with_the_option() -> None:
    secret = {"FIRSTCOME_DATA_PLATFORM_SECRETS": make_secret()}
    for command, option in ((["receiver", "--port", "0"], "--file"), (["up", "--port", "0"], "--data")):
        result = CliRunner().invoke(main, [*command, option, "/proc/nobody/here"], env=secret)
        assert result.exit_code == 1
        assert re.search(rf"/proc/nobody/here.*: No such file or directory.*another {option}", result.output)


def test_up_refuses_a_redis_that_is_not_there_before_it_starts_anything(tmp_path: Path) -> None:
    env = {"FIRSTCOME_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    result = CliRunner().invoke(main, ["up", "--port", "0", "--data", str(tmp_path / "data")], env=env)
    assert result.exit_code == 1
    assert "FIRSTCOME_REDIS_URL" in result.output
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize("command", ["api", "worker", "up"])
def test_a_redis_url_that_is_none_is_refused_by_name(command: str, tmp_path: Path) -> None:
    options = {"api": ["--port", "0"], "up": ["--port", "0", "--data", str(tmp_path)]}.get(command, [])
    result = CliRunner().invoke(main, [command, *options], env={"FIRSTCOME_REDIS_URL": "nonsense"})
    assert result.exit_code == 1
    assert "FIRSTCOME_REDIS_URL: a Redis URL begins with redis://" in result.output


@pytest.mark.parametrize("processes", [1, 2])
def test_an_api_ends_cleanly_on_sigterm_and_leaves_its_port(
    processes: int, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    port = free_port()
    env = environment(FIRSTCOME_REDIS_URL=redis_url, FIRSTCOME_DATABASE_URL=database_url)
    api = ChildProcess(
        "api", [*program(), "api", "--port", str(port), "--processes", str(processes)], tmp_path / "log", env
    )
    api.start()
    try:
        wait_until(lambda: is_alive(port), timeout_s=WITHIN_S, what="the API answers")
    finally:
        api.stop()
    assert api.exit_code == 0, api.log_tail()
    for listener in listen("127.0.0.1", port):
        listener.close()


def is_alive(port: int) -> bool:
    try:
        return httpx.get(f"{http_url('127.0.0.1', port)}/livez", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
