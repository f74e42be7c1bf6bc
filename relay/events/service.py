"""Events of the process: its start and end, signals, certificates, background tasks."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING, getLogger

from relay.events.event import ERROR_FIELD, TRACEBACK_FIELD, Event

_LOG = getLogger("relay")

SERVING = Event(
    "serving",
    INFO,
    _LOG,
    "Nothing. The relay listens.",
    {
        "version": "of the relay",
        "listen": "where it listens",
        "http": "where it serves metrics, or `off`",
        "upstream": "the mail server",
        "store": "where claims are kept",
        "mode": "`dedup.mode`",
        "window_seconds": "`dedup.window`",
    },
    {"listen_tls": "where it listens for TLS", "fallback_upstreams": "`upstream.fallback_urls`"},
)
NO_COMMANDS = Event(
    "commands cannot ask this relay",
    WARNING,
    _LOG,
    "Mail is not affected. Make the folder of `admin.socket`, let the relay's user write there, or end the relay that "
    "listens there.",
    {"path": "the socket"} | ERROR_FIELD,
)
DRAINING = Event("draining", INFO, _LOG, "Nothing. Running transactions may finish, for `limits.drain` at most.")
ENDED_AT_ONCE = Event(
    "ended at once by a second signal",
    WARNING,
    _LOG,
    "Send one signal, and wait for `limits.drain`: clients in the middle of a message must send it again.",
    {"signal": "the second one"},
)
ENDED = Event("ended", INFO, _LOG, "Nothing.")
PART_TIMED_OUT = Event(
    "a part did not end in time",
    WARNING,
    _LOG,
    "Something hangs, such as the store or a disk. What was not written is lost: repeats may be forwarded.",
    {"part": "which", "seconds": "its limit"},
)
PART_FAILED = Event("a part did not end properly", ERROR, _LOG, "Report it.", {"part": "which"} | TRACEBACK_FIELD)
ADDRESS_NOT_USED = Event(
    "address not used: the service manager passed a socket",
    WARNING,
    _LOG,
    "Set the same address in the socket unit and in the settings.",
    {"key": "the setting", "address": "its value", "socket": "what is used"},
)
CERTIFICATE_RENEWED = Event("certificate renewed", INFO, _LOG, "Nothing. The relay makes this one itself.")
CERTIFICATE_NOT_RENEWED = Event(
    "certificate not renewed, the old one stays in use",
    ERROR,
    _LOG,
    "Look at the disk and the permissions of the state folder. The relay tries again in some hours.",
    ERROR_FIELD,
)
SIGNAL_IGNORED = Event("signal has no effect", WARNING, _LOG, "Do not send it.", {"signal": "its name"})
USERS_READ = Event("users file read again", INFO, _LOG, "Nothing.", {"users": "how many it has"})
USERS_NOT_READ = Event(
    "users file cannot be used; the users before are kept",
    ERROR,
    _LOG,
    "Correct the file in `auth.users_file` or `http.users_file`, or its permissions. Logged once for each cause.",
    {"path": "the file"} | ERROR_FIELD,
)
LOOP_FAILED = Event(
    "background loop failed",
    ERROR,
    _LOG,
    "Report it. The loop goes on.",
    {"task": "which", "seconds": "until the next try"} | TRACEBACK_FIELD,
)
TASK_FAILED = Event("task failed", ERROR, _LOG, "Report it.", {"task": "which"} | TRACEBACK_FIELD)
LINES_DROPPED = Event(
    "log lines were dropped, because the log took no more",
    WARNING,
    getLogger("relay.log"),
    "The reader of the log is too slow, or its disk is full. Mail is not affected.",
    {"lines": "how many"},
)
