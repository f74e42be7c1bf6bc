"""Scenarios: a name, the servers that it needs, what users see, and a function that causes the faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from faults.run import Run

Play: TypeAlias = "Callable[[Run], Awaitable[None]]"

MUCH = 10_000
"""Messages of each of the most important groups, all scenarios together."""
FULL = 1_000


@dataclass(frozen=True)
class Scenario:
    """One row of the report."""

    name: str
    group: str
    play: Play
    hears: str
    """What the client receives, in words."""
    sees: str
    """What the operator sees."""
    relays: int = 1
    store: str = "redis"
    """Or "wired redis" behind a `Wire`, "redis sentinel", "redis cluster", "sqlite", "memory"."""
    upstream: str = "peer"
    """Or "two peers", the second as the fallback; "two addresses" of one name, of which the second works; "postfix";
    "two postfixes", one of them in front of the relay as `smtpd_proxy_filter`; or "postfix with logins", which takes
    mail only after a login and offers STARTTLS."""
    messages: int = FULL
    settings: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """The text of files that are in the folder of the run before the relays start, by name."""
    excuses: frozenset[str] = frozenset()
    """The named exceptions that may occur here. All others count as duplicates."""
    prefix: tuple[str, ...] = ()
    """A command such as `prlimit` that starts each relay in its own place."""
    log_is_read: bool = True
    """Whether the standard error stream of the relays is read. If not, it is a full pipe after the first log lines."""
    clocks: bool = False
    """Whether each relay's wall clock can be set."""
    tls: bool = False
    """Whether the relays have a certificate and a port for implicit TLS. Clients connect with and without TLS."""
    alone: bool = False
    """Whether no other scenario may run at once, because it measures times or memory, or uses the whole machine."""
    forgets: bool = False
    """Whether the window may end during the run, so that repeats at the end are forwarded."""
    limit: float = 1500.0
    """The longest time of the full round in seconds."""


ALL: dict[str, Scenario] = {}
GROUPS = (
    "The relay dies",
    "The upstream fails",
    "The preferred one of two upstreams fails",
    "The upstream has limits",
    "Postfix on both sides",
    "Redis fails",
    "Redis at scale fails",
    "SQLite fails",
    "The store of traces fails",
    "TLS and logins of clients fail",
    "A resource runs out",
    "Storms",
    "The clock jumps",
    "A starved machine",
    "Soak",
)
"""All scenarios by name, in the order of the report and of the runs."""


def scenario(name: str, **rest: object) -> Callable[[Play], Play]:
    """Registers a function as a scenario."""

    def enter(play: Play) -> Play:
        assert name not in ALL, name
        ALL[name] = Scenario(name, play=play, **rest)  # type: ignore[arg-type]
        assert ALL[name].group in GROUPS, ALL[name].group
        return play

    return enter


def ordered() -> list[Scenario]:
    """Returns all scenarios, group by group."""
    return sorted(ALL.values(), key=lambda each: GROUPS.index(each.group))
