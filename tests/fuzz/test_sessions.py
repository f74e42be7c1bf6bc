"""A short run of the session target without the fuzzer. docs/fuzzing.md explains the long run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.sessions import STATES, Fuzzed

FUZZ = Path(__file__).parent
WORDS = [
    line[1:-1].encode("ascii").decode("unicode_escape").encode("latin-1")
    for line in (FUZZ / "sessions.dict").read_text().splitlines()
    if line.startswith('"')
]


def test_the_target_holds_for_earlier_findings() -> None:
    for path in (FUZZ / "session_findings").glob("*,*"):
        with Fuzzed(path.name.partition(",")[0]) as fuzzed:
            fuzzed(path.read_bytes())


@pytest.mark.parametrize("state", STATES)
def test_the_target_holds_in_each_state(state: str) -> None:
    with Fuzzed(state) as fuzzed:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=4)), max_size=12).map(b"".join))
        def play(octets: bytes) -> None:
            fuzzed(octets)

        play()
