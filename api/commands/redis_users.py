"""The Redis user of the application: its keys, and the commands that API, worker and scripts use.

`deploy/redis.acl` gives an operator the same rule.
"""

from typing import Final

APPLICATION: Final = "firstcome"

_COMMANDS: Final = (
    # the lanes: logging in, who the server is, running scripts
    "auth", "ping", "info", "time", "evalsha", "script|load", "client|setname",
    # a rebuild, an audit and `firstcome doctor` look at all that there is
    "scan", "memory|usage",
    # a cluster: which node has which slots, and reaching a slot that is being moved
    "cluster|nodes", "cluster|slots", "asking",
    # hashes, keys, the stream of events and the sorted sets, in scripts and outside
    "hget", "hmget", "hgetall", "hlen", "hset", "hdel", "hincrby", "hscan",
    "exists", "del", "unlink", "pexpire", "pexpireat", "pttl",
    "xadd", "xrange", "xrevrange", "xlen", "xtrim",
    "zadd", "zincrby", "zrange", "zrevrange", "zscore", "zcard", "zrangebylex",
)  # fmt: skip

APPLICATION_RULE: Final = " ".join(["resetchannels", "~fc:*", "-@all", *(f"+{command}" for command in _COMMANDS)])
"""After `user <name> on <password>`. Understood from Redis 6.2 on, and by Valkey."""
