"""Properties of the fingerprint for arbitrary content."""

from __future__ import annotations

import base64
import quopri
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts.judging import avideo_judge

from relay.core.envelope import Recipient
from relay.judge.fingerprint.digest import begin_digest
from relay.judge.fingerprint.normal_form import Field, NormalForm
from relay.judge.mime.parser import DEPTH_LIMIT
from relay.judge.rules.rule import NO_RULE
from relay.judge.text.decode import read_html

judge = avideo_judge()
BOB = Recipient("bob@example.org")
DATE = b"Date: Tue, 1 Jul 2025 10:57:00 +0000"
HEAD = b"Subject: Hello\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\n"


def fingerprint(content: bytes) -> str:
    return judge(content, b"contact@example.org").fingerprint(BOB)


def html(body: str, encoding: str = "8bit", charset: str = "utf-8") -> bytes:
    octets = body.encode(charset)
    if encoding == "base64":
        octets = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        octets = quopri.encodestring(octets).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    head = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    return HEAD + head + octets


# Content of these pieces is malformed in more ways than arbitrary bytes.
PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"--b", b"--b--", b"--", b":", b" ", b";", b"=", b'"', b"\0", b"\xc3", b"<!--"),
        *(b"Subject: x", b"From: a@b", b"=?utf-8?q?", b"?=", b"filename*0*=utf-8''"),
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: text/html; charset=utf-8",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-ID: <a@b>",
        b"<img src='cid:a@b'>",
        b"<img src='a.jpg?cache=1751364000'>",
    ]
)
NAMES = st.builds(
    b"%b%b".__mod__,
    st.tuples(
        st.sampled_from([b"charset", b"boundary", b"name", b"filename", b"start", b"x"]),
        st.sampled_from([b"", b"", b"*", b"*0", b"*0*", b"*1"]),
    ),
)
QUOTED = st.one_of(
    st.binary(max_size=6).map(lambda octets: octets.translate(None, b'"\\\r\n')),
    st.sampled_from([b"utf-8", b"utf-8\xe9", b"b", b"\xe9", b"\xe9''%C3", b"\xe9'\xe9'%FF"]),
)
PARAMETERS = st.builds(
    b'\r\n%b: %b; %b="%b"; %b="%b"'.__mod__,
    st.tuples(
        st.sampled_from([b"Content-Type", b"Content-Disposition"]),
        st.sampled_from([b"text/html", b"multipart/mixed", b"image/png", b"attachment"]),
        *(NAMES, QUOTED, NAMES, QUOTED),
    ),
)
CONTENT = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=40).map(b"".join),
    st.lists(PIECES | PARAMETERS | QUOTED, max_size=12).map(b"".join),
    st.builds(b"Subject: x%b\r\n\r\n%b".__mod__, st.tuples(PARAMETERS, st.binary(max_size=20))),
)
BODY = st.text(st.characters(codec="utf-8"), max_size=80)


@given(CONTENT, st.binary(max_size=20), st.text(max_size=20))
def test_any_bytes_give_a_fingerprint(content: bytes, reverse_path: bytes, recipient: str) -> None:
    first, second = (judge(content, reverse_path).fingerprint(Recipient(recipient)) for _ in range(2))
    assert first == second
    assert first.startswith("v4:")
    assert first.isascii()
    assert len(first) <= 80


@given(CONTENT, CONTENT)
def test_two_broken_messages_with_different_bytes_differ(first: bytes, second: bytes) -> None:
    broken = HEAD + b"Content-Type: multipart/mixed; boundary=never\r\n\r\n"
    assert judge(broken + first, b"").normal_form(NO_RULE).broken
    assert (fingerprint(broken + first) == fingerprint(broken + second)) == (first == second)
    assert (fingerprint(b"nonsense\r\n" + first) == fingerprint(b"nonsense\r\n" + second)) == (first == second)


@given(BODY)
def test_transfer_encoding_does_not_count(body: str) -> None:
    lines = body.replace("\0", "").replace("\r", "").replace("\n", "\r\n")
    assert (
        fingerprint(html(lines)) == fingerprint(html(lines, "base64")) == fingerprint(html(lines, "quoted-printable"))
    )


@given(st.text(st.characters(codec="iso-8859-1", exclude_categories=["Cc"]), max_size=80))
def test_charset_does_not_count(body: str) -> None:
    assert fingerprint(html(body)) == fingerprint(html(body, charset="iso-8859-1"))


@given(BODY, st.integers(0), st.sampled_from("0123456789abcdefXYZ"))
def test_every_letter_and_digit_counts(body: str, at: int, letter: str) -> None:
    place = at % (len(body) + 1)
    before, after = html(f"<p>{body[:place]}_{body[place:]}</p>"), html(f"<p>{body[:place]}{letter}{body[place:]}</p>")
    assert fingerprint(before) != fingerprint(after)


@pytest.mark.parametrize(
    "frame", ['<a href="https://x/?t={}">x</a>', '<img src="https://x/{}.png">', "<b>{}</b>", "<!--{}-->"]
)
@given(first=st.text("0123456789abcdef", min_size=1), second=st.text("0123456789abcdef", min_size=1))
def test_tokens_count_in_every_place(frame: str, first: str, second: str) -> None:
    assert (fingerprint(html(frame.format(first))) == fingerprint(html(frame.format(second)))) == (first == second)


@given(st.binary(min_size=1, max_size=60), st.integers(0), st.integers(1, 255))
def test_every_byte_of_an_attachment_counts(data: bytes, at: int, change: int) -> None:
    def content(octets: bytes) -> bytes:
        head = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        return HEAD + head + base64.encodebytes(octets).replace(b"\n", b"\r\n")

    place = at % len(data)
    other = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
    assert fingerprint(content(data)) != fingerprint(content(other))


@given(st.permutations([DATE, b"To: y", b"X-Mailer: z", b"Subject: Hello", b"From: a@example.org", b"Received: q"]))
def test_the_order_of_fields_does_not_count(fields: list[bytes]) -> None:
    assert fingerprint(b"\r\n".join(fields) + b"\r\n\r\nHello") == fingerprint(
        DATE + b"\r\nFrom: a@example.org\r\nSubject: Hello\r\n\r\nHello"
    )


FIELDS = st.lists(st.builds(Field, st.text("ab1:", max_size=3), st.binary(max_size=4)), max_size=4)


@given(FIELDS, FIELDS)
def test_moving_octets_between_fields_changes_the_digest(first: list[Field], second: list[Field]) -> None:
    digests = [begin_digest(NormalForm(tuple(fields))).digest() for fields in (first, second)]
    assert (digests[0] == digests[1]) == (first == second)


@given(st.text("ab1:", max_size=3), st.text("ab1:", max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_moving_octets_between_a_field_and_the_recipient_changes_the_fingerprint(
    first: str, second: str, anna: str, bob: str
) -> None:
    analyses = [judge(f"Subject: {text}\r\nFrom: a@b\r\n\r\n".encode(), b"") for text in (first, second)]
    same = analyses[0].fingerprint(Recipient(anna)) == analyses[1].fingerprint(Recipient(bob))
    assert same == ((first, anna) == (second, bob))


def test_each_recipient_has_a_different_fingerprint() -> None:
    analysis = judge(html("x"), b"")
    assert analysis.fingerprint(BOB) != analysis.fingerprint(Recipient("anna@example.org"))


def test_beside_a_from_field_only_the_domain_of_the_reverse_path_counts() -> None:
    assert judge(b"Subject: x\r\n\r\n", b"a").fingerprint(BOB) != judge(b"Subject: x\r\n\r\n", b"b").fingerprint(BOB)
    paths = {
        path: judge(HEAD + b"\r\n", path).fingerprint(BOB) for path in (b"a", b"b", b"a@x.example", b"b@X.Example")
    }
    assert paths[b"a"] == paths[b"b"] != paths[b"a@x.example"] == paths[b"b@X.Example"]
    assert judge(HEAD + b"\r\n", "a@bücher.example".encode()).fingerprint(BOB) == judge(
        HEAD + b"\r\n", b"a@xn--bcher-kva.example"
    ).fingerprint(BOB)


def test_message_id_and_received_fields_for_records() -> None:
    analysis = judge(b"Message-ID:\r\n <a\xff\x07@b>\r\nReceived: one\r\n" + HEAD + b"\r\nx", b"")
    assert analysis.message_id == "<a??@b>"
    assert analysis.received == (b" one",)
    assert judge(b"", b"").message_id == ""
    assert len(judge(b"Message-ID: " + b"x" * 9999 + b"\r\n\r\n", b"").message_id) == 250


def test_a_charset_name_with_8_bit_octets_is_accepted() -> None:
    content = HEAD + b'Content-Type: text/plain; charset="utf-8\xe9"\r\n\r\nx'
    assert fingerprint(content) != fingerprint(content.replace(b"\xe9", b"\xea"))


def many_words(count: int) -> bytes:
    return b"Subject: " + b"=?utf-8?q?=C3?=\r\n " * count + b"=?utf-8?q?x?=\r\n\r\nx"


HOSTILE = {
    "nested": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(1000)
    ),
    "parts": HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000 + b"--b--\r\n",
    "parts within limits": HEAD
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-ID: <a>\r\n\r\nx\r\n" * 9_000
    + b"--b--\r\n",
    "line": HEAD + b"\r\n" + b"x" * 20_000_000,
    "line in quoted-printable": HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=41" * 7_000_000,
    "headers": b"X-Field: value\r\n" * 350_000 + b"\r\nx",
    "folded header": b"Subject: x\r\n" + b" y\r\n" * 1_200_000 + b"\r\nx",
    "encoded words": many_words(3_000),
    "too many encoded words": many_words(280_000),
    "parameters": b"Content-Type: text/plain" + b"; a" * 20_000 + b"\r\n\r\nx",
    "continuations": b"Content-Type: text/plain" + b"".join(b"; a*%d=b" % n for n in range(6_000)) + b"\r\n\r\nx",
    "lone continuations": b"Content-Type: text/plain" + b"".join(b";%x*1=x" % n for n in range(6_000)) + b"\r\n\r\nx",
    "content ids": b"MIME-Version: 1.0\r\n" + b"Content-ID:<a>\r\n" * 3_900 + b"\r\nx",
    "content ids of parts": HEAD
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + (b"--b\r\n" + b"Content-ID:<a>\r\n" * 990 + b"\r\nx\r\n") * 1_000
    + b"--b--\r\n",
    "parameters of parts": HEAD
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + (b"--b\r\nContent-Type: a/b" + b"".join(b";%x*1=x" % n for n in range(99)) + b"\r\n\r\nx\r\n") * 9_000
    + b"--b--\r\n",
    "fields of nested parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d.\r\n%b\r\n--b%d.\r\n" % (level, b"a:\r\n" * 990, level)
        for level in range(DEPTH_LIMIT)
    )
    + b"\r\nx"
    + b"".join(b"\r\n--b%d.--" % level for level in reversed(range(DEPTH_LIMIT))),
    "images": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<img src='a.jpg?cache=1751364000'>" * 30_000,
    "open tag": HEAD + b"Content-Type: text/html\r\n\r\ncache=" + b"<a b='" * 170_000,
    "escapes": HEAD + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + b"\x1b$B" * 340_000,
    "references": HEAD + b"Content-ID: <a>\r\nContent-Type: text/html\r\n\r\n" + b"&#" + b"0" * 1_000_000,
    "base64": HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + b"A" * 20_000_000,
    "tags": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<b>cache=" * 1_000_000,
    "combining": HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "\u0300\u0327".encode() * 250_000,
    "combining subject": b"Subject: " + "\u0300\u0327".encode() * 16_000 + b"\r\n\r\nx",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_shapes_are_bounded_in_time_and_memory(shape: str) -> None:
    content = HOSTILE[shape]
    start = time.process_time()
    analysis = judge(content, b"")
    assert time.process_time() - start < 10
    assert analysis.fingerprint(BOB) != judge(content + b"y", b"").fingerprint(BOB)
    tracemalloc.start()
    judge(content, b"")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * max(len(content), 4 << 20)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<p style=white&#45;space:pre>a  b</p>", "<p style=white&#45;space:pre>a b</p>"),
        ('<a href="x?y=" \n title="b  c">x</a>', '<a href="x?y=" \n title="b c">x</a>'),
        ('<p title=\'x="\' \n lang="b  c">', '<p title=\'x="\' \n lang="b c">'),
        ('<p title=a=" \n lang="b  c">', '<p title=a=" \n lang="b c">'),
        ('<p title=a= " \n lang="b  c">', '<p title=a= " \n lang="b c">'),
        ('<style a<b>p{content:"a\n;}q{color:red}"}</style>', '<style a<b>p{content:"a ;}q{color:red}"}</style>'),
        ("<span style='mso-spacerun:yes'>a  b</span>", "<span style='mso-spacerun:yes'>a b</span>"),
        ("<p>日\n本</p>", "<p>日 本</p>"),
        ("<p>a\u200b\nb</p>", "<p>a\u200b b</p>"),
    ],
)
def test_white_space_of_html_counts_wherever_a_reader_may_see_it(one: str, other: str) -> None:
    assert read_html(one.encode(), "utf-8") != read_html(other.encode(), "utf-8")


@pytest.mark.parametrize(
    "piece", [b"style=", b"style='style=\"", b"=", b"='=\"", b'="a="', b"='a=b", b"= ", b"<style "]
)
def test_a_megabyte_of_html_made_to_take_long_is_folded_in_linear_time(piece: bytes) -> None:
    page = piece * ((1 << 20) // len(piece))
    start = time.process_time()
    read_html(page, "utf-8")
    assert time.process_time() - start < 3
