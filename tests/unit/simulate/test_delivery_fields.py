"""What a header section tells of a delivery: when, to whom, from whom."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.simulate.delivery_fields import DeliveryFields, parse_date, parse_file_name

NOON = 1772362620.0  # 2026-03-01 10:57 UTC
RECEIVED = b"Received: from a\n by b; Sun, 1 Mar 2026 11:57:00 +0100\n"
DELIVERY = b"Delivery-date: Sun, 01 Mar 2026 10:57:01 +0000\n"
DATE = b"Date: Sun, 1 Mar 2026 10:57:03 +0000\n"
FROM = b"From a@b  Sun Mar  1 10:57:02 2026\n"


@pytest.mark.parametrize(
    ("head", "from_line", "source", "after"),
    [
        (RECEIVED + DELIVERY + DATE, FROM, "Received", 0),
        (RECEIVED + b"Received: by c; Sun, 1 Mar 2026 00:00:00 +0000\n", b"", "Received", 0),
        (b"Received: by b; nonsense\n" + DELIVERY + DATE, FROM, "Delivery-date", 1),
        (b"Received: by b\n" + DATE, FROM, "From_ line", 2),
        (DATE, b"", "Date", 3),
        (b"Subject: x\n\nDate: Sun, 1 Mar 2026 10:57:03 +0000\n", FROM, "From_ line", 2),
        (RECEIVED.replace(b"\n", b"\r\n"), b"", "Received", 0),
    ],
)
def test_the_date_comes_from_the_last_hop_that_tells(head: bytes, from_line: bytes, source: str, after: float) -> None:
    assert DeliveryFields(head, from_line).date() == (NOON + after, source)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"From a@b Sun Mar  1 10:57:00 2026", 0),
        (b"From a@b  Sun Mar 01 10:57 2026", 0),
        (b"From - Sun Mar 1 10:57:00 2026", 0),
        (b"From 17@xxx Sun Mar 01 11:57:00 +0100 2026", 0),
        (b"From a@b Sun Mar  1 10:57:00 GMT 2026", 0),
        (b"From a@b Sun Mar  1 11:57:00 2026 +0100", 0),
        (b"From a@b Sun, 1 Mar 2026 11:57:00 +0100", 0),
        (b"From joe at b.example  Sun Mar  1 10:57:00 2026", 0),
    ],
)
def test_from_lines_of_many_programs_are_read(line: bytes, seconds: float) -> None:
    assert DeliveryFields(b"", line).date() == (NOON + seconds, "From_ line")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"Thu, 01 Jan 1970 00:00:00 +0000", 0.0),
        (b"Fri, 31 Dec 2100 23:59:60 GMT", 4133980799.0),
        (b"Sun, 1 Mar 2026 10:57:00 -0000", NOON),
        (b"Sun, 1 Mar 2026 05:57:00 EST", NOON),
        (b"1 Mar 26 10:57", NOON),
        (b"Sun, 1 Mar 2026 10:57:00 +0000 (a (nested) comment)", NOON),
        (b"Mon, 31 Feb 2026 10:57:00 +0000", None),
        (b"Mon, 1 Mar 2026 25:00:00 +0000", None),
        (b"Mon, 1 Mar 99999 10:00:00 +0000", None),
        (b"Fri, 31 Dec 9999 23:59:59 +0000", 253402300799.0),
        (b"Fri, 31 Dec 9999 23:59:59 -0001", None),
        (b"Sun, 1 Mar 2026 10:57:00 +99999999999999999999", None),
        (b"Sun, 1 Mar 2026 10:57:00 -99999999999999999999", None),
        (b"", None),
        (b"soon", None),
        (b"\xff\x00", None),
    ],
)
def test_dates_are_read_or_not_usable(text: bytes, seconds: float | None) -> None:
    assert parse_date(text) == seconds


@settings(deadline=None)
@given(st.one_of(st.binary(), st.text("0123456789:+-, MarGT", max_size=40).map(str.encode)))
def test_no_date_and_no_heading_breaks_anything(octets: bytes) -> None:
    parse_date(octets)
    heading = DeliveryFields(b"To: %b\nReturn-Path: %b\nReceived: ;%b\n" % (octets, octets, octets), b"From " + octets)
    heading.date()
    assert heading.recipients().recipients
    heading.reverse_path()


def test_the_name_of_a_maildir_file_begins_with_its_time() -> None:
    assert parse_file_name(b"1772362620.M1P2.host:2,S") == NOON
    assert parse_file_name(b"msg.1772362620") is None


@pytest.mark.parametrize(
    ("head", "recipients", "source"),
    [
        (b"X-Original-To: A@B.example\nDelivered-To: c@d\nTo: e@f\n", ["a@b.example"], "X-Original-To"),
        (b"Delivered-To: last@d\nDelivered-To: first@d\nTo: e@f\n", ["last@d"], "Delivered-To"),
        (b"X-Original-To: root\nDelivered-To: root@d\n", ["root@d"], "Delivered-To"),
        (b"Envelope-to: a@b, c@d\nTo: e@f\n", ["a@b", "c@d"], "Envelope-To"),
        (b"To: e@f, E@F\nCc: <g@h>\n", ["e@f", "g@h"], "To and Cc"),
        (b'To: "No, x@y" <e@f>,\n Anna (of i@j) <g@h>\n', ["e@f", "g@h"], "To and Cc"),
        (b"To: Friends: e@f, g@h;\n", ["e@f", "g@h"], "To and Cc"),
        (b"To: =?utf-8?q?K=C3=A4the?= <e@b\xc3\xbccher.example>\n", ["e@xn--bcher-kva.example"], "To and Cc"),
        (b"To: undisclosed-recipients:;\n", ["unknown"], "unknown"),
        (b"Subject: x\n", ["unknown"], "unknown"),
    ],
)
def test_recipients_come_from_the_delivery_else_from_to_and_cc(head: bytes, recipients: list[str], source: str) -> None:
    assert DeliveryFields(head + b"Subject: x\n").recipients() == (tuple(recipients), source)


@pytest.mark.parametrize(
    ("head", "reverse_path"),
    [(b"Return-Path: <a@b>\n", b"a@b"), (b"Return-path: <>\n", b""), (b"Return-Path: a@b\n", b"a@b"), (b"", None)],
)
def test_the_reverse_path_is_empty_unknown_or_known(head: bytes, reverse_path: bytes | None) -> None:
    assert DeliveryFields(head + b"From: x@y\n").reverse_path() == reverse_path
