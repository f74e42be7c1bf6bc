"""Each single change that a reader could see changes the fingerprint, except where a default ignore applies."""

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
"""Offsets for each kind of change in each message, spread evenly; `MUTATIONS=all` changes every place."""

NOT_COUNTED = {
    "avideo: image cache": re.compile(rb"[?&;]cache=(?:not_found|[0-9a-f_]+)"),
    "avideo: image cache, bare number": re.compile(rb"\.(?:jpe?g|png|gif|webp)\?[0-9]{10}(?=[\"'])"),
}
"""The default ignores, and the source in which each may ignore a change."""

tried: Counter[str] = Counter()
ignored_changes: Counter[str] = Counter()


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
        tried[mutation.kind] += 1
        after = judge()(mutation.content, b"contact@example.org")
        if after.fingerprint(BOB) != fingerprint:
            continue
        # Only an ignore may cause this: the form names the ignore, and the change is where that ignore applies.
        names = {now.name for now in set(after.normal_form(after.rule(BOB)).ignored) ^ set(ignored)}
        assert len(names) == 1, f"{mutation.kind} does not count: {around(mutation.content, mutation.at)!r}"
        (ignore,) = names
        spans = [found.span() for found in NOT_COUNTED[ignore].finditer(content)]
        assert any(start <= mutation.at < end for start, end in spans), around(mutation.content, mutation.at)
        ignored_changes[ignore] += 1


def around(content: bytes, at: int) -> bytes:
    return content[max(0, at - 40) : at + 40]


def test_every_kind_of_change_was_tried_and_every_exception_is_used() -> None:
    """Checks the counts of the test above for all messages. If it runs alone, it makes the changes itself."""
    if len(tried) < 5:
        tried.clear()
        ignored_changes.clear()
        for path in MESSAGES:
            test_a_single_visible_change_changes_the_fingerprint(path)
    assert min(tried.values()) > 20, tried
    assert set(ignored_changes) == set(NOT_COUNTED)
    sys.stderr.write(f"\n{tried.total()} changes: {dict(tried)}; ignored: {dict(ignored_changes)}\n")
