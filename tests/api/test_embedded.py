"""The embedded servers: kept data, crashes, two at once, locks, users without rights, and no orphans."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from api.commands.data_folder import SOCKET_PATH_BYTES_MAX, Addresses, FolderInUse
from api.commands.embedded_postgres import EmbeddedPostgres, not_initialised
from api.commands.embedded_valkey import EmbeddedValkey
from api.commands.processes import Account, ChildProcess, ProcessFailed, process_exists, wait_until
from api.commands.server_files import WHEEL, RedisProgram, can_use, postgres_programs, redis_programs
from tests.servers import redis_client

AS_ROOT = os.geteuid() == 0

SERVE_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.embedded_valkey import EmbeddedValkey
folder = Path(sys.argv[1])
with EmbeddedValkey(folder / "valkey") as valkey, EmbeddedPostgres(folder / "postgres") as postgres:
    print(valkey.pid, postgres.pid, flush=True)
    time.sleep(600)
"""


@contextmanager
def both_servers(folder: Path) -> Iterator[tuple[EmbeddedValkey, EmbeddedPostgres]]:
    with EmbeddedValkey(folder / "valkey") as valkey, EmbeddedPostgres(folder / "postgres") as postgres:
        yield valkey, postgres


def remember(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> None:
    with redis_client(valkey.url) as client:
        client.set("kept", "yes")
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept (value text)")
        connection.execute("INSERT INTO kept VALUES ('yes')")


def remembered(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> tuple[object, object]:
    with redis_client(valkey.url) as client, psycopg.connect(postgres.url) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
        assert row is not None
        return client.get("kept"), row[0]


def test_data_is_kept_between_runs(data_folder: Path) -> None:
    with both_servers(data_folder) as servers:
        remember(*servers)
    with both_servers(data_folder) as servers:
        assert remembered(*servers) == (b"yes", "yes")


def test_a_killed_server_starts_again_with_its_data_at_the_same_address(data_folder: Path) -> None:
    with both_servers(data_folder) as (valkey, postgres):
        remember(valkey, postgres)
        addresses = (valkey.url, postgres.url)
        # everysec writes to the file at once; only a power loss could take that second away
        for server in (valkey, postgres):
            server.kill()
            assert not server.running
            server.start()
        assert (valkey.url, postgres.url) == addresses
        assert remembered(valkey, postgres) == (b"yes", "yes")


def test_two_data_folders_run_side_by_side(data_folder: Path) -> None:
    with both_servers(data_folder / "one") as one, both_servers(data_folder / "two") as two:
        remember(*one)
        remember(*two)
        assert one[0].url != two[0].url
        assert one[1].url != two[1].url


@pytest.mark.parametrize("server", [EmbeddedValkey, EmbeddedPostgres])
def test_the_same_folder_twice_is_refused_and_the_holder_named(
    server: type[EmbeddedValkey] | type[EmbeddedPostgres], data_folder: Path
) -> None:
    with server(data_folder), pytest.raises(FolderInUse, match=rf"in use by process {os.getpid()}: .*--data"):
        server(data_folder).start()
    with server(data_folder):
        pass


def test_a_killed_parent_leaves_no_server_behind_and_the_next_start_recovers(data_folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SERVE_UNTIL_KILLED, str(data_folder)], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    with both_servers(data_folder) as (valkey, postgres):
        assert {valkey.pid, postgres.pid}.isdisjoint(pids)
        wait_until(lambda: not any(map(process_exists, pids)), timeout_s=20, what="the orphans are gone")


def test_a_stale_process_id_of_a_stranger_does_not_stop_postgres(data_folder: Path) -> None:
    with EmbeddedPostgres(data_folder) as postgres:
        postgres.kill()
        assert postgres.place is not None
        pid_file = postgres.place / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines(keepends=True)
        stranger = subprocess.Popen(["sleep", "60"], user=None if not AS_ROOT else pid_file.stat().st_uid)
        try:
            pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
            postgres.start()
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def test_a_deep_folder_gets_a_short_socket_path_that_goes_away_again(data_folder: Path) -> None:
    deep = data_folder / "/".join(["a folder with 'quotes' and 한글"] * 4)
    with both_servers(deep) as (valkey, postgres):
        remember(valkey, postgres)
        sockets = (valkey.socket, postgres.socket)
        assert all(path.is_socket() for path in sockets)
        assert max(len(os.fsencode(path)) for path in sockets) <= SOCKET_PATH_BYTES_MAX
    assert not any(path.parent.exists() for path in sockets)
    with both_servers(deep) as servers:
        assert remembered(*servers) == (b"yes", "yes")


def test_a_server_that_cannot_start_says_why(data_folder: Path) -> None:
    with pytest.raises(ProcessFailed, match="maxmemory-policy"):
        EmbeddedValkey(data_folder / "valkey", settings={"maxmemory-policy": "nonsense"}).start()
    with pytest.raises(ProcessFailed, match="shared_buffers"):
        EmbeddedPostgres(data_folder / "postgres", settings={"shared_buffers": "nonsense"}).start()
    with both_servers(data_folder):
        pass


def test_a_full_disk_is_told_before_all_else_that_initdb_says() -> None:
    said = ["creating subdirectories ... ok", "FATAL:  could not write to file: No space left on device", "child ended"]
    full = str(not_initialised(Path("/data/postgres"), "\n".join(said)))
    assert full.startswith("no space left in /data/postgres: ")
    assert full.splitlines()[1:] == said
    assert str(not_initialised(Path("/data/postgres"), "broken")) == "initdb failed in /data/postgres:\nbroken"


@pytest.mark.parametrize("program", redis_programs(), ids=lambda program: program.flavour)
def test_every_redis_that_is_installed_is_safe_for_a_shop(program: RedisProgram, data_folder: Path) -> None:
    with EmbeddedValkey(data_folder, program=program) as valkey, redis_client(valkey.url) as client:
        memory, persistence = client.info("memory"), client.info("persistence")
        assert memory["maxmemory_policy"] == "noeviction"
        assert persistence["aof_enabled"] == 1


def test_postgres_is_set_up_to_keep_what_it_commits(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        for name, value in {"fsync": "on", "synchronous_commit": "on", "listen_addresses": ""}.items():
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)
        encoding = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        assert encoding == ("UTF8", "C")


def test_the_wheels_valkey_takes_its_memory_from_jemalloc_where_that_is_installed(data_folder: Path) -> None:
    program = redis_programs()[0]
    if not program.allocator:
        pytest.skip("the wheel's Valkey or jemalloc is not installed")
    with EmbeddedValkey(data_folder / "valkey", program=program) as server:
        assert program.allocator in Path(f"/proc/{server.pid}/maps").read_text()


def test_another_build_keeps_its_own_way_and_what_the_user_loads_first_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.commands.server_files._jemalloc", lambda: "libjemalloc.so.2")
    assert RedisProgram(WHEEL, tmp_path).environment({})["LD_PRELOAD"] == "libjemalloc.so.2"
    assert "LD_PRELOAD" not in RedisProgram("redis-server", tmp_path).environment({})
    assert RedisProgram(WHEEL, tmp_path).environment({"LD_PRELOAD": "mine.so"})["LD_PRELOAD"] == "mine.so"


def test_the_wheels_servers_come_first() -> None:
    assert redis_programs()[0].flavour == WHEEL
    assert postgres_programs()[0].wheel is not None


@pytest.mark.parametrize(("trap", "ends_with"), [("exit 7", 7), ("", -signal.SIGKILL)], ids=["polite", "stubborn"])
def test_a_child_ends_cleanly_or_is_killed_when_it_will_not(trap: str, ends_with: int, tmp_path: Path) -> None:
    script = f"trap '{trap}' TERM; echo ready; while :; do sleep 0.05; done"
    child = ChildProcess("child", ["/bin/sh", "-c", script], tmp_path / "log", stop_timeout_s=2)
    child.start()
    wait_until(lambda: "ready" in child.log_tail(), timeout_s=10, what="the child is ready")
    child.stop()
    assert child.exit_code == ends_with


def test_addresses_are_read_back_and_nonsense_is_nothing(tmp_path: Path) -> None:
    addresses = Addresses(pid=1, api_url="http://127.0.0.1:8000", redis_url="unix:///a", database_url="postgresql://b")
    addresses.write(tmp_path)
    assert Addresses.read(tmp_path) == addresses
    (tmp_path / "addresses.json").write_text("{}")
    assert Addresses.read(tmp_path) is None
    assert Addresses.read(tmp_path / "absent") is None


@pytest.mark.skipif(not AS_ROOT, reason="only root cannot run PostgreSQL itself")
class TestAsRoot:
    def test_postgres_runs_as_an_ordinary_user_on_a_folder_of_its_own(self, data_folder: Path) -> None:
        with EmbeddedPostgres(data_folder / "postgres") as postgres:
            assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0
            assert postgres.place == data_folder / "postgres"
        assert data_folder.stat().st_uid == 0

    def test_a_data_folder_under_a_closed_home_is_served_from_another_place(self, data_folder: Path) -> None:
        home = data_folder / "home"
        home.mkdir(mode=0o700)
        folder = home / "clone" / ".firstcome" / "postgres"
        postgres = EmbeddedPostgres(folder)
        try:
            with postgres, psycopg.connect(postgres.url) as connection:
                connection.execute("CREATE TABLE kept ()")
            with EmbeddedPostgres(folder) as again, psycopg.connect(again.url) as connection:
                connection.execute("SELECT FROM kept")
                assert again.place == postgres.place
            assert home.stat().st_mode & 0o777 == 0o700
            assert home.stat().st_uid == 0
        finally:
            if postgres.place is not None:
                assert home not in postgres.place.parents
                shutil.rmtree(postgres.place)

    def test_server_files_under_a_closed_home_are_copied_once(self, data_folder: Path) -> None:
        home = data_folder / "home"
        home.mkdir(mode=0o700)
        source = postgres_programs()[0].wheel
        assert source is not None
        packages = home / "site-packages"
        for name in (source.name, f"{source.name}.libs"):
            if (source.parent / name).is_dir():
                shutil.copytree(source.parent / name, packages / name, symlinks=True)
        info = next(source.parent.glob("embedded_postgres-*.dist-info"))
        shutil.copytree(info, packages / info.name)
        script = SERVE_UNTIL_KILLED.replace("time.sleep(600)", "print(Path(f'/proc/{postgres.pid}/exe').readlink())")
        done = subprocess.run(
            [sys.executable, "-c", script, str(data_folder / "data")],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=True,
        )
        program = Path(done.stdout.split()[-1])
        assert home not in program.parents
        assert program.name == "postgres"
        assert packages.stat().st_mode & 0o077

    def test_an_ordinary_user_runs_both_servers(self, data_folder: Path) -> None:
        user = pwd.getpwnam("nobody")
        nobody = Account(user.pw_name, user.pw_uid, user.pw_gid)
        programs = (redis_programs()[0].program, postgres_programs()[0].postgres)
        if not all(can_use(nobody, program) for program in programs):
            pytest.skip("the servers are installed where only root gets to")
        folder = data_folder / "nobody"
        folder.mkdir()
        os.chown(folder, nobody.uid, nobody.gid)
        # Python may be installed where only root gets to: it gives its rights up after its imports.
        give_up_rights = f"import os; os.setgroups([]); os.setgid({nobody.gid}); os.setuid({nobody.uid})\n"
        script = SERVE_UNTIL_KILLED.replace("folder =", f"{give_up_rights}folder =", 1).replace("time.sleep(600)", "")
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) == 2
        assert {path.stat().st_uid for path in folder.rglob("*")} == {nobody.uid}
