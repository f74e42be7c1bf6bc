"""Where two readers could understand two messages differently, the fingerprints of the messages differ.

`READERS_PAIRS=8500 READERS_SEED=7 python -m pytest tests/unit/judge/test_readers.py` (`make readers`) tries more pairs.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from parts.corpus import BOB
from parts.judging import avideo_judge
from parts.readers_crafted import CRAFTED
from parts.readers_pairs import pairs
from parts.readers_stacks import Readers, started

from relay.judge.text.decode import _CODECS, UNICODE, decode_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COUNT = int(os.environ.get("READERS_PAIRS", "1000"))
SEED = int(os.environ.get("READERS_SEED", "1"))
TWO_OCTETS = {"shift_jis", "euc-jp", "gb2312", "gbk", "gb18030", "big5", "euc-kr"}
JUDGE = avideo_judge()


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with started() as some:
        yield some


def are_equal(first: bytes, second: bytes) -> bool:
    one, other = (JUDGE(message, b"a@example.com").fingerprint(BOB) for message in (first, second))
    return one == other


def confused(some: Iterable[tuple[str, bytes, bytes]], readers: Readers) -> dict[str, list[str]]:
    """Returns the pairs with equal fingerprints that some readers show differently, and these readers."""
    equal = [pair for pair in some if are_equal(*pair[1:])]
    shown = readers.show(message for _, *both in equal for message in both)
    views = zip(equal, shown[::2], shown[1::2], strict=True)
    return {
        name: differing
        for (name, *_), one, other in views
        if (differing := [reader for reader in one if one[reader] != other[reader]])
    }


def test_generated_pairs_that_a_reader_shows_differently_are_different(readers: Readers) -> None:
    assert confused(pairs(SEED, COUNT), readers) == {}


def test_crafted_pairs_that_a_reader_shows_differently_are_different(readers: Readers) -> None:
    assert confused(CRAFTED, readers) == {}


@pytest.mark.parametrize(("name", "first", "second"), CRAFTED, ids=[name for name, *_ in CRAFTED])
def test_a_crafted_pair_is_different(name: str, first: bytes, second: bytes) -> None:
    """Each was equal once. No reader of the tests needs to show the difference, as others do."""
    assert not are_equal(first, second)


def test_the_readers_show_what_a_message_says(readers: Readers) -> None:
    """A reader that fails on every message would find nothing."""
    encoded = base64.b64encode(b"Caf\xc3\xa9")
    message = (
        b"From: Shop <shop@example.com>\r\nSubject: =?utf-8?B?%b?=\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n%b\r\n--b\r\nContent-Type: image/png\r\n"
        b"Content-Disposition: attachment; filename=a.png\r\n\r\nPNG\r\n--b--\r\n"
    ) % (encoded, encoded)
    (shown,) = readers.show([message])
    assert set(shown) == {"email", "compat32", "mailparser", "postalMime", "mailparse", "iconv", "mbstring"}
    for name, view in shown.items():
        assert str(view).count("Café") == (1 if name in ("iconv", "mbstring", "mailparse") else 2), (name, view)
        assert ("a.png" in str(view)) == (name not in ("iconv", "mbstring")), (name, view)


def codes(charset: str) -> list[bytes]:
    """Returns the octets of each character that the relay takes for certain."""
    some = [bytes([octet]) for octet in range(0x20, 0x100)]
    if charset in TWO_OCTETS:
        some += [bytes([lead, tail]) for lead in range(0x81, 0xFF) for tail in range(0x30, 0xFF)]
    if charset == "iso-2022-jp":
        cells = [bytes([row, cell]) for row in range(0x21, 0x7F) for cell in range(0x21, 0x7F)]
        some = [escape + cell + b"\x1b(B" for escape in (b"\x1b$B", b"\x1b$@") for cell in cells]
        some += [b"\x1b(J%c\x1b(B" % octet for octet in range(0x21, 0x7F)]
    return [code for code in some if decode_text(code, charset) is not None]


@pytest.mark.parametrize("charset", sorted(set(_CODECS) - UNICODE))
def test_all_tables_agree_about_each_character(charset: str, readers: Readers) -> None:
    certain = codes(charset)
    expected = [decode_text(code, charset) for code in certain]
    assert len(certain) >= 96
    tables = {name: texts for name, texts in readers.decode(charset, certain).items() if texts is not None}
    assert tables
    for name, texts in tables.items():
        differing = [
            (code, text, other) for code, text, other in zip(certain, expected, texts, strict=True) if text != other
        ]
        assert not differing, (name, differing[:10])
