"""What counts, what does not, and what is exempt."""

from __future__ import annotations

import time

import pytest

from relay.core.html_noise import leave_out_noise
from relay.core.message import parse
from relay.core.normalise import NormalForm, normalise
from relay.core.presets import exemption
from relay.core.text import TEXT_LIMIT, decode_text, fold_text


def form(content: str | bytes) -> NormalForm:
    octets = content.replace("\n", "\r\n").encode() if isinstance(content, str) else content
    return normalise(parse(octets), sender=b"envelope@example.org")


def shown(content: str | bytes) -> list[tuple[str, bytes]]:
    return [tuple(field) for field in form(content).fields]


def test_the_form_of_a_message_with_everything() -> None:
    content = (
        "Subject: =?utf-8?q?Hi?=\nFrom: Anna <a@example.org>\nTo: b@example.org\nReply-To: c@example.org\n"
        "List-Id: <l.example.org>\nX-Mailer: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "This is MIME.\n--b\nContent-Type: text/plain; charset=utf-8; format=flowed\n\nHello  Bob,\nbye\n"
        '--b\nContent-Type: application/pdf; name="a.pdf"\nContent-Disposition: attachment; filename="a.pdf"\n'
        "Content-Transfer-Encoding: base64\nX-Part: 1\n\nYWJj\n--b--\nend\n"
    )
    digest = b"3 bytes, blake2b bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    assert shown(content) == [
        ("Subject", b"Hi"),
        ("From", b"Anna <a@example.org>"),
        ("Reply-To", b"c@example.org"),
        ("List-Id", b"<l.example.org>"),
        ("parts", b"multipart/mixed"),
        ("preamble", b"This is MIME."),
        ("part", b"text/plain"),
        ("parameter format", b"flowed"),
        ("text", b"Hello Bob, bye"),
        ("part", b"application/pdf"),
        ("parameter name", b"a.pdf"),
        ("disposition", b"attachment"),
        ("parameter filename", b"a.pdf"),
        ("x-part", b"1"),
        ("bytes", digest),
        ("epilogue", b"end"),
        ("end of parts", b""),
    ]


def test_the_reverse_path_stands_in_for_a_missing_from_field() -> None:
    assert ("reverse-path", b"envelope@example.org") in shown("Subject: x\n\nx")
    assert "reverse-path" not in dict(shown("From: a@example.org\n\nx"))


def test_a_broken_body_counts_raw_below_what_can_be_read() -> None:
    broken = shown("Subject: x\nContent-Type: multipart/mixed\n\nbody")
    assert [label for label, _ in broken] == ["Subject", "reverse-path", "content-type (raw)", "raw body"]
    assert [label for label, _ in shown("nonsense")] == ["reverse-path", "raw content"]


def test_a_missing_mime_version_counts_where_there_is_mime() -> None:
    assert "MIME-Version" not in dict(shown("Subject: x\n\nx"))
    assert "MIME-Version" in dict(shown("Content-Type: text/html\n\nx"))
    assert "MIME-Version" not in dict(shown("MIME-Version: 1.0 (Mail 1)\nContent-Type: text/html\n\nx"))


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
def test_what_the_tables_of_readers_disagree_about_is_not_decoded(charset: str) -> None:
    assert decode_text("a \u4e00".encode(charset), charset) == "a \u4e00"
    assert decode_text(b"\\100", charset) is None
    assert decode_text(b"~100", charset) is None
    assert decode_text(b"\xa1\xa4\xa1\xaa", "gbk") is None


@pytest.mark.parametrize("octets", [b"\x1b$B$$", b"\x1b$B$$\r\n$$\x1b(B", b"\x1b(J\n\x1b(B"])
def test_a_line_that_leaves_a_state_open_is_not_decoded(octets: bytes) -> None:
    assert decode_text(octets, "iso-2022-jp") is None
    assert decode_text(b"\x1b$B$$\x1b(B\r\nx", "iso-2022-jp") == "\u3044\r\nx"


def test_ascii_white_space_folds_and_nothing_else() -> None:
    assert fold_text(" a \t\r\n\f b ") == b"a b"
    for kept in "\u00a0\u200b\u2028\u3000\u0085\x1c\x1f":
        assert fold_text(f"a{kept}b") == f"a{kept}b".encode()
    assert fold_text("a\0b") is None
    assert fold_text("a\vb") is None


def test_text_without_end_is_compared_byte_for_byte() -> None:
    assert fold_text("a" * (TEXT_LIMIT + 1)) is None
    labels = dict(shown(b"Subject: x\r\n\r\n" + b"a" * (TEXT_LIMIT + 1)))
    assert "bytes" in labels
    assert "text" not in labels


def test_a_hostile_row_of_combining_characters_costs_no_time() -> None:
    start = time.perf_counter()
    assert fold_text("a" + "\u0300\u0327" * 400_000) is None
    assert fold_text(("a" + "\u0300\u0327" * 100) * 4_000) is not None
    assert time.perf_counter() - start < 3


U = "https://t.example.org/v.jpg"


@pytest.mark.parametrize(
    "value", ["17513640001751364000", "1751364000_1751364000", "1751364000", "6863c1a0b7e21", "not_found"]
)
@pytest.mark.parametrize("before", ["?", "?w=1&", "?w=1&amp;"])
@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("after", ["", "&h=1", "&amp;h=1"])
def test_each_form_of_cache_value_is_left_out(value: str, before: str, quote: str, after: str) -> None:
    html = f"<p><IMG alt=x src={quote}{U}{before}cache={value}{after}{quote} />"
    quiet = f"<p><IMG alt=x src={quote}{U}{before}cache=\0{after}{quote} />"
    assert leave_out_noise(html.encode()) == quiet.encode()


def test_the_bare_number_of_older_releases_is_left_out() -> None:
    assert leave_out_noise(f"<img src='{U}?1624465305'>".encode()) == f"<img src='{U}?\0'>".encode()


@pytest.mark.parametrize(
    "html",
    [
        f"<img src='{U}?cache=123'>",
        f"<img src='{U}?cache=12345678901'>",
        f"<img src='{U}?cache=not_founds'>",
        f"<img src='{U}?cache=6863C1A0B7E21'>",
        f"<img src='{U}?cache=1751364000;x'>",
        f"<img src='{U}?cache=1751364000#x'>",
        f"<img src='{U}?xcache=1751364000'>",
        f"<img src='{U}&cache=1751364000'>",
        f"<img src='{U}?u={U}?cache=1751364000'>",
        "<img src='/pay?1624465305'>",
        f"<img src='{U}?16244653050'>",
        f"<img src={U}?cache=1751364000>",
        f"<img data-src='{U}?cache=1751364000'>",
        f"<img alt='x' title='src=\"{U}?cache=1751364000\"'>",
        f"<img src='{U}?cache=1751364000' src='x'>",
        f"<image src='{U}?cache=1751364000'>",
        f"<a href='{U}?cache=1751364000'>",
        f"<a title=\"<img src='{U}?cache=1751364000'>\">",
        f"<!-- <img src='{U}?cache=1751364000'> -->",
        f"<!-- --!> <img src='{U}?cache=1751364000'> -->",
        f"<!--> --> <img src='{U}?cache=1751364000'>",
        f"<title><img src='{U}?cache=1751364000'></title>",
        f"<style><img src='{U}?cache=1751364000'></style>",
        f"<textarea></textareas><img src='{U}?cache=1751364000'></textarea>",
        f"<script><img src='{U}?cache=1751364000'></script>",
        f"<svg><![CDATA[<img src='{U}?cache=1751364000'>]]></svg>",
        f"<plaintext><img src='{U}?cache=1751364000'>",
        f"<b '><img src='{U}?cache=1751364000'>",
        f"<b a='x'b='y'><img src='{U}?cache=1751364000'>",
        f"src='{U}?cache=1751364000'",
        f"< img src='{U}?cache=1751364000'>",
    ],
)
def test_nothing_else_is_left_out(html: str) -> None:
    assert leave_out_noise(html.encode()) == html.encode()


def test_only_images_lose_a_cache_value_also_where_ids_are_replaced() -> None:
    html = b"<input background='cid:a' src='a.jpg?cache=1751364000'><td background='cid:b'>"
    assert leave_out_noise(html, {b"a": 1}) == html.replace(b"cid:a", b"\0leaf 1")


def related(container: str, first: str, second: str) -> str:
    image = "Content-Type: image/gif\nContent-ID: <{}>\n\n{}\n--b"
    return (
        f"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n{container}\n--b\n"
        "Content-Type: text/html\n\n<img src='cid:a'>\n--b\n"
        + image.format(first, 1)
        + "\n"
        + image.format(second, 2)
        + "--\n"
    )


def test_content_ids_count_where_they_are_not_of_one_leaf_alone() -> None:
    assert shown(related("", "x", "a")) == shown(related("", "y", "a"))
    assert shown(related("", "a", "a")) != shown(related("", "x", "a"))
    assert shown(related("Content-ID: <a>\n", "x", "a")) != shown(related("", "x", "a"))


def test_content_ids_count_where_a_text_is_too_long_to_look_for_them() -> None:
    long = "x" * (TEXT_LIMIT + 1)
    for kind, counts in (("image/gif", False), ("text/plain", True)):
        first, second = (related("", name, "a").replace("\n1\n", f"\n{long}\n") for name in "xy")
        first, second = (text.replace("image/gif", kind) for text in (first, second))
        assert (shown(first) != shown(second)) == counts


def test_comments_styles_and_odd_text_do_not_hide_what_follows() -> None:
    before = "<!doctype html><style> a > b {} </style><!-- a > b --><p>1 < 2 <3 <br/><a href=x/>&lt;"
    html = f"{before}<img src='{U}?cache=1751364000'>"
    assert b"\0" in leave_out_noise(html.encode())


def test_hostile_html_costs_no_time() -> None:
    start = time.perf_counter()
    for shape in (
        "<b>x",
        "<b a='",
        "<!--",
        "<title>",
        "<",
        "<b a ",
        "<img src='' ",
        "<img src='a?cache=1751364000'>",
        "&#",
    ):
        leave_out_noise((shape * (TEXT_LIMIT // len(shape)) + "cache=").encode(), {b"a": 1})
    leave_out_noise(b"<b" + b" a" * (TEXT_LIMIT // 2) + b"cache=>")
    leave_out_noise(b"<img" + b" src='x?cache=1751364000'" * 40_000 + b">")
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("https://t.example.org/recoverPass?user=anna&recoverpass=f00d", "avideo: password recovery"),
        ("https://t.example.org/recoverPass?user=anna&amp;recoverpass=f00d", "avideo: password recovery"),
        ("https://t.example.org/objects/userVerifyEmail.php?code=f00d", "avideo: e-mail verification"),
        ("https://t.example.org/plugin/LoginControl/confirm.php?confirmation=f", "avideo: two-factor sign-in"),
        ("https://t.example.org/recoverPass?user=anna", None),
        ("https://t.example.org/recoverPass?xrecoverpass=f00d", None),
        ("https://t.example.org/x.php?code=f00d", None),
        ("https://t.example.org/userVerifyEmail.php?a https://t.example.org/?code=f00d", None),
    ],
)
def test_links_with_a_token_are_exempt_wherever_they_can_be_read(link: str, name: str | None) -> None:
    html = f'<a href="{link}">Weiter</a>'
    head = "Subject: x\nMIME-Version: 1.0\n"
    qp = html.replace("=", "=3D").replace("example", "exa=\nmple")
    for content in (
        f"{head}\n{link}\n",
        f"{head}Content-Type: text/html; charset=utf-8\n\n{html}\n",
        f"{head}Content-Type: text/html; charset=x-none\n\n{html}\n",
        f"{head}Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n{qp}\n",
        f"{head}Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{qp}\n",
        f"{head}Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n{html}\n--b--\n",
        f"nonsense\n{html}\n",
    ):
        assert exemption(form(content)) == name, content


def test_a_link_without_a_token_is_not_exempt() -> None:
    assert exemption(form("Subject: x\n\nhttps://t.example.org/recoverPass?recoverpass= x")) is None
    assert exemption(form("Subject: x\n\nhttps://t.example.org/recoverPass?recoverpass=&user=1")) is None


def test_searching_for_links_takes_linear_time() -> None:
    start = time.perf_counter()
    for unit in ("recoverPass?", "recoverPass?&recoverpass=&", "userVerifyEmail.php? "):
        exemption(form("Subject: x\n\n" + unit * (TEXT_LIMIT // len(unit))))
    assert time.perf_counter() - start < 5
