"""The corpus: pairs of messages that a reader can or cannot tell apart, and the digest that each must keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from parts.corpus import BOB, CORPUS, DIGESTS, MESSAGES, PAIRS, digests, look, name

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
}
"""How the names of pairs begin that a default rule exempts, and the rule."""


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_pair_is_the_same_only_where_the_corpus_says_so(pair: Path) -> None:
    first, second = (look(pair.with_name(f"{pair.name}.{letter}.eml")) for letter in "ab")
    same = first.fingerprint(BOB) == second.fingerprint(BOB)
    assert same == (pair.parent.name == "same"), pair.with_suffix(".txt").read_text()


def test_every_message_belongs_to_a_pair_that_says_why() -> None:
    expected = {pair.with_name(f"{pair.name}.{letter}.eml") for pair in PAIRS for letter in "ab"}
    assert expected == set(MESSAGES)
    assert all(len(pair.with_suffix(".txt").read_text().splitlines()) == 1 for pair in PAIRS)


def test_digests_are_pinned() -> None:
    """A digest that changes makes running relays forget. It needs a new VERSION, and then new digests:

    python -m tests.parts.corpus
    """
    pinned = json.loads(DIGESTS.read_text())
    found = digests()
    changed = {message for message, digest in found.items() if pinned["digests"].get(message, digest) != digest}
    assert pinned["version"] == VERSION, "new VERSION: write the digests anew with `python -m tests.parts.corpus`"
    assert not changed, "the fingerprint has changed: raise VERSION in relay/judge/judge.py"
    assert set(pinned["digests"]) == set(found), "write the digests of new messages with `python -m tests.parts.corpus`"


def exempting_rule(path: Path) -> str | None:
    ruling = look(path).ruling(BOB)
    return ruling.rule if ruling.action is Action.EXEMPT else None


@pytest.mark.parametrize(("prefix", "rule"), EXEMPT.items())
def test_mails_that_must_not_be_kept_back_are_exempt(prefix: str, rule: str) -> None:
    found = [path for path in MESSAGES if path.name.startswith(prefix)]
    assert found
    assert {exempting_rule(path) for path in found} == {rule}


def test_no_other_mail_is_exempt() -> None:
    exempt = {path.name for path in MESSAGES if exempting_rule(path)}
    assert {path for path in exempt if not path.startswith(tuple(EXEMPT))} == set()


def test_pairs_named_broken_are_broken_or_raw() -> None:
    for path in CORPUS.glob("different/broken-*.eml"):
        judged = look(path)
        form = judged.normal_form(judged.rule(BOB))
        assert form.broken or {"raw", "bytes"} & {field.label for field in form.fields}, path.name
