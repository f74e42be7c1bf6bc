"""The style sheet in the head of a page: what is recognised as one, and how it counts."""

from __future__ import annotations

import pytest
from parts.judging import avideo_judge

from relay.core.envelope import Recipient
from relay.judge.html.style_sheet import split_style
from relay.judge.rules.rule import NO_RULE

judge = avideo_judge()
BOB = Recipient("bob@example.org")
HEAD = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=%b\r\n\r\n"
PAGE = "<!DOCTYPE html>\r\n<html>\r\n<head>\r\n<meta charset='utf-8'>\r\n<title>é</title>\r\n<style>{}</style></head>y"
CSS = "\r\n .a  > b {\r\n color: red;\r\n}\r\n"


def fingerprint(page: str, charset: str = "utf-8") -> str:
    return judge(HEAD % charset.encode() + page.encode(charset), b"").fingerprint(BOB)


def test_a_style_sheet_in_the_head_is_a_separate_field() -> None:
    judged = judge(HEAD % b"utf-8" + PAGE.format(CSS).encode(), b"")
    fields = dict(judged.normal_form(NO_RULE).fields)
    assert fields["style sheet"] == CSS.encode()
    assert fields["text"].endswith("<title>é</title> <style></style></head>y".encode())


def test_only_line_ends_and_charset_do_not_count() -> None:
    page = PAGE.format(CSS)
    same = {
        fingerprint(page),
        fingerprint(page, "iso-8859-1"),
        fingerprint(PAGE.format(CSS.replace("\r\n", "\n"))),
    }
    assert len(same) == 1
    changed = ("red", "rid"), (".a ", ".a"), ("> b", ">b"), ("\r\n", "")
    assert len({fingerprint(PAGE.format(CSS.replace(*change))) for change in changed} - same) == len(changed)
    # The rest of the page differs from a page with an empty style sheet.
    assert fingerprint(PAGE.format("")) not in same


def test_it_counts_in_a_page_with_an_ignored_value_too() -> None:
    page = PAGE + "<img src='https://tube.example.test/a.jpg?cache=17412345671741234567'>"
    sent = {fingerprint(page.format(CSS)), fingerprint(page.format(CSS).replace("?cache=1", "?cache=2"))}
    assert len(sent) == 1
    assert fingerprint(page.format(CSS.replace("red", "rid"))) not in sent


@pytest.mark.parametrize(
    "page",
    [
        "<!-- <style> --> a </style> b -->",
        "<script>'<style> a </style>'</script>",
        "<meta content='<style> a </style>'>",
        "<meta content='> <style> a </style>",
        "<title><style> a </style></title>",
        "<svg><style> a </style></svg>",
        "<style title='>'> a </style>",
        "x<style> a </style>",
        "<style> a <!-- </style>",
        "<style> a </style >",
        "<style> a",
        "<style> é </style>",
        "<style> \v </style>",
        "<style></style>",
    ],
)
def test_what_may_be_something_else_stays_in_the_page(page: str) -> None:
    assert split_style(page.encode()) == (page.encode(), b"")


@pytest.mark.parametrize(
    "link",
    [
        "a:url(https://tube.example.test/recoverPass?user=a&recoverpass=b)",
        "href = '/recoverPass?recoverpass=b'",
        "a:url(https&#58;&#47;&#47;tube.example.test/recoverPass?recoverpass=b)",
    ],
)
def test_rules_find_links_in_a_style_sheet(link: str) -> None:
    judged = judge(HEAD % b"utf-8" + PAGE.format(link).encode(), b"")
    assert "style sheet" in dict(judged.normal_form(NO_RULE).fields)
    assert judged.ruling(BOB).rule == "avideo: password recovery"


def test_a_content_id_in_a_style_sheet_counts() -> None:
    """It may refer to another leaf if two are swapped."""

    def related(name: str) -> bytes:
        return (
            b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\n"
            b"Content-Type: text/html\r\n\r\n<style>b {background: url(cid:%b)}</style>\r\n--b\r\n"
            b"Content-Type: image/png\r\nContent-ID: <%b>\r\n\r\nx\r\n--b--\r\n"
        ) % (name.encode(), name.encode())

    first = dict(judge(related("a"), b"").normal_form(NO_RULE).fields)
    assert first["field content-id"] == b"<a>"


def test_a_style_sheet_too_large_for_the_cache_is_folded() -> None:
    page = "<style>" + "b {}\r\n" * 11_000 + "</style>"
    wire, file = (judge(HEAD % b"utf-8" + source.encode(), b"") for source in (page, page.replace("\r\n", "\n")))
    assert "style sheet" not in dict(wire.normal_form(NO_RULE).fields)
    assert wire.fingerprint(BOB) == file.fingerprint(BOB)


def test_two_pages_with_equal_style_sheets_share_one_object_so_that_it_is_hashed_once() -> None:
    first, second = (split_style(PAGE.format(CSS).encode())[1] for _ in range(2))
    assert first is second
    assert split_style(PAGE.format(CSS + "b{}").encode())[1] is not first
