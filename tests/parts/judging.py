"""The judgement as it is by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings import Settings
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from relay.judge.judge import Judge


def avideo_judge(window: float = 600.0) -> Judge:
    """Give a judge with the rules and ignores that hold unless an operator says otherwise. `window` in seconds."""
    return build_judge(Settings.model_validate({"dedup": {"window": f"{window}s" if window else 0}}))
