"""Events of the traces of messages and of kept copies."""

from __future__ import annotations

from logging import INFO, WARNING, getLogger

from relay.events.event import ERROR_FIELD, PEER_FIELD, RECORD_FIELD, Event

_LOG = getLogger("relay.records")
_TRACES_FIELD = {"traces": "how many since the last such line, a minute ago or more"}

TEMPORARY_SECRET = Event(
    "traces have a temporary secret for pseudonyms, so they cannot be searched by address after a restart",
    WARNING,
    _LOG,
    "Name a file that the relay may create in `record.secret_file`.",
    ERROR_FIELD,
)
TRACE_DOWN = Event(
    "trace store unavailable",
    WARNING,
    _LOG,
    "Mail flows. Up to some thousand traces wait for it. For SQLite look at the disk, for Redis `relay check`.",
    ERROR_FIELD,
)
TRACE_UP = Event("trace store is back", INFO, _LOG, "Nothing. It receives the traces that waited.")
TRACE_LOST = Event(
    "traces could not be written",
    WARNING,
    _LOG,
    "`relay why` cannot explain these messages.",
    ERROR_FIELD | _TRACES_FIELD,
)
RECORDS_NOT_COPIED = Event(
    "records of an earlier version could not be copied to the traces",
    WARNING,
    _LOG,
    "`relay why` does not know what that version suppressed. Nothing else depends on it.",
    ERROR_FIELD,
)
TRACES_DROPPED = Event(
    "too many traces wait for the store; the oldest are dropped",
    WARNING,
    _LOG,
    "`relay why` cannot explain these messages. The store was away for too long, or is too slow.",
    _TRACES_FIELD,
)
TRACES_LOST = Event(
    "traces are lost, because the store did not answer before the end",
    WARNING,
    _LOG,
    "`relay why` cannot explain these messages. Start the store before the relay is stopped.",
    {"traces": "how many"},
)
COPY_LOST = Event(
    "a copy could not be kept",
    WARNING,
    _LOG,
    "The message was suppressed all the same. Look at the disk and the permissions of `record.keep`.",
    ERROR_FIELD | {"copies": "how many since the last such line, a minute ago or more"},
)
COPIES_NOT_REMOVED = Event(
    "expired kept copies cannot be removed",
    WARNING,
    _LOG,
    "Look at the permissions of `record.keep`. The relay tries again in an hour.",
    ERROR_FIELD,
)
PAGE_FEEDBACK = Event(
    "a user of the page says that a message was no repeat",
    INFO,
    _LOG,
    "Add the rule that the page offered, if more such mail is to come.",
    RECORD_FIELD
    | PEER_FIELD
    | {"user": "who logged in to the page; empty without `http.users_file`", "result": "what was done"},
)
