"""The pairs of tests/corpus, and how each is judged by default."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from parts.judging import avideo_judge
from relay.core.envelope import Recipient

if TYPE_CHECKING:
    from relay.core.fingerprint import Judge, Judged

CORPUS = Path(__file__).parents[1] / "corpus"
PAIRS = sorted(path.with_suffix("") for path in CORPUS.glob("*/*.txt"))
"""Each without a suffix; its messages are `NAME.a.eml` and `NAME.b.eml`."""
MESSAGES = sorted(CORPUS.glob("*/*.eml"))
BOB = Recipient("bob@example.org")


def name(path: Path) -> str:
    """Give what a pair or a message is called in the corpus."""
    return path.relative_to(CORPUS).as_posix()


@cache
def judge() -> Judge:
    """Give the judge that holds by default."""
    return avideo_judge()


def look(path: Path) -> Judged:
    """Judge a message of the corpus."""
    return judge()(path.read_bytes(), b"contact@example.org")
