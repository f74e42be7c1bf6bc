"""Events of the store and of claims."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING, getLogger

from relay.events.event import ERROR_FIELD, TRACEBACK_FIELD, Event

_LOG = getLogger("relay.store")
_CLAIMS = {"claims": "how many"}
_SINCE = {"claims": "how many since the last such line, a minute ago or more"}

STORE_DOWN = Event(
    "store unavailable, working without it",
    WARNING,
    _LOG,
    "Mail flows; each process suppresses only what it has seen itself. `relay check` tries the store.",
    ERROR_FIELD,
)
STORE_BACK = Event("store is back", INFO, _LOG, "Nothing. The store receives what it missed.")
STORE_RESTARTED = Event(
    "store was restarted; writing again what it may have lost",
    WARNING,
    _LOG,
    "Nothing, unless it comes often: then look at the store's own log.",
)
STORE_FAULT = Event("fault in the store", ERROR, _LOG, "Report it. Mail flows without the store.", TRACEBACK_FIELD)
SUBSCRIBER_FAULT = Event("fault in a subscriber of the store's state", ERROR, _LOG, "Report it.", TRACEBACK_FIELD)
FILE_SET_ASIDE = Event(
    "damaged database set aside and a new one begun; mail that was sent before may be sent again, unless a running "
    "relay remembers it",
    ERROR,
    _LOG,
    "Look at the disk. Delete the old file once you no longer need it.",
    {"error": "the file, and what SQLite found", "path": "the new name of the damaged file"},
)
TRACES_SET_ASIDE = Event(
    "damaged database of traces set aside and a new one begun; what was traced before is not found any more",
    ERROR,
    _LOG,
    "Look at the disk. Delete the old file once you no longer need it. Mail is not affected.",
    {"error": "the file, and what SQLite found", "path": "the new name of the damaged file"},
)
CLAIMS_TAKEN_BEFORE = Event(
    "another process took claims before the content was sent",
    WARNING,
    _LOG,
    "Nothing was doubled. If it comes often, the store or the machine stalls for longer than `dedup.lease`.",
    _CLAIMS,
)
CLAIMS_TAKEN_DURING = Event(
    "another process took claims while we delivered",
    WARNING,
    _LOG,
    "The store or the machine stalled for longer than `dedup.lease`. If it comes often, lengthen that.",
    _CLAIMS | {"recipients": "how many of them may have got a second copy"},
)
STORE_FULL = Event(
    "the store holds as many claims as it may: mail is forwarded without a claim, and its repeats too",
    WARNING,
    _LOG,
    "Give Redis more memory, or shorten `dedup.window`.",
    _SINCE,
)
MEMORY_FULL = Event(
    "more was accepted than this process keeps for a store that does not answer: repeats may be forwarded",
    WARNING,
    _LOG,
    "The store was away for too long: `relay check`.",
    _SINCE,
)
