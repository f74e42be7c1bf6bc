"""What is to be done where a server does not do what the settings ask of it: by what it said."""

from __future__ import annotations

import re
import socket

_STORE = (
    (r"cluster support disabled", "it is no cluster: write redis://HOST in store.url"),
    (r"belongs to a cluster|\(moved to ", "write redis+cluster://HOST:PORT in store.url"),
    (r"unknown command .?SENTINEL", "it is no sentinel: name the sentinels in store.url, or write redis://HOST"),
    (r"know no service", "correct the name of the service, behind the hosts in store.url"),
    (r"no node has a slot", "assign its slots (redis-cli --cluster fix HOST:PORT), or name another cluster"),
    (r"called without any password configured", "it has no password: take that out of store.url"),
    (r"(?i)NOAUTH|authentication required", "write its password in store.url: redis://:PASSWORD@HOST"),
    (r"(?i)WRONGPASS|invalid username-password|invalid password", "write the right password (and user) in store.url"),
    (r"NOPERM|(?i:no permissions)", "let the user of store.url do that (ACL SETUSER)"),
    (r"READONLY|read only replica", "it is a replica: name the master in store.url"),
    (r"certificate verify failed", "name the authority in store.url: rediss://HOST?ssl_ca_certs=FILE"),
    (r"(?i)DB index", "correct the number of the database in store.url"),
)


def mend_store(error: BaseException) -> str:
    """Say what is to be done about a Redis that could not be used."""
    told = next((mend for pattern, mend in _STORE if re.search(pattern, str(error))), "")
    return told or _mend_name(error, "store.url") or "start it, or correct store.url"


def mend_upstream(error: BaseException, key: str) -> str:
    """Say what is to be done about a mail server that could not be reached."""
    if "was not ready for mail" in str(error):
        return f"is it an SMTP server? See what it waits for, or correct {key}"
    return _mend_name(error, key) or f"start it, or correct {key}"


def _mend_name(error: BaseException, key: str) -> str:
    """Say what is to be done where a host has no address; empty where that is not why."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return f"correct the host name in {key}" if cause else ""
