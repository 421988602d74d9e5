"""Every Redis key. All keys of a partition share its hash tag, so its cluster slot."""

from engine.partitions import Partitions

ALL_KEYS = "fc:{*"
"""Pattern of all keys of an installation."""


class Keys:
    """Builds the keys of one installation: ``fc:{<tag>}:<kind>[:<id>]``. No key is built anywhere else."""

    def __init__(self, partitions: Partitions) -> None:
        self._prefixes = tuple(f"fc:{{{partitions.tag(index)}}}:" for index in range(partitions.count))
        self._meta = tuple(prefix + "meta" for prefix in self._prefixes)
        self._events = tuple(prefix + "events" for prefix in self._prefixes)

    def prefix(self, partition: int) -> str:
        """What all keys of the partition begin with."""
        return self._prefixes[partition]

    def meta(self, partition: int) -> str:
        """Hash: format, server, generation, epoch, seq, durable."""
        return self._meta[partition]

    def events(self, partition: int) -> str:
        """Stream of the partition's events; the id of an entry is ``<epoch>-<seq>``."""
        return self._events[partition]

    def cold(self, partition: int) -> str:
        """Hash: before, times (see `lua/include/cold.lua`), and how far the walks have come: reservations, coupons."""
        return self._prefixes[partition] + "cold"

    def wallet(self, partition: int, user_id: str) -> str:
        """Hash: balance, open_order, open_pay_before, last_order, coupon_number, seq."""
        return f"{self._prefixes[partition]}user:{user_id}"

    def coupons(self, partition: int, user_id: str) -> str:
        """Hash: coupon id to packed coupon, and ``campaign:<campaign id>`` to coupon id."""
        return f"{self._prefixes[partition]}coupons:{user_id}"

    def order(self, partition: int, order_id: str) -> str:
        """Hash: the order, its payment, its coupon, its lines as JSON."""
        return f"{self._prefixes[partition]}order:{order_id}"

    def request_key(self, partition: int, owner: str, digest: str) -> str:
        """Hash: an idempotency key's fingerprint, and its claim (claim, until) or its result (result, place)."""
        return f"{self._prefixes[partition]}key:{owner}:{digest}"

    def products(self, partition: int) -> str:
        """Sorted set of the partition's product ids, all of score 0."""
        return self._prefixes[partition] + "products"

    def product(self, partition: int, product_id: str) -> str:
        """Hash: name, price, stocks, only, seq; per stock item ``o:`` option, ``a:``, ``r:``, ``s:`` units."""
        return f"{self._prefixes[partition]}product:{product_id}"

    def reservation(self, partition: int, order_id: str) -> str:
        """Hash: what the order holds here: user, state (held, sold, released), lines, at, finished_at, seq."""
        return f"{self._prefixes[partition]}reservation:{order_id}"

    def sales(self, partition: int, day: str) -> str:
        """Sorted set of units sold per product on a day (``yyyymmdd``, business time zone)."""
        return f"{self._prefixes[partition]}sales:{day}"

    def campaigns(self, partition: int) -> str:
        """Sorted set of the partition's campaign ids, all of score 0."""
        return self._prefixes[partition] + "campaigns"

    def campaign(self, partition: int, campaign_id: str) -> str:
        """Hash: name, rule, window, quantity, issued, seq."""
        return f"{self._prefixes[partition]}campaign:{campaign_id}"

    def issues(self, partition: int, campaign_id: str) -> str:
        """Hash: user id to issue number, time and rule of the issue."""
        return f"{self._prefixes[partition]}issued:{campaign_id}"


def traffic_key(keys: Keys, partition: int) -> str:
    """Hash: an API process's name to its counts (see `engine.traffic`)."""
    return keys.prefix(partition) + "traffic"
