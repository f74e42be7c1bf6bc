"""The pairs of messages in tests/corpus, and how the default rules judge them."""

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
FAMILIES = sorted(path for path in CORPUS.iterdir() if path.is_dir())
"""Folders, each with a `why.txt`, which says what the family is evidence for."""
PAIRS = sorted(path.with_suffix("") for path in CORPUS.glob("*/*/*.txt"))
"""Paths `FAMILY/same/NAME` and `FAMILY/different/NAME`; the messages are `NAME.a.eml` and `NAME.b.eml`."""
MESSAGES = sorted(CORPUS.glob("*/*/*.eml"))
DIGESTS = CORPUS / "digests.json"
BOB = Recipient("bob@example.org")


def name(path: Path) -> str:
    """Returns the path of a pair or a message within the corpus."""
    return path.relative_to(CORPUS).as_posix()


@cache
def judge() -> Judge:
    """Returns a judge with the default rules."""
    return avideo_judge()


def judge_file(path: Path) -> MessageAnalysis:
    """Judges a message of the corpus by the default rules."""
    return judge()(path.read_bytes(), b"contact@example.org")


def digests() -> dict[str, str]:
    """Returns the fingerprint of each message of the corpus, by name."""
    return {name(path): judge_file(path).fingerprint(BOB) for path in MESSAGES}


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({"version": VERSION, "digests": digests()}, indent=1) + "\n")
    sys.stderr.write(f"{len(MESSAGES)} digests of version {VERSION} written to {DIGESTS.name}\n")
