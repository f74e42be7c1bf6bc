"""A short run of the fuzz target without the fuzzer. docs/fuzzing.md explains the long run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.corpus import MESSAGES

from fuzz.target import examine, measure

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

FUZZ = Path(__file__).parent
FINDINGS = sorted(path for path in (FUZZ / "findings").glob("*") if path.suffix != ".md")
WORDS = [
    line[1:-1].encode("ascii").decode("unicode_escape").encode("latin-1")
    for line in (FUZZ / "mail.dict").read_text().splitlines()
    if line.startswith('"')
]


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_the_target_holds_for_earlier_findings(path: Path) -> None:
    measure(path.read_bytes())


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(MESSAGES), st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.randoms())
def test_the_target_holds_for_changed_messages(path: Path, words: Sequence[bytes], chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for word in words:
        at = chance.randrange(len(content) + 1)
        content[at : at + chance.choice((0, len(word), 40))] = word
    examine(bytes(content))
