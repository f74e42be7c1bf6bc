"""Ignores for calendars, PDF files, parameters of parts and Content-IDs in conditional comments.

The mails have the structure of those that reports name: a Nextcloud calendar mail, an invoice whose PDF is made anew,
and Outlook's signature images.
"""

from __future__ import annotations

import base64

import pytest

from relay.core.envelope import Recipient
from relay.judge.judge import Judge
from relay.judge.rules.ignore import Calendar, ContentIds, Ignore, PartParameter, Pdf, Text
from relay.judge.rules.ignores import Ignored, Ignores
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import NO_RULE
from relay.judge.rules.url_ignores import ScanBudget

BOB = Recipient("bob@example.org")
DTSTAMP = Calendar("stamp", "DTSTAMP")
PDF = Pdf("pdf")
DATES = (PartParameter("made", "creation-date"), PartParameter("changed", "modification-date"))
VML = ContentIds("vml")

ICS = (
    b"BEGIN:VCALENDAR\r\nMETHOD:CANCEL\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20250701T100000Z\r\nSEQUENCE:1\r\n"
    b"SUMMARY:Review\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
INVOICE = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"3 0 obj<</CreationDate(D:20250701100000+00'00')/ModDate(D:20250701100000+00'00')/Producer(mPDF 8)>>endobj\n"
    b"4 0 obj<</Length 23>>stream\nBT (Total 120.00) Tj ET\nendstream endobj\n"
)
TRAILER = b"trailer<</Size 5/Root 1 0 R/Info 3 0 R/ID[<5892c57f><acba869e>]>>\n"
INVOICE += TRAILER + b"%%EOF\n"
IMAGE_ID = b"image001.png@01DBC05C.669239C0"


def mail(*parts: bytes) -> bytes:
    head = b'Subject: x\r\nFrom: a@b\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="B"\r\n\r\n'
    return head + b"".join(b"--B\r\n%b\r\n" % part for part in parts) + b"--B--\r\n"


def file(kind: bytes, octets: bytes) -> bytes:
    head = b"Content-Type: %b; name=a\r\nContent-Disposition: attachment; filename=a\r\n" % kind
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(octets).replace(b"\n", b"\r\n")


def calendar(octets: bytes, *, attached: bool) -> bytes:
    return mail(file(b"text/calendar", octets) if attached else b"Content-Type: text/calendar\r\n\r\n" + octets)


def invoice(octets: bytes) -> bytes:
    return mail(file(b"application/pdf", octets))


def signature(*, made: bytes = b"Tue, 01 Jul 2025 10:00:00 GMT", name: bytes = b"image001.png") -> bytes:
    return mail(
        b"Content-Type: text/html\r\n\r\n<p>See the offer.</p>",
        b'Content-Type: image/png; name="%b"\r\nContent-Disposition: inline; filename="%b"; size=56;\r\n'
        b'\tcreation-date="%b";\r\n\tmodification-date="%b"\r\n\r\npicture' % (name, name, made, made),
    )


def vml(name: bytes, other: bytes = b"second@x", *, in_comment: bytes = b"", rest: bytes = b"") -> bytes:
    html = (
        b'<p>See</p><!--[if gte vml 1]><v:shape><v:imagedata src="cid:%b" o:title="logo"/></v:shape><![endif]-->%b'
        b'<img src="cid:%b"><img src="cid:%b">' % (in_comment or name, rest, name, other)
    )
    images = (b"Content-Type: image/png\r\nContent-ID: <%b>\r\n\r\n%b" % each for each in ((name, b"1"), (other, b"2")))
    return mail(b"Content-Type: text/html\r\n\r\n" + html, *images)


def same(first: bytes, second: bytes, *ignore: Ignore) -> bool:
    judge = Judge((), ignore, window=600)
    return judge(first, b"").fingerprint(BOB) == judge(second, b"").fingerprint(BOB)


def ignored(content: bytes, *ignore: Ignore) -> list[Ignored]:
    return list(Judge((), ignore, window=600)(content, b"").normal_form(NO_RULE).ignored)


@pytest.mark.parametrize("attached", [True, False])
def test_a_new_stamp_of_a_calendar_does_not_count_if_it_is_ignored(attached: bool) -> None:
    first, second = (calendar(ICS.replace(b"T1000", stamp), attached=attached) for stamp in (b"T1000", b"T1002"))
    assert not same(first, second)
    assert same(first, second, DTSTAMP)
    assert same(first, second, Calendar("stamp", "dtstamp"))
    assert ignored(first, DTSTAMP) == [Ignored("stamp", b"20250701T100000Z")]


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CANCEL", b"REQUEST"),
        (b"SEQUENCE:1", b"SEQUENCE:2"),
        (b"Review", b"Revue"),
        (b"DTSTAMP:20250701T100000Z\r\n", b""),
        (b"DTSTAMP:", b"DTSTAMP;X=1:"),
        (b"DTSTAMP:", b"DTSTAMPS:"),
        (b"DTSTAMP:", b"X-DTSTAMP:"),
        (b"Review", b"Review\r\n DTSTAMP:1"),
        (b"20250701T100000Z", b"1\r\nSUMMARY:2"),
    ],
)
def test_every_other_change_of_a_calendar_counts(old: bytes, new: bytes, attached: bool) -> None:
    first, second = (calendar(octets, attached=attached) for octets in (ICS, ICS.replace(old, new)))
    assert first != second
    assert not same(first, second, DTSTAMP)


def test_folded_lines_belong_to_the_value_and_unclear_ones_count() -> None:
    def equals(stamp: bytes) -> bool:
        second = ICS.replace(b"20250701T100000Z", stamp)
        return same(calendar(ICS, attached=True), calendar(second, attached=True), DTSTAMP)

    assert equals(b"2025\r\n 0702")
    assert equals(b"2025\r\n\t0702\r\n T10")
    for unclear in (
        b"1\rSUMMARY:2",
        b"1\x85SUMMARY:2",
        b"1\xe2\x80\xa8SUMMARY:2",
        b"1\x0bSUMMARY:2",
        b"",
        b"1\r\n\r\n 2",
    ):
        assert not equals(unclear)


def test_quoted_parameters_may_hold_a_colon() -> None:
    octets = b'BEGIN:X\r\nDTSTAMP;A="b:c";D=e:1:2\r\nEND:X\r\n'
    found = list(Ignores([DTSTAMP]).in_octets("text/calendar", octets, ScanBudget()))
    assert [octets[span.start : span.end] for span in found] == [b"1:2"]
    assert not list(Ignores([DTSTAMP]).in_octets("text/plain", octets, ScanBudget()))


def test_patterns_of_texts_apply_in_every_text_type_that_is_read_as_lines() -> None:
    clock = Text("clock", Pattern("[0-9]{2}:[0-9]{2}"))
    first, second = (mail(b"Content-Type: text/csv\r\n\r\na,b\r\n" + each) for each in (b"10:00", b"10:02"))
    assert not same(first, second)
    assert same(first, second, clock)
    assert not same(first, second.replace(b"a,b", b"a,c"), clock)
    attached = [mail(file(b"text/csv", each)) for each in (b"10:00", b"10:02")]
    assert not same(*attached, clock)


def again(pdf: bytes) -> bytes:
    new = pdf.replace(b"20250701100000", b"20250701100040").replace(b"5892c57f", b"4312de53")
    return new.replace(b"acba869e", b"f7ad86bd")


def with_table(pdf: bytes) -> bytes:
    """Returns the file with a cross-reference table."""
    body, trailer = pdf.split(b"trailer", 1)
    offsets = [body.find(b"%d 0 obj" % number) for number in range(5)]
    lines = b"".join(b"%010d 00000 n \n" % max(0, offset) for offset in offsets)
    return b"%bxref\n0 5\n%btrailer%b" % (body, lines, trailer.replace(b"%%EOF", b"startxref\n%d\n%%%%EOF" % len(body)))


@pytest.mark.parametrize("pdf", [INVOICE, with_table(INVOICE)])
def test_metadata_of_a_pdf_that_is_made_anew_does_not_count_if_it_is_ignored(pdf: bytes) -> None:
    assert not same(invoice(pdf), invoice(again(pdf)))
    assert same(invoice(pdf), invoice(again(pdf)), PDF)
    pieces = [piece for _, piece in ignored(invoice(pdf), PDF)]
    assert pieces == [*[b"(D:20250701100000+00'00')"] * 2, b"[<5892c57f><acba869e>]"]


@pytest.mark.parametrize("pdf", [INVOICE, with_table(INVOICE)])
def test_every_other_octet_of_a_pdf_counts(pdf: bytes) -> None:
    spans = list(Ignores([PDF]).in_octets("application/pdf", pdf, ScanBudget()))
    assert len(spans) == 3
    judge = Judge((), [PDF], window=600)
    form = judge(invoice(pdf), b"").normal_form(NO_RULE).fields
    for at in range(len(pdf)):
        if not any(span.start <= at < span.end for span in spans):
            changed = pdf[:at] + bytes([pdf[at] ^ 1]) + pdf[at + 1 :]
            assert judge(invoice(changed), b"").normal_form(NO_RULE).fields != form, at


@pytest.mark.parametrize(
    "pdf",
    [
        INVOICE.replace(b"%PDF", b"%!PS"),
        INVOICE + TRAILER,
        INVOICE.replace(b"/Size 5", b"/Encrypt 9 0 R"),
        INVOICE.replace(b"/Size 5", b"/Size 5/X<</Y 1>>"),
        INVOICE.replace(TRAILER, b""),
    ],
)
def test_a_pdf_of_another_form_counts_completely(pdf: bytes) -> None:
    assert ignored(invoice(pdf), PDF) == []
    assert not same(invoice(pdf), invoice(again(pdf) + b"\n"), PDF)


@pytest.mark.parametrize(
    "pdf",
    [
        INVOICE.replace(b"/Producer(mPDF 8)", b"/Producer(a(b)c)"),
        INVOICE.replace(b"/ModDate", b"/CreationDate"),
        INVOICE.replace(b"%%EOF", b"3 0 obj<<>>endobj\n%%EOF"),
        INVOICE.replace(b"3 0 obj<<", b"9 0 obj<<>>stream\n3 0 obj<<"),
        with_table(INVOICE).replace(b"xref\n0 5\n00", b"xref\n0 5\n"),
    ],
)
def test_dates_of_an_info_dictionary_that_is_not_certain_count(pdf: bytes) -> None:
    assert [piece for _, piece in ignored(invoice(pdf), PDF)] == [b"[<5892c57f><acba869e>]"]


def test_a_stripped_file_differs_from_one_that_holds_nul_by_itself() -> None:
    nul = INVOICE
    for _, piece in ignored(invoice(INVOICE), PDF):
        nul = nul.replace(piece, b"\0", 1)
    assert not same(invoice(INVOICE), invoice(nul), PDF)


def test_long_files_and_hostile_ones_take_linear_time() -> None:
    assert ignored(invoice(INVOICE.replace(b"Tj", b"x" * (1 << 20))), PDF) == []
    for hostile in (b"/A(" * 200_000, b"/A " * 200_000, b"/A" + b"\0" * 500_000, b"trailer<<" * 50_000):
        assert ignored(invoice(INVOICE.replace(b"/Size 5", hostile)), PDF) == []
    for hostile in (b"DTSTAMP;" * 100_000, b'DTSTAMP;"' * 100_000, b"DTSTAMP:" + b"\r\n x" * 200_000 + b"\0"):
        assert ignored(calendar(ICS + hostile, attached=True), DTSTAMP) == [Ignored("stamp", b"20250701T100000Z")]


def test_dates_of_a_signature_image_do_not_count_if_they_are_ignored() -> None:
    later = signature(made=b"Tue, 01 Jul 2025 10:01:00 GMT")
    assert not same(signature(), later)
    assert not same(signature(), later, DATES[0])
    assert same(signature(), later, *DATES)
    assert not same(signature(), later.replace(b"size=56", b"size=57"), *DATES)
    assert not same(signature(), later.replace(b"\r\npicture", b"\r\nPicture"), *DATES)
    assert not same(signature(), later.replace(b"creation-date", b"read-date"), *DATES)
    assert ignored(signature(), DATES[0]) == [Ignored("made", b"creation-date=Tue, 01 Jul 2025 10:00:00 GMT")]


def test_names_of_files_that_are_uuids_do_not_count_if_they_are_ignored() -> None:
    uuid = Pattern(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.png")
    names = [PartParameter(name, name, uuid) for name in ("name", "filename")]
    first, second = (signature(name=b"%b-0000-4000-8000-00000000000a.png" % each) for each in (b"0" * 8, b"1" * 8))
    assert not same(first, second)
    assert same(first, second, *names)
    assert not same(first, second.replace(b"a.png", b"a.jpg"), *names)
    assert not same(first, signature(name=b"invoice.png"), *names)


def test_ids_in_conditional_comments_do_not_count_if_they_are_ignored() -> None:
    first, second = vml(IMAGE_ID), vml(b"image001.png@01DB734A.CE122156")
    assert not same(first, second)
    assert same(first, second, VML)
    assert ignored(first, VML) == [Ignored("vml", b"cid:" + IMAGE_ID)]


def test_an_id_in_a_comment_that_names_another_part_counts() -> None:
    assert not same(vml(IMAGE_ID), vml(IMAGE_ID, in_comment=b"second@x"), VML)
    assert not same(vml(IMAGE_ID), vml(b"other@x", in_comment=IMAGE_ID), VML)
    assert not same(vml(IMAGE_ID), vml(b"other@x").replace(b"logo", b"Logo"), VML)
    for rest in (b"<!--cid:%b-->", b'<!--src="cid:%b"-->', b"<div style='background:url(cid:%b)'>"):
        first, second = (vml(name, rest=rest % name) for name in (IMAGE_ID, b"other@x"))
        assert not same(first, second, VML)
