"""The text of `docs/log.md`: each event of the log, its level and fields, and what to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay.events import mail, records, service, settings, store, upstream
from relay.events.event import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

GROUPS = {
    "The process": service,
    "Reloads": settings,
    "Messages, sessions and logins": mail,
    "The upstream": upstream,
    "The store and claims": store,
    "Records and kept copies": records,
}
"""The modules of `relay.events` by heading."""

_HEAD = """\
<!-- Written by `python -m relay.monitor.reference .` from relay/events. -->
# The log

The relay logs to stderr, which systemd gives to the journal: one line for each message, and one for each event below.
`log.format` decides the form: `json` is one object a line with `time`, `level`, `event` and the fields, `human` is the
time, the level unless it is `info`, the text and `field=value`. `log.level` leaves out lower levels.

- The text of an event is constant. What differs from line to line is in fields, so look for texts and filter by fields:
  `journalctl -u smtp-dedup-relay -o cat | jq -c 'select(.event == "message" and .recipients.suppressed)'`
- Mail addresses are left out, or replaced with `<address>`, unless `log.addresses = true`. Passwords are never logged.
- `error` has the words of another program, such as a mail server: one line of at most 1,000 characters.
- Control characters are escaped, so that neither a client nor a mail server can forge a line.
- Where clients or an upstream that is down could fill the log, one line a minute has the number of the others.
"""


def log_markdown() -> str:
    """Returns `docs/log.md`."""
    return _HEAD + "".join("\n" + "\n".join(_section(*group)) + "\n" for group in GROUPS.items())


def events_of(module: ModuleType) -> dict[str, Event]:
    """Returns the events that a module of `relay.events` defines, by the names of their constants."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Event)}


def all_events() -> dict[str, Event]:
    """Returns all events of the relay, by the names of their constants."""
    return {name: event for module in GROUPS.values() for name, event in events_of(module).items()}


def _section(heading: str, module: ModuleType) -> Iterator[str]:
    yield f"## {heading}"
    yield ""
    yield "| event | level | fields | what to do |"
    yield "|---|---|---|---|"
    for event in events_of(module).values():
        yield f"| `{event.text}` | {logging.getLevelName(event.level).lower()} | {_fields(event)} | {event.advice} |"


def _fields(event: Event) -> str:
    texts = [f"`{name}`: {meaning}" for name, meaning in event.fields.items()]
    texts += [f"`{name}` (not always): {meaning}" for name, meaning in event.optional.items()]
    return "<br>".join(texts)
