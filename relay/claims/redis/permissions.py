"""The Redis commands that the relay uses, and which of them a server does not let its user call."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from relay.claims.redis.connection import NotPermitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.claims.redis.commands import Keys, Request

ACL = (
    "~smtp-dedup* resetchannels -@all +eval +get +getrange +set +del +exists +pttl +pexpire +pexpireat +time "
    "+xrevrange +rpush +lrange +lindex +llen +hget +hmget +hset +hgetall +hdel +hincrby "
    "+scan +ping +info +role +select +config|get"
)
"""The rules of a user who may do all that the relay does, on one server or the primary of Sentinel."""
CLUSTER_ACL = ACL + " +cluster +command +readonly +asking"
"""The same on each node of a Cluster."""


def requests(keys: Keys) -> Sequence[Request]:
    """Returns one request for each command on a key, on keys that nothing else uses.

    The scripts of the relay call most of these; Redis checks the permission of each.
    """
    name = f"{keys.prefix}check:{secrets.token_hex(8)}"
    lines, words = name + ":lines", name + ":words"
    return (
        ("EVAL", "return 1", 1, name),
        ("SET", name, "x", "PX", 10_000),
        ("GET", name),
        ("GETRANGE", name, 0, 1),
        ("EXISTS", name),
        ("PTTL", name),
        ("PEXPIRE", name, 10_000),
        ("PEXPIREAT", name, 1),
        ("XREVRANGE", name + ":records", "+", "-", "COUNT", 1),
        ("RPUSH", lines, "x"),
        ("LRANGE", lines, 0, 0),
        ("LINDEX", lines, 0),
        ("LLEN", lines),
        ("DEL", lines),
        ("HSET", words, "x", "1"),
        ("HGET", words, "x"),
        ("HMGET", words, "x"),
        ("HGETALL", words),
        ("HINCRBY", words, "x", 1),
        ("HDEL", words, "x"),
        ("DEL", name),
    )


def refused(asked: Sequence[Request], replies: Sequence[object]) -> list[str]:
    """Returns the commands that the user may not call, or not on these keys."""
    return [str(request[0]) for request, reply in zip(asked, replies, strict=True) if isinstance(reply, NotPermitted)]
