"""The page about rules: each of its examples is a settings file, and does what the text beside it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay.core.envelope import Recipient
from relay.settings import Settings
from relay.settings.presets import names, preset
from relay.settings.rules import build_judge
from relay.settings.tables import IgnoreTable, RuleTable
from relay.settings.warnings import warnings

PAGE = (Path(__file__).parents[3] / "docs" / "rules.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [
    tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
RULES: dict[str, dict[str, Any]] = {
    rule["name"]: example for example in EXAMPLES for rule in example.get("rules", ()) if "name" in rule
}
IGNORES: list[dict[str, Any]] = [ignore for example in EXAMPLES for ignore in example.get("ignore", ())]
BOB = Recipient("bob@example.org")


def _mail(*fields: str, body: str = "Hello", html: bool = False) -> bytes:
    kind = "html" if html else "plain"
    return "\r\n".join((*fields, f"Content-Type: text/{kind}; charset=utf-8", "", body, "")).encode()


_FILE = (
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nHello\r\n'
    "--b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=a.csv\r\n\r\n1,2\r\n--b--\r\n"
)

# By rule: a message that it is for, and one that it is not for; (content, reverse-path, recipient).
_MATCHES: dict[str, list[tuple[bytes, bytes, str]]] = {
    "invoices": [(_mail("Subject: =?utf-8?Q?Rechnung?= 7"), b"", BOB), (_mail("Subject: Your invoice"), b"", BOB)],
    "the shop": [
        (_mail("From: Shop <orders@shop.example>"), b"", BOB),
        (_mail("From: Shop <orders@workshop.example>"), b"", BOB),
    ],
    "monitoring": [(_mail(), b"alerts@ops.example", BOB), (_mail(), b"no-alerts@ops.example", BOB)],
    "ticket system": [(_mail(), b"", "7@tickets.example"), (_mail(), b"", "it-support@example.org")],
    "urgent": [(_mail("X-Priority: 1 (Highest)"), b"", BOB), (_mail("X-Priority: 3"), b"", BOB)],
    "magic sign-in links": [
        (_mail(body='<a href="https://app.example/login?to=x&amp;token=5">in</a>', html=True), b"", BOB),
        (_mail(body="https://app.example/login?to=x"), b"", BOB),
    ],
    "pictures of the gate": [
        (_mail(body='<img src="https://cam.example/gate/1.jpg">', html=True), b"", BOB),
        (_mail(body='<a href="https://cam.example/gate/1.jpg">1</a>', html=True), b"", BOB),
    ],
    "codes of our shop": [
        (_mail("From: Shop <a@shop.example>", body="<b>482 913</b>", html=True), b"", BOB),
        (_mail("From: Shop <a@shop.example>", "List-Id: <a.b>", body="<b>482913</b>", html=True), b"", BOB),
    ],
    "links of our shop": [
        (_mail(body="https://shop.example/in?token=4f9a1c77"), b"", BOB),
        (_mail(body="https://shop.example/in?page=4"), b"", BOB),
    ],
    "the shop's Celery tasks": [
        (_mail("From: Shop <a@celery.example>"), b"", BOB),
        (_mail("From: Shop <a@shop.example>"), b"", BOB),
    ],
    "avideo: live notices": [
        (_mail(body="<img src='/videos/v_1/v_1.jpg'><a href='/live/1/anna'>x</a>", html=True), b"", BOB),
        (_mail(body="<img src='/videos/v_1/v_1.jpg'><a href='/channel/1'>x</a>", html=True), b"", BOB),
    ],
    "avideo: video notices": [
        (_mail(body="<img src='/videos/v_1/v_1.jpg'><a href='/video/1/x'>x</a>", html=True), b"", BOB),
        (_mail(body="<img src='/videos/v_1/v_1.jpg'><a href='/channel/1'>x</a>", html=True), b"", BOB),
    ],
    "reports with files": [
        (f"From: Reports <a@b.example>\r\nMIME-Version: 1.0\r\n{_FILE}".encode(), b"", BOB),
        (_mail("From: Reports <a@b.example>"), b"", BOB),
    ],
    "digests": [(_mail("Subject: Your daily digest"), b"", BOB), (_mail("Subject: On your daily digest"), b"", BOB)],
    "newsletter, to see": [
        (_mail("List-Id: News <a.news.example>"), b"", BOB),
        (_mail("List-Id: <old.example>"), b"", BOB),
    ],
    "states of the machines": [
        (_mail("Subject: [RESOLVED] DiskFull"), b"", BOB),
        (_mail("Subject: Re: [RESOLVED] DiskFull"), b"", BOB),
    ],
    "avideo: test mail": [
        (_mail("Subject: Prueba de correo 7"), b"", BOB),
        (_mail("Subject: On Prueba de correo 7"), b"", BOB),
    ],
    "avideo: receipts": [
        (_mail("Subject: Gracias por su compra"), b"", BOB),
        (_mail("Subject: Thank you"), b"", BOB),
    ],
}


def _part(content: str, kind: str = "text/calendar", parameter: str = "") -> bytes:
    disposition = f"Content-Disposition: attachment{parameter}\r\n"
    return f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n{disposition}\r\n{content}".encode()


def _pdf(date: str, total: int = 7) -> bytes:
    info = f"1 0 obj<</CreationDate(D:{date})/Title({total})>>endobj"
    return _part(f"%PDF-1.4\n{info}\ntrailer<</Info 1 0 R>>\n", "application/pdf")


def _image(name: str, picture: str = "1") -> bytes:
    html = f'<!--[if gte vml 1]><v:imagedata src="cid:{name}"/><![endif]--><img src="cid:{name}">'
    parts = f"Content-Type: text/html\r\n\r\n{html}\r\n--b\r\nContent-ID: <{name}>\r\n\r\n{picture}"
    return f'MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="b"\r\n\r\n--b\r\n{parts}\r\n--b--'.encode()


_UUID = "b8f7c3a2-0000-4000-8000-00000000000"

# By ignore: a body or a message, the same to it, and one that differs; for an ignored header field the header lines.
_SAME: dict[str, tuple[str | bytes, str | bytes, str | bytes]] = {
    "calendar DTSTAMP": (
        _part("BEGIN:VEVENT\r\nDTSTAMP:1\r\nSUMMARY:1\r\n"),
        _part("BEGIN:VEVENT\r\nDTSTAMP:2\r\nSUMMARY:1\r\n"),
        _part("BEGIN:VEVENT\r\nDTSTAMP:1\r\nSUMMARY:2\r\n"),
    ),
    "pdf metadata": (_pdf("20260301"), _pdf("20260302"), _pdf("20260301", 8)),
    "part_parameter creation-date": (
        _part("x", parameter='; creation-date="1"'),
        _part("x", parameter='; creation-date="2"'),
        _part("x", parameter='; read-date="1"'),
    ),
    "file names that are UUIDs": (
        _part("x", parameter=f"; filename={_UUID}1.png"),
        _part("x", parameter=f"; filename={_UUID}2.png"),
        _part("x", parameter=f"; filename={_UUID}1.pdf"),
    ),
    "content_id comment": (_image("a@b"), _image("c@d"), _image("a@b", "2")),
    "parameter v": (
        '<img src="https://cdn.example/a?v=1741234567">',
        '<img src="https://cdn.example/a?v=1741234568">',
        '<img src="https://cdn.example/a?v=17412345678">',
    ),
    "time behind avatars": (
        '<img src="/avatars/a?1741234567">',
        '<img src="/avatars/a?1741234568">',
        '<img src="/avatars/b?1741234567">',
    ),
    "text Sent on [0-9]{2}/[0-9]{2}/[0-9]{4} at [0-9]{2}:[0-9]{2}": (
        "<p>Hello. Sent on 01/02/2026 at 10:57</p>",
        "<p>Hello. Sent on 01/02/2026 at 10:59</p>",
        "<p>Hello. Sent on 01/02/2026 by Marta</p>",
    ),
    "attribute data-rendered": (
        '<p data-rendered="17">Hello</p>',
        '<p data-rendered="18">Hello</p>',
        '<p data-rendered="17" data-x="1">Hello</p>',
    ),
    "comment ^ ?build [0-9a-f]+ ?$": (
        "<p>Hello<!-- build 17 --></p>",
        "<p>Hello<!-- build 18 --></p>",
        "<p>Hello<!-- built 18 --></p>",
    ),
    "header x-campaign": ("X-Campaign: 17", "X-Campaign: 18", "X-Campaigns: 17"),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
def test_each_example_is_a_settings_file_without_a_doubt(example: dict[str, Any]) -> None:
    assert warnings(Settings.model_validate(example)) == []


def test_the_examples_show_every_key_and_every_action() -> None:
    rules = [rule for example in EXAMPLES for rule in example.get("rules", ())]
    shown = {key for rule in rules for key in rule}
    assert shown == {field.alias or name for name, field in RuleTable.model_fields.items()}
    assert {rule.get("repeats", "window") for rule in rules} == {"window", "consecutive"}
    assert {rule["action"] for rule in rules} == {"exempt", "dedupe", "observe"}
    assert {key for ignore in IGNORES for key in ignore} == set(IgnoreTable.model_fields)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_what_it_is_for_and_nothing_near_it(name: str) -> None:
    judge = build_judge(Settings.model_validate(RULES[name]))
    found = [
        judge(content, reverse_path).rule(Recipient(recipient)).name
        for content, reverse_path, recipient in _MATCHES[name]
    ]
    assert found == [name, "default"]


def test_the_notices_of_avideo_differ_from_the_preset_in_their_window_only() -> None:
    copies = {rule["name"]: rule for rule in RULES["avideo: video notices"]["rules"]}
    originals = {rule.name: rule for rule in preset("avideo").rules if rule.name in copies}
    assert list(copies) == list(originals) == ["avideo: live notices", "avideo: video notices"]
    assert copies["avideo: video notices"].pop("window") == "2d"
    for name, original in originals.items():
        given = original.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert copies[name] == {key: value for key, value in given.items() if key != "window"}


def _label(ignore: dict[str, Any]) -> str:
    return IgnoreTable.model_validate(ignore).label


@pytest.mark.parametrize("ignore", IGNORES, ids=_label)
def test_an_ignore_takes_away_what_it_is_for_and_nothing_near_it(ignore: dict[str, Any]) -> None:
    judge = build_judge(Settings.model_validate({"ignore": [ignore]}))
    words = _SAME[_label(ignore)]
    if "header" in ignore:
        mails = [_mail(each) for each in words if isinstance(each, str)]
    else:
        mails = [each if isinstance(each, bytes) else _mail(body=each, html=True) for each in words]
    first, same, other = (judge(mail, b"").fingerprint(BOB) for mail in mails)
    assert first == same
    assert first != other


def test_the_ignores_of_a_rule_hold_for_its_messages_only() -> None:
    judge = build_judge(Settings.model_validate(RULES["digests"]))
    for subject, equal in (("Your daily digest", True), ("Another digest", False)):
        prints = {
            judge(_mail(f"Subject: {subject}", body=f"New. generated at 10:{minute}"), b"").fingerprint(BOB)
            for minute in (57, 59)
        }
        assert (len(prints) == 1) is equal


@pytest.mark.parametrize("name", names())
def test_every_entry_of_a_preset_is_explained(name: str) -> None:
    assert f"### {name}\n" in PAGE
    tables: list[RuleTable | IgnoreTable] = [*preset(name).rules, *preset(name).ignore]
    assert all(re.search(rf"^\| `{re.escape(table.name)}` \| .+ \| .+ \|$", PAGE, re.MULTILINE) for table in tables)
    explained = set(re.findall(r"^\| `(\w+: [^`]+)`", PAGE, re.MULTILINE))
    assert explained == {table.name for each in names() for table in (*preset(each).rules, *preset(each).ignore)}


def test_the_error_that_is_shown_is_the_one_that_is_said(tmp_path: Path) -> None:
    from relay.core.errors import SettingsError
    from relay.settings import load

    file = tmp_path / "relay.toml"
    first = '[[rules]]\nname = "a"\nsubject = "a"\naction = "exempt"\n'
    file.write_text(f"{first}[[rules]]\nname = 'invoices'\nsubject = '(?i)(invoice'\naction = 'exempt'\n")
    with pytest.raises(SettingsError) as error:
        load(file, {}, {})
    said = str(error.value).replace(str(file), "/etc/smtp-dedup-relay/relay.toml")
    assert f"\nerror: {said}\n" in PAGE
