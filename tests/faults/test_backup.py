"""A backup is taken and restored by the commands of docs/operations.md, as they stand there."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import httpx
import pytest

from api.commands.embedded_postgres import EmbeddedPostgres
from api.commands.server_files import postgres_programs
from persistence.migrations import upgrade
from tests.books import differences
from tests.faults.buyers import Buyers, stock_shop
from tests.faults.losses import SETTINGS, flush, whole
from tests.running_shop import PARTITIONS, RunningShop
from tests.servers import RedisKind, opened_redis, reachable_folder

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
KEPT = {**SETTINGS, "FIRSTCOME_STREAM_KEEP_EVENTS": "5000"}


def block(program: str) -> str:
    """The one block of commands of the chapter that begins with this program."""
    chapter = OPERATIONS.read_text().partition("## Backup and restore\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"(?:^|\n\n)((?: {{4,}}){program} [^\n]*(?:\n {{4,}}[^\n]*)*)", chapter)
    return textwrap.dedent(str(found))


def run(commands: str, folder: Path, postgres: EmbeddedPostgres, redis_url: str) -> None:
    """Run them in a shell, as somebody would who has PostgreSQL's programs and ours on the PATH."""
    programs = (postgres_programs()[0].folder, Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "FIRSTCOME_OWNER_DATABASE_URL": postgres.url,
        "FIRSTCOME_DATABASE_URL": postgres.url,
        "FIRSTCOME_REDIS_URL": redis_url,
        "FIRSTCOME_PARTITIONS": str(PARTITIONS),
    }
    shell = ["bash", "-eu", "-o", "pipefail", "-c", commands]
    done = subprocess.run(shell, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def opened(folder: Path, redis_url: str, postgres: EmbeddedPostgres) -> Iterator[RunningShop]:
    folder.mkdir()
    with RunningShop(folder, redis_url, postgres.url, 2, 2, KEPT) as shop:
        yield shop


def state(shop: RunningShop, position: str) -> str:
    return str(shop.client().get(f"/v1/positions/{position}").json()["state"])


def charged(shop: RunningShop, user: str) -> str:
    """The position of a charge that was answered as durable."""
    answer = shop.client().post(f"/v1/users/{user}/balance/charges", json={"amount": 5})
    assert (answer.status_code, answer.json()["durable"]) == (httpx.codes.CREATED, True), answer.text
    return str(answer.json()["position"])


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = reachable_folder()
    yield folder
    shutil.rmtree(folder)


async def have_backed_up(shop: RunningShop, folder: Path, postgres: EmbeddedPostgres) -> tuple[Buyers, dict[str, str]]:
    """Buyers before, during and after the backup; second, the orders that were durable before."""
    async with Buyers(shop, "buyer", 8) as buyers:
        await buyers.have_sold(30)
        before = dict(buyers.orders)
        await asyncio.to_thread(run, block("pg_dump"), folder, postgres, shop.redis_url)
        await buyers.have_sold(30, since=time.monotonic())
    return buyers, before


@pytest.mark.parametrize("kind", get_args(RedisKind))
async def test_a_backup_of_postgres_beside_the_redis_that_went_on_loses_nothing(folder: Path, kind: RedisKind) -> None:
    with opened_redis(kind) as redis, EmbeddedPostgres(folder / "restored") as restored:
        with EmbeddedPostgres(folder / "lost") as postgres:
            upgrade(postgres.url)
            with opened(folder / "shop", redis.url, postgres) as shop:
                await asyncio.to_thread(stock_shop, shop)
                buyers, _ = await have_backed_up(shop, folder, postgres)
                late = charged(shop, "late")
                books = await asyncio.to_thread(whole, shop)
            postgres.kill()

        run(block("pg_restore"), folder, restored, redis.url)
        with opened(folder / "again", redis.url, restored) as shop:
            assert list(differences(books, await asyncio.to_thread(whole, shop))) == []
            assert state(shop, late) == "durable"
            run("firstcome audit --full", folder, restored, redis.url)
            async with Buyers(shop, "next", 8) as following:
                await following.have_sold(30)
            books = await asyncio.to_thread(whole, shop)
            buyers.check(books)
            following.check(books)


@pytest.mark.parametrize("kind", get_args(RedisKind))
async def test_a_backup_is_all_that_is_left(folder: Path, kind: RedisKind) -> None:
    """After it Redis is lost, too, before both are: the epochs of that time are known to nobody."""
    with EmbeddedPostgres(folder / "restored") as restored:
        with opened_redis(kind) as redis, EmbeddedPostgres(folder / "lost") as postgres:
            upgrade(postgres.url)
            with opened(folder / "shop", redis.url, postgres) as shop:
                await asyncio.to_thread(stock_shop, shop)
                early = charged(shop, "early")
                _, before = await have_backed_up(shop, folder, postgres)
                flush(shop)
                await asyncio.to_thread(shop.wait_until_ready)
                late = [charged(shop, f"late-{number}") for number in range(50)]
            postgres.kill()

        run(block("pg_restore"), folder, restored, redis.url)
        run(block("psql"), folder, restored, redis.url)
        with opened_redis(kind) as redis, opened(folder / "again", redis.url, restored) as shop:
            books = await asyncio.to_thread(whole, shop)
            assert [order for order, status in before.items() if books.orders[order].status != status] == []
            run("firstcome audit --full", folder, restored, redis.url)
            async with Buyers(shop, "next", 8) as following:
                await following.have_sold(100)
            following.check(await asyncio.to_thread(whole, shop))
            for number in range(50):
                charged(shop, f"late-{number}")
            assert state(shop, early) == "durable"
            assert {state(shop, position) for position in late} == {"lost"}
