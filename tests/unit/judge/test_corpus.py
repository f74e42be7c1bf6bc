"""The corpus: pairs of messages that a reader can or cannot tell apart, and the pinned digest of each message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from parts.corpus import BOB, CORPUS, DIGESTS, FAMILIES, MESSAGES, PAIRS, digests, judge_file, name

from relay.core.ruling import Action
from relay.judge.fingerprint.digest import VERSION

if TYPE_CHECKING:
    from pathlib import Path

EXEMPT = {
    "avideo-recovery": "avideo: password recovery",
    "avideo-verification": "avideo: e-mail verification",
    "avideo-two-factor": "avideo: two-factor sign-in",
    "avideo-test-mail": "avideo: test mail",
    "avideo-wallet": "avideo: receipts",
    "mastodon-confirmation": "codes: link with a token",
    "wordpress-confirm-action": "codes: link with a token",
    "wordpress-password-reset": "codes: link with a token",
    "one-time-code": "codes: one-time code",
    "subject-digit": "codes: one-time code",
    "subject-into-text.b": "codes: one-time code",
    "part-field-like-a-part.a": "codes: one-time code",
    "broken-base64-truncated": "codes: one-time code",
}
"""Prefixes of the names of the pairs that a default rule exempts, and the rule."""
WRITE_DIGESTS = "PYTHONPATH=tests:. .venv/bin/python -m parts.corpus"


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_pair_is_equal_only_where_the_corpus_says_so(pair: Path) -> None:
    first, second = (judge_file(pair.with_name(f"{pair.name}.{letter}.eml")) for letter in "ab")
    equal = first.fingerprint(BOB) == second.fingerprint(BOB)
    assert equal == (pair.parent.name == "same"), pair.with_suffix(".txt").read_text()


def test_every_message_belongs_to_a_pair_and_pairs_and_families_give_their_reason() -> None:
    expected = {pair.with_name(f"{pair.name}.{letter}.eml") for pair in PAIRS for letter in "ab"}
    assert expected == set(MESSAGES)
    assert {pair.parent.name for pair in PAIRS} == {"same", "different"}
    reasons = [*(pair.with_suffix(".txt") for pair in PAIRS), *(family / "why.txt" for family in FAMILIES)]
    assert all(len(reason.read_text().splitlines()) == 1 for reason in reasons)


def test_digests_are_pinned() -> None:
    """A changed digest makes running relays forget what they have sent. It needs a new VERSION and new digests."""
    pinned = json.loads(DIGESTS.read_text())
    found = digests()
    changed = {message for message, digest in found.items() if pinned["digests"].get(message, digest) != digest}
    assert pinned["version"] == VERSION, f"new VERSION: write new digests with `{WRITE_DIGESTS}`"
    assert not changed, "fingerprints have changed: raise VERSION in relay/judge/judge.py"
    assert set(pinned["digests"]) == set(found), f"write the digests of new messages with `{WRITE_DIGESTS}`"


def exempting_rule(path: Path) -> str | None:
    ruling = judge_file(path).ruling(BOB)
    return ruling.rule if ruling.action is Action.EXEMPT else None


@pytest.mark.parametrize(("prefix", "rule"), EXEMPT.items())
def test_mail_that_must_not_be_suppressed_is_exempt(prefix: str, rule: str) -> None:
    found = [path for path in MESSAGES if path.name.startswith(prefix)]
    assert found
    assert {exempting_rule(path) for path in found} == {rule}


def test_no_other_mail_is_exempt() -> None:
    exempt = {path.name for path in MESSAGES if exempting_rule(path)}
    assert {path for path in exempt if not path.startswith(tuple(EXEMPT))} == set()


def test_a_broken_message_counts_with_its_raw_bytes() -> None:
    broken = list(CORPUS.glob("broken/different/*.eml"))
    assert broken
    for path in broken:
        judged = judge_file(path)
        form = judged.normal_form(judged.rule(BOB))
        assert form.broken or {"raw", "bytes"} & {field.label for field in form.fields}, path.name
