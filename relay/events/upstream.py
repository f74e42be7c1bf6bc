"""Events of the upstream."""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING, getLogger

from relay.events.event import ERROR_FIELD, Event

_LOG = getLogger("relay.upstream")
_TRANSACTIONS_FIELD = {"transactions": "how many since the last such line, a minute ago or more"}
_UPSTREAM_FIELD = {"upstream": "its host and port"}

UPSTREAM_UP = Event("upstream is up", INFO, _LOG, "Nothing.")
UPSTREAM_DOWN = Event(
    "upstream is down",
    INFO,
    _LOG,
    "Clients receive 451 and try again. The next line or `relay check` has the cause.",
)
UPSTREAM_SILENT = Event(
    "upstream does not answer",
    WARNING,
    _LOG,
    "Start the mail server, or correct `upstream.url`. Logged once for each cause, while the relay tries again.",
    ERROR_FIELD,
)
UPSTREAM_UNREACHABLE = Event(
    "no transaction with the upstream could begin",
    WARNING,
    _LOG,
    "As for `upstream does not answer`. The clients received 451.",
    ERROR_FIELD | {"seconds": "`upstream.patience`, for which the relay tried"} | _TRANSACTIONS_FIELD,
)
UPSTREAM_REFUSES = Event(
    "upstream refuses the relay",
    ERROR,
    _LOG,
    "The mail server must accept the relay's address, or the settings must offer what it asks for (TLS, a login).",
    ERROR_FIELD | _TRANSACTIONS_FIELD,
)
UPSTREAM_LOGIN_REFUSED = Event(
    "upstream refuses user and password; the next login follows in minutes",
    ERROR,
    _LOG,
    "Correct the user in `upstream.url`, or the password. Clients receive 451 meanwhile.",
    ERROR_FIELD,
)
UPSTREAM_SKIPPED = Event(
    "upstream is left alone for a while",
    WARNING,
    _LOG,
    "Another mail server of `upstream.fallback_urls` takes the mail. Look at this one.",
    _UPSTREAM_FIELD | ERROR_FIELD,
)
UPSTREAM_USED_AGAIN = Event("upstream is used again", INFO, _LOG, "Nothing.", _UPSTREAM_FIELD)
CONNECTION_FAILED = Event(
    "no connection to the upstream", DEBUG, _LOG, "Nothing: another attempt follows, or another line.", ERROR_FIELD
)
