"""Balances: charge and read (R1)."""

from msgspec import Struct

from engine.errors import BalanceLimit
from engine.idempotency import KeyClaims, Replayed, RequestKey, check_key, key_arguments
from engine.policy import Policy
from engine.positions import Position, position_of
from engine.runner import Flow, ScriptRunner
from engine.statuses import Status


class Charge(Struct, frozen=True):
    """A charge that was made. Amounts in minor units."""

    user_id: str
    amount: int
    balance: int
    charged_at_ms: int
    positions: tuple[Position, ...]
    replayed: bool = False
    """Whether this is the answer of an earlier request of the same idempotency key."""


class WalletState(Struct, frozen=True):
    """What Redis knows of a user: amounts in minor units, order ids or ``None``."""

    balance: int
    open_order: str | None
    open_pay_before_ms: int | None
    last_order: str | None


class Wallets:
    """Every user has a balance; a user that was never seen has 0."""

    def __init__(self, runner: ScriptRunner, key_claims: KeyClaims, policy: Policy) -> None:
        self._runner = runner
        self._key_claims = key_claims
        self._policy = policy

    async def charge(self, user_id: str, amount: int, key: RequestKey | None = None) -> Charge:
        """Add ``amount``. Without a key it is sent once, and an unknown outcome stays unknown (`OutcomeUnknown`).

        Raises `ChargeLimit`, `BalanceLimit`, `IdempotencyKeyReused`.
        """
        self._policy.check_charge(amount)
        partition = self._runner.partitions.of(user_id)
        keys = self._runner.keys
        records = self._key_claims.record(partition, key)

        async def step(flow: Flow) -> Charge:
            reply = await self._runner.change(
                flow,
                partition,
                "charge_wallet",
                (keys.meta(partition), keys.events(partition), keys.wallet(partition, user_id), *records),
                (user_id, amount, self._policy.balance_max, *key_arguments(key)),
                repeatable=key is not None,
            )
            try:
                check_key(reply, partition)
            except Replayed as earlier:
                balance, at_ms = map(int, earlier.values)
                return Charge(user_id, amount, balance, at_ms, earlier.positions(2), replayed=not flow.sent_again)
            if reply.status is Status.BALANCE_LIMIT:
                raise BalanceLimit(reply.integer(0), self._policy.balance_max)
            return Charge(
                user_id, amount, reply.integer(1), reply.integer(2), (position_of(partition, reply.values[0]),)
            )

        return await self._runner.alone(step)

    async def balance(self, user_id: str) -> int:
        """The balance in minor units; 0 for a user that was never seen."""
        return (await self.read(user_id)).balance

    async def read(self, user_id: str) -> WalletState:
        """The balance, the open and the last order of a user."""
        return await self._runner.alone(lambda flow: self.read_within(flow, user_id))

    async def read_within(self, flow: Flow, user_id: str) -> WalletState:
        """The same, as a step of a flow."""
        partition = self._runner.partitions.of(user_id)
        keys = (self._runner.keys.meta(partition), self._runner.keys.wallet(partition, user_id))
        balance, open_order, pay_before, last_order = await self._runner.read(
            flow, partition, "read_fields", keys, ("balance", "open_order", "open_pay_before", "last_order")
        )
        return WalletState(
            int(balance or 0),
            open_order.decode() if open_order else None,
            int(pay_before) if pay_before else None,
            last_order.decode() if last_order else None,
        )
