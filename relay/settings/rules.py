"""Builds the judge from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.judge.judge import Judge
from relay.settings import effective

if TYPE_CHECKING:
    from relay.settings.model import Settings


def build_judge(settings: Settings) -> Judge:
    """Returns the judge with the operator's rules and ignores, followed by those of the presets."""
    return Judge(
        [each.table.rule() for each in effective.rules(settings)],
        [each.table.ignore() for each in effective.ignores(settings)],
        window=settings.dedup.window,
        observe=settings.dedup.mode == "observe",
        key_headers=[name.lower() for name in settings.dedup.key_header],
    )
