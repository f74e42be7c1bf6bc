"""The pairs of tests/corpus, and how each is judged by default."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from parts.judging import avideo_judge
from relay.core.envelope import Recipient
from relay.judge.fingerprint.digest import VERSION

if TYPE_CHECKING:
    from relay.judge.judge import Judge, MessageAnalysis

CORPUS = Path(__file__).parents[1] / "corpus"
PAIRS = sorted(path.with_suffix("") for path in CORPUS.glob("*/*.txt"))
"""Each without a suffix; its messages are `NAME.a.eml` and `NAME.b.eml`."""
MESSAGES = sorted(CORPUS.glob("*/*.eml"))
DIGESTS = CORPUS / "digests.json"
BOB = Recipient("bob@example.org")


def name(path: Path) -> str:
    """Give what a pair or a message is called in the corpus."""
    return path.relative_to(CORPUS).as_posix()


@cache
def judge() -> Judge:
    """Give the judge that holds by default."""
    return avideo_judge()


def look(path: Path) -> MessageAnalysis:
    """Judge a message of the corpus."""
    return judge()(path.read_bytes(), b"contact@example.org")


def digests() -> dict[str, str]:
    """Returns the fingerprint of each message of the corpus, by name."""
    return {name(path): look(path).fingerprint(BOB) for path in MESSAGES}


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({"version": VERSION, "digests": digests()}, indent=1) + "\n")
    sys.stderr.write(f"{len(MESSAGES)} digests of version {VERSION} written to {DIGESTS.name}\n")
