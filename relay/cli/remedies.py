"""The remedy for a server that does not work as the settings expect, by its error message."""

from __future__ import annotations

import re
import socket

_STORE = (
    (r"cluster support disabled", "it is no cluster: write redis://HOST in store.url"),
    (r"belongs to a cluster|\(moved to ", "write redis+cluster://HOST:PORT in store.url"),
    (r"unknown command .?SENTINEL", "it is no sentinel: name the sentinels in store.url, or write redis://HOST"),
    (r"know no service", "correct the name of the service, behind the hosts in store.url"),
    (r"no node has a slot", "assign its slots (redis-cli --cluster fix HOST:PORT), or name another cluster"),
    (r"called without any password configured", "it has no password: remove the password from store.url"),
    (r"(?i)NOAUTH|authentication required", "write its password in store.url: redis://:PASSWORD@HOST"),
    (r"(?i)WRONGPASS|invalid username-password|invalid password", "write the right password (and user) in store.url"),
    (r"NOPERM|(?i:no permissions)", "allow this command to the user in store.url (ACL SETUSER)"),
    (r"READONLY|read only replica", "it is a replica: name the master in store.url"),
    (r"certificate verify failed", "name the CA file in store.url: rediss://HOST?ssl_ca_certs=FILE"),
    (r"(?i)DB index", "correct the number of the database in store.url"),
)


def store_remedy(error: BaseException) -> str:
    """Returns the remedy for a Redis that could not be used."""
    matching = next((remedy for pattern, remedy in _STORE if re.search(pattern, str(error))), "")
    return matching or _host_name_remedy(error, "store.url") or "start it, or correct store.url"


def upstream_remedy(error: BaseException, key: str) -> str:
    """Returns the remedy for a mail server that could not be reached. `key` is the setting that names it."""
    if "was not ready for mail" in str(error):
        return f"check that it is an SMTP server and why it does not answer, or correct {key}"
    return _host_name_remedy(error, key) or f"start it, or correct {key}"


def _host_name_remedy(error: BaseException, key: str) -> str:
    """Returns the remedy for a host name without an address; empty if the error has another cause."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return f"correct the host name in {key}" if cause else ""
