"""What a scenario is: a name, the parts it needs, what is to be seen, and a function that does the harm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from faults.run import Run

Play: TypeAlias = "Callable[[Run], Awaitable[None]]"

MUCH = 10_000
"""Messages of the classes that matter most, all their scenarios together."""
FULL = 1_000


@dataclass(frozen=True)
class Scenario:
    """One row of the report."""

    name: str
    group: str
    play: Play
    hears: str
    """What the client hears, in words."""
    sees: str
    """What the operator sees."""
    relays: int = 1
    store: str = "redis"
    """Or "wired redis" behind a `Wire`, "redis sentinel", "redis cluster", "sqlite", "memory"."""
    upstream: str = "peer"
    """Or "two peers", the second in case the first is away, or "postfix"."""
    messages: int = FULL
    settings: Mapping[str, object] = field(default_factory=dict)
    excuses: frozenset[str] = frozenset()
    """The named exceptions that may come up here; any other is counted as doubled."""
    clocks: bool = False
    """Whether each relay's wall clock can be set."""
    alone: bool = False
    """Whether nothing else may run beside it, because it looks at times or memory, or takes the whole machine."""
    forgets: bool = False
    """Whether the window may end during the run, so that what is sent again at its end is forwarded."""
    limit: float = 1500.0
    """Seconds that the full round may take."""


ALL: dict[str, Scenario] = {}
GROUPS = (
    "The relay dies",
    "The upstream fails",
    "The preferred one of two upstreams fails",
    "Redis fails",
    "Redis at scale fails",
    "SQLite fails",
    "Storms",
    "The clock jumps",
    "A starved machine",
    "Soak",
)
"""In the order in which people read of them, and in which they are run."""


def scenario(name: str, **rest: object) -> Callable[[Play], Play]:
    """Enter a function as a scenario."""

    def enter(play: Play) -> Play:
        assert name not in ALL, name
        ALL[name] = Scenario(name, play=play, **rest)  # type: ignore[arg-type]
        assert ALL[name].group in GROUPS, ALL[name].group
        return play

    return enter


def ordered() -> list[Scenario]:
    """Give all scenarios, group by group."""
    return sorted(ALL.values(), key=lambda each: GROUPS.index(each.group))
