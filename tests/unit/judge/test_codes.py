"""One-time codes and links with a token: what the form of a message says, in any language."""

from __future__ import annotations

import time

import pytest
from parts import avideo

from relay.core.envelope import Recipient
from relay.core.ruling import Action
from relay.judge.rules.codes import LONGEST_TEXT, find_codes, find_token_links, has_token, visible_lines
from relay.settings import Settings
from relay.settings.rules import build_judge

BOB = Recipient("bob@example.org")
JUDGE = build_judge(Settings())
FROM = b"From: Firm <firm@example.org>\r\nMIME-Version: 1.0\r\n"


def codes(text: str, subject: str = "Hello") -> list[str]:
    return [code.decode() for code in find_codes([subject.encode()], [text.encode()])]


def mail(body: str, *fields: str, html: bool = True) -> bytes:
    head = FROM + "".join(f"{field}\r\n" for field in fields).encode()
    return head + f"Content-Type: text/{'html' if html else 'plain'}; charset=utf-8\r\n\r\n{body}\r\n".encode()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<p>Neue Anmeldung</p><span>482913</span><small>1 Stunde</small>", "482913"),
        ("<td>482 913</td>", "482913"),
        ("<td> 482-913. </td>", "482913"),
        ("<b>4829</b>", "4829"),
        ("<b>4829130572</b>", "4829130572"),
        ("<div>G-482913</div>", "G482913"),
        ("<h1>R9VHC</h1>", "R9VHC"),
        ("<h1>x7k29q</h1>", "x7k29q"),
        ("<h1>WDJB-MJHT</h1>", "WDJBMJHT"),
        ("<h1>A1B2-C3D4</h1>", "A1B2C3D4"),
        ("<p>Your code</p><h1>QWXTAB</h1>", "QWXTAB"),
        ("<td>4</td><td>8</td> <td>2</td>\n<td>9</td><td>1</td><td>3</td>", "482913"),
        ("<p>4 8 2 9 1 3</p>", "482913"),
        ("<b>&nbsp;482913&#8203;</b>", "482913"),
        ("<b>&#52;82913</b>4829x", "482913"),
        ("New sign-in.\n* IP: 192.0.2.8\n482913\nValid for 1 hour.", "482913"),
        ("Your code is 482913.", "482913"),
        ("482913 is your Example verification code", "482913"),
        ("Ihr Bestätigungscode lautet: 482913", "482913"),
        ("Tu código es 482913", "482913"),
        ("Votre code est 482 913 .", "482913"),
        ("Код подтверждения: 482913", "482913"),
        ("您的验证码：482913，请勿泄露", "482913"),  # noqa: RUF001
        ("認証コード「482913」を入力", "482913"),
        ("인증번호 482913 을 입력", "482913"),
        ("رمز التحقق 482913", "482913"),
        ("Mã xác nhận: 482913", "482913"),
        ("Your PIN: 48291", "48291"),
        ("Enter code R9VHC to go on", "R9VHC"),
    ],
)
def test_a_code_that_stands_by_itself_or_near_a_word_for_it_is_found(text: str, code: str) -> None:
    assert codes(text) == [code]


def test_a_code_in_the_subject_is_found() -> None:
    assert codes("Use it to sign in", "482913 is your code") == ["482913"]


@pytest.mark.parametrize(
    "text",
    [
        "<b>123</b>",
        "<b>48291305721</b>",
        "<b>2026</b>",
        "<td>2026-11-28</td>",
        "<p>&copy; 2026 Example</p>",
        "<a class=button>WATCH</a>",
        "<b>SUBSCRIBE</b><b>HTML</b><b>Reply</b>",
        "<b>marta77</b>",
        "<b>COVID-19</b>",
        "<b>1080p</b>",
        "<b>#48291</b>",
        "<p>Invoice <a href='/i/1'>10042</a></p>",
        "<td><a href='/i/1'>10042</a></td>",
        "<style>.a{width:1000px}</style><p>Hello</p><!-- 482913 -->",
        "<title>482913</title>",
        "<img width='4829' alt='482913'>",
        "<td>4829</td><td>1234</td><td>9021</td><td>7731</td>",
        "We had 48291 visitors.",
        "Use code SPRING24 for a month free",
        "It costs 4829.50, code included",
        "Your code arrives at 10:57, call +49-30-482913",
        "See https://example.org/code/482913",
        "<p>482913</p>" + "<p>long</p>" * LONGEST_TEXT,
    ],
)
def test_other_numbers_and_words_are_no_codes(text: str) -> None:
    assert codes(text) == []


@pytest.mark.parametrize(
    "link",
    [
        "https://a.example/verify?token=4f9a1c",
        "https://a.example/auth/confirmation?confirmation_token=xY12zW34",
        "https://a.example/login?email=b%40c.example&code=482913",
        "https://a.example/x?oobCode=aZ8kQ2mX9pL4&mode=reset",
        "https://a.example/accounts/reset/MQ/c4xd2u-1a2b3c4d5e6f708192a3b4c5d6e7f809/",
        "https://a.example/email/verify/7/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33",
        "https://a.example/i/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
        "https://a.example/s#access_token=eyJhbGciOiJIUzI1NiJ9",
        "https://a.example/m/Zk3fT9aQwe21LmNoPqRs",
    ],
)
def test_a_link_with_a_token_is_known_in_html_and_in_text(link: str) -> None:
    assert has_token(link)
    for text in (f"<a href='{link}'>in</a>", f"Visit\n{link}\n"):
        assert find_token_links([text.encode()]) == [link.encode()]


@pytest.mark.parametrize(
    "link",
    [
        "https://a.example/",
        "https://a.example/video/9d1f4b7c",
        "https://a.example/video/1234/my-new-video-of-2024-part-2-hd-1080",
        "https://a.example/watch?v=dQw4w9WgXcQ",
        "https://a.example/live/0/marta/65f1a2b3c4d5e",
        "https://a.example/orders/104233?page=2",
        "https://a.example/v.jpg?cache=17412345671741234567",
        "https://a.example/pic/1a2b3c4d5e6f708192a3b4c5.jpg",
        "https://a.example/unsubscribe?token=4f9a1c4f9a1c4f9a1c",
        "https://a.example/r/-/commit/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33",
        "https://a.example/x?utm_source=a&key=482913aa",
        "https://a.example/shop?code=SPRING",
    ],
)
def test_other_links_are_no_token_links(link: str) -> None:
    assert not has_token(link)
    assert find_token_links([f"<a href='{link}'>in</a>".encode()]) == []


def test_newsletters_and_long_texts_have_no_token_links() -> None:
    link = "<a href='https://a.example/c?token=4f9a1c{}'>x</a>"
    assert find_token_links([link.format("").encode()])
    assert not find_token_links(["".join(link.format(number) for number in range(20)).encode()])
    assert not find_token_links([(link.format("") + "<p>long</p>" * LONGEST_TEXT).encode()])


@pytest.mark.parametrize("body", ["<b>482913</b>", "<a href='https://a.example/in?token=4f9a1c77'>in</a>"])
def test_the_preset_exempts_short_mails_to_one_recipient(body: str) -> None:
    assert JUDGE(mail(body), b"a@b.example").ruling(BOB).action is Action.EXEMPT
    assert JUDGE(mail(body), b"a@b.example", 2).ruling(BOB).action is Action.DEDUPE
    for field in ("List-Id: <a.b.example>", "List-Unsubscribe: <https://a.example/u>"):
        assert JUDGE(mail(body, field), b"a@b.example").ruling(BOB).action is Action.DEDUPE


def test_a_mail_with_a_file_carries_no_code() -> None:
    parts = "--b\r\nContent-Type: text/html\r\n\r\n<b>10042</b>\r\n--b\r\nContent-Type: {}\r\n\r\nx\r\n--b--\r\n"
    for kind, action in (("application/pdf", Action.DEDUPE), ("image/png", Action.EXEMPT)):
        content = FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts.format(kind).encode()
        assert JUDGE(content, b"a@b.example").ruling(BOB).action is action


@pytest.mark.parametrize(
    "content",
    [
        avideo.notification(),
        avideo.notification(title="482913", user="R9VHC"),
        avideo.notification(title="Your code is 482913", link_query="?token=4f9a1c4f9a1c"),
        avideo.going_live(),
        avideo.comment("Well said"),
        avideo.comment("482913"),
        avideo.comment("Enter code 482913 at https://a.example/in?token=4f9a1c77"),
        avideo.contact_form("eva@example.test"),
        avideo.contact_form("eva@example.test", text="My code is 482913"),
        avideo.with_attachment(b"1,2\r\n"),
        avideo.receipt("4829.50 EUR"),
    ],
)
def test_avideos_notifications_are_never_exempt_by_the_preset(content: bytes) -> None:
    assert JUDGE(content, b"contact@example.test").ruling(BOB).action is Action.DEDUPE


def test_a_tag_ends_a_line_and_what_no_reader_sees_is_left_out() -> None:
    text = b"<title>No</title><STYLE>a{}</STYLE><p>One</p>two &amp;&nbsp;three<!-- <b>no</b> --><br> four<script>5"
    assert visible_lines(text) == ["One", "two & three", "four"]


@pytest.mark.parametrize(
    "unit",
    [
        b"<",
        b"<!--",
        b"<style",
        b"<a ",
        b"<img src",
        b"<b>1",
        b"1 ",
        b"1-",
        b"A",
        b"4829 ",
        b"code ",
        b"&#1;",
        b"AB1-",
        b"token=4f9a1c ",
        b"a://b/4f9a1c4f9a1c4f9a1c ",
        b"href=",
        b"\n",
        b"> ",
        b"c=1&",
    ],
)
def test_hostile_texts_take_little_time(unit: bytes) -> None:
    text = b"<b>4829</b> token=4f9a1c77 1a2b3c4d " + unit * (60_000 // len(unit))
    start = time.process_time()
    find_codes([text], [text])
    find_token_links([text])
    assert time.process_time() - start < 0.9


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<p>123&nbsp;456</p>", "123456"),
        ("<p>Your code</p><p>123\u2009456</p>", "123456"),
        ("<p>Your code</p><p>123\u2013456</p>", "123456"),
        ("Your code is 12-34-56.", "123456"),
        ("Ihr Code lautet 12 34 56.", "123456"),
        ("Your code is 1234-5678.", "12345678"),
        ("Your code is 4 8 2 9 1 3.", "482913"),
        ("Code:482913", "482913"),
        ("code=482913", "482913"),
        ("<p>رمز التحقق</p><p>٤٨٢٩١٣</p>", "482913"),
        ("<p>کد تایید: ۴۸۲۹۱۳</p>", "482913"),
        ("<p>認証コード</p><p>４８２９１３</p>", "482913"),  # noqa: RUF001 - fullwidth digits
        ("<p>आपका कोड ४८२९१३ है</p>", "482913"),
        ("<p>आपका ओटीपी 482913 है</p>", "482913"),
        ("<p>Vahvistuskoodisi on 482913</p>", "482913"),
        ("<p>Teie kinnituskood on 482913</p>", "482913"),
        ("<p>თქვენი კოდია 482913</p>", "482913"),
        ("<p>Ձեր կոդը՝ 482913</p>", "482913"),  # noqa: RUF001 - an Armenian mark
        ("<p>மீ குறியீடு 482913</p>", "482913"),
        ("<p>確認番号：482913</p>", "482913"),  # noqa: RUF001 - a fullwidth colon
        ("<p>ワンタイムパスワード：482913</p>", "482913"),  # noqa: RUF001 - a fullwidth colon
        ("<p>动态密码：482913</p>", "482913"),  # noqa: RUF001 - a fullwidth colon
        ("<p>Your code:</p><h1>2024</h1>", "2024"),
        ("<p>Your code: <span>482</span><span>913</span></p>", "482913"),
        ("<p>Your code:</p><a href='https://a.example/'>482913</a>", "482913"),
    ],
)
def test_codes_are_found_in_the_forms_that_services_send(text: str, code: str) -> None:
    assert code in codes(text)


@pytest.mark.parametrize("subject", ["Slack confirmation code: QWX-TBZ", "Your Example login: 482913"])
def test_a_code_in_the_subject_only_exempts(subject: str) -> None:
    content = f"Subject: {subject}\r\n".encode() + mail("<p>Use it</p>")
    assert JUDGE(content, b"a@b.example").ruling(BOB).action is Action.EXEMPT


@pytest.mark.parametrize("fields", [(), ("List-Unsubscribe: <https://a.example/u>",), ("List-Id: <a.b.example>",)])
@pytest.mark.parametrize("footer", ["", "<p>Legal notes.</p>" * LONGEST_TEXT])
@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("Hello", "<p>Your code is 482913</p>"),
        ("Hello", "<p>Your code:</p><h1>482 913</h1>"),
        ("Your code", "<p>Hello</p><h1>482913</h1>"),
        ("482913 is your code", "<p>Hello</p>"),
    ],
)
def test_a_code_that_is_named_exempts_bulk_and_long_mail(
    subject: str, body: str, footer: str, fields: tuple[str, ...]
) -> None:
    content = f"Subject: {subject}\r\n".encode() + mail(body + footer, *fields)
    assert JUDGE(content, b"a@b.example").ruling(BOB).action is Action.EXEMPT


@pytest.mark.parametrize(
    "link",
    [
        "https://a.example/auth/123e4567-e89b-12d3-a456-426614174000",
        "https://a.example/login?token=Ab3dEf6hIj9kLmN0pQrS&utm_source=email",
        "https://a.example/login?token=abc123def456&next=/a.png",
    ],
)
def test_a_sign_in_link_with_more_parameters_is_known(link: str) -> None:
    assert find_token_links([f"<a href='{link}'>in</a>".encode()]) == [link.encode()]


@pytest.mark.parametrize("unit", [b"1 2 ", b"12 ", b"12-34-", b"ABC-", b"code:1", b"=", b":1", "٤ ".encode()])
def test_hostile_bulk_mail_takes_little_time(unit: bytes) -> None:
    text = b"<p>Your code is 482913</p>" + unit * (60_000 // len(unit))
    content = mail(text.decode(), "List-Id: <a.b.example>")
    start = time.process_time()
    JUDGE(content, b"a@b.example")
    assert time.process_time() - start < 0.9
