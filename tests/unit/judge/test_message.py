"""Parsing of MIME: the tree, what is broken, field values, parameters, transfer encodings."""

from __future__ import annotations

import base64
import time
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.judge.mime import parser, transfer
from relay.judge.mime.headers import decode_value
from relay.judge.mime.message import Leaf, Multipart
from relay.judge.mime.parameters import decode_parameters, parse_parameterised
from relay.judge.mime.parser import parse
from relay.judge.mime.transfer import LINE_LIMIT, decode_transfer


def wire(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


M = "Content-Type: multipart/mixed; boundary=b\n"
PART = "--b\n\none\n"

NESTED = wire(
    "Subject: x\nContent-Type: multipart/mixed; boundary=out\n\n"
    "before\n--out\nContent-Type: multipart/alternative; boundary=in\n\n"
    "--in\n\none\n--in\nContent-Type: text/html\n\n<p>two</p>\n--in--\n"
    "--out\nContent-Type: message/rfc822\n\nSubject: inner\n\nthree\n--out--\nafter\n"
)


@pytest.mark.parametrize("content", [NESTED, NESTED.replace(b"\r\n", b"\n")], ids=["wire", "file"])
def test_a_tree_keeps_every_byte_between_the_delimiters(content: bytes) -> None:
    root = parse(content).root
    assert isinstance(root, Multipart)
    inner, forwarded = root.children
    assert isinstance(inner, Multipart)
    assert isinstance(forwarded, Leaf)
    assert root.preamble == b"before"
    assert root.epilogue.strip() == b"after"
    assert [leaf.body for leaf in inner.children if isinstance(leaf, Leaf)] == [b"one", b"<p>two</p>"]
    assert forwarded.body.endswith(b"three")


@pytest.mark.parametrize("pieces", [1, 3])
def test_boundaries_in_another_case_are_found_wherever_they_are(pieces: int) -> None:
    for offset in range(-9, 4):
        text = b"x" * (pieces * parser._PIECE + offset)
        content = wire(M + "\n--b\n\n") + text + wire("\n--B\n\ntwo\n--b--\n")
        assert "differ in case" in parse(content).broken, offset


def test_other_lines_that_begin_with_two_hyphens_are_text() -> None:
    root = parse(wire(M + "\n--a\n--b\n\n--a\n--c\n--b--\n--a\n")).root
    assert isinstance(root, Multipart)
    [leaf] = root.children
    assert isinstance(leaf, Leaf)
    assert (root.preamble, leaf.body, root.epilogue) == (b"--a", b"--a\r\n--c", b"--a\r\n")


def test_received_fields_are_found_in_a_broken_header_section_too() -> None:
    good = b"Received: from a\r\n by b; date\r\nreceived: two\r\nSubject: x\r\n\r\nbody"
    assert parse(good).received == (b" from a\r\n by b; date", b" two")
    found = parse(b"Received: from a\r\n by b\r\nnonsense\r\nreceived: two\r\n").received
    assert [value.split() for value in found] == [[b"from", b"a", b"by", b"b"], [b"two"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (wire("nonsense\n\nx"), "not a field"),
        (wire("Subject : x\n\nx"), "not a field"),
        (wire(" folded\nSubject: x\n\nx"), "not a field"),
        (wire("Subject: x\n \n y\n\nx"), "not a field"),
        (wire("Subject: x\n"), "no blank line"),
        (b"", "no blank line"),
        (wire("Subject: x\n") + b"A: b\n\r\n\r\nx", "line ends"),
        (wire("Subject: x\n") + b"A: b\rc\r\n\r\nx", "line ends"),
        (wire("Subject: " + "x" * 70_000 + "\n\nx"), "64 KiB"),
        (wire("Content-Type: text/plain\ncontent-type: text/html\n\nx"), "two content-type"),
        (wire("Content-Disposition: inline\nContent-Disposition: inline\n\nx"), "two content-disposition"),
        (wire("Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: 8bit\n\nx"), "two content-transfer"),
        (wire('Content-Type: text/plain; charset="utf-8\n\nx'), "cannot be read"),
        (wire("Content-Type: text/plain; charset=a; charset=b\n\nx"), "cannot be read"),
        (wire("Content-Type: text\n\nx"), "subtype"),
        (wire("X: y\n" * 1001 + "\nx"), "1000 fields"),
        (wire("Content-Type: text/plain" + "".join(f";\n a{n}=b" for n in range(101)) + "\n\nx"), "cannot be read"),
        (wire("Content-Type: multipart/mixed\n\nx"), "usable boundary"),
        (wire(M[:-1] + "; boundary*=utf-8''c\n\n" + PART + "--b--\n"), "RFC 2231"),
        (wire(M[:-1] + "; boundary*0=c\n\n" + PART + "--b--\n"), "RFC 2231"),
        (wire(f"Content-Type: multipart/mixed; boundary={'b' * 71}\n\nx"), "usable boundary"),
        *(
            (
                wire(f"Content-Type: multipart/mixed; boundary={written}\n\n--{line}\n\nx\n--{line}--\n"),
                "usable boundary",
            )
            for written in (r'"a\b"', r'"a\\b"', r'"a\"b"')
            for line in ("ab", r"a\b", 'a"b')
        ),
        (wire(M + "\nx\n"), "closing boundary"),
        (wire(M + "\n--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--b--\n"), "closing boundary"),
        (wire(M + "\n--b--\n"), "without a part"),
        (wire(M + "\n--bb\n\none\n--b--\n"), "only begins like"),
        (wire(M + "\n--B\n" + PART + "--b--\n"), "differ in case"),
        (wire(M + "\n" + PART + "--B\n\ntwo\n--b--\n"), "differ in case"),
        (wire(M + "\n" + PART + "--B--\n"), "differ in case"),
        (wire(M + "\n" + PART + "--b--\n--B\n"), "differ in case"),
        (wire(M + "\n" + PART + "--b--\n--b\n"), "after the closing one"),
        (wire(M + "\n--b\n--b--\n"), "no blank line"),
        (wire(M + "Content-Transfer-Encoding: base64\n\n" + PART + "--b--\n"), "transfer encoding"),
        (wire(M + "\n" + PART) + b"x\n--b--\r\n", "mixed line ends"),
        (wire(M + "\n" + PART) + b"x\r--b--\r\n", "bare carriage return"),
        (wire(M + "\n" + PART) + b"\r\n--b--\nepilogue", "mixed line ends"),
        (f"{M}\n{PART}".encode() + b"x\r\n--b\r\n\nx\n--b--\n", "mixed line ends"),
    ],
)
def test_a_structure_that_readers_may_see_differently_is_broken(content: bytes, reason: str) -> None:
    parsed = parse(content)
    assert parsed.root is None
    assert reason in parsed.broken
    assert content.endswith(parsed.raw)


@pytest.mark.parametrize("item", ["X: y\n", "Content-Type: text/plain; a=b\n"])
def test_fields_and_parameters_of_all_parts_are_bounded(item: str) -> None:
    def content(count: int) -> bytes:
        part = "--b\n" + item + "Y: z\n" * 9 + "\none\n"
        return wire(M + "\n" + part * count + "--b--\n")

    assert parse(content(4_500)).root is not None
    assert "fields and parameters" in parse(content(5_100)).broken


def nested(depth: int) -> bytes:
    text = "leaf\r\n"
    for level in reversed(range(depth)):
        text = f"Content-Type: multipart/mixed; boundary=b{level}.\r\n\r\n--b{level}.\r\n{text}\r\n--b{level}.--\r\n"
        if level == depth - 1:
            text = text.replace("leaf", "\r\nleaf", 1)
    return text.encode()


def test_depth_and_number_of_parts_are_bounded() -> None:
    assert parse(nested(parser.DEPTH_LIMIT)).root is not None
    assert "deeper" in parse(nested(parser.DEPTH_LIMIT + 1)).broken
    many = wire(M + "\n") + b"--b\r\n\r\nx\r\n" * parser.PART_LIMIT + b"--b--\r\n"
    assert "parts" in parse(many).broken


def test_hostile_structures_are_parsed_in_bounded_time() -> None:
    start = time.process_time()
    parse(nested(1000))
    parse(wire(M + "\n") + b"--b\r\n\r\nx\r\n" * 100_000 + b"--b--\r\n")
    parse(b"X: " + b"y" * 5_000_000 + b"\r\n\r\nx")
    parse(b"X: y\r\n" * 1_000_000 + b"\r\nx")
    parse(wire(M + "\n") + b"--b" * 7_000_000)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b" plain  text\t", "plain text"),
        (b" folded\r\n\tvalue", "folded value"),
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?UTF-8?B?R3LDvMOfZQ==?= and more", "Grüße and more"),
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= =?iso-8859-1?q?=FC?= c", "aü c"),
        (b"=?utf-8?q?a_b?=", "a b"),
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
        (b"=?iso-2022-jp?b?GyRCRnwbKEI=?= =?iso-2022-jp?b?GyRCS1wbKEI=?=", "日本"),
    ],
)
def test_header_text_is_decoded(raw: bytes, text: str) -> None:
    assert decode_value(raw) == text.encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"=?x-none?q?a?=",
        b'=?iso-2022-jp?q?=1B$B$"?= =?iso-2022-jp?q?$$=1B(B?=',
        b'=?iso-2022-jp?q?=1B$B$"?=',
        b"=?iso-8859-8?q?=E0=E1?=",
        b"=?shift_jis?q?=5C100?=",
        b"=?utf-7?q?+AGE-?=",
        b"=?utf-8?q?=C3?=",
        b"=?utf-8?q?=G1?=",
        b"=?utf-8?b?a?=",
        b"=?utf-8?b?YQ?=",
        b"=?utf-8?q?a b?=",
        b"x=?utf-8?q?a?=",
        b'"=?utf-8?q?a?="',
        b"=?utf-8?q?a=00b?=",
        b"=?iso-8859-1?q?=80?=",
        b"\xff",
        "Grüße".encode(),
        b"=?utf-8?q?=C3?= =?utf-8?b?vA==?=",
        b"=?utf-8?q?a=0Cb?=",
        b"a\0b",
        b"a\vb",
        b"a\fb",
    ],
)
def test_header_text_that_readers_may_see_differently_is_not_decoded(raw: bytes) -> None:
    assert decode_value(raw) is None


def test_an_encoded_word_adds_no_syntax_to_a_structured_field() -> None:
    assert decode_value(b"=?utf-8?q?J=C3=B6rg?= <a@b>", structured=True) == "Jörg <a@b>".encode()
    assert decode_value(b"=?utf-8?q?A_=3Cx=40y=3E=2C_B?= <a@b>", structured=True) is None
    assert decode_value(b"=?utf-8?q?Sh?= =?utf-8?q?op?= <a@b>", structured=True) is None
    assert decode_value(b"=?utf-8?q?Shop_?= <a@b>", structured=True) is None


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        ("attachment; filename=a.pdf", [("filename", "a.pdf")]),
        ('attachment; FileName="a \\"b\\".pdf"; size=1;', [("filename", 'a "b".pdf'), ("size", "1")]),
        ("attachment; filename*=utf-8''%C3%BC.pdf", [("filename", "ü.pdf")]),
        ("attachment; filename*=iso-8859-1'de'%FC.pdf", [("filename", "ü.pdf")]),
        ("attachment; filename*1=b; filename*0=a", [("filename*0", "a"), ("filename*1", "b")]),
        ("attachment; filename*0=a; filename*1*=%62", [("filename*0", "a"), ("filename*1*", "%62")]),
        ("attachment; filename*0*=utf-8''%C3; filename*1*=%BC", [("filename", "ü")]),
        ("attachment; filename=u; filename*=utf-8''%C3%BC", [("filename", "u"), ("filename (extended)", "ü")]),
        (
            "attachment; filename*0=a; filename*=utf-8''b; filename=c",
            [("filename", "c"), ("filename (continued)", "a"), ("filename (extended)", "b")],
        ),
        (
            "attachment; filename*0=a; filename*2=b; filename=c",
            [("filename", "c"), ("filename*0", "a"), ("filename*2", "b")],
        ),
        ("attachment; filename*0=a; filename*2=b", [("filename*0", "a"), ("filename*2", "b")]),
        ("attachment; filename*=x-none''a", [("filename*", "x-none''a")]),
        ("attachment; filename*=utf-8''%G1", [("filename*", "utf-8''%G1")]),
        (r'attachment; filename="a\b \"c\""', [("filename (raw)", r'"a\b \"c\""')]),
        (r'attachment; filename="a\\b"', [("filename (raw)", r'"a\\b"')]),
        ("attachment; filename*=utf-8''a%5Cb", [("filename", r"a\b")]),
        (
            r'attachment; filename*0="a\b"; filename*1=c; size="1\2"',
            [("filename*0 (raw)", r'"a\b"'), ("filename*1", "c"), ("size (raw)", r'"1\2"')],
        ),
    ],
)
def test_parameters_are_decoded(raw: str, readable: list[tuple[str, str]]) -> None:
    value = parse_parameterised(raw.encode())
    assert value is not None
    assert decode_parameters(value.parameters) == [(name, text.encode()) for name, text in readable]


@pytest.mark.parametrize(
    "raw", ["", "; a=b", "a/b; c", "a/b; c=d e=f", "a/b (comment); c=d", 'a/b; c="d" e', "a/b; c="]
)
def test_values_that_cannot_be_parsed(raw: str) -> None:
    assert parse_parameterised(raw.encode()) is None


@pytest.mark.parametrize(
    ("encoding", "body", "octets"),
    [
        ("7bit", b"a=b", b"a=b"),
        ("quoted-printable", b"a=3Db=\r\nc =\nd=c3", b"a=bc d\xc3"),
        ("quoted-printable", b"a=", None),
        ("quoted-printable", b"a=G1", None),
        ("quoted-printable", b"a= \r\nb", None),
        ("quoted-printable", b"\xc3", None),
        ("base64", b"YWJj\r\nZGU=\r\n", b"abcde"),
        ("base64", b"", b""),
        ("base64", b"YWJj!", None),
        ("base64", b"YW Jj", None),
        ("base64", b"YWI", None),
        ("base64", b"YWI=YWJj", None),
        ("base64", b"YWJ=", None),
        ("x-none", b"a", None),
    ],
)
def test_transfer_encodings_are_decoded_strictly(encoding: str, body: bytes, octets: bytes | None) -> None:
    assert decode_transfer(body, encoding) == octets


def decode_in_chunks(body: bytes, encoding: str, chunk: int) -> bytes | None:
    with patch.object(transfer, "CHUNK", chunk):
        return decode_transfer(body, encoding)


def test_padding_ends_base64_even_between_chunks() -> None:
    assert decode_in_chunks(b"YWJjZGVmZ2hpams=\r\n\r\n", "base64", 6) == b"abcdefghijk"
    assert decode_in_chunks(b"YWI=\r\nYWJj", "base64", 6) is None
    assert decode_in_chunks(b"a=3D\r\nb=3D\r\n", "quoted-printable", 6) == b"a=\r\nb=\r\n"


def test_a_line_of_quoted_printable_longer_than_a_chunk_is_decoded_at_once() -> None:
    assert decode_in_chunks(b"a=3Dbcdefg\r\nh", "quoted-printable", 6) == b"a=bcdefg\r\nh"
    assert decode_transfer(b"a" * (LINE_LIMIT + 1), "quoted-printable") is None


@given(
    st.binary(max_size=60),
    st.integers(1, 40),
    st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n\r\n"]),
    st.integers(1, 80),
    st.tuples(st.sampled_from([b"", b"!", b"=", b"A", b"AA==", b" ", b"\xff", b"\0", b"-"]), st.integers(0, 100)),
)
def test_base64_in_chunks_gives_the_same_as_all_at_once(
    data: bytes, width: int, newline: bytes, chunk: int, damage: tuple[bytes, int]
) -> None:
    junk, at = damage
    letters = base64.b64encode(data)
    body = newline.join(letters[start : start + width] for start in range(0, len(letters), width)) + newline
    assert decode_in_chunks(body, "base64", chunk) == data
    damaged = body[:at] + junk + body[at:]
    assert decode_in_chunks(damaged, "base64", chunk) == decode_in_chunks(damaged, "base64", 10_000)
