"""Payment of a placed order from the user's balance (R3.3, R3.4, R3.12 to R3.17)."""

from msgspec.structs import replace

from engine.errors import InsufficientBalance, OrderNotPayable, about_order
from engine.idempotency import Replayed, RequestKey, check_key
from engine.orders import Order, Orders
from engine.runner import Flow, ScriptRunner
from engine.statuses import Status
from engine.wallet import Wallets


class Payments:
    """Pay, cancel and expire race on one order, and one of them wins; paying again answers the same."""

    def __init__(self, runner: ScriptRunner, orders: Orders, wallets: Wallets) -> None:
        self._runner = runner
        self._orders = orders
        self._wallets = wallets

    async def pay(self, user_id: str, order_id: str, key: RequestKey | None = None) -> Order:
        """Take the total from the balance and complete the order.

        Raises `NotFound`; `InsufficientBalance` (the order fails, all that it held is given back); `OrderNotPayable`
        for an order that failed before, or whose deadline has passed (then it fails now, and all is given back).
        With a key also `IdempotencyKeyReused`.
        """

        partition = self._runner.partitions.of(user_id)

        async def step(flow: Flow) -> Order:
            reply = await self._orders.finish(flow, "pay_order", user_id, order_id, key)
            try:
                check_key(reply, partition)
            except Replayed as earlier:
                return await self._replayed(flow, user_id, earlier)
            order = self._orders.answered(order_id, reply)
            if reply.status is Status.PAID:
                return order
            if reply.status is Status.COMPLETED:
                return replace(order, found_so=True)
            failed_before = reply.status is Status.FAILED and not flow.sent_again
            if not failed_before:
                released = await self._orders.give_back(flow, order)
                order = replace(order, positions=released.positions)
            if order.failure == "insufficient_balance" and not failed_before:
                balance = reply.integer(2) if len(reply.values) > 2 else await self._wallets.balance(user_id)
                raise InsufficientBalance(order_id, balance, order.total, positions=order.positions)
            changed = () if failed_before else order.positions
            raise OrderNotPayable(order_id, order.status, order.failure, positions=changed)

        with about_order(order_id):
            return await self._runner.alone(step)

    async def _replayed(self, flow: Flow, user_id: str, earlier: Replayed) -> Order:
        """What the first request of the key was answered; it may have been an earlier send of this very one."""
        replayed = not flow.sent_again
        order = await self._orders.read_within(flow, user_id, earlier.values[0])
        order = replace(order, positions=earlier.positions(2), replayed=replayed)
        if earlier.status == Status.PAID:
            return order
        positions = (await self._orders.give_back(flow, order)).positions
        if earlier.status == Status.INSUFFICIENT_BALANCE:
            balance = int(earlier.values[1])
            raise InsufficientBalance(order.order_id, balance, order.total, positions=positions, replayed=replayed)
        raise OrderNotPayable(order.order_id, order.status, order.failure, positions=positions, replayed=replayed)
