"""The step at which a Redis failed, and the remedy, by its error message."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from relay.check.remedies import certificate_remedy

_CA = "store.url: rediss://HOST?ssl_ca_certs=FILE"
FIRST_COMMAND = "first command"
"""The step at which a server turns out to be no Redis."""


class _Cause(NamedTuple):
    pattern: str
    step: str
    remedy: str


_CAUSES = (
    # What the kind of server does not know or refuses.
    _Cause(r"cluster support disabled", "", "it is no cluster: write redis://HOST in store.url"),
    _Cause(r"belongs to a cluster|\(moved to ", "", "write redis+cluster://HOST:PORT in store.url"),
    _Cause(
        r"unknown command .?SENTINEL", "", "it is no sentinel: name the sentinels in store.url, or write redis://HOST"
    ),
    _Cause(r"know no service", "", "correct the name of the service, behind the hosts in store.url"),
    _Cause(r"no node has a slot", "", "assign its slots (redis-cli --cluster fix HOST:PORT), or name another cluster"),
    # Connecting
    _Cause(
        r"redis at /.*: (no such file|connection refused)",
        "connection",
        "start Redis, or correct the path in store.url",
    ),
    _Cause(
        r"DENIED|protected mode",
        "greeting",
        "let it listen for this host: set a password there (requirepass) and write it in store.url, or name a user; "
        '"protected-mode no" only where no other host can connect',
    ),
    _Cause(r"max number of clients", "greeting", "raise maxclients in its redis.conf, or close idle clients"),
    _Cause(r"a TLS handshake is expected", "TLS", "the port expects TLS: write rediss:// in store.url"),
    _Cause(
        r"(?i)Redis without TLS|wrong version number|record layer failure",
        "TLS",
        "the port does not use TLS: write redis:// in store.url",
    ),
    # After the causes of TLS: such a port does not answer as Redis does either.
    _Cause(r"not as Redis does", FIRST_COMMAND, "name the port of a Redis server in store.url"),
    # Login
    _Cause(
        r"called without any password configured",
        "login",
        "it has no password: remove the password from store.url",
    ),
    _Cause(
        r"(?i)NOAUTH|authentication required",
        "login",
        "write its password in store.url: redis://:PASSWORD@HOST",
    ),
    _Cause(
        r"(?i)WRONGPASS|invalid username-password|invalid password",
        "login",
        "write the right password (and user) in store.url",
    ),
    _Cause(r"(?i)DB index", "login", "correct the number of the database in store.url"),
    # Commands
    _Cause(
        r"executing the script can't run",
        "command",
        "allow the user in store.url what the relay's scripts call: "
        "ACL SETUSER USER +eval +set +get +del +pttl +pexpire +pexpireat",
    ),
    _Cause(
        r"NOPERM|(?i:no permissions)",
        "command",
        "allow the user in store.url these commands (ACL SETUSER; docs/redis.md has the line)",
    ),
    _Cause(
        r"(?i)OOM|used memory > 'maxmemory'",
        "write",
        "it is full: raise maxmemory in its redis.conf, delete keys, or give the relay a Redis that others do not fill",
    ),
    _Cause(r"(?i)READONLY|read only replica", "write", "it is a replica: name the master in store.url"),
    _Cause(
        r"(?i)MISCONF|unable to persist|not able to persist",
        "write",
        "it cannot save to its disk and refuses writes: make room or repair the disk (its log says more)",
    ),
    _Cause(
        r"(?i)NOREPLICAS|not enough good replicas",
        "write",
        "it has too few replicas (min-replicas-to-write): start them, or lower the number",
    ),
    _Cause(r"(?i)LOADING", "command", "it still loads its data after a start: try again in some minutes"),
    _Cause(
        r"(?i)MASTERDOWN|link with MASTER", "command", "its link to the master is down: name the master in store.url"
    ),
)
_BEFORE_LOGIN = (
    (r"(?i)name or service|name resolution|nodename|no address associated", "name look-up"),
    (r"(?i)certificate|\btls|\bssl|handshake|mismatch|protocol", "TLS"),
    (r"(?i)refused|no route|unreachable|no such file", "TCP connection"),
)


def store_remedy(error: BaseException, text: str = "") -> str:
    """Returns the remedy for a Redis that could not be used. `text` is by default that of the error."""
    text = text or str(error)
    matching = next((cause.remedy for cause in _CAUSES if re.search(cause.pattern, text)), "")
    return (
        matching
        or certificate_remedy(text, "store.url", _CA)
        or _host_name_remedy(error, "store.url")
        or "start it, or correct store.url"
    )


def store_step(text: str) -> str:
    """Returns the step at which a Redis failed, by the error message; empty if it is not known."""
    steps = [*((cause.pattern, cause.step) for cause in _CAUSES), *_BEFORE_LOGIN]
    return next((step for pattern, step in steps if re.search(pattern, text)), "")


def _host_name_remedy(error: BaseException, key: str) -> str:
    """Returns the remedy for a host name without an address; empty if the error has another cause."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return f"correct the host name in {key}" if cause else ""
