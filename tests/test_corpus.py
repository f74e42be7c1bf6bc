"""The corpus: pairs of messages that a reader can or cannot tell apart, and the digest that each must keep."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from relay.core.envelope import Recipient
from relay.core.fingerprint import VERSION, Judged, judge

CORPUS = Path(__file__).parent / "corpus"
DIGESTS = CORPUS / "digests.json"
PAIRS = sorted(path.with_suffix("") for path in CORPUS.glob("*/*.txt"))
MESSAGES = sorted(CORPUS.glob("*/*.eml"))
BOB = Recipient("bob@example.org")


def name(path: Path) -> str:
    return path.relative_to(CORPUS).as_posix()


def read(path: Path) -> Judged:
    return judge(path.read_bytes(), b"contact@example.org")


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_pair_is_the_same_only_where_the_corpus_says_so(pair: Path) -> None:
    first, second = (read(pair.with_name(f"{pair.name}.{letter}.eml")) for letter in "ab")
    same = first.fingerprint(BOB) == second.fingerprint(BOB)
    assert same == (pair.parent.name == "same"), pair.with_suffix(".txt").read_text()


def test_every_message_belongs_to_a_pair_that_says_why() -> None:
    expected = {pair.with_name(f"{pair.name}.{letter}.eml") for pair in PAIRS for letter in "ab"}
    assert expected == set(MESSAGES)
    assert all(len(pair.with_suffix(".txt").read_text().splitlines()) == 1 for pair in PAIRS)


def test_digests_are_pinned() -> None:
    """A digest that changes makes running relays forget. It needs a new VERSION, and then new digests:

    python tests/test_corpus.py
    """
    pinned = json.loads(DIGESTS.read_text())
    changed = {message for message, digest in digests().items() if pinned["digests"].get(message) != digest}
    assert pinned["version"] == VERSION, "new VERSION: write the digests anew with `python tests/test_corpus.py`"
    assert not changed, "the fingerprint has changed: raise VERSION in relay/core/fingerprint.py"


def digests() -> dict[str, str]:
    return {name(path): read(path).fingerprint(BOB) for path in MESSAGES}


@pytest.mark.parametrize("kind", ["recovery", "verification", "two-factor"])
def test_mails_with_a_token_are_exempt(kind: str) -> None:
    for letter in "ab":
        assert (read(CORPUS / "different" / f"avideo-{kind}.{letter}.eml").exempt or "").startswith("avideo: ")


def test_no_other_mail_is_exempt() -> None:
    exempt = {path.name.partition(".")[0] for path in MESSAGES if read(path).exempt}
    assert exempt == {"avideo-recovery", "avideo-verification", "avideo-two-factor"}


def test_pairs_named_broken_are_broken_or_raw() -> None:
    for path in CORPUS.glob("different/broken-*.eml"):
        form = read(path).form
        assert form.broken or {"raw", "bytes"} & {field.label for field in form.fields}, path.name


NOISE_AT = re.compile(rb"cache=[0-9a-f_not]+|\.jpg\?\d{10}(?=')")


@pytest.mark.parametrize("path", [path for path in MESSAGES if path.name.endswith(".a.eml")], ids=name)
def test_a_single_visible_mutation_changes_the_fingerprint(path: Path) -> None:
    """Each digit and each letter of the body of a message, one at a time, but where a cache value stands."""
    content = path.read_bytes()
    before = read(path).fingerprint(BOB)
    start = max(content.find(b"\r\n\r\n"), content.find(b"\n\n"), 0)
    hidden = [range(*match.span()) for match in NOISE_AT.finditer(content)] if "cache-in" not in path.name else []
    for at in visible(content, start):
        if any(at in span for span in hidden):
            continue
        mutated = content[:at] + (b"7" if content[at : at + 1] != b"7" else b"8") + content[at + 1 :]
        assert judge(mutated, b"contact@example.org").fingerprint(BOB) != before, mutated[max(0, at - 40) : at + 40]


def visible(content: bytes, start: int) -> list[int]:
    """Give the offsets of letters and digits outside of part header sections and boundaries."""
    found = []
    in_header = False
    at = start
    for line in content[start:].splitlines(keepends=True):
        if line.startswith(b"--"):
            in_header = True
        elif not line.strip():
            in_header = False
        elif not in_header:
            found += [at + offset for offset, byte in enumerate(line) if chr(byte).isascii() and chr(byte).isalnum()]
        at += len(line)
    return found


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({"version": VERSION, "digests": digests()}, indent=1) + "\n")
