"""One simulation: a shop with its processes, its customers and its accidents, all by one seed."""

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import psycopg

from engine.catalog import NewStockItem
from engine.coupons import Campaign, Discount
from engine.engine import Engine
from engine.errors import EngineError, InsufficientBalance, OutcomeUnknown
from engine.orders import Order
from engine.partitions import Partitions
from engine.request_id import REQUEST_ID
from engine.settings import EngineSettings
from engine.stock import LineRequest
from persistence.cooler import Cooler
from persistence.database import DatabaseError
from persistence.installation import register_installation
from persistence.settings import WorkerSettings
from persistence.settler import Settler
from persistence.sweeper import Sweeper
from persistence.trust import Trust
from persistence.writer import Writer
from tests.simulation.laws import PARTITIONS, unfinished
from tests.simulation.network import Network, Process, Server, VirtualLanes, Weather, Wire
from tests.simulation.postgres import Sessions, VirtualConnection
from tests.simulation.virtual_time import BASE_MS, VirtualLoop
from tests.simulation.witness import Violation, Witness

STEPS = 30
PAY_WITHIN_S = 40
HEALS_WITHIN_S = 240.0
Want = Callable[[Engine, str], Awaitable[None]]
"""What a customer asks an API process for."""

USERS = ("ann", "bob", "cho", "dan", "eve")
PRODUCTS = {"tea": ("s", "m"), "cup": ("one",), "pot": ("one",), "jar": ("s",)}
CAMPAIGNS = ("spring", "autumn")
DAY_MS = 86_400_000

SETTINGS = EngineSettings(
    partitions=PARTITIONS,
    payment_deadline_ms=PAY_WITHIN_S * 1000,
    balance_max=60_000,
    payment_max=30_000,
    discount_max=2_000,
    line_quantity_max=9,
    backlog_max=25,
    backlog_headroom=500,
    order_age_max_ms=8_000,
)
WORKER_SETTINGS = WorkerSettings(stream_keep_events=5, grant_age_ms=1_000, settle_in_flight_max=8, evict_every_ms=6_000)
BATCHES = (2, 3, 20)
"""Most events of a round, by seed: with few, the next ones are read ahead."""
HOT_MS = 3_000
"""What is settled leaves as soon as no late original of it is let in any more."""


@dataclass(frozen=True, slots=True)
class Climate:
    """What kinds of trouble there are in this seed: some seeds have all, some have few, some none."""

    weather: Weather
    losses: float
    restarts: float
    kills: float
    pauses: float

    @classmethod
    def of(cls, rng: random.Random) -> "Climate":
        """By chance: each kind of trouble is there or not."""

        def some(most: float) -> float:
            return rng.uniform(0.0, most) if rng.random() < 0.6 else 0.0

        weather = Weather(some(0.06), some(0.08), some(0.06), some(0.2), some(0.03), some(0.01))
        return cls(weather, some(0.15), some(0.05), some(0.06), some(0.05))


@dataclass(slots=True)
class Answers:
    """What customers were told, to hold the end against."""

    charges: list[tuple[str, int]] = field(default_factory=list)
    unknown_charges: list[tuple[str, int]] = field(default_factory=list)
    completed: set[tuple[str, str]] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    coupons: set[tuple[str, str]] = field(default_factory=set)
    known_orders: list[tuple[str, str]] = field(default_factory=list)


class Api:
    """An API process: an engine of its own."""

    def __init__(self, network: Network, loop: VirtualLoop, rng: random.Random, name: str) -> None:
        self.process = Process(name, loop, rng)
        self.engine = Engine(SETTINGS, VirtualLanes(network, self.process, loop))


class WorkerProcess:
    """A worker process: writer, settler, sweeper and recovery on a session each."""

    def __init__(self, world: "Simulation", name: str) -> None:
        self.process = Process(name, world.loop, world.rng)
        self.process.dies_of_its_steps = True
        self.process.on_death = self._end_sessions
        self.engine = Engine(SETTINGS, VirtualLanes(world.network, self.process, world.loop))
        self._world = world
        self._sessions: list[VirtualConnection] = []
        self._settler = Settler(self.engine, WORKER_SETTINGS)
        self._sweeper = Sweeper(self.engine, self._settler, WORKER_SETTINGS)
        self._cooler = Cooler(self.engine, WORKER_SETTINGS, hot_for_ms=HOT_MS)
        self._trust = Trust(self.engine, WORKER_SETTINGS)

    def start(self) -> None:
        """Begin all duties."""
        duties = {"writer": self._write, "settler": self._settle, "sweeper": self._sweep, "trust": self._keep_trust}
        for kind, duty in duties.items():
            self._world.spawn(self._keep(kind, duty))

    async def _keep(self, kind: str, duty: Callable[[VirtualConnection], Coroutine[Any, Any, None]]) -> None:
        while True:
            session = self._world.connect(kind, self.process)
            self._sessions.append(session)
            try:
                await duty(session)
            except DatabaseError as error:
                self._world.note(f"{self.process.name}: {kind}: {type(error).__name__} {error}")
                session.close()
                self._sessions.remove(session)
                await asyncio.sleep(self._world.rng.uniform(0.1, 0.5))
                await self.process.step(self._world.network.weather)

    async def _write(self, session: VirtualConnection) -> None:
        world = self._world
        batch = replace(WORKER_SETTINGS, batch_events_max=world.batch_events_max)
        writer = Writer(self.engine, session.as_async, batch)
        if session.is_new:
            with session.without_steps():  # sessions are used again: a seed must not notice which it gets
                await writer.start()
        while True:
            await asyncio.sleep(world.rng.expovariate(1.0 / world.writer_pause_s))
            await self.process.step(world.network.weather)
            # An idle writer asks Redis again and again; here it is known that there is nothing.
            if not world.witness.is_written():
                self._settler.offer((await writer.round(range(PARTITIONS))).completed)

    async def _settle(self, session: VirtualConnection) -> None:
        await self._settler.run(session.as_async)

    async def _sweep(self, session: VirtualConnection) -> None:
        while True:
            await asyncio.sleep(self._world.rng.uniform(2.0, 6.0))
            await self._sweeper.step(session.as_async, range(PARTITIONS))
            await self._cooler.step(session.as_async, range(PARTITIONS))

    async def _keep_trust(self, session: VirtualConnection) -> None:
        world = self._world
        while True:
            if not world.witness.is_settled() or world.rng.random() < 0.1:
                await self._trust.look(session.as_async)
            await asyncio.sleep(world.rng.uniform(0.3, 2.0))

    def _end_sessions(self) -> None:
        for session in self._sessions:
            session.close()


class Simulation:
    """Builds the shop of a seed and runs it. `run` raises `Violation`, and whatever else goes wrong."""

    def __init__(self, seed: int, steps: int, wire: Wire, sessions: Sessions) -> None:
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        self.answers = Answers()
        self.writer_pause_s = self.rng.choice((0.05, 0.3, 1.0, 3.0))
        self._seed = seed
        self.batch_events_max = BATCHES[seed % len(BATCHES)]
        self._steps = steps
        self._sessions = sessions
        self._wire = wire
        self._auditor, _ = sessions.take("witness")
        self.network = Network(self.loop, self.rng, wire, Partitions(PARTITIONS))
        self.witness = Witness(self.network, self._auditor)
        self._climate = Climate.of(self.rng)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests = itertools.count(1)
        self._apis: list[Api] = []
        self._workers: list[WorkerProcess] = []
        self._trouble: BaseException | None = None
        self._is_over = False
        self._names = 0

    # ---- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """From an empty Redis and an empty PostgreSQL until everything is settled."""
        self._wire.run([("FLUSHDB",)])
        clear(self._auditor)
        self.network.witness = self.witness.executed
        with _seeded(self._seed), _logged_to(self.note):
            self.loop.set_exception_handler(lambda _, context: self._stop(context.get("exception")))
            asyncio.set_event_loop(self.loop)
            self.spawn(self._live())
            try:
                self.loop.run_forever()
            finally:
                self._end()
        if self._trouble is not None:
            raise self._trouble

    def _stop(self, trouble: BaseException | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._trouble = trouble or Violation("the event loop was troubled")
            self.loop.stop()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as trouble:  # whatever nobody foresaw ends the simulation
            self._stop(trouble)

    def _end(self) -> None:
        self._is_over = True
        for process in self._processes():
            process.die()
        self._sessions.give_back("witness", self._auditor)
        self.loop.set_exception_handler(lambda *_: None)
        # Who is cancelled may wait once more, for what never comes.
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()
        asyncio.set_event_loop(None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task of the simulation; what goes wrong in it ends the simulation."""
        task = self.loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connect(self, kind: str, process: Process) -> VirtualConnection:
        """A session with PostgreSQL for a process."""
        return VirtualConnection(self._sessions, kind, process, self.network, self.loop, self.witness.committed)

    async def _live(self) -> None:
        await self._open()
        self.network.weather = self._climate.weather
        for _ in range(self._steps):
            await asyncio.sleep(self.rng.choice((0.0, 0.001, 0.1, 0.5, 2.0)) * self.rng.random() * 2)
            self._act()
        await self._heal()
        self.loop.stop()

    async def _open(self) -> None:
        first = Process("first", self.loop, self.rng)
        session = self.connect("trust", first)
        await register_installation(session.as_async, SETTINGS)
        await session.execute("UPDATE partition_cursor SET updated_at = now()")
        session.close()
        self._workers = [self._new_worker() for _ in range(self.rng.choice((1, 2)))]
        self._apis = [self._new_api() for _ in range(2)]
        while not all(map(self.witness.is_trusted, range(PARTITIONS))):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
        engine = self._apis[0].engine
        for product_id, stock in PRODUCTS.items():
            items = [NewStockItem(stock_id, f"option {stock_id}", self.rng.randint(2, 20)) for stock_id in stock]
            await engine.catalog.put(product_id, product_id, self.rng.randint(1, 30) * 100, items)
        for campaign_id in CAMPAIGNS:
            await engine.coupons.put_campaign(self._campaign(campaign_id))
        for user in USERS:
            await engine.wallets.charge(user, self.rng.randint(1, 15) * 1_000)
            self.answers.charges.append((user, 0))
        self.answers.charges.clear()

    def _processes(self) -> list[Process]:
        return [*(api.process for api in self._apis), *(worker.process for worker in self._workers)]

    def _new_api(self) -> Api:
        self._names += 1
        return Api(self.network, self.loop, self.rng, f"api-{self._names}")

    def _new_worker(self) -> WorkerProcess:
        self._names += 1
        worker = WorkerProcess(self, f"worker-{self._names}")
        worker.start()
        return worker

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        dice, climate = self.rng.random(), self._climate
        for chance, what in (
            (climate.losses, self._lose),
            (climate.restarts, self._restart),
            (climate.kills, self._kill),
            (climate.pauses, self._pause),
        ):
            if dice < chance:
                what()
                return
            dice -= chance
        api = self.rng.choice(self._apis)
        user = self.rng.choice(USERS)
        self.spawn(self._customer(api.engine, user))
        if self.rng.random() < 0.3:  # a rush: others at the same moment
            for other in self.rng.sample(USERS, 2):
                self.spawn(self._customer(self.rng.choice(self._apis).engine, other))
        if self.rng.random() < 0.03:
            self._rush()
        self._replace_the_dead()

    def _rush(self) -> None:
        """Many ask one process for a coupon of one campaign at the same moment, and one of them asks twice."""
        engine, campaign_id = self.rng.choice(self._apis).engine, self.rng.choice(CAMPAIGNS)

        async def take(engine: Engine, user: str) -> None:
            await self._take_coupon(engine, user, campaign_id)

        for user in [*self.rng.sample(USERS, len(USERS)), self.rng.choice(USERS)]:
            self.spawn(self._ask(engine, user, take))

    def _replace_the_dead(self) -> None:
        self._apis = [api if api.process.is_alive else self._new_api() for api in self._apis]
        self._workers = [worker if worker.process.is_alive else self._new_worker() for worker in self._workers]

    def _some_servers(self) -> list[Server]:
        return self.rng.sample(self.network.servers, self.rng.choice((1, 1, 1, 2, PARTITIONS)))

    def _lose(self) -> None:
        """A rush of orders, and a loss in the midst of it."""
        for user in self.rng.sample(USERS, 3):
            self.spawn(self._customer(self.rng.choice(self._apis).engine, user))
        self.loop.call_later(self.rng.choice((0.004, 0.02, 0.3)) * self.rng.random() * 2, self._lose_now)

    def _lose_now(self) -> None:
        """Servers come back without the end of what they did; or somebody empties them on the spot."""
        empties = self.rng.random() < 0.2
        for server in self._some_servers():
            length = len(server.file)
            lose = length if self.rng.random() < 0.15 else min(length, self.rng.choice((1, 1, 2, 3, 5, 8)))
            self.note(f"partition {server.partition} loses {'all, in place' if empties else lose}")
            if empties:
                self.network.empty(server)
            else:
                self.network.restart(server, lose, self._down_s())
            self.witness.lost(server)

    def _restart(self) -> None:
        for server in self._some_servers():
            self.note(f"partition {server.partition} restarts")
            self.network.restart(server, 0, self._down_s())

    def _down_s(self) -> float:
        return self.rng.choice((0.01, 0.01, 0.2, 1.0, 3.0))

    def _kill(self) -> None:
        process = self.rng.choice(self._processes())
        self.note(f"{process.name} dies")
        process.die()
        self.loop.call_later(self.rng.choice((0.1, 1.0, 5.0)), self._replace_the_dead)

    def _pause(self) -> None:
        process = self.rng.choice(self._processes())
        self.note(f"{process.name} is paused")
        process.pause(self.rng.choice((0.2, 2.0, 6.0)))

    def note(self, what: str) -> None:
        """For the trace."""
        self.witness.trace.append(f"{self.loop.now_ms()} -- {what}")

    async def _customer(self, engine: Engine, user: str) -> None:
        wants: list[tuple[float, Want]] = [
            (0.12, self._charge),
            (0.26, self._checkout),
            (0.22, self._place),
            (0.16, self._pay),
            (0.06, self._cancel),
            (0.10, self._take_coupon),
            (0.04, self._adjust),
            (0.02, self._put),
            (0.02, self._look),
        ]
        (want,) = self.rng.choices([want for _, want in wants], [weight for weight, _ in wants])
        await self._ask(engine, user, want)

    async def _ask(self, engine: Engine, user: str, want: Want) -> None:
        REQUEST_ID.set(f"{user}-{next(self._requests)}")
        with suppress(EngineError):  # customers hear all kinds of answers
            await want(engine, user)

    async def _charge(self, engine: Engine, user: str) -> None:
        amount = self.rng.randint(1, 40) * 500
        try:
            await engine.wallets.charge(user, amount)
            self.answers.charges.append((user, amount))
        except OutcomeUnknown:
            self.answers.unknown_charges.append((user, amount))

    def _lines(self) -> list[LineRequest]:
        chosen = self.rng.sample(sorted(PRODUCTS), self.rng.choice((1, 1, 2, 2, 3)))
        lines = []
        for product_id in chosen:
            stock = self.rng.choice(PRODUCTS[product_id]) if self.rng.random() < 0.9 else None
            lines.append(LineRequest(product_id, stock, self.rng.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, 10))))
        return lines

    def _coupon_of(self, user: str) -> str | None:
        mine = self.witness.live[Partitions(PARTITIONS).of(user)].coupons
        known = [coupon_id for coupon_id, coupon in mine.items() if coupon.user == user]
        return self.rng.choice(known) if known and self.rng.random() < 0.5 else None

    async def _checkout(self, engine: Engine, user: str) -> None:
        try:
            self._completed(await engine.orders.checkout(user, self._lines(), self._coupon_of(user)))
        except InsufficientBalance as refusal:
            self.answers.failed.add((user, refusal.order_id))

    async def _place(self, engine: Engine, user: str) -> None:
        order = await engine.orders.place(user, self._lines(), self._coupon_of(user))
        self.answers.known_orders.append((user, order.order_id))
        if self.rng.random() < 0.6:
            await asyncio.sleep(self.rng.choice((0.01, 1.0, PAY_WITHIN_S)) * self.rng.random())
            await self._finish_order(engine, user, order.order_id)

    async def _pay(self, engine: Engine, user: str) -> None:
        if self.answers.known_orders:
            owner, order_id = self.rng.choice(self.answers.known_orders[-6:])
            await self._finish_order(engine, owner, order_id)

    async def _finish_order(self, engine: Engine, user: str, order_id: str) -> None:
        if self.rng.random() < 0.2:
            await self._cancel(engine, user, order_id)
            return
        try:
            self._completed(await engine.payments.pay(user, order_id))
        except InsufficientBalance:
            self.answers.failed.add((user, order_id))

    async def _cancel(self, engine: Engine, user: str, order_id: str = "") -> None:
        if not order_id:
            if not self.answers.known_orders:
                return
            user, order_id = self.rng.choice(self.answers.known_orders[-6:])
        await engine.orders.cancel(user, order_id)
        self.answers.failed.add((user, order_id))

    def _completed(self, order: Order) -> None:
        assert order.status == "completed", f"{order.order_id} was answered as {order.status}"
        self.answers.completed.add((order.user_id, order.order_id))

    async def _take_coupon(self, engine: Engine, user: str, campaign_id: str = "") -> None:
        coupon = await engine.coupons.issue(user, campaign_id or self.rng.choice(CAMPAIGNS))
        self.answers.coupons.add((user, coupon.campaign_id))

    async def _adjust(self, engine: Engine, user: str) -> None:
        product_id = self.rng.choice(sorted(PRODUCTS))
        delta = self.rng.choice((-3, -1, 2, 6))
        await engine.catalog.adjust(product_id, self.rng.choice(PRODUCTS[product_id]), delta, f"count by {user}")

    async def _put(self, engine: Engine, user: str) -> None:
        if self.rng.random() < 0.5:
            await engine.coupons.put_campaign(self._campaign(self.rng.choice(CAMPAIGNS)))
            return
        product_id = self.rng.choice(sorted(PRODUCTS))
        items = [NewStockItem(stock_id, f"{user}'s", 5) for stock_id in PRODUCTS[product_id]]
        await engine.catalog.put(product_id, f"{product_id} of {user}", self.rng.randint(1, 30) * 100, items)

    def _campaign(self, campaign_id: str) -> Campaign:
        kind = self.rng.choice(("amount", "percent"))
        value = self.rng.randint(1, 60) * (50 if kind == "amount" else 1)
        rule = Discount(kind, value, self.rng.choice((None, 500)), self.rng.choice((None, 900)))
        opens_at = BASE_MS + self.rng.choice((-1_000, -1_000, 20_000))
        closes_at = BASE_MS + self.rng.choice((40_000, DAY_MS))
        return Campaign(campaign_id, campaign_id, rule, self.rng.randint(1, 5), 0, opens_at, closes_at, 1)

    async def _look(self, engine: Engine, user: str) -> None:
        await engine.wallets.read(user)
        await engine.coupons.list_coupons(user)
        await engine.catalog.read_many(PRODUCTS)
        if self.answers.known_orders:
            await engine.orders.read(*self.rng.choice(self.answers.known_orders))

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """The faults are over: within a minute after the last deadline everything is settled, and stays so."""
        self.note("the faults are over")
        self.network.weather = Weather()
        deadline = self.loop.time() + HEALS_WITHIN_S
        broken = ["nothing was looked at"]
        while broken:
            self._replace_the_dead()
            await asyncio.sleep(2.0)
            broken = self._unsettled()
            if broken and self.loop.time() > deadline:
                raise Violation(f"not settled {HEALS_WITHIN_S:g} s after the faults: {'; '.join(broken[:4])}")
        for server in self.network.servers:
            self.witness.compare_all(server)
        self.witness.check_alarms()
        self._check_answers()

    def _unsettled(self) -> list[str]:
        return self.witness.behind() or list(unfinished(self.witness.live))

    def _check_answers(self) -> None:
        """Where Redis has lost nothing, everything that a customer was told is so, and nothing else has happened."""
        if self.witness.has_lost:
            return
        orders = {name: order for model in self.witness.live for name, order in model.orders.items()}
        for status, told in (("completed", self.answers.completed), ("failed", self.answers.failed)):
            for user, order_id in told:
                if orders[order_id].status != status:
                    raise Violation(f"{user} was told that {order_id} is {status}, and it is {orders[order_id]}")
        for user, campaign_id in self.answers.coupons:
            if not any(
                (c.user, c.campaign) == (user, campaign_id) for m in self.witness.live for c in m.coupons.values()
            ):
                raise Violation(f"{user} was told of a coupon of {campaign_id}, and has none")


def clear(session: psycopg.Connection[Any]) -> None:
    """Take every row out of the database."""
    tables = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    names = [name for (name,) in tables if name != "alembic_version"]
    session.execute("; ".join(f"DELETE FROM {name}" for name in names))  # noqa: S608


class _SeededBits:
    """Stands in for `secrets` where order ids are made."""

    def __init__(self, seed: int) -> None:
        self.randbits = random.Random(f"ids {seed}").getrandbits


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Chance that is the same every time, for the engine too."""
    random.seed(seed)
    tokens = random.Random(f"tokens {seed}")
    with (
        patch("engine.order_ids.secrets", _SeededBits(seed)),
        patch("persistence.recovery.uuid4", lambda: UUID(int=tokens.getrandbits(128))),
    ):
        yield


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(f"{record.name}: {record.getMessage()}")


@contextmanager
def _logged_to(note: Callable[[str], None]) -> Iterator[None]:
    """The log goes into the trace alone: what it warns of is what is simulated."""
    log, notes = logging.getLogger("firstcome"), _Notes(note)
    propagate, log.propagate = log.propagate, False
    log.addHandler(notes)
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.propagate = propagate
