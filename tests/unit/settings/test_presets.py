"""The presets against messages as the applications send them, and against those that only look like it."""

from __future__ import annotations

import html
import tomllib
import zipfile
from email.header import Header
from pathlib import Path
from typing import TYPE_CHECKING

import hatchling.build
import pytest
from parts import avideo
from parts.judging import avideo_judge

import relay
from relay.core.envelope import Recipient
from relay.core.ruling import Action, Repeats, Ruling
from relay.settings import Settings
from relay.settings.presets import names, preset
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from relay.judge.judge import Judge

BOB = Recipient("bob@example.org")
SITE = "https://tube.example.test"
BLOG = "https://blog.example.test"
AVIDEO = avideo_judge()
ALONE = build_judge(Settings.model_validate({"dedup": {"presets": ["avideo"]}}))
WORDPRESS = build_judge(Settings.model_validate({"dedup": {"presets": ["wordpress"]}}))


def _rule(judge: Judge, content: bytes) -> str:
    return judge(content, b"contact@example.test").rule(BOB).name


def _plain(body: str, subject: str = "Hello") -> bytes:
    """As WordPress sends it: no parts."""
    head = f"From: Site <contact@example.test>\nSubject: {Header(subject).encode()}\nMIME-Version: 1.0\n"
    text = f"{head}Content-Type: text/plain; charset=UTF-8\n\n{body}\n"
    return text.replace("\n", "\r\n").encode()


def _page(body: str, subject: str = "Hello") -> bytes:
    return _plain(f"<html><body>{body}</body></html>", subject).replace(b"text/plain", b"text/html")


def _linked(link: str) -> bytes:
    return _page(f'<p>Go on: <a class="button" href="{html.escape(link)}">here</a></p>')


@pytest.mark.parametrize("name", names())
def test_a_preset_is_a_file_in_the_package_with_a_comment_above_each_entry(name: str) -> None:
    text = (Path(relay.__file__).parent / "presets" / f"{name}.toml").read_text("utf-8")
    blocks = [block for block in text.split("\n\n") if "[[" in block]
    tables = tomllib.loads(text)
    assert len(blocks) == len(tables["rules"]) + len(tables.get("ignore", ()))
    assert all(block.startswith("# ") for block in blocks)


def test_the_presets_are_in_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(relay.__file__).parents[1])
    wheel = zipfile.ZipFile(tmp_path / hatchling.build.build_wheel(str(tmp_path)))
    assert {f"relay/presets/{name}.toml" for name in names()} <= set(wheel.namelist())


@pytest.mark.parametrize("name", names())
def test_a_preset_names_all_it_holds_and_where_it_does_not_exempt_it_says_more(name: str) -> None:
    found = preset(name)
    assert found.rules
    assert {rule.action for rule in found.rules} <= {"exempt", "dedupe"}
    longer = [rule.name for rule in found.rules if (rule.window or 0) > Settings().dedup.window]
    assert longer == (["avideo: video notices"] if name == "avideo" else [])
    labels = [
        table.name for table in (*found.rules, *found.ignore, *(each for rule in found.rules for each in rule.ignore))
    ]
    assert all(labels)
    assert len(set(labels)) == len(labels)


def test_the_presets_hold_no_name_in_common() -> None:
    both = [table.name for name in names() for table in (*preset(name).rules, *preset(name).ignore)]
    assert len(set(both)) == len(both)


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_avideos_mails_with_a_token_are_exempt_in_every_encoding(encoding: avideo.Encoding) -> None:
    sending = avideo.Sending(encoding=encoding)
    assert _rule(AVIDEO, avideo.recovery("5f1c", sending=sending)) == "avideo: password recovery"
    assert _rule(AVIDEO, avideo.verification("YWJj", sending=sending)) == "avideo: e-mail verification"
    assert _rule(AVIDEO, avideo.two_factor("9d2e", sending=sending)) == "avideo: two-factor sign-in"


@pytest.mark.parametrize(
    ("link", "name"),
    [
        (f"{SITE}/recoverPass?user=marta&recoverpass=5f1c", "avideo: password recovery"),
        (f"{SITE}/recoverPass?recoverpass=5f1c&user=marta", "avideo: password recovery"),
        (f"{SITE}/sub/folder/RECOVERPASS?User=m&RecoverPass=5f1c", "avideo: password recovery"),
        (f"{SITE}/objects/userVerifyEmail.php?code=YWJj", "avideo: e-mail verification"),
        (f"{SITE}/objects/userVerifyEmail.php?lang=de&code=YWJj", "avideo: e-mail verification"),
        (f"{SITE}/Objects/UserVerifyEmail.php?Code=YWJj", "avideo: e-mail verification"),
        (f"{SITE}/plugin/logincontrol/Confirm.php?Confirmation=9d2e", "avideo: two-factor sign-in"),
        (f"{SITE}/plugin/LoginControl/confirm.php?confirmation=9d2e", "avideo: two-factor sign-in"),
        (f"{SITE}/plugin/LoginControl/confirm.php?a=b&confirmation=9d2e&c=d", "avideo: two-factor sign-in"),
    ],
)
def test_avideos_links_are_known_in_html_and_in_text(link: str, name: str) -> None:
    assert _rule(AVIDEO, _linked(link)) == name
    assert _rule(AVIDEO, _page(f"<a href='{link}'>ici</a>")) == name
    assert _rule(AVIDEO, _page(f"<a href={html.escape(link)}>aqui</a>")) == name
    assert _rule(AVIDEO, _plain(f"Klicken Sie hier: {link} - danke")) == name


@pytest.mark.parametrize(
    "content",
    [
        avideo.going_live(),
        avideo.with_attachment(b"a,b\r\n"),
        _linked(f"{SITE}/recoverPass"),
        _linked(f"{SITE}/recoverPass?user=marta"),
        _linked(f"{SITE}/recoverPass?user=marta&recoverpass="),
        _linked(f"{SITE}/recoverPass?xrecoverpass=5f1c"),
        _linked(f"{SITE}/recoverPasswords?recoverpass=5f1c"),
        _linked(f"{SITE}/recoverPass/recoverpass=5f1c"),
        _linked(f"{SITE}/how-to-recoverPass?recoverpass=5f1c"),
        _linked(f"{SITE}/objects/userVerifyEmail.php/code=1"),
        _linked(f"{SITE}/plugin/LoginControl/confirm.php/confirmation=1"),
        _linked(f"{SITE}/plugin/LoginControl/confirmXphp?confirmation=1"),
        _linked(f"{SITE}/plugin/MyLoginControl/confirm.php?confirmation=1"),
        _linked(f"{SITE}/objects/myuserVerifyEmail.php?code=1"),
        _linked(f"{SITE}/objects/userVerifyEmail.php"),
        _linked(f"{SITE}/objects/userVerifyEmail.php?code=&lang=de"),
        _linked(f"{SITE}/objects/userVerifyEmailXphp?code=1"),
        _linked(f"{SITE}/plugin/LoginControl/confirm.php?confirmation=&a=b"),
        _linked(f"{SITE}/plugin/Other/confirm.php?confirmation=9d2e"),
        _linked(f"{SITE}/plugin/LoginControl/confirm.php?xconfirmation=9d2e"),
        _page("<p>recoverPass?user=marta&amp;recoverpass=5f1c</p>"),
    ],
)
def test_what_only_looks_like_it_is_deduped(content: bytes) -> None:
    judged = ALONE(content, b"contact@example.test")
    assert (judged.rule(BOB).name, judged.ruling(BOB).action) == ("default", Action.DEDUPE)


_LIVE = avideo.notification().replace(b"/video/9d1f4b7c", b"/live/0/marta")


@pytest.mark.parametrize(
    ("content", "name", "window"),
    [
        (avideo.notification(), "avideo: video notices", 21600),
        (avideo.notification(cache="?1624465305"), "avideo: video notices", 21600),
        (avideo.notification(title="482913"), "avideo: video notices", 21600),
        (avideo.notification(link_query="?code=7&recoverpass=8"), "avideo: video notices", 21600),
        (_page("<img src=https://x.test/videos/v_1/v_1.webp><a href='/v/12'>a</a>"), "avideo: video notices", 21600),
        (_page("<img src='https://x.test/videos/a_thumbsV2.jpg'>https://x.test/?v=12"), "avideo: video notices", 21600),
        (_LIVE, "avideo: live notices", 600),
        (
            _page("<img src='/videos/v_1/v_1.jpg'><a href='/v/1'>a</a><a href='/live/me'>b</a>"),
            "avideo: live notices",
            600,
        ),
        (avideo.going_live(), "default", 600),
        (avideo.comment("Well said"), "avideo: comments and reports", 600),
        (
            avideo.comment("My recoverPass?recoverpass=1 and userVerifyEmail.php?code=2"),
            "avideo: comments and reports",
            600,
        ),
        (avideo.contact_form("visitor@example.org"), "avideo: contact form", 600),
        (avideo.with_attachment(b"a,b"), "default", 600),
        (_page("<img src='/videos/userPhoto/logo.png'><a href='/video/12/x'>a</a>"), "default", 600),
        (_page("<iframe src='/videos/v_1/v_1.jpg'></iframe><a href='/video/12/x'>a</a>"), "default", 600),
        (_page("<a href='/videos/v_1/v_1.jpg'>b</a><a href='/video/12/x'>a</a>"), "default", 600),
        (_page("<p>/videos/v_1/v_1.jpg</p><a href='/video/12/x'>a</a>"), "default", 600),
        (_page("<img src='/thumb.jpg'><a href='/video/12/x'>a</a>"), "default", 600),
        (_page("<img src='/videos/v_1/v_1.jpg'><a href='/videos/12'>a</a>"), "default", 600),
    ],
)
def test_video_notices_are_remembered_for_hours_and_nothing_else(content: bytes, name: str, window: float) -> None:
    assert AVIDEO(content, b"contact@example.test").ruling(BOB) == Ruling(name, Action.DEDUPE, window)


def test_the_window_of_video_notices_can_be_changed_and_the_rule_switched_off() -> None:
    rule = preset("avideo").rules[[each.name for each in preset("avideo").rules].index("avideo: video notices")]
    own = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for change, window in (({"window": "2d"}, 172800), ({"window": None}, 600)):
        settings = {"rules": [{key: value for key, value in {**own, **change}.items() if value}]}
        judge = build_judge(Settings.model_validate(settings))
        assert judge(avideo.notification(), b"contact@example.test").ruling(BOB).window == window


MONITORING = {
    "alertmanager and grafana": [
        "[FIRING:1] DiskFull (db1:9100 critical)",
        "[RESOLVED] DiskFull (db1:9100 critical)",
        "[FIRING:1, RESOLVED:2] Disk",
        "[Alerting] Disk",
        "[OK] Disk",
        "[No Data] Disk",
    ],
    "nagios and icinga": [
        "** PROBLEM Host Alert: db1 is DOWN **",
        "** RECOVERY Service Alert: db1/Disk is OK **",
        "** PROBLEM alert - db1/Disk is CRITICAL **",
        "[PROBLEM] Host db1 is DOWN!",
        "[RECOVERY] disk on db1 is OK!",
        "** FLAPPINGSTART Host Alert: db1 is UP **",
    ],
    "zabbix": ["Problem: Disk", "Resolved: Disk", "Updated problem: Disk", "Resolved in 5m 10s: Disk"],
    "gatus and uptime kuma": [
        "[core/db1] Alert triggered",
        "[core/db1] Alert resolved",
        "[db1] [🔴 Down] timeout",
        "[db1] [✅ Up] 200 - OK",
    ],
    "healthchecks, monit and netdata": [
        "DOWN | Backup",
        "UP | Backup",
        "monit alert --  Does not exist nginx",
        "db1 needs attention - system.cpu = 91%",
        "db1 is critical: disk space (disk./)",
        "db1 recovered - system.cpu",
    ],
    "fail2ban": ["[Fail2Ban] sshd: banned 192.0.2.8 from db1", "[Fail2Ban] sshd: started on db1"],
    "cron and systemd": ["Cron <root@db1> backup", "Anacron job 'cron.daily' on db1", "db1: backup.service failed"],
    "tickets": [
        "[Shop - Bug #12] (Closed) Cart is empty",
        "[Ticket#2026112800012] Cart",
        "[shop #12] Cart",
        "Shop | Cart is empty (#12)",
        "Shop | Fix the cart (!7)",
        "[JIRA] (SHOP-12) Cart is empty",
    ],
}


@pytest.mark.parametrize(("name", "subject"), [(name, each) for name, all_ in MONITORING.items() for each in all_])
def test_state_mails_are_known_by_their_subjects(name: str, subject: str) -> None:
    expected = Ruling(f"monitoring: {name}", Action.DEDUPE, 120, Repeats.CONSECUTIVE)
    assert AVIDEO(_plain("Hello", subject), b"").ruling(BOB) == expected


@pytest.mark.parametrize(
    "subject",
    [
        "Re: [FIRING:1] DiskFull",
        "FIRING: the new album",
        "Our PROBLEM is DOWN",
        "No Problem: we fixed it",
        "Alert triggered",
        "UP and away",
        "Cron for beginners",
        "Room service",
        "We are #1",
        "Part (2)",
    ],
)
def test_other_subjects_are_no_state_mails(subject: str) -> None:
    assert AVIDEO(_plain("Hello", subject), b"").ruling(BOB) == Ruling("default", Action.DEDUPE, 600)


@pytest.mark.parametrize(
    ("to", "exempt"),
    [
        ("7d1f@ping.example.org", True),
        ("0a1b@hc-ping.com", True),
        ("Backup <x@nosnch.in>", True),
        ("x@heartbeat.ops.example.org", True),
        ("ping@example.org", False),
        ("x@shopping.example.org", False),
    ],
)
def test_heartbeats_are_exempt(to: str, exempt: bool) -> None:
    content = _plain("ok", "backup ok").replace(b"From:", f"To: {to}\r\nFrom:".encode())
    assert _rule(AVIDEO, content) == ("monitoring: heartbeats" if exempt else "default")


_BULK = {
    "mautic": (
        (
            "<a href='https://m.example/r/4f2a9c?ct={0}'>on</a>"
            "<a href='https://m.example/email/unsubscribe/{1}/r@x.example/ab'>off</a>"
            "<a href='https://m.example/email/view/{1}'>web</a><img src='https://m.example/email/{1}.gif'>"
        ),
        [("YTox", "664ce4d08e6827dde66a81"), ("YToy", "1ff6e94d8e279292c9d35b")],
    ),
    "odoo": (
        "<a href='https://o.example/r/aB3/m/{0}'>on</a><img src='https://o.example/mail/track/{0}/{1}/blank.gif'>",
        [("17", "9f1c"), ("18", "77aa")],
    ),
    "civicrm": (
        (
            "<a href='https://c.example/civicrm/mailing/url?u=17&amp;qid={0}'>on</a>"
            "<img src='https://c.example/civicrm/mailing/open?qid={0}'>"
        ),
        [("980", ""), ("981", "")],
    ),
}


@pytest.mark.parametrize("name", _BULK)
def test_two_sends_of_a_bulk_mail_are_equal_with_its_preset_only(name: str) -> None:
    body, tokens = _BULK[name]
    sends = [_page(f"<p>Spring</p>{body.format(*token)}") for token in tokens]
    other = _page(f"<p>Summer</p>{body.format(*tokens[0])}")
    for presets, equal in (([name], True), (["avideo"], False)):
        judge = build_judge(Settings.model_validate({"dedup": {"presets": presets}}))
        first, second, third = (judge(content, b"").fingerprint(BOB) for content in (*sends, other))
        assert (first == second) is equal
        assert first != third


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("odoo", "<a href='https://shop.example/m/{}'>see</a>"),
        ("odoo", "<p>https://shop.example/m/{}</p>"),
        ("odoo", "<a href='https://o.example/r/a{}/m/17'>see</a>"),
        ("civicrm", "<a href='https://forum.example/?qid={}'>see</a>"),
    ],
)
def test_a_bulk_preset_leaves_other_links_alone(name: str, other: str) -> None:
    body, tokens = _BULK[name]
    judge = build_judge(Settings.model_validate({"dedup": {"presets": [name]}}))
    one, two = (judge(_page(body.format(*tokens[0]) + other.format(number)), b"") for number in (5, 6))
    assert one.fingerprint(BOB) != two.fingerprint(BOB)


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("Message From Site Example Tube (Your Site test)", "avideo: test mail"),
        ("Message From Site Müllers Röhre 🎬 live (Your Site test)", "avideo: test mail"),
        ("Message From Site Example Tube (Marta)", "avideo: contact form"),
        ("Message From Site Example Tube (Your Site test) again", "avideo: contact form"),
        ("Re: Message From Site Example Tube (Your Site test)", "default"),
        ("Your Site test", "default"),
        ("A test - Example Tube", "default"),
        ("Example Tube Notify Deposit Made from: marta - Example Tube", "avideo: receipts"),
        ("Example Tube Request Withdraw from: marta - Example Tube", "avideo: receipts"),
        ("Request Withdraw from: marta", "default"),
        ("How I Request Withdraw from the race - Example Tube", "default"),
        ("My receipts of 2025 - Example Tube", "default"),
    ],
)
def test_avideos_test_mail_and_receipts_are_known_by_their_default_subjects(subject: str, name: str) -> None:
    assert _rule(AVIDEO, _plain("Hello", subject)) == name


_CACHES = ["17412345671741234567", "1741234567_1741234567", "1741234567", "65f1a2b3c4d5e", "not_found"]


def test_the_button_in_the_sites_settings_sends_an_exempt_mail() -> None:
    assert _rule(AVIDEO, avideo.smtp_test()) == "avideo: test mail"
    assert _rule(AVIDEO, avideo.contact_form("eva@example.test")) == "avideo: contact form"


@pytest.mark.parametrize("separator", ["?cache=", "?w=5&cache=", "?w=5&amp;cache="])
@pytest.mark.parametrize("cache", _CACHES)
def test_avideos_image_cache_does_not_count(separator: str, cache: str) -> None:
    first, again = (
        AVIDEO(avideo.notification(cache=separator + value), b"").fingerprint(BOB)
        for value in (cache, "11111111112222222222")
    )
    assert first == again


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("?cache=174123456", "?cache=174123457"),
        ("?cache=17412345671", "?cache=17412345672"),
        ("?cache=65F1A2B3C4D5E", "?cache=75F1A2B3C4D5E"),
        ("?cached=1741234567", "?cached=1741234568"),
        ("?1741234567&a=1", "?1741234567&a=2"),
        ("?17412345671", "?17412345672"),
    ],
)
def test_what_only_looks_like_a_cache_counts(one: str, other: str) -> None:
    first, again = (AVIDEO(avideo.notification(cache=value), b"").fingerprint(BOB) for value in (one, other))
    assert first != again


def test_a_bare_number_does_not_count_behind_an_image_only() -> None:
    def fingerprint(url: str) -> str:
        return AVIDEO(_page(f'<img src="{url}">'), b"").fingerprint(BOB)

    for suffix in ("jpg", "JPEG", "png", "gif", "webp"):
        url = f"{SITE}/videos/v_1/v_1_thumbsV2.{suffix}?"
        assert fingerprint(f"{url}1624465305") == fingerprint(f"{url}1624465306")
    for name in ("v_1.php", "v_1.jpg.php", "v_1-jpg", "v_1.jpg/7"):
        url = f"{SITE}/videos/v_1/{name}?"
        assert fingerprint(f"{url}1624465305") != fingerprint(f"{url}1624465306")


@pytest.mark.parametrize(
    ("link", "name"),
    [
        (f"{BLOG}/wp-login.php?action=rp&key=abc&login=marta", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-login.php?login=marta&key=abc&action=rp&wp_lang=de_DE", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-login.php?login=marta&key=abc&action=rp", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-login.php?action=rp&login=marta&key=abc", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-login.php?key=abc&login=marta&action=rp#top", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-admin/profile.php?a=b&newuseremail=abc", "wordpress: change of an e-mail address"),
        (f"{BLOG}/wp-admin/options.php?a=b&adminhash=abc", "wordpress: change of an e-mail address"),
        (f"{BLOG}/wp-login.php?action=confirmaction&confirm_key=abc", "wordpress: request for personal data"),
        (
            f"{BLOG}/wp-login.php?confirm_key=abc&action=confirmaction#top",
            "wordpress: request for personal data",
        ),
        (f"{BLOG}/wp-login.php?rm_token=abc&a=b&rm_key=def", "wordpress: recovery mode"),
        (f"{BLOG}/wp-login.php?rm_key=def&a=b&rm_token=abc", "wordpress: recovery mode"),
        (f"{BLOG}/wp-activate.php?user=marta&key=abc", "wordpress: activation of an account"),
        (f"{BLOG}/?page_id=9&lost-password=&key=abc&id=7", "woocommerce: set or reset a password"),
        (f"{BLOG}/hidden-door/?action=rp&key=abc&login=marta", "wordpress: set or reset a password"),
        (f"{BLOG}/wp-admin/profile.php?newuseremail=abc", "wordpress: change of an e-mail address"),
        (f"{BLOG}/wp-admin/options.php?adminhash=abc", "wordpress: change of an e-mail address"),
        (
            f"{BLOG}/wp-login.php?action=confirmaction&request_id=7&confirm_key=abc",
            "wordpress: request for personal data",
        ),
        (
            f"{BLOG}/wp-login.php?confirm_key=abc&request_id=7&action=confirmaction",
            "wordpress: request for personal data",
        ),
        (f"{BLOG}/wp-login.php?action=enter_recovery_mode&rm_token=abc&rm_key=def", "wordpress: recovery mode"),
        (f"{BLOG}/wp-login.php?rm_key=def&rm_token=abc&action=enter_recovery_mode", "wordpress: recovery mode"),
        (f"{BLOG}/wp-activate.php?key=abc", "wordpress: activation of an account"),
        (f"{BLOG}/my-account/lost-password/?key=abc&id=7", "woocommerce: set or reset a password"),
        (f"{BLOG}/my-account/lost-password?action=newaccount&key=abc&login=m", "woocommerce: set or reset a password"),
        (f"{BLOG}/?page_id=9&lost-password&key=abc&id=7", "woocommerce: set or reset a password"),
    ],
)
def test_wordpress_links_are_known_in_html_and_in_text(link: str, name: str) -> None:
    escaped = link.replace("&", "&#038;")  # as esc_url writes it, also into plain text
    for content in (_linked(link), _plain(f"Visit\n\n{link}\n"), _plain(f"<{link}>"), _plain(f"Visit {escaped}")):
        assert _rule(WORDPRESS, content) == name


@pytest.mark.parametrize(
    "link",
    [
        f"{BLOG}/wp-login.php",
        f"{BLOG}/wp-login.php?action=rp",
        f"{BLOG}/wp-login.php?action=rp&key=",
        f"{BLOG}/wp-login.php?action=rp&key=#top",
        f"{BLOG}/wp-login.php?key=&action=rp",
        f"{BLOG}/wp-login.php?action=rp&xkey=abc",
        f"{BLOG}/wp-login.php?xkey=abc&action=rp",
        f"{BLOG}/wp-login.php?transaction=rp&key=abc",
        f"{BLOG}/wp-login.php?key=abc&transaction=rp",
        f"{BLOG}/wp-admin/profile.php?xnewuseremail=abc",
        f"{BLOG}/wp-admin/profile.php?newuseremail=",
        f"{BLOG}/wp-admin/profile-php?newuseremail=abc",
        f"{BLOG}/wp-admin/profile.php/newuseremail=abc",
        f"{BLOG}/wp-admin/my-profile.php?newuseremail=abc",
        f"{BLOG}/wp-admin/options.php?xadminhash=abc",
        f"{BLOG}/wp-admin/options.php?adminhash=",
        f"{BLOG}/wp-admin/options-php?adminhash=abc",
        f"{BLOG}/wp-admin/options.php/adminhash=abc",
        f"{BLOG}/wp-admin/my-options.php?adminhash=abc",
        f"{BLOG}/wp-login.php?action=confirmaction&confirm_key=",
        f"{BLOG}/wp-login.php?action=confirmaction&xconfirm_key=abc",
        f"{BLOG}/wp-login.php?xaction=confirmaction&confirm_key=abc",
        f"{BLOG}/wp-login.php?confirm_key=abc&action=confirmactions",
        f"{BLOG}/wp-login.php?xconfirm_key=abc&action=confirmaction",
        f"{BLOG}/wp-login.php?xrm_token=abc&rm_key=def",
        f"{BLOG}/wp-login.php?rm_token=abc&xrm_key=def",
        f"{BLOG}/wp-login.php?rm_token=abc&rm_key=",
        f"{BLOG}/wp-login.php?xrm_key=def&rm_token=abc",
        f"{BLOG}/wp-login.php?rm_key=def&rm_token=",
        f"{BLOG}/wp-activate.php",
        f"{BLOG}/wp-activate.php?key=",
        f"{BLOG}/wp-activate.php?xkey=abc",
        f"{BLOG}/wp-activate-php?key=abc",
        f"{BLOG}/wp-activate.php/key=abc",
        f"{BLOG}/my-wp-activate.php?key=abc",
        f"{BLOG}/my-account/lost-password/?xkey=abc",
        f"{BLOG}/my-account/lost-password/?key=",
        f"{BLOG}/my-account/not-lost-password/?key=abc",
        f"{BLOG}/my-account/lost-password-help/?key=abc",
        f"{BLOG}/wp-login.php?action=rpx&key=abc",
        f"{BLOG}/wp-login.php?key=abc&action=rpx",
        f"{BLOG}/wp-login.php?action=register&key=abc",
        f"{BLOG}/wp-admin/comment.php?action=approve&c=7",
        f"{BLOG}/wp-admin/profile.php",
        f"{BLOG}/wp-admin/options.php?page=x",
        f"{BLOG}/wp-login.php?action=confirmaction&request_id=7",
        f"{BLOG}/wp-login.php?action=enter_recovery_mode",
        f"{BLOG}/?key=abc",
        f"{BLOG}/my-account/lost-password/",
        f"{BLOG}/my-account/?key=abc",
        f"{BLOG}/2026/03/a-post/?p=9#comment-7",
    ],
)
def test_other_wordpress_links_are_deduped(link: str) -> None:
    assert _rule(WORDPRESS, _linked(link)) == "default"
    assert _rule(WORDPRESS, _plain(link)) == "default"


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("Your Example Shop order has been received!", "woocommerce: orders and receipts"),
        ("Your Bäckerei & Söhne order is now complete", "woocommerce: orders and receipts"),
        ("Your order from Example Shop is on its way!", "woocommerce: orders and receipts"),
        ("Your Example Shop order #1042 has been refunded", "woocommerce: orders and receipts"),
        ("Your Example Shop order #1042 has been partially refunded", "woocommerce: orders and receipts"),
        ("Details for order #1042 on Example Shop", "woocommerce: orders and receipts"),
        ("Invoice for order #1042 on Example Shop", "woocommerce: orders and receipts"),
        ("Your latest Example Shop invoice", "woocommerce: orders and receipts"),
        ("[Example Shop]: New order #1042", "default"),
        ("Fwd: Your Example Shop order has been received!", "default"),
        ("Fwd: Your Example Shop order is now complete", "default"),
        ("Fwd: Your order from Example Shop is on its way!", "default"),
        ("Fwd: Your Example Shop order #1042 has been refunded", "default"),
        ("Fwd: Details for order #1042 on Example Shop", "default"),
        ("Fwd: Your latest Example Shop invoice", "default"),
        ("Your Example Shop order is now complete?", "default"),
        ("Your order from Example Shop is on its way! Really", "default"),
        ("Your Example Shop order #1042 has been refunded twice", "default"),
        ("Your latest Example Shop invoice is due", "default"),
        ("Your Example Shop order has been received! Or has it?", "default"),
        ('[Example Blog] Please moderate: "Your order"', "default"),
        ("[Example Blog] New User Registration", "default"),
        ("[Example Blog] Some plugins were automatically updated", "default"),
    ],
)
def test_woocommerces_receipts_are_known_by_their_default_subjects(subject: str, name: str) -> None:
    assert _rule(WORDPRESS, _plain("Hello", subject)) == name


def test_a_preset_does_nothing_where_it_is_not_loaded() -> None:
    neither = build_judge(Settings.model_validate({"dedup": {"presets": []}}))
    assert _rule(neither, avideo.recovery("5f1c")) == "default"
    assert _rule(WORDPRESS, avideo.recovery("5f1c")) == "default"
    assert _rule(AVIDEO, _plain("Hello", "Your latest Example Shop invoice")) == "default"
