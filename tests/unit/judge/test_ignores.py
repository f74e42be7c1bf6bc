"""Each kind of ignore: what it leaves out, what still counts beside it, and where nothing is certain."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts.judging import avideo_judge

from relay.core.envelope import Recipient
from relay.judge.html.strip import StrippedText, strip_ignored_html, strip_ignored_text
from relay.judge.judge import Judge
from relay.judge.rules.ignore import Attribute, Comment, Ignore, Parameter, Query, Text, UrlKind
from relay.judge.rules.ignores import Ignored, Ignores
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import NO_RULE
from relay.judge.rules.url_ignores import ScanBudget

U = "https://t.example.org/v.jpg"
BOB = Recipient("bob@example.org")
AVIDEO = avideo_judge().ignores(NO_RULE)
UTM = Parameter("utm", "utm_source")
CLOCK = Text("clock", Pattern("[0-9]{2}:[0-9]{2}"))
HEAD = "Subject: x\nFrom: a@b\nMIME-Version: 1.0\nContent-Type: text/"


def quiet(html: str, *ignore: Ignore) -> str:
    """Give HTML without noise; by default without AVideo's."""
    noise = Ignores(ignore) if ignore else AVIDEO
    return strip_ignored_html(html.encode(), noise, ScanBudget())[0].decode()


def quiet_text(text: str, *ignore: Ignore) -> str:
    return strip_ignored_text(text.encode(), Ignores(ignore), ScanBudget())[0].decode()


def same(first: str, second: str, *ignore: Ignore) -> bool:
    """Say whether two mails, given from the subtype on, have one fingerprint."""
    judge = Judge((), ignore, window=600)
    one, other = (judge((HEAD + body).replace("\n", "\r\n").encode(), b"").fingerprint(BOB) for body in (first, second))
    return one == other


@pytest.mark.parametrize(
    "value", ["17513640001751364000", "1751364000_1751364000", "1751364000", "6863c1a0b7e21", "not_found"]
)
@pytest.mark.parametrize("before", ["?", "?w=1&", "?w=1&amp;"])
@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("after", ["", "&h=1", "&amp;h=1"])
def test_each_form_of_cache_value_is_left_out(value: str, before: str, quote: str, after: str) -> None:
    html = f"<p><IMG alt=x src={quote}{U}{before}cache={value}{after}{quote} />"
    assert quiet(html) == f"<p><IMG alt=x src={quote}{U}{before}cache=\0{after}{quote} />"


def test_the_bare_number_of_older_releases_is_left_out() -> None:
    assert quiet(f"<img src='{U}?1624465305'>") == f"<img src='{U}?\0'>"


@pytest.mark.parametrize(
    "html",
    [
        f"<img src='{U}?cache=123'>",
        f"<img src='{U}?cache=12345678901'>",
        f"<img src='{U}?cache=not_founds'>",
        f"<img src='{U}?cache=6863C1A0B7E21'>",
        f"<img src='{U}?cache=1751364000;x'>",
        f"<img src='{U}?cache=1751364000#x'>",
        f"<img src='{U}?cache=1751364000&cache=1751364001'>",
        f"<img src='{U}?cache=1751364000&cache'>",
        f"<img src='{U}?xcache=1751364000'>",
        f"<img src='{U}?&#99;ache=1751364000'>",
        f"<img src='{U}&cache=1751364000'>",
        f"<img src='{U}?u={U}?cache=1751364000'>",
        "<img src='/pay?1624465305'>",
        f"<img src='{U}?16244653050'>",
        f"<img src={U}?cache=1751364000>",
        f"<img data-src='{U}?cache=1751364000'>",
        f"<img alt='x' title='src=\"{U}?cache=1751364000\"'>",
        f"<img src='{U}?cache=1751364000' src='x'>",
        "<img src='data:image/gif,?cache=1751364000'>",
        f"<image src='{U}?cache=1751364000'>",
        f"<a href='{U}?cache=1751364000'>",
        f"<a title=\"<img src='{U}?cache=1751364000'>\">",
        f"<!-- <img src='{U}?cache=1751364000'> -->",
        f"<!-- --!> <img src='{U}?cache=1751364000'> -->",
        f"<!--> --> <img src='{U}?cache=1751364000'>",
        f"<!---> --> <img src='{U}?cache=1751364000'>",
        f"<title><img src='{U}?cache=1751364000'></title>",
        f"<style><img src='{U}?cache=1751364000'></style>",
        f"<style>?</styles><img src='{U}?cache=1751364000'></style>",
        f"<textarea></textareas><img src='{U}?cache=1751364000'></textarea>",
        f"<script><img src='{U}?cache=1751364000'></script>",
        f"<svg><![CDATA[<img src='{U}?cache=1751364000'>]]></svg>",
        f"<select><img src='{U}?cache=1751364000'></select>",
        f"<plaintext><img src='{U}?cache=1751364000'>",
        f"<b '><img src='{U}?cache=1751364000'>",
        f"<b a='x'b='y'><img src='{U}?cache=1751364000'>",
        f"src='{U}?cache=1751364000'",
        f"{U}?cache=1751364000",
        f"< img src='{U}?cache=1751364000'>",
    ],
)
def test_nothing_else_is_left_out(html: str) -> None:
    assert quiet(html) == html
    assert quiet(f"{html} ?<a href='?x'>") == f"{html} ?<a href='?x'>"


def test_only_images_lose_a_cache_value_also_where_ids_are_replaced() -> None:
    html = b"<input background='cid:a' src='a.jpg?cache=1751364000'><td background='cid:b'>"
    assert strip_ignored_html(html, AVIDEO, ScanBudget(), {b"a": 1})[0] == html.replace(b"cid:a", b"\0leaf 1")


def test_comments_styles_and_odd_text_do_not_hide_what_follows() -> None:
    before = "<!doctype html><style> a > b {} ? </style><!-- a > b ? --><p>1 < 2 <3 ? <br/><a href=x?/>&lt;"
    assert quiet(f"{before}<img src='{U}?cache=1751364000'>") == f"{before}<img src='{U}?cache=\0'>"


@pytest.mark.parametrize(
    ("url", "html", "text"),
    [
        (UrlKind.IMAGE, "<img src='{0}?a=\0'><a href='{0}?a=1'>{0}?a=1", "{0}?a=1"),
        (UrlKind.LINK, "<img src='{0}?a=1'><a href='{0}?a=\0'>{0}?a=1", "{0}?a=1"),
        (UrlKind.ANY, "<img src='{0}?a=\0'><a href='{0}?a=\0'>{0}?a=\0", "{0}?a=\0"),
    ],
)
def test_a_kind_of_url_is_where_it_stands(url: UrlKind, html: str, text: str) -> None:
    ignore = Parameter("a", "a", url)
    written = html.format(U)
    assert quiet(written.replace("\0", "1"), ignore) == written
    assert quiet_text(text.format(U).replace("\0", "1"), ignore) == text.format(U)
    assert quiet("<area href='/x?a=1'>", ignore) == f"<area href='/x?a={1 if url is UrlKind.IMAGE else chr(0)}'>"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see http://x.test/?utm_source=mail.", "see http://x.test/?utm_source=\0."),
        ("(https://x.test/?a=1&utm_source=mail&b=2)", "(https://x.test/?a=1&utm_source=\0&b=2)"),
        ("https://x.test/?a=1&amp;utm_source=mail", "https://x.test/?a=1&amp;utm_source=mail"),
        ("x.test/?utm_source=mail", "x.test/?utm_source=mail"),
        ("https://x.test/utm_source=mail", "https://x.test/utm_source=mail"),
        ("https://x.test/?utm_source=", "https://x.test/?utm_source="),
    ],
)
def test_urls_in_plain_text(text: str, left: str) -> None:
    assert quiet_text(text, UTM) == left


def test_the_rest_of_a_url_counts() -> None:
    page = "html\n\n<a href='https://{}?a={}&utm_source={}'>x</a>"
    assert same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "news"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 2, "mail"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("y.test", 1, "mail"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "mail").replace("utm_s", "utm_t"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "news"))


def test_a_path_and_a_value_say_which_urls_are_meant() -> None:
    ignore = Parameter("v", "v", UrlKind.ANY, Pattern("[0-9]+"), Pattern("^https://cdn\\."))
    assert quiet("<img src='https://cdn.test/?v=1'>", ignore) == "<img src='https://cdn.test/?v=\0'>"
    for html in ("<img src='https://cdn.test/?v=1x'>", "<img src='https://www.test/?v=1'>"):
        assert quiet(html, ignore) == html
    query = Query("q", Pattern("[a-f]+"), UrlKind.LINK, Pattern("/x$"))
    assert quiet("<a href='/x?abc'>", query) == "<a href='/x?\0'>"
    for html in ("<a href='/x?abcg'>", "<a href='/y?abc'>", "<img src='/x?abc'>", "<a href='/x?abc#d'>"):
        assert quiet(html, query) == html


@pytest.mark.parametrize(
    "url",
    [
        "/?utm_source=a#b",
        "/?utm_source=a;b=1",
        "/?utm_source=a?b",
        "/?utm_source=a b",
        "/?utm_source=a&lt;b&utm_source",
        "/?utm_source=",
        "/?utm_source",
        "/?utm%5Fsource=a",
        "/?UTM_SOURCE=a",
        "mailto:a@b?utm_source=a",
        "javascript:go('/?utm_source=a')",
    ],
)
def test_a_url_in_doubt_counts(url: str) -> None:
    html = f'<a href="{url}">'
    assert quiet(html, UTM) == html


def test_a_text_is_left_out_between_tags_only() -> None:
    html = (
        "<title>10:00</title><style>a:10:00</style><!-- 10:00 --><p title='10:00'>At {0} or <b>{0}</b><br>{0} a < b {0}"
    )
    assert quiet(html.format("10:00"), CLOCK) == html.format("\0")
    assert quiet_text("At 10:00, 11:30", CLOCK) == "At \0, \0"
    assert quiet("<p>10:00<script>10:00</script>10:00", CLOCK) == "<p>\0<script>10:00</script>10:00"
    assert quiet("<p>10:00<b '>10:00", CLOCK) == "<p>\0<b '>10:00"
    assert quiet("10:00 tail", CLOCK) == "\0 tail"


def test_a_text_pattern_may_ask_for_the_ends_of_its_node() -> None:
    ignore = Text("all", Pattern("^Sent [a-z]+$"))
    assert quiet("<p>Sent today</p><p>Sent today.</p>", ignore) == "<p>\0</p><p>Sent today.</p>"


def test_an_attribute_is_left_out_by_its_name() -> None:
    ignore = Attribute("time", "data-time", Pattern("[0-9]+"))
    html = "<p Data-Time='{0}s{0}' data-times='1'>1<b data-time=1 title='data-time=1'><i data-time='1' data-time='1'>"
    assert quiet(html.format("12"), ignore) == html.format("\0\0")
    assert (
        quiet("<!-- <p data-time='1'> --></p data-time='1'>", ignore) == "<!-- <p data-time='1'> --></p data-time='1'>"
    )


def test_a_comment_is_left_out_whole() -> None:
    ignore = Comment("build", Pattern("^ build [0-9]+"))
    assert quiet("<p><!-- build 17 x --><!-- built --> build 1", ignore) == "<p><!--\0--><!-- built --> build 1"
    assert quiet("<!-- build 1 --!> -->", ignore) == "<!-- build 1 --!> -->"
    assert quiet("<!-- build 1", ignore) == "<!-- build 1"
    assert quiet("<script><!-- build 1 --></script>", ignore) == "<script><!-- build 1 --></script>"


def test_what_was_left_out_is_named_in_order() -> None:
    html = f"<!-- 1 --><img src='{U}?utm_source=a'>10:00 <a href='/?utm_source=b'>"
    found = strip_ignored_html(html.encode(), Ignores([CLOCK, UTM, Comment("one", Pattern("1"))]), ScanBudget())[1]
    assert found == (Ignored("one", b" 1 "), Ignored("utm", b"a"), Ignored("clock", b"10:00"), Ignored("utm", b"b"))


def test_pieces_that_overlap_are_one() -> None:
    both = (Attribute("src", "src", Pattern("=1&b")), Parameter("a", "a"), Attribute("all", "alt", Pattern(".+")))
    assert quiet("<img alt='x' src='/?a=12&b=1'>", *both) == "<img alt='\0\0' src='/?a=\0&b=1'>"
    assert quiet("<img alt='x' src='/?a=1&b=1'>", *both) == "<img alt='\0\0' src='/?a\0\0=1'>"


def test_an_attribute_cannot_pass_for_a_content_id() -> None:
    ignore = Ignores([Attribute("src", "src", Pattern("^x"))])
    first, second = (
        strip_ignored_html(b"<img src='%b'>" % value, ignore, ScanBudget(), {b"a": 1})[0]
        for value in (b"cid:a", b"xleaf 1")
    )
    assert first != second


def test_other_types_of_text_and_attachments_are_left_alone() -> None:
    for head in ("calendar", "plain\nContent-Disposition: attachment"):
        assert not same(f"{head}\n\n10:00", f"{head}\n\n10:01", CLOCK)
    assert same("plain\n\n10:00", "plain\n\n10:01", CLOCK)
    assert not same("plain; charset=x-none\n\n10:00", "plain; charset=x-none\n\n10:01", CLOCK)


def test_without_ignores_nothing_is_left_out() -> None:
    html = f"<img src='{U}?cache=1751364000'>10:00<!-- 1 -->"
    assert strip_ignored_html(html.encode(), Ignores(), ScanBudget()) == StrippedText(html.encode())
    assert strip_ignored_text(b"10:00", Ignores(), ScanBudget()) == StrippedText(b"10:00")


PIECES = st.sampled_from(
    [
        *("<p>", "<b ", "'", '"', ">", " ", "<!--", "-->", "<style>", "</style>", "<script>", "10:00", "10:01"),
        *("a", "=", "?", "&amp;", "&", "<i data-time='1'>", "https://x.test/?utm_source=b"),
        f"<img src='{U}?cache=1751364000'>",
        "<a href='/x?utm_source=a&b=1'>",
    ]
)
PAGES = st.lists(PIECES, max_size=12).map("".join)
IGNORES = st.lists(
    st.sampled_from([UTM, CLOCK, Comment("c", Pattern("1")), Parameter("cache", "cache", UrlKind.IMAGE)]),
    max_size=4,
    unique=True,
)


@given(PAGES, IGNORES)
def test_what_is_left_can_be_put_back(page: str, ignore: list[Ignore]) -> None:
    """All but the pieces that are named stays as it was, in place and order."""
    left, found, _ = strip_ignored_html(page.encode(), Ignores(ignore), ScanBudget())
    assert left.count(b"\0") == len(found)
    for _, piece in found:
        left = left.replace(b"\0", piece, 1)
    assert left == page.encode()


@given(PAGES, PAGES, IGNORES)
def test_pages_that_become_equal_differ_in_what_was_left_out_alone(
    first: str, second: str, ignore: list[Ignore]
) -> None:
    one, other = (strip_ignored_html(page.encode(), Ignores(ignore), ScanBudget()) for page in (first, second))
    if one[0] == other[0]:
        assert (first == second) == (one[1] == other[1])


DIGITS = st.text("0123456789", min_size=1)
WORD = st.text("abc", max_size=3)


@given(DIGITS, DIGITS, WORD, WORD)
def test_what_no_ignore_matches_counts_still(number: str, other: str, word: str, changed: str) -> None:
    digits = Text("digits", Pattern("[0-9]+"))
    assert same(f"plain\n\nx{number}y{word}z", f"plain\n\nx{other}y{changed}z", digits) == (word == changed)


@given(DIGITS, DIGITS, WORD, WORD)
def test_two_ignores_do_not_make_fields_slide(number: str, other: str, word: str, changed: str) -> None:
    both = (Text("digits", Pattern("[0-9]+")), UTM)
    first = f"html\n\n{number}{word}<a href='/?utm_source={word or 0}'>"
    second = f"html\n\n{other}{changed}<a href='/?utm_source={changed or 1}'>"
    assert same(first, second, *both) == (word == changed)


@pytest.mark.parametrize(
    "ignore",
    [
        CLOCK,
        Text("greedy", Pattern("1(?:.*x)?")),
        UTM,
        Attribute("a", "a", Pattern("[0-9]")),
        Comment("c", Pattern("1")),
        Query("q", Pattern("[0-9]+")),
        Parameter("cache", "cache", UrlKind.IMAGE),
    ],
    ids=lambda each: each.name,
)
def test_hostile_pages_cost_no_time(ignore: Ignore) -> None:
    """A megabyte of each: linear is some tenths of a second, quadratic is hours."""
    noise = Ignores([ignore])
    for shape in (
        *(
            "<b>1",
            "<b a='",
            "<!--",
            "<!--1-->",
            "<title>",
            "<",
            "<b a ",
            "<img src='' ",
            "<img src='a?cache=1&'>",
            "&#",
            "?",
        ),
        *(
            "1",
            "10:00",
            "<b a='1'>",
            "http://?",
            "http://a?utm_source=1 ",
            "<a href='?1'>",
            "<style>?",
            "<style></style",
            "<?",
        ),
    ):
        page = (shape * ((1 << 20) // len(shape)) + "cache=").encode()
        for ordinals in ({}, {b"a": 1}):
            start = time.process_time()
            strip_ignored_html(page, noise, ScanBudget(), ordinals)
            strip_ignored_text(page, noise, ScanBudget())
            assert time.process_time() - start < 8, shape


def test_too_many_matches_in_a_long_text_are_not_all_left_out() -> None:
    text = "10:00 " * 100_000
    left = quiet_text(text, CLOCK)
    assert 0 < left.count("\0") < 1_000
    assert left.replace("\0", "10:00") == text
    assert quiet_text("10:00 " * 500, CLOCK) == "\0 " * 500


def test_too_many_tags_that_could_matter_are_not_all_looked_at() -> None:
    """Small messages are judged between the steps of others."""
    image = f"<img src='{U}?cache=1751364000'>"
    assert quiet(image * 500).count("\0") == 500
    assert 0 < quiet(image * 2_000).count("\0") < 2_000
    assert quiet("<i ?>" * 5_000 + image) == "<i ?>" * 5_000 + image


def test_an_avideo_mail_says_what_was_ignored() -> None:
    content = f"{HEAD}html\n\n<img src='{U}?cache=1751364000'>".replace("\n", "\r\n").encode()
    judged = avideo_judge()(content, b"")
    assert judged.normal_form(judged.rule(BOB)).ignored == (Ignored("avideo: image cache", b"1751364000"),)
