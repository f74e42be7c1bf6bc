"""The `Received` field that the relay adds (RFC 5321 section 4.4). It contains the mark against mail loops."""

from __future__ import annotations

import re
from email.utils import formatdate

MOST_HOPS = 100
"""`Received` fields from which a message counts as looping (RFC 5321 section 6.3 requires at least 100)."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9.:_\[\]-]")
_LONGEST_NAME = 255
_UNSAFE_MARK = re.compile(r"[^A-Za-z0-9]")
_LONGEST_MARK = 64


def received_field(
    *, helo: bytes, peer: str, hostname: str, loop_id: str, transaction_id: str, now: float, protocol: str = "ESMTP"
) -> bytes:
    """Returns the field with its CRLF. `now` in seconds since the Unix epoch; `peer` is an IP address, or
    `local` for a client without one: this becomes a comment, which RFC 5321 section 4.4 allows before "by".

    `protocol` is a name of RFC 3848, such as `ESMTPA` for a client that has logged in.
    """
    mark = _UNSAFE_MARK.sub("?", loop_id)[:_LONGEST_MARK]
    name = _UNSAFE.sub(b"?", helo)[:_LONGEST_NAME].decode("ascii") or "unknown"
    address = f"[IPv6:{peer}]" if ":" in peer else peer if peer.isalpha() else f"[{peer}]"
    return (
        f"Received: from {name} ({address})\r\n"
        f"\tby {hostname} (smtp-dedup-relay {mark}) with {protocol} id {transaction_id};\r\n"
        f"\t{formatdate(now, localtime=True)}\r\n"
    ).encode("ascii", "replace")
