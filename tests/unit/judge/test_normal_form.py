"""What counts and what does not, without ignores. Only generated Content-IDs do not count."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.judge.fingerprint.decoded import decode_message
from relay.judge.fingerprint.normal_form import NormalForm, normalise
from relay.judge.mime.parser import parse
from relay.judge.rules.ignores import Ignores
from relay.judge.text.decode import (
    _NOT_FOR_NFC,
    _PREFORMATTED,
    _SPACE_IN_VALUE,
    _SPACE_THAT_COUNTS,
    _UNSHOWN_LINE_END,
    _WHITE_SPACE_MAY_COUNT,
    TEXT_LIMIT,
    decode_text,
    display_text,
    fold_text,
    may_keep_white_space,
    read_html,
    read_lines,
    read_text,
)


def form(content: str | bytes) -> NormalForm:
    octets = content.replace("\n", "\r\n").encode() if isinstance(content, str) else content
    return normalise(decode_message(parse(octets), b"envelope@example.org"), Ignores())


def fields(content: str | bytes) -> list[tuple[str, bytes]]:
    return [tuple(field) for field in form(content).fields]


def test_the_normal_form_of_a_message_with_every_kind_of_field() -> None:
    content = (
        "Subject: =?utf-8?q?Hi?=\nFrom: Anna <a@example.org>\nTo: b@example.org\nReply-To: c@example.org\n"
        "List-Id: <l.example.org>\nX-Mailer: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "This is MIME.\n--b\nContent-Type: text/plain; charset=utf-8; format=flowed\n\nHello  Bob,\nbye\n"
        '--b\nContent-Type: application/pdf; name="a.pdf"\nContent-Disposition: attachment; filename="a.pdf"\n'
        "Content-Transfer-Encoding: base64\nX-Part: 1\n\nYWJj\n--b--\nend\n"
    )
    digest = b"3 bytes, blake2b bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    assert fields(content) == [
        ("Subject", b"Hi"),
        ("From", b"Anna <a@example.org>"),
        ("List-Id", b"<l.example.org>"),
        ("Reply-To", b"c@example.org"),
        ("Date (missing)", b""),
        ("reverse-path domain", b"example.org"),
        ("parts", b"multipart/mixed"),
        ("preamble", b"This is MIME."),
        ("part", b"text/plain"),
        ("parameter format", b"flowed"),
        ("text", b"Hello  Bob,\nbye"),
        ("part", b"application/pdf"),
        ("parameter name", b"a.pdf"),
        ("disposition", b"attachment"),
        ("parameter filename", b"a.pdf"),
        ("field x-part", b"1"),
        ("bytes", digest),
        ("epilogue", b"end"),
        ("end of parts", b""),
    ]


def test_the_reverse_path_replaces_a_missing_from_field() -> None:
    assert ("reverse-path", b"envelope@example.org") in fields("Subject: x\n\nx")
    assert "reverse-path" not in dict(fields("From: a@example.org\n\nx"))


def test_a_broken_body_counts_raw_after_the_readable_header_fields() -> None:
    broken = fields("Subject: x\nContent-Type: multipart/mixed\n\nbody")
    assert [label for label, _ in broken] == [
        "Subject",
        "Date (missing)",
        "reverse-path",
        "content-type (raw)",
        "raw body",
    ]
    assert [label for label, _ in fields("nonsense")] == ["reverse-path", "raw content"]


def test_a_missing_mime_version_counts_in_a_mime_message() -> None:
    assert "MIME-Version" not in dict(fields("Subject: x\n\nx"))
    assert "MIME-Version" in dict(fields("Content-Type: text/html\n\nx"))
    assert "MIME-Version" not in dict(fields("MIME-Version: 1.0 (Mail 1)\nContent-Type: text/html\n\nx"))


@pytest.mark.parametrize(
    "charset",
    [
        "utf-7",
        "unicode_escape",
        "raw_unicode_escape",
        "idna",
        "punycode",
        "rot13",
        "zlib",
        "base64",
        "hex",
        "undefined",
        "mbcs",
        "utf-16",
        "no\0such",
    ],
)
def test_dangerous_and_unknown_codecs_are_not_used(charset: str) -> None:
    assert decode_text(b"abc", charset) is None


@pytest.mark.parametrize("charset", ["shift_jis", "euc-jp", "euc-kr", "gb2312", "gbk", "gb18030", "big5"])
def test_octets_that_readers_map_to_different_characters_are_not_decoded(charset: str) -> None:
    assert decode_text("a \u4e00".encode(charset), charset) == "a \u4e00"
    assert decode_text(b"\\100", charset) is None
    assert decode_text(b"~100", charset) is None
    assert decode_text(b"\xa1\xa4\xa1\xaa", "gbk") is None


@pytest.mark.parametrize("octets", [b"\x1b$B$$", b"\x1b$B$$\r\n$$\x1b(B", b"\x1b(J\n\x1b(B"])
def test_a_line_that_does_not_end_in_the_first_state_is_not_decoded(octets: bytes) -> None:
    assert decode_text(octets, "iso-2022-jp") is None
    assert decode_text(b"\x1b$B$$\x1b(B\r\nx", "iso-2022-jp") == "\u3044\r\nx"


@pytest.mark.parametrize(
    ("octets", "charset"),
    [
        (b"\xa4\xd4\xa4\xa1\xa4\xbf\xa4\xd4", "euc-kr"),
        ("\ubdc1".encode("euc-kr"), "euc-kr"),  # A syllable with no other spelling in that charset.
        (b"\xae", "koi8-u"),
        (b"\xbe", "koi8-u"),
        (b"\x1b$@0l\x1b(B", "iso-2022-jp"),
        (b"\x1b(Ja\x1b(B", "iso-2022-jp"),
        (b"\xa8\xbc", "gb18030"),
    ],
)
def test_text_with_two_spellings_or_two_displays_is_not_decoded(octets: bytes, charset: str) -> None:
    assert decode_text(octets, charset) is None


def test_only_ascii_white_space_is_folded() -> None:
    assert fold_text(" a \t\r\n\f b ") == b"a b"
    assert fold_text("e\u0301") == "\u00e9".encode()
    for kept in "\u00a0\u200b\u2028\u3000\u0085\x1c\x1f":
        assert fold_text(f"a{kept}b") == f"a{kept}b".encode()
    assert fold_text("a\0b") is None
    assert fold_text("a\vb") is None


@pytest.mark.parametrize("kept", ["\u037e", "\u1fef", "\u212a", ">\u0338", "=\u0323\u0338"])
def test_text_in_which_nfc_would_add_or_remove_ascii_characters_is_not_composed(kept: str) -> None:
    assert unicodedata.normalize("NFC", kept) != kept
    assert fold_text(f" {kept}  e\u0301") == f"{kept} e\u0301".encode()
    assert read_text(kept.encode(), "utf-8") == kept.encode()


def test_all_code_points_that_nfc_turns_into_ascii_are_known() -> None:
    """All code points that NFC joins to an ASCII sign other than a letter contain the stroke U+0338."""
    made, struck = set(), set()
    for char in map(chr, range(0x80, sys.maxunicode + 1)):
        made |= {char} if unicodedata.normalize("NFC", char).isascii() else set()
        parts = unicodedata.normalize("NFD", char)
        struck |= {parts[1:]} if len(parts) > 1 and parts[0].isascii() and not parts[0].isalpha() else set()
    assert all(_NOT_FOR_NFC.search(found) for found in made | struck)


def test_html_keeps_code_points_and_line_breaks_in_values() -> None:
    page = "<p  a =\n'b\r\nc\td  e'\n f=\"\t\"> x\ny <b> z e\u0301 \u212a"
    assert read_html(page.encode(), "utf-8") == "<p a = 'b\nc\td  e' f=\"\t\"> x y <b> z e\u0301 \u212a".encode()
    for unclear in ('<p  a="x\r\ny < z">', "<p  a='>\t'>", '<style>a  b "\r\n"</style>', '="x\ny <b  c>"'):
        assert read_html(unclear.encode(), "utf-8") == unclear.replace("\r\n", "\n").encode()
    assert read_html("=' \u00e9\n'".encode("latin-1"), "latin1") == "=' \u00e9\n'".encode()
    assert read_html(b"a\0", "utf-8") is read_html(b"\xff", "utf-8") is read_html(b"a\v", "latin1") is None


def test_other_text_types_keep_everything_but_line_ends() -> None:
    assert read_lines(b"a \tb\r\n c\r\n", "us-ascii") == b"a \tb\n c\n"
    assert read_lines(b"\r\r\n", "utf-8") != read_lines(b"\r\n", "utf-8")
    assert read_lines("e\u0301".encode(), "utf-8") == "e\u0301".encode()
    assert read_lines(b"a\0", "utf-8") is None


def test_plain_text_counts_as_displayed() -> None:
    assert display_text("\n  a\t b \t\r\n\n c \n\t\r\n") == b"\n  a\t b\n\n c"
    assert display_text("a\rb") == b"a\rb"
    assert display_text("e\u0301\u00a0\n") == "\u00e9\u00a0".encode()
    assert display_text("a\0b") is display_text("a" * (TEXT_LIMIT + 1)) is None


@pytest.mark.parametrize(
    "page",
    [
        "<pre>a  b</pre>",
        "<TEXTAREA>a\n b</TEXTAREA>",
        "<xmp>a  b",
        "<listing a>a  b",
        "<!-- <pre> -->a  b",
        "<svg><text xml:space='preserve'>a  b",
        "<style>p{WHITE-SPACE:pre}</style>a  b",
        "<p style='white\\-space:pre'>a  b",
        "<p style='&#119;hite-space:pre'>a  b",
        "<link rel=stylesheet href=x>a  b",
        "<style>@import 'x'</style>a  b",
        "<p>\u4f60\n\u597d  x",
    ],
)
def test_html_keeps_the_white_space_that_a_browser_may_show(page: str) -> None:
    assert read_html(page.encode(), "utf-8") == page.encode()


def test_html_is_folded_up_to_the_first_preformatted_element() -> None:
    assert read_html(b" a \n b <pre> a \r\n b </pre> c  d ", "utf-8") == b"a b <pre> a \n b </pre> c  d "
    assert read_html(b"<pr>a  b", "utf-8") == b"<pr>a b"


def test_very_long_text_is_compared_byte_for_byte() -> None:
    assert fold_text("a" * (TEXT_LIMIT + 1)) is None
    labels = dict(fields(b"Subject: x\r\n\r\n" + b"a" * (TEXT_LIMIT + 1)))
    assert "bytes" in labels
    assert "text" not in labels


def test_a_hostile_run_of_combining_characters_takes_bounded_time() -> None:
    start = time.process_time()
    assert fold_text("a" + "\u0300\u0327" * 400_000) is None
    assert fold_text(("a" + "\u0300\u0327" * 100) * 4_000) is not None
    assert time.process_time() - start < 3


@given(
    st.text(st.sampled_from("ae\u0301\u0327\u00e9\u2014\u1100\u1161\u212b \t\r\n\f\v\0\ud7a3")),
    st.sampled_from(["us-ascii", "utf-8", "utf8", "iso-8859-1", "gb18030", "x-none"]),
)
def test_a_plain_text_is_decoded_and_then_folded(text: str, charset: str) -> None:
    octets = text.encode()
    decoded = decode_text(octets, charset)
    assert read_text(octets, charset) == (None if decoded is None else fold_text(decoded))


def related(container: str, first: str, second: str, page: str = "<img src='cid:{0}'><img src='cid:{1}'>") -> str:
    image = "Content-Type: image/gif\nContent-ID: <{}>\n\n{}\n--b"
    return (
        f"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n{container}\n--b\n"
        "Content-Type: text/html\n\n"
        + page.format(first, second)
        + "\n--b\n"
        + image.format(first, 1)
        + "\n"
        + image.format(second, 2)
        + "--\n"
    )


ONE = "<img src='cid:{1}'>"


def test_content_ids_count_unless_each_belongs_to_one_leaf() -> None:
    assert fields(related("", "x", "a")) == fields(related("", "y", "a"))
    assert fields(related("", "a", "a")) != fields(related("", "x", "a"))
    for container in ("Content-ID: <a>\n", "Content-ID: <c>\n"):
        assert fields(related(container, "x", "a")) != fields(related("", "x", "a"))
        assert fields(related(container, "x", "a")) != fields(related(container, "y", "a"))
    for other in ("a%41", "A", "a&amp;b", "b>\nContent-ID: <c", "b> (c)"):
        assert fields(related("", other, "a", ONE)) != fields(related("", other, "b", ONE))


def test_a_content_id_without_a_known_reference_counts() -> None:
    assert fields(related("", "x", "a", ONE)) == fields(related("", "x", "b", ONE))
    assert fields(related("", "x", "a", ONE)) != fields(related("", "y", "a", ONE))
    assert ("field content-id", b"<x>") in fields(related("", "x", "a", ONE))
    assert ("field content-id", b"<a>") not in fields(related("", "x", "a", ONE))


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "c&Tab;id:a",
            "c&#9;id:a",
            "c&#xa;id:a",
            "c&NewLine;id:a",
            "&#99;id:a",
            "c&#105d:a",
            "cid&colon;a",
            "c\nid:a",
        ),
        *("cid:%61", "CID :a", r"\63 id:a", r"\000063id:a", r"c\69d:a", r"cid\:a", r"cid\3a a", "\\u0063id:a"),
    ],
)
def test_content_ids_count_if_a_reference_is_written_in_an_unusual_way(reference: str) -> None:
    page = ONE + f"<td background='{reference}'>"
    assert fields(related("", "x", "a", page)) != fields(related("", "x", "b", page))


@pytest.mark.parametrize(
    "kind", ["text/plain; charset=utf-16", "text/css; charset=x", "image/svg+xml", "text/html; charset*=utf-8''x"]
)
def test_content_ids_count_if_a_text_is_not_decoded(kind: str) -> None:
    first, second = (
        related("", "x", name, ONE).replace("image/gif\nContent-ID: <x>", f"{kind}\nContent-ID: <x>") for name in "ab"
    )
    assert fields(first) != fields(second)


def test_content_ids_count_if_a_text_is_too_long_to_search() -> None:
    long = "x" * (TEXT_LIMIT + 1)
    for kind, counts in (("image/gif", False), ("text/plain", True)):
        first, second = (related("", name, "a").replace("\n1\n", f"\n{long}\n") for name in "xy")
        first, second = (text.replace("image/gif", kind) for text in (first, second))
        assert (fields(first) != fields(second)) == counts


@pytest.mark.parametrize("parameter", ["format=flowed", "format*=us-ascii''flowed", "format*0=flo; format*1=wed"])
def test_blanks_at_line_ends_count_in_flowed_text_however_it_is_labelled(parameter: str) -> None:
    head = f"Content-Type: text/plain; {parameter}\n\n"
    assert fields(f"{head}a \nb") != fields(f"{head}a\nb")


@pytest.mark.parametrize("style", ["white&#45;space:pre", "'white&#x2d;space:pre'", '"white-&#115;pace:pre"'])
def test_a_character_reference_in_a_style_may_let_white_space_count(style: str) -> None:
    page = f"Content-Type: text/html\n\n<p style={style}>a{{}}b</p>"
    assert fields(page.format("  ")) != fields(page.format(" "))


_PIECES = [
    "<pre>",
    "<p ",
    "='",
    '="',
    "'",
    '"',
    "<",
    ">",
    " ",
    "  ",
    "\n",
    "\t",
    "style",
    "style=x",
    "&",
    "\\",
    "你",
    "a",
    "b=",
]


@given(st.lists(st.sampled_from([*_PIECES, "white-space", "<style>", "xml:space", "<link"]), max_size=14).map("".join))
def test_the_quick_search_for_white_space_that_counts_finds_all_of_it(page: str) -> None:
    source = page.encode()
    folded = b" ".join(source.split())
    if _WHITE_SPACE_MAY_COUNT.search(source):
        return
    assert not may_keep_white_space(source)
    assert not any(each.search(source) for each in (_SPACE_THAT_COUNTS, _UNSHOWN_LINE_END, _SPACE_IN_VALUE))
    assert not any(each in source for each in _PREFORMATTED)
    assert read_html(source, "utf-8") == folded
