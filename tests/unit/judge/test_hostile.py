"""Hostile shapes: the judge takes bounded time and memory for each. Any machine keeps these bounds.

Each shape runs in a separate process, so that the peak of memory includes nothing else.
`PYTHONPATH=tests:. python tests/unit/judge/test_hostile.py [SHAPE]...` prints the cost of each.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from relay.core.envelope import Recipient
from relay.judge.mime.parser import DEPTH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from relay.judge.judge import Judge

SECONDS = 10.0
"""CPU time of one judgement: with the default rules, and with ignores of every kind."""
STOPPED = 60
"""Seconds of CPU time after which a shape is stopped."""
MEMORY_RATIO = 10
MEMORY_BASE = 48 << 20
"""Bytes in addition to ten times the size: a text of up to 1 MiB is folded word by word, at 50 bytes a word, and each
of 10,000 parts has objects.
"""

BOB = Recipient("bob@example.org")
HEAD = b"Subject: Hello\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\n"
MIXED = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
HTML = HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n"
PLAIN = HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
BASE64 = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n"
MIB = 1 << 20
IMAGE = b"<img src='a.jpg?cache=1751364000'>"


def _nested(depth: int, fields: bytes = b"") -> bytes:
    begins = (
        b"Content-Type: multipart/mixed; boundary=b%d.\r\n%b\r\n--b%d.\r\n" % (n, fields, n) for n in range(depth)
    )
    return b"".join(begins) + b"\r\nx" + b"".join(b"\r\n--b%d.--" % n for n in reversed(range(depth)))


def _parts(part: bytes, count: int) -> bytes:
    return MIXED + (b"--b\r\n" + part) * count + b"--b--\r\n"


def _numbered(form: bytes, count: int) -> bytes:
    return b"".join(form % number for number in range(count))


SHAPES: dict[str, Callable[[], bytes]] = {
    # Structure.
    "1,000 nested multiparts": lambda: _nested(1000),
    "nested multiparts with many fields": lambda: _nested(DEPTH_LIMIT, b"a:\r\n" * 990),
    "100,000 parts": lambda: _parts(b"\r\nx\r\n", 100_000),
    "9,000 parts": lambda: _parts(b"Content-ID: <a>\r\n\r\nx\r\n", 9_000),
    "9,000 parts with many parameters": lambda: _parts(
        b"Content-Type: a/b%b\r\n\r\nx\r\n" % _numbered(b";%x*1=x", 99), 9_000
    ),
    "1,000 parts with many Content-IDs": lambda: _parts(b"Content-ID:<a>\r\n" * 990 + b"\r\nx\r\n", 1_000),
    "1,000,000 boundaries in front of others": lambda: _nested(DEPTH_LIMIT) + b"\r\n--b0." * 1_000_000,
    "1,000,000 lines like a boundary": lambda: MIXED + b"--b\r\n\r\n" + b"--\r\n-b\r\n" * 1_000_000 + b"--b--\r\n",
    "5,000,000 lines that begin with hyphens in nested multiparts": lambda: _nested(DEPTH_LIMIT).replace(
        b"\r\nx", b"\r\nx" + b"\r\n--" * 5_000_000
    ),
    "a boundary of 60 KiB": lambda: HEAD + b"Content-Type: multipart/mixed; boundary=" + b"b" * 60_000 + b"\r\n\r\nx",
    # Size.
    "a line of 100 MB": lambda: HEAD + b"\r\n" + b"x" * 100_000_000,
    "a line of 20 MB in quoted-printable": lambda: (
        HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=41" * 7_000_000
    ),
    "20 MB of soft line breaks": lambda: (
        HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n" * 7_000_000
    ),
    "20 MB of white space": lambda: PLAIN + b" \r\n" * 7_000_000,
    "1 MiB of white space": lambda: PLAIN + b" " * (MIB - 1),
    "no line end at all, 20 MB": lambda: b"x" * 20_000_000,
    "20 MB of line ends": lambda: b"\r\n" * 10_000_000,
    # Header section.
    "5 MB of headers": lambda: b"X-Field: value\r\n" * 312_500 + b"\r\nx",
    "1,000 fields of 60 bytes": lambda: b"Subject: %b\r\n" % (b"x" * 49) * 1_000 + b"\r\nx",
    "a folded field of 6 MB": lambda: b"Subject: x\r\n" + b" y\r\n" * 1_200_000 + b"\r\nx",
    "a folded field of 60 KiB": lambda: b"Subject: x\r\n" + b" y\r\n" * 15_000 + b"\r\nx",
    "5 MB of encoded words": lambda: b"Subject: " + b"=?utf-8?q?=C3?=\r\n " * 280_000 + b"x\r\n\r\nx",
    "60 KiB of encoded words": lambda: b"Subject: " + b"=?utf-8?q?=C3?=\r\n " * 3_300 + b"x\r\n\r\nx",
    "60 KiB of encoded words in turns": lambda: (
        b"Subject: " + b"=?utf-8?q?a?= =?iso-8859-1?b?YQ==?= b " * 1_600 + b"\r\n\r\nx"
    ),
    "60 KiB of open encoded words": lambda: b"Subject: " + b"=?utf-8?q?" * 6_000 + b"\r\n\r\nx",
    "combining characters in a Subject": lambda: b"Subject: " + "\u0300\u0327".encode() * 16_000 + b"\r\n\r\nx",
    "20,000 parameters": lambda: b"Content-Type: text/plain" + b"; a" * 20_000 + b"\r\n\r\nx",
    "6,000 RFC 2231 continuations": lambda: b"Content-Type: a/b" + _numbered(b"; a*%d=b", 6_000) + b"\r\n\r\nx",
    "90 RFC 2231 continuations in 9,000 parts": lambda: _parts(
        b"Content-Disposition: attachment%b\r\n\r\nx\r\n" % _numbered(b";n*%d*=''%%41", 90), 5_000
    ),
    "a quoted parameter of 60 KiB": lambda: b'Content-Type: a/b; a="' + rb"\"" * 30_000 + b'"\r\n\r\nx',
    "an open quote of 60 KiB": lambda: b'Content-Type: a/b; a="' + rb"\\" * 30_000 + b"\r\n\r\nx",
    # Encodings.
    "20 MB of base64 zeros": lambda: BASE64 + b"A" * 20_000_000,
    "base64, one character a line": lambda: BASE64 + b"A\r\n" * 7_000_000,
    "base64 stuffed with white space": lambda: BASE64 + (b"QUJD" + b"\r\n" * 1_000) * 10_000,
    "base64 stuffed with blanks": lambda: BASE64 + b"Q " * 10_000_000,
    "base64 that is padded again and again": lambda: BASE64 + b"QQ==\r\n" * 3_000_000,
    "5,000 parts of base64": lambda: _parts(b"Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n", 5_000),
    "open escapes of ISO-2022-JP": lambda: (
        HEAD + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + b"\x1b$B" * 340_000
    ),
    # HTML.
    "1,000,000 tags": lambda: HTML + b"<b>" * 1_000_000,
    "340,000 tags within the limit of texts": lambda: HTML + b"<b>" * (MIB // 3),
    "1,000,000 tags that look ignorable": lambda: HTML + b"<b>cache=" * 1_000_000,
    "1,000,000 links": lambda: HTML + b'<a href="http://a.b/c?d=e">' * 1_000_000,
    "35,000 links within the limit of texts": lambda: HTML + b'<a href="http://a.b/c?d=e">' * 38_000,
    "1,000,000 cache parameters": lambda: HTML + b"<img src='a.jpg?%b'>" % (b"cache=1751364000&" * 1_000_000),
    "60,000 cache parameters in one URL": lambda: HTML + b"<img src='a.jpg?%b'>" % (b"cache=1751364000&" * 60_000),
    "1,000,000 images": lambda: HTML + IMAGE * 1_000_000,
    "30,000 images within the limit of texts": lambda: HTML + IMAGE * 30_000,
    "1,000,000 entities": lambda: HTML + b"&amp;" * 1_000_000,
    "200,000 entities in a link": lambda: HTML + b'<a href="http://a/%b">' % (b"&amp;" * 200_000),
    "entities without an end": lambda: HTML + b"&" * (MIB - 10),
    "64 KiB of href=": lambda: HTML + b"href=" * 13_107,
    "1 MB of href=": lambda: HTML + b"href=" * 200_000,
    '1 MB of href="': lambda: HTML + b'href="' * 170_000,
    "1 MB of href and blanks": lambda: HTML + (b"href" + b" " * 60) * 16_000,
    "1 MB of href in capitals": lambda: PLAIN + b"HREF = '" * 130_000,
    "1 MB of links with references": lambda: HTML + b"<a href='a&#97;'>" * 61_000,
    "1 MB of links in text": lambda: PLAIN + b"http://a/&#97; " * 69_000,
    "1 MB of ://": lambda: HTML + b"a://" * 250_000,
    "1 MB of :// without a scheme": lambda: HTML + b"://" * 330_000,
    "1 MB of .:// without a scheme": lambda: PLAIN + b".://" * 260_000,
    "1 MB of scheme letters": lambda: HTML + b"a+" * 500_000,
    "tags that do not end": lambda: HTML + b"cache=" + b"<a b='" * 170_000,
    "attributes that do not end": lambda: HTML + b"<img " + b"a=b " * 260_000 + b"?cache=1751364000",
    "images that do not end": lambda: HTML + b"<img src='a.jpg?cache=1751364000" * 30_000,
    "comments that do not end": lambda: HTML + b"<!--" * 250_000 + IMAGE,
    "comments": lambda: HTML + b"<!---->" * 140_000 + IMAGE,
    "elements of text that do not end": lambda: HTML + b"<style>" * 140_000 + IMAGE,
    "elements of text that nearly end": lambda: HTML + b"<title>" + b"</titl" * 170_000 + IMAGE,
    "references that do not end": lambda: (
        HEAD + b"Content-ID: <a>\r\nContent-Type: text/html\r\n\r\n" + b"&#" + b"0" * 1_000_000
    ),
    "9,000 references to 9,000 parts": lambda: (
        MIXED
        + b"--b\r\nContent-Type: text/html\r\n\r\n"
        + _numbered(b"<img src='cid:%d'>", 9_000)
        + b"\r\n"
        + _numbered(b"--b\r\nContent-ID: <%d>\r\n\r\nx\r\n", 9_000)
        + b"--b--\r\n"
    ),
    "1 MB of styles without quotes": lambda: HTML + b"style=" * 170_000,
    "1 MB of styles that nearly hold a reference": lambda: HTML + b"style=\"style='" * 80_000,
    "1 MB of blanks before line ends": lambda: PLAIN + (b" " * 99 + b"\n") * 10_000 + b"x",
    "1 MB of blanks and no line end": lambda: PLAIN + b" \t" * 500_000 + b"x",
    # What an ignore finds, or nearly finds.
    "340,000 numbers in a text": lambda: PLAIN + b"12 " * (MIB // 3 - 100),
    "69,000 times in HTML": lambda: HTML + b"<p>12:34:56</p>" * 69_000,
    "74,000 comments": lambda: HTML + b"<!--built 1-->" * 74_000,
    "a comment of 1 MB": lambda: HTML + b"<!--" + b"buil" * 250_000 + b"-->",
    "36,000 styles": lambda: HTML + b"<p style='a' id='0123456789'>" * 36_000,
    "an attribute of 1 MB": lambda: HTML + b"<p id='" + b"0" * 1_000_000 + b"'>",
    "45,000 parameters in a text": lambda: PLAIN + b"http://a/?utm_source=1 " * 45_000,
    "one parameter 90,000 times": lambda: HTML + b"<a href='x?" + b"utm_source&" * 90_000 + b"'>",
    "1 MB of question marks": lambda: HTML + b"?" * 1_000_000,
    "100,000 URLs that end with a question mark": lambda: PLAIN + b"http://a/?" * 100_000,
    "65,000 links that do not end": lambda: HTML + b"<a ?utm_source=" * 65_000,
    "87,000 bare numbers outside of tags": lambda: HTML + b"?1234567890'" * 87_000,
    "a style sheet that nearly ends": lambda: HTML + b"<style>" + b"</style" * 140_000 + b"<a href='?utm_source=1'>",
    # Text.
    "combining characters": lambda: PLAIN + "\u0300\u0327".encode() * 250_000,
    "short runs of combining characters": lambda: PLAIN + ("a" + "\u0327\u0300" * 100).encode() * 2_500,
    "a composed letter for each octet": lambda: PLAIN + "e\u0301".encode() * 340_000,
    "Hangul in its letters": lambda: PLAIN + "\u1100\u1161\u11a8".encode() * 110_000,
    "one long character reference": lambda: HTML + b'<a href="&#' + b"0" * 5_000 + b'">',
    "long character references": lambda: HTML + (b'<a href="&#' + b"9" * 4_000 + b';">') * 260,
    "one million NULs": lambda: HTML + b"\0" * 1_000_000,
}


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, float]]:
    """The cost of each shape; a shape that was stopped is missing."""
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {cost.pop("shape"): cost for cost in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_shape_is_bounded_in_time_and_memory(shape: str, costs: dict[str, dict[str, float]]) -> None:
    assert shape in costs, f"failed, or took more than {STOPPED} s: `test_hostile.py '{shape}'`"
    cost = costs[shape]
    assert cost["seconds"] < SECONDS, cost
    assert cost["memory"] < MEMORY_BASE + MEMORY_RATIO * cost["size"], cost
    assert cost["counts_to_the_end"], "the end of the message does not count"


def _measure(shapes: Iterable[str]) -> None:
    """Judges each shape in a child process and prints its cost."""
    from fuzz.target import FULL
    from parts.judging import avideo_judge

    judges = (avideo_judge(), FULL)
    _cost("one image", lambda: HTML + IMAGE, judges)  # What is loaded once is not part of a shape's cost.
    for shape in shapes:
        if not os.fork():
            resource.setrlimit(resource.RLIMIT_CPU, (STOPPED, STOPPED))
            sys.stdout.write(json.dumps(_cost(shape, SHAPES[shape], judges)) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.wait()


def _cost(shape: str, build: Callable[[], bytes], judges: tuple[Judge, ...]) -> dict[str, float | str]:
    before = _peak()
    content = build()
    seconds = max(_seconds(judge, content) for judge in judges)
    memory = _peak() - before  # Includes the shape and what building it took.
    default = judges[0]
    counts_to_the_end = default(content, b"").fingerprint(BOB) != default(content + b"y", b"").fingerprint(BOB)
    return {
        "shape": shape,
        "size": len(content),
        "seconds": round(seconds, 3),
        "memory": memory,
        "counts_to_the_end": counts_to_the_end,
    }


def _seconds(judge: Judge, content: bytes) -> float:
    start = time.process_time()
    judged = judge(content, b"")
    judged.fingerprint(BOB)
    judged.ruling(BOB)
    return time.process_time() - start


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    _measure(sys.argv[1:] or SHAPES)
