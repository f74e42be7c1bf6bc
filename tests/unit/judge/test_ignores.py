"""Each kind of ignore: what it leaves out, what still counts, and the uncertain places where nothing is left out."""

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
AVIDEO = avideo_judge().ignores[NO_RULE]
UTM = Parameter("utm", "utm_source")
CLOCK = Text("clock", Pattern("[0-9]{2}:[0-9]{2}"))
HEAD = "Subject: x\nFrom: a@b\nMIME-Version: 1.0\nContent-Type: text/"


def strip(html: str, *ignore: Ignore) -> str:
    """Returns HTML with NUL in place of what is ignored, by default by the `avideo` preset."""
    ignores = Ignores(ignore) if ignore else AVIDEO
    return strip_ignored_html(html.encode(), ignores, ScanBudget())[0].decode()


def strip_text(text: str, *ignore: Ignore) -> str:
    return strip_ignored_text(text.encode(), Ignores(ignore), ScanBudget())[0].decode()


def same(first: str, second: str, *ignore: Ignore) -> bool:
    """Returns whether two mails have the same fingerprint. Each is given from the subtype of `text/` on."""
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
    assert strip(html) == f"<p><IMG alt=x src={quote}{U}{before}cache=\0{after}{quote} />"


@pytest.mark.parametrize(
    "path",
    [
        "videos/video_1a/video_1a_thumbsV2.jpg",
        "videos/v_240301105700_v1a2b/v_240301105700_v1a2b_thumbsSmallV2.jpg",
        "videos/1a_thumbsV2.jpg",
        "videos/video_1a/video_1a.webp",
        "videos/userPhoto/logo.png",
    ],
)
def test_the_bare_number_of_older_releases_is_left_out(path: str) -> None:
    assert (
        strip(f"<img src='https://t.example.org/{path}?1624465305'>") == f"<img src='https://t.example.org/{path}?\0'>"
    )


@pytest.mark.parametrize(
    "path", ["v.jpg", "gate.jpg", "videos/gate.jpg", "videos/cam1/gate.jpg", "videos/userPhoto/7.png", "x_thumbsV2.jpg"]
)
def test_a_bare_number_outside_avideos_paths_counts(path: str) -> None:
    html = f"<img src='https://t.example.org/{path}?1624465305'>"
    assert strip(html) == html


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
    assert strip(html) == html
    assert strip(f"{html} ?<a href='?x'>") == f"{html} ?<a href='?x'>"


def test_only_images_lose_a_cache_value_also_where_ids_are_replaced() -> None:
    html = b"<input background='cid:a' src='a.jpg?cache=1751364000'><td background='cid:b'>"
    assert strip_ignored_html(html, AVIDEO, ScanBudget(), {b"a": 1})[0] == html.replace(b"cid:a", b"\0leaf 1")


def test_an_image_after_comments_styles_and_odd_text_is_found() -> None:
    before = "<!doctype html><style> a > b {} ? </style><!-- a > b ? --><p>1 < 2 <3 ? <br/><a href=x?/>&lt;"
    assert strip(f"{before}<img src='{U}?cache=1751364000'>") == f"{before}<img src='{U}?cache=\0'>"


@pytest.mark.parametrize(
    ("url", "html", "text"),
    [
        (UrlKind.IMAGE, "<img src='{0}?a=\0'><a href='{0}?a=1'>{0}?a=1", "{0}?a=1"),
        (UrlKind.LINK, "<img src='{0}?a=1'><a href='{0}?a=\0'>{0}?a=1", "{0}?a=1"),
        (UrlKind.ANY, "<img src='{0}?a=\0'><a href='{0}?a=\0'>{0}?a=\0", "{0}?a=\0"),
    ],
)
def test_a_url_kind_names_the_place_of_the_url(url: UrlKind, html: str, text: str) -> None:
    ignore = Parameter("a", "a", url)
    written = html.format(U)
    assert strip(written.replace("\0", "1"), ignore) == written
    assert strip_text(text.format(U).replace("\0", "1"), ignore) == text.format(U)
    assert strip("<area href='/x?a=1'>", ignore) == f"<area href='/x?a={1 if url is UrlKind.IMAGE else chr(0)}'>"


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
    assert strip_text(text, UTM) == left


def test_the_rest_of_a_url_counts() -> None:
    page = "html\n\n<a href='https://{}?a={}&utm_source={}'>x</a>"
    assert same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "news"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 2, "mail"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("y.test", 1, "mail"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "mail").replace("utm_s", "utm_t"), UTM)
    assert not same(page.format("x.test", 1, "mail"), page.format("x.test", 1, "news"))


def test_patterns_for_path_and_value_select_urls() -> None:
    ignore = Parameter("v", "v", UrlKind.ANY, Pattern("[0-9]+"), Pattern("^https://cdn\\."))
    assert strip("<img src='https://cdn.test/?v=1'>", ignore) == "<img src='https://cdn.test/?v=\0'>"
    for html in ("<img src='https://cdn.test/?v=1x'>", "<img src='https://www.test/?v=1'>"):
        assert strip(html, ignore) == html
    query = Query("q", Pattern("[a-f]+"), UrlKind.LINK, Pattern("/x$"))
    assert strip("<a href='/x?abc'>", query) == "<a href='/x?\0'>"
    for html in ("<a href='/x?abcg'>", "<a href='/y?abc'>", "<img src='/x?abc'>", "<a href='/x?abc#d'>"):
        assert strip(html, query) == html


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
def test_an_uncertain_url_counts(url: str) -> None:
    html = f'<a href="{url}">'
    assert strip(html, UTM) == html


def test_text_is_left_out_between_tags_only() -> None:
    html = (
        "<title>10:00</title><style>a:10:00</style><!-- 10:00 --><p title='10:00'>At {0} or <b>{0}</b><br>{0} a < b {0}"
    )
    assert strip(html.format("10:00"), CLOCK) == html.format("\0")
    assert strip_text("At 10:00, 11:30", CLOCK) == "At \0, \0"
    assert strip("<p>10:00<script>10:00</script>10:00", CLOCK) == "<p>\0<script>10:00</script>10:00"
    assert strip("<p>10:00<b '>10:00", CLOCK) == "<p>\0<b '>10:00"
    assert strip("10:00 tail", CLOCK) == "\0 tail"


def test_anchors_of_a_text_pattern_are_the_ends_of_the_text_node() -> None:
    ignore = Text("all", Pattern("^Sent [a-z]+$"))
    assert strip("<p>Sent today</p><p>Sent today.</p>", ignore) == "<p>\0</p><p>Sent today.</p>"


def test_an_attribute_is_selected_by_its_name() -> None:
    ignore = Attribute("time", "data-time", Pattern("[0-9]+"))
    html = "<p Data-Time='{0}s{0}' data-times='1'>1<b data-time=1 title='data-time=1'><i data-time='1' data-time='1'>"
    assert strip(html.format("12"), ignore) == html.format("\0\0")
    assert (
        strip("<!-- <p data-time='1'> --></p data-time='1'>", ignore) == "<!-- <p data-time='1'> --></p data-time='1'>"
    )


def test_the_whole_comment_is_left_out() -> None:
    ignore = Comment("build", Pattern("^ build [0-9]+"))
    assert strip("<p><!-- build 17 x --><!-- built --> build 1", ignore) == "<p><!--\0--><!-- built --> build 1"
    assert strip("<!-- build 1 --!> -->", ignore) == "<!-- build 1 --!> -->"
    assert strip("<!-- build 1", ignore) == "<!-- build 1"
    assert strip("<script><!-- build 1 --></script>", ignore) == "<script><!-- build 1 --></script>"


def test_ignored_pieces_are_listed_in_order() -> None:
    html = f"<!-- 1 --><img src='{U}?utm_source=a'>10:00 <a href='/?utm_source=b'>"
    found = strip_ignored_html(html.encode(), Ignores([CLOCK, UTM, Comment("one", Pattern("1"))]), ScanBudget())[1]
    assert found == (Ignored("one", b" 1 "), Ignored("utm", b"a"), Ignored("clock", b"10:00"), Ignored("utm", b"b"))


def test_overlapping_pieces_are_merged() -> None:
    both = (Attribute("src", "src", Pattern("=1&b")), Parameter("a", "a"), Attribute("all", "alt", Pattern(".+")))
    assert strip("<img alt='x' src='/?a=12&b=1'>", *both) == "<img alt='\0\0' src='/?a=\0&b=1'>"
    assert strip("<img alt='x' src='/?a=1&b=1'>", *both) == "<img alt='\0\0' src='/?a\0\0=1'>"


def test_an_ignored_attribute_differs_from_a_replaced_content_id() -> None:
    ignore = Ignores([Attribute("src", "src", Pattern("^x"))])
    first, second = (
        strip_ignored_html(b"<img src='%b'>" % value, ignore, ScanBudget(), {b"a": 1})[0]
        for value in (b"cid:a", b"xleaf 1")
    )
    assert first != second


def test_all_text_types_are_stripped_and_attachments_are_not() -> None:
    for head in ("plain\nContent-Disposition: attachment", "calendar\nContent-Disposition: attachment"):
        assert not same(f"{head}\n\n10:00", f"{head}\n\n10:01", CLOCK)
    for head in ("plain", "calendar", "x-log"):
        assert same(f"{head}\n\n10:00", f"{head}\n\n10:01", CLOCK)
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
def test_putting_the_ignored_pieces_back_gives_the_page(page: str, ignore: list[Ignore]) -> None:
    """Everything else stays unchanged, in place and order."""
    left, found, _ = strip_ignored_html(page.encode(), Ignores(ignore), ScanBudget())
    assert left.count(b"\0") == len(found)
    for _, piece in found:
        left = left.replace(b"\0", piece, 1)
    assert left == page.encode()


@given(PAGES, PAGES, IGNORES)
def test_pages_that_become_equal_differ_in_ignored_pieces_only(first: str, second: str, ignore: list[Ignore]) -> None:
    one, other = (strip_ignored_html(page.encode(), Ignores(ignore), ScanBudget()) for page in (first, second))
    if one[0] == other[0]:
        assert (first == second) == (one[1] == other[1])


DIGITS = st.text("0123456789", min_size=1)
WORD = st.text("abc", max_size=3)


@given(DIGITS, DIGITS, WORD, WORD)
def test_what_no_ignore_matches_still_counts(number: str, other: str, word: str, changed: str) -> None:
    digits = Text("digits", Pattern("[0-9]+"))
    assert same(f"plain\n\nx{number}y{word}z", f"plain\n\nx{other}y{changed}z", digits) == (word == changed)


@given(DIGITS, DIGITS, WORD, WORD)
def test_two_ignores_do_not_blur_what_stands_between_them(number: str, other: str, word: str, changed: str) -> None:
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
def test_hostile_pages_take_linear_time(ignore: Ignore) -> None:
    """Each page has a megabyte: linear time is some tenths of a second, quadratic time is hours."""
    ignores = Ignores([ignore])
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
            strip_ignored_html(page, ignores, ScanBudget(), ordinals)
            strip_ignored_text(page, ignores, ScanBudget())
            assert time.process_time() - start < 8, shape


def test_the_scan_budget_limits_the_matches_in_a_long_text() -> None:
    text = "10:00 " * 100_000
    left = strip_text(text, CLOCK)
    assert 0 < left.count("\0") < 1_000
    assert left.replace("\0", "10:00") == text
    assert strip_text("10:00 " * 500, CLOCK) == "\0 " * 500


def test_the_scan_budget_limits_the_tags_that_are_examined() -> None:
    """Small messages are judged in the event loop, so one message must not take long."""
    image = f"<img src='{U}?cache=1751364000'>"
    assert strip(image * 500).count("\0") == 500
    assert 0 < strip(image * 2_000).count("\0") < 2_000
    assert strip("<i ?>" * 5_000 + image) == "<i ?>" * 5_000 + image


def test_the_normal_form_of_an_avideo_mail_lists_what_was_ignored() -> None:
    content = f"{HEAD}html\n\n<img src='{U}?cache=1751364000'>".replace("\n", "\r\n").encode()
    analysis = avideo_judge()(content, b"")
    assert analysis.normal_form(analysis.rule(BOB)).ignored == (Ignored("avideo: image cache", b"1751364000"),)


@pytest.mark.parametrize("name", ["style", "title"])
@pytest.mark.parametrize("space", ["\n", "\t"])
def test_an_element_of_text_ends_at_an_end_tag_with_any_white_space(name: str, space: str) -> None:
    """A page whose white space counts keeps the line end. What follows is shown as text, so everything counts."""
    page = f"<{name}></{name}{space}><textarea></{name}><img src='{U}?cache=1751364000'>"
    assert strip(page) == page
