"""Each single change that a reader could see changes the fingerprint, but where a rule says that it does not count."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.corpus import BOB, MESSAGES, judge, judge_file, name
from parts.mutations import mutations

if TYPE_CHECKING:
    from pathlib import Path

ALL = os.environ.get("MUTATIONS") == "all"
PLACES = 6
"""For each kind of change and each message, spread evenly; `MUTATIONS=all` changes every place."""

NOT_COUNTED = {
    "avideo: image cache": re.compile(rb"[?&;]cache=(?:not_found|[0-9a-f_]+)"),
    "avideo: image cache, bare number": re.compile(rb"\.(?:jpe?g|png|gif|webp)\?[0-9]{10}(?=[\"'])"),
}
"""The ignores that hold by default, and the source in which each may swallow a change."""

tried: Counter[str] = Counter()
swallowed: Counter[str] = Counter()


def choose(places: list[int]) -> list[int]:
    if ALL or len(places) <= PLACES:
        return places
    return [places[number * (len(places) - 1) // (PLACES - 1)] for number in range(PLACES)]


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_a_single_visible_change_changes_the_fingerprint(path: Path) -> None:
    content = path.read_bytes()
    before = judge_file(path)
    fingerprint, ignored = before.fingerprint(BOB), before.normal_form(before.rule(BOB)).ignored
    for mutation in mutations(content, choose):
        tried[mutation.what] += 1
        after = judge()(mutation.content, b"contact@example.org")
        if after.fingerprint(BOB) != fingerprint:
            continue
        # Only an ignore may have swallowed it: it says so itself, and the change stands where it may.
        names = {now.name for now in set(after.normal_form(after.rule(BOB)).ignored) ^ set(ignored)}
        assert len(names) == 1, f"{mutation.what} does not count: {around(mutation.content, mutation.at)!r}"
        (swallower,) = names
        spans = [found.span() for found in NOT_COUNTED[swallower].finditer(content)]
        assert any(start <= mutation.at < end for start, end in spans), around(mutation.content, mutation.at)
        swallowed[swallower] += 1


def around(content: bytes, at: int) -> bytes:
    return content[max(0, at - 40) : at + 40]


def test_every_kind_of_change_was_tried_and_every_exception_is_used() -> None:
    """Of all messages: where only this test is run, it makes the changes itself."""
    if len(tried) < 5:
        tried.clear()
        swallowed.clear()
        for path in MESSAGES:
            test_a_single_visible_change_changes_the_fingerprint(path)
    assert min(tried.values()) > 20, tried
    assert set(swallowed) == set(NOT_COUNTED)
    sys.stderr.write(f"\n{tried.total()} changes: {dict(tried)}; did not count: {dict(swallowed)}\n")
