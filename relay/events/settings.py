"""Events of reloads."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING, getLogger

from relay.events.event import TRACEBACK_FIELD, Event

_LOG = getLogger("relay.settings")

RELOADED = Event(
    "settings reloaded",
    INFO,
    _LOG,
    "Nothing.",
    {"changed": "the keys of the settings that are others now; passwords and certificates are read again in any case"},
)
NOT_RELOADED = Event(
    "settings not reloaded, those before stay in force",
    ERROR,
    _LOG,
    "Correct them (`relay check` names the same mistakes), and reload again.",
    {"problems": "the mistakes, as at a start"},
)
RESTART_TO_CHANGE = Event(
    "settings that need a restart have changed",
    WARNING,
    _LOG,
    "Restart the relay when it suits; until then the values before stay in force.",
    {"keys": "the keys of these settings"},
)
DOUBTFUL = Event(
    "settings are doubtful", WARNING, _LOG, "As the warning says.", {"warning": "what `relay check` prints too"}
)
RELOAD_FAULT = Event("fault in a reload", ERROR, _LOG, "Report it. The settings before stay in force.", TRACEBACK_FIELD)
