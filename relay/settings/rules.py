"""From settings to the judgement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.judge.judge import Judge
from relay.settings import effective as in_force

if TYPE_CHECKING:
    from relay.settings.model import Settings


def build_judge(settings: Settings) -> Judge:
    """Build what looks at messages: the operator's rules and ignores, then those of the presets."""
    return Judge(
        [found.table.rule() for found in in_force.rules(settings)],
        [found.table.ignore() for found in in_force.ignores(settings)],
        window=settings.dedup.window,
        observe=settings.dedup.mode == "observe",
    )
