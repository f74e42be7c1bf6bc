"""The judge that the default settings build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings import Settings
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from relay.judge.judge import Judge


def avideo_judge(window: float = 600.0) -> Judge:
    """Returns a judge with the default rules and ignores. `window` in seconds."""
    return build_judge(Settings.model_validate({"dedup": {"window": f"{window}s" if window else 0}}))


def judge_without_presets(window: float = 600.0) -> Judge:
    """Returns a judge without rules, so that `window` in seconds applies to every message."""
    return build_judge(Settings.model_validate({"dedup": {"window": f"{window}s" if window else 0, "presets": []}}))
