"""Events of the records of suppressions and of kept copies."""

from __future__ import annotations

from logging import WARNING, getLogger

from relay.events.event import ERROR_FIELD, Event

_LOG = getLogger("relay.records")
_RECORDS_FIELD = {"records": "how many since the last such line, a minute ago or more"}

TEMPORARY_SECRET = Event(
    "records use a temporary secret for pseudonyms, so they cannot be searched by address after a restart",
    WARNING,
    _LOG,
    "Name a file that the relay may create in `record.secret_file`.",
    ERROR_FIELD,
)
RECORD_LOST = Event(
    "a record could not be kept", WARNING, _LOG, "`relay why` cannot explain it.", ERROR_FIELD | _RECORDS_FIELD
)
RECORDS_DROPPED = Event(
    "too many records wait for the store; the oldest are dropped",
    WARNING,
    _LOG,
    "`relay why` cannot explain these. The store was away for too long: `relay check`.",
    _RECORDS_FIELD,
)
RECORDS_LOST = Event(
    "records of suppressions are lost, because the store did not answer before the end",
    WARNING,
    _LOG,
    "`relay why` cannot explain these. Start the store before the relay is stopped.",
    {"records": "how many"},
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
