"""The composition root of the engine: every subject, over the lanes of one installation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.bestsellers import BestSellers
from engine.business_days import BusinessDays
from engine.catalog import Catalog
from engine.cluster_lanes import ClusterLanes
from engine.coupons import Coupons
from engine.durability import Durability
from engine.eviction import Eviction
from engine.idempotency import KeyClaims
from engine.keys import Keys
from engine.lane_counts import LaneCounts
from engine.lanes import Lanes, LaneSettings, RedisLanes
from engine.orders import Orders
from engine.partitions import Partitions
from engine.payments import Payments
from engine.recovery import Recovery
from engine.redis_address import names_a_cluster
from engine.runner import ScriptRunner
from engine.scripts import load_scripts
from engine.settings import EngineSettings
from engine.stock import Stock
from engine.wallet import Wallets


class Engine:
    """Balance, stock, orders, payments and coupons, decided in Redis. Serves from `start` to `close`."""

    def __init__(self, settings: EngineSettings, lanes: Lanes, lane_counts: LaneCounts | None = None) -> None:
        self.settings = settings
        self.lanes = lanes
        self.lane_counts = lane_counts or LaneCounts()
        self.policy = settings.policy
        self.partitions = Partitions(settings.partitions)
        self.keys = Keys(self.partitions)
        self.days = BusinessDays(settings.time_zone)
        scripts = load_scripts()
        self.runner = ScriptRunner(lanes, scripts, self.partitions, self.keys, settings)
        self.recovery = Recovery(lanes, scripts, self.keys)
        self.durability = Durability(self.runner)
        self._key_claims = key_claims = KeyClaims(self.runner, settings.key_lease_ms)
        self.wallets = Wallets(self.runner, key_claims, self.policy)
        self.catalog = Catalog(self.runner, key_claims, self.policy)
        self.stock = Stock(self.runner, self.policy, settings.order_age_max_ms)
        self.orders = Orders(self.runner, key_claims, self.stock, self.wallets, self.policy, settings.order_age_max_ms)
        self.payments = Payments(self.runner, self.orders, self.wallets)
        self.coupons = Coupons(self.runner, key_claims, self.days)
        self.eviction = Eviction(self.runner, settings.order_age_max_ms)
        self.bestsellers = BestSellers(self.runner, self.catalog, self.days)

    async def start(self, *, patient: bool = False) -> None:
        """Connect. Raises `Unavailable` when Redis is out of reach; or, where it is ``patient``, goes on trying."""
        await self.lanes.start(patient=patient)

    async def close(self) -> None:
        """Answer who waits, then disconnect."""
        await self.durability.close()
        await self._key_claims.close()
        await self.lanes.close()


def make_engine(settings: EngineSettings) -> Engine:
    """An engine on the Redis of the settings, which is not connected before `Engine.start`."""
    lane_settings = LaneSettings(
        reply_timeout_s=settings.reply_timeout_ms / 1000, in_flight_limit=settings.in_flight_max
    )
    counts = LaneCounts()
    if names_a_cluster(settings.redis_url):
        partitions = Partitions(settings.partitions)
        return Engine(settings, ClusterLanes(settings.redis_url, partitions, lane_settings, counts), counts)
    return Engine(settings, RedisLanes(settings.redis_url, lane_settings, counts), counts)


@asynccontextmanager
async def open_engine(settings: EngineSettings) -> AsyncIterator[Engine]:
    """An engine on the Redis of the settings, until the context ends. Raises `Unavailable` when it is out of reach."""
    engine = make_engine(settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
