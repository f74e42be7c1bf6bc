"""`relay explain`: what counts of a message, and in one sentence why two are equal or not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from parts.avideo import AGAIN, NOW, notification, recovery
from parts.terminal import on_a_terminal

from relay.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
PAIRS = sorted(path.with_suffix("") for path in CORPUS.glob("*/*/*.txt"))
PAGE = ROOT / "docs" / "explain.md"

PLAIN = b"From: a@example.org\r\nSubject: Hello\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nsome words\r\n"
ESCAPE = "\x1b[35m"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write(tmp_path / "first.eml", notification())


def write(path: Path, mail: bytes) -> Path:
    path.write_bytes(mail)
    return path


def explain(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)], env=environment)


def explain_pair(name: str, *arguments: object) -> Result:
    return explain(*(CORPUS / f"{name}.{letter}.eml" for letter in "ab"), *arguments)


def data(*arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(explain(*arguments, "--json").stdout)
    return answer


def compared(first: bytes, second: bytes, folder: Path, *arguments: object) -> Result:
    return explain(write(folder / "a.eml", first), write(folder / "b.eml", second), *arguments)


def settings(folder: Path, text: str) -> Path:
    file = folder / "relay.toml"
    file.write_text(text)
    return file


def fingerprints(shown: Result) -> list[str]:
    return re.findall(r"^  fingerprint  (v\d+:[0-9a-f]{32,}) ", shown.stdout, re.MULTILINE)


# One file


def test_one_file_shows_parts_rule_form_and_fingerprint(first: Path) -> None:
    shown = explain(first, "--full")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert len(fingerprints(shown)) == 1
    assert "  rule         avideo: video notices: dedupe, window 6h\n" in shown.stdout
    assert "    - multipart/alternative\n      1 text/plain: utf-8, 8bit, " in shown.stdout
    assert "marta has uploaded a new video Sunrise 🎬 over the lake" in shown.stdout
    assert "?cache=[ignored]" in shown.stdout
    assert "  ignored\n    avideo: image cache: 17412345671741234567\n" in shown.stdout


def test_what_is_decoded_shows_both_sizes(tmp_path: Path) -> None:
    shown = explain(CORPUS / "attachments" / "different" / "attachment-byte.a.eml")
    assert '2 application/pdf "report.pdf": attachment, base64, 128 bytes, 91 decoded' in shown.stdout
    broken = write(tmp_path / "b.eml", PLAIN.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n*"))
    assert "base64, 13 bytes, cannot be decoded" in explain(broken).stdout


def test_long_values_are_shortened_unless_all_is_wanted(tmp_path: Path) -> None:
    mail = write(tmp_path / "long.eml", PLAIN + b"word " * 1000 + b"last")
    short, full = explain(mail).stdout, explain(mail, "--full").stdout
    assert re.search(r"… \(5,015 characters; --full shows all\)$", short, re.MULTILINE)
    assert "last" not in short
    assert "--full shows all" not in full
    assert "word last\n" in full


def test_the_rule_says_which_condition_was_found_in_what(tmp_path: Path) -> None:
    file = settings(
        tmp_path,
        """[[rules]]
        name = "greetings"
        subject = ["^Bye", "^Hel"]
        header.X-Kind = "new"
        attachment = false
        action = "dedupe"
        window = "1h"
        """,
    )
    mail = write(tmp_path / "a.eml", b"X-Kind: a new one\r\n" + PLAIN)
    shown = explain(mail, "-c", file).stdout
    assert "  rule         greetings: dedupe, window 1h\n" in shown
    assert "               subject = ^Hel, found in: Hello\n" in shown
    assert "               header.x-kind = new, found in: a new one\n" in shown
    assert "               attachment = false\n" in shown


def test_a_rule_that_asks_for_the_recipient_says_so(tmp_path: Path) -> None:
    file = settings(
        tmp_path, '[[rules]]\nname = "bosses"\nrecipient = "^boss@"\naction = "exempt"\n[dedup]\npresets = []\n'
    )
    mail = write(tmp_path / "a.eml", PLAIN)
    nobody = explain(mail, "-c", file).stdout
    assert "  rule         default: " in nobody
    assert 'the rule "bosses" (exempt) wins for recipients that match ^boss@: give --recipient' in nobody
    boss = explain(mail, "-c", file, "--recipient", "Boss@example.org").stdout
    assert "  rule         bosses: exempt\n" in boss
    assert "recipient = ^boss@, found in: boss@example.org" in boss
    other = explain(mail, "-c", file, "--recipient", "other@example.org").stdout
    assert "  rule         default: " in other
    assert "bosses" not in other


def test_the_reverse_path_is_given_or_stands_in_return_path(tmp_path: Path) -> None:
    file = settings(tmp_path, '[[rules]]\nname = "ours"\nreverse_path = "@example"\naction = "observe"\n')
    bare = write(tmp_path / "a.eml", PLAIN)
    delivered = write(tmp_path / "b.eml", b"Return-Path: <app@example.org>\r\n" + PLAIN)
    assert "some rules look at the reverse-path (ours), and the file names none" in explain(bare, "-c", file).stdout
    given = explain(bare, "-c", file, "--reverse-path", "<app@example.org>").stdout
    for shown in (given, explain(delivered, "-c", file).stdout):
        assert "  rule         ours: observe, window 10m\n" in shown
        assert "  reverse-path <app@example.org>\n" in shown
        assert "give --reverse-path" not in shown
    twice = write(tmp_path / "c.eml", b"Return-Path: <eve@example.org>\r\n" + delivered.read_bytes())
    assert "the file names none" in explain(twice, "-c", file).stdout
    other = explain(delivered, "-c", file, "--reverse-path", "x@y.example.com").stdout
    assert "reverse_path = @example" not in other


def test_a_recipient_has_a_fingerprint_of_its_own_in_every_spelling(first: Path) -> None:
    nobody, alice, again = (
        fingerprints(explain(first, *more))[0]
        for more in ((), ("--recipient", "alice@example.org"), ("--recipient", "Alice@EXAMPLE.org"))
    )
    assert nobody != alice
    assert alice == again


# Two files


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.relative_to(CORPUS).as_posix())
def test_every_pair_of_the_corpus_is_explained(pair: Path) -> None:
    name, same = pair.relative_to(CORPUS).as_posix(), pair.parent.name == "same"
    shown = explain_pair(name)
    assert shown.exit_code == (0 if same else 1), shown.output
    assert (len(set(fingerprints(shown))) == 1) == same
    sentence = shown.stdout.splitlines()[0]
    assert sentence.startswith("equal: " if same else "different: ")
    assert "fingerprints differ" not in sentence
    assert ("What differs and counts" in shown.stdout) != same
    assert all(char.isprintable() or char == "\n" for char in shown.stdout)
    # Something is shown to be different, and it is not shown as the same.
    for difference in json.loads(explain_pair(name, "--json").stdout)["comparison"]["differences"]:
        assert difference["only"] or difference["edits"] or difference["first"] != difference["second"]


SENTENCES = {
    "avideo/same/avideo-same-second": "equal: they differ only in Date, Message-ID and boundary",
    "avideo/same/avideo-cache-10-digits": "equal: they differ only in Date, Message-ID and boundary; "
    "ignored: avideo: image cache",
    "charset/same/charset-latin1-utf8": "equal: they differ only in charset",
    "subject/same/subject-q-b": "equal: they differ only in spelling of Subject",
    "header/same/header-order": "equal: they differ only in ",
    "text/same/trailing-blanks": "equal: they differ only in Date, Message-ID and white space, line ends or "
    "Unicode form",
    "unicode/same/unicode-nfc-nfd": "equal: they differ only in white space, line ends or Unicode form",
    "header/same/dkim": "equal: they differ only in DKIM-Signature",
    "avideo/same/avideo-qp-8bit": "equal: they differ only in Date, Message-ID, boundary and transfer encoding",
    "avideo/different/avideo-recovery": "different: a link in part 2 (text/html) differs "
    "(…nna&amp;recoverpass=f00dfeed01 → …nna&amp;recoverpass=f00dfeed02)",
    "subject/different/subject-digit": "different: Subject differs (",
    "unicode/different/unicode-homoglyph": "different: the text in part 1 (text/plain) differs "
    "(U+0061 LATIN SMALL LETTER A → U+0430 CYRILLIC SMALL LETTER A)",
    "unicode/different/unicode-zero-width": "different: the text in part 1 (text/plain) differs "
    "(nothing → U+200B ZERO WIDTH SPACE)",
    "attachments/different/attachment-missing": "different: only the first has part 2: "
    'application/pdf "report.pdf", 128 bytes',
    "attachments/different/attachment-name": "different: parameter filename in part 2 (application/pdf) differs (",
    "subject/different/subject-broken-word": "different: Subject (raw) differs "
    "(counts as Subject (raw) in the first, as Subject in the second)",
    "tree/different/media-type": "different: the type of part 1 (text/plain) differs (text/plain → text/html)",
    "tree/different/parts-container": "different: the type of the message (multipart/mixed) differs "
    "(multipart/mixed → multipart/alternative)",
    "text/different/format-flowed-or-not": "different: only the first has parameter format "
    "in part 1 (text/plain): flowed",
    "cache/different/cache-in-href": "different: a link in part ",
    "cache/different/cache-in-alt": "different: the attribute alt in part ",
    "cache/different/cache-in-comment": "different: a comment in part ",
    "tree/different/unclosed": "different: the text in part 1 (text/plain) differs (see → read)",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_one_sentence_says_why(name: str) -> None:
    assert explain_pair(name).stdout.splitlines()[0].startswith(SENTENCES[name])


def test_a_file_and_itself_are_the_same_byte_for_byte(first: Path) -> None:
    shown = explain(first, first)
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, "equal: byte for byte the same")


def test_what_counts_and_what_does_not_are_set_apart(first: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.eml", notification(title="Sunset 🎬 over the lake — part 2", sending=AGAIN))
    shown = explain(first, other)
    assert shown.exit_code == 1
    counts, rest = shown.stdout.split("What differs and does not count\n")
    assert re.search(r"^    - .*\[-Sunrise-\]", counts, re.MULTILINE)
    assert re.search(r"^    \+ .*\{\+Sunset\+\}", counts, re.MULTILINE)
    assert f"  Date\n    - {format_datetime(NOW)}" in rest
    assert "Sunset" not in rest
    assert re.match(r"different: Subject differs \(Sunrise → Sunset\); \d more differences\n", shown.stdout)


def test_line_ends_of_this_system_do_not_matter(first: Path, tmp_path: Path) -> None:
    local = write(tmp_path / "local.eml", notification().replace(b"\r\n", b"\n"))
    shown = explain(first, local)
    assert shown.exit_code == 0
    assert "its lines end with LF; read as CRLF, as on the wire" in shown.stdout
    # Also where the raw bytes count.
    cut = PLAIN.replace(b"text/plain", b"multipart/mixed; boundary=b")
    assert compared(cut, cut.replace(b"\r\n", b"\n"), tmp_path).exit_code == 0


def test_a_message_may_come_on_standard_input(first: Path) -> None:
    shown = CliRunner().invoke(main, ["explain", "-", str(first)], input=notification())
    assert (shown.exit_code, len(set(fingerprints(shown)))) == (0, 1)
    assert "one of them may be -" in explain("-", "-").stderr


# Equal, and yet not suppressed


def test_an_exempt_mail_is_equal_and_still_never_suppressed(tmp_path: Path) -> None:
    mail = write(tmp_path / "recovery.eml", recovery("61f0a9c4"))
    shown = explain(mail, mail)
    assert shown.exit_code == 0
    assert "  rule         avideo: password recovery: exempt\n" in shown.stdout
    assert shown.stdout.splitlines()[0] == (
        "equal: byte for byte the same; yet never suppressed, because it is exempt (avideo: password recovery)"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--set", "dedup.window=0"], "yet never suppressed, because it is exempt (window is 0)"),
        (["--reverse-path", "<>"], "yet never suppressed, because it is exempt (null reverse-path)"),
        (["--set", "dedup.mode=observe"], "yet forwarded, because it is only observed (avideo: video notices)"),
    ],
)
def test_settings_and_envelope_may_keep_equal_mail_from_being_suppressed(
    first: Path, arguments: Sequence[str], why: str
) -> None:
    shown = explain(first, first, *arguments)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].endswith(why)
    answer = data(first, first, *arguments)["comparison"]
    assert (answer["equal"], answer["suppressed"], answer["but"]) == (True, False, why)


def test_two_rules_may_have_two_windows(tmp_path: Path) -> None:
    file = settings(tmp_path, '[[rules]]\nname = "quick"\nheader.X-Mailer = "."\naction = "dedupe"\nwindow = "1m"\n')
    shown = compared(PLAIN, b"X-Mailer: yes\r\n" + PLAIN, tmp_path, "-c", file)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0] == (
        "equal: they differ only in X-Mailer; their rules have windows of 10m and 1m, "
        "so the second is suppressed for 1m only"
    )


CONSECUTIVE = """
[[rules]]
name = "states"
subject = "^Hello"
from = "@example[.]org"
action = "dedupe"
repeats = "consecutive"
[[rules]]
name = "exempt"
subject = "^Bye"
action = "exempt"
"""


def test_a_consecutive_rule_and_its_sequence_are_named(tmp_path: Path) -> None:
    file = settings(tmp_path, CONSECUTIVE)
    shown = compared(PLAIN, PLAIN, tmp_path, "-c", file, "--recipient", "bob@example.org").stdout
    assert "is suppressed for 10m after the first, unless another mail of this sender came in between.\n" in shown
    assert "  rule         states: dedupe, window 10m, consecutive repeats only\n" in shown
    (name,) = set(re.findall(r"^  sequence     (q4:[0-9a-f]{40})  of mails from a@example\.org$", shown, re.MULTILINE))
    for mail, sequence, repeats in (
        (PLAIN, {"name": name, "sender": "a@example.org"}, "consecutive"),
        (PLAIN.replace(b"Hello", b"Else"), {"name": name, "sender": "a@example.org"}, "window"),
        (PLAIN.replace(b"Hello", b"Bye"), {"name": name, "sender": "a@example.org"}, ""),
        (PLAIN.replace(b"example.org", b"example.net"), None, "window"),
    ):
        path = write(tmp_path / "a.eml", mail)
        (message,) = data(path, "-c", file, "--recipient", "bob@example.org")["messages"]
        assert (message["sequence"], message["rule"]["repeats"]) == (sequence, repeats)


def test_two_rules_with_one_window_are_no_matter(tmp_path: Path) -> None:
    file = settings(tmp_path, '[[rules]]\nname = "quick"\nheader.X-Mailer = "."\naction = "dedupe"\n')
    shown = compared(PLAIN, b"X-Mailer: yes\r\n" + PLAIN, tmp_path, "-c", file)
    assert shown.stdout.splitlines()[:2] == [
        "equal: they differ only in X-Mailer",
        "A second copy to the same recipient is suppressed for 10m after the first.",
    ]


def test_each_may_have_been_ignored_something_of_its_own(tmp_path: Path) -> None:
    file = settings(tmp_path, "[[ignore]]\nname = 'numbers'\ntext = '7'\n[[ignore]]\nname = 'letters'\ntext = 'x'\n")
    shown = compared(PLAIN.replace(b"some", b"7"), PLAIN.replace(b"some", b"x"), tmp_path, "-c", file)
    assert shown.stdout.splitlines()[0] == "equal: nothing that counts differs; ignored: numbers and letters"


def test_one_of_two_may_be_exempt(tmp_path: Path) -> None:
    file = settings(tmp_path, '[[rules]]\nname = "never"\nheader.X-Mailer = "."\naction = "exempt"\n')
    shown = compared(PLAIN, b"X-Mailer: yes\r\n" + PLAIN, tmp_path, "-c", file)
    assert shown.stdout.splitlines()[0].endswith("yet never suppressed, because the second is exempt (never)")


# JSON


def test_json_has_the_same_content_under_stable_names(first: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.eml", notification(video="77aa88bb", sending=AGAIN))
    answer = data(first, other, "--recipient", "alice@example.org")
    assert list(answer) == ["version", "messages", "comparison"]
    assert answer["version"] == 1
    message, second = answer["messages"]
    assert list(message) == [
        *("path", "size", "fingerprint", "recipient", "reverse_path", "rule", "sequence", "broken", "notes"),
        *("parts", "ignored", "form"),
    ]
    assert list(message["rule"]) == ["name", "action", "window", "repeats", "reason", "matched"]
    assert (message["rule"]["action"], message["rule"]["window"]) == ("dedupe", 21600.0)
    assert message["parts"][2]["kind"] == "text/html"
    assert message["ignored"][0] == {"name": "avideo: image cache", "piece": "17412345671741234567"}
    assert message["fingerprint"] != second["fingerprint"]
    comparison = answer["comparison"]
    assert list(comparison) == ["equal", "sentence", "suppressed", "but", "differences", "uncounted"]
    assert list(comparison["differences"][0]) == [
        *("part", "kind", "what", "only", "first", "second", "edits", "more", "hint"),
    ]
    assert list(comparison["uncounted"][0]) == ["part", "what", "first", "second"]
    assert comparison["sentence"] == explain(first, other).stdout.splitlines()[0]


def test_json_of_one_file_compares_nothing(first: Path) -> None:
    answer = data(first)
    assert len(answer["messages"]) == 1
    assert answer["comparison"] is None
    assert answer["messages"][0]["recipient"] is None


def test_json_ends_with_the_same_status(first: Path, tmp_path: Path) -> None:
    assert explain(first, first, "--json").exit_code == 0
    assert compared(PLAIN, PLAIN + b"more", tmp_path, "--json").exit_code == 1
    assert explain(tmp_path, "--json").exit_code == 2


# Files that are no message


@pytest.mark.parametrize("name", ["missing.eml", ""])
def test_what_cannot_be_read_ends_with_2(first: Path, name: str) -> None:
    shown = explain(first, first.parent / name)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"error: {first.parent / name}: ")
    assert len(shown.stderr.splitlines()) == 1


def test_only_reading_a_file_shows_whether_it_is_readable(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Click's own check of a path would end the command with another message."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    for command in ("explain", "simulate"):
        assert CliRunner().invoke(main, [command, str(first)]).exit_code == 0


def test_an_mbox_is_sent_to_simulate(tmp_path: Path) -> None:
    stored = b"From a@example.org Mon Jan  1 00:00:00 2024\n" + PLAIN.replace(b"\r", b"") + b"\n"
    told = explain(write(tmp_path / "mail", stored * 2))
    assert (told.exit_code, told.stdout) == (2, "")
    assert "an mbox with several messages; name a file with one, or use `relay simulate` for all" in told.stderr
    # One alone is judged as it stands: this line breaks a header section.
    shown = explain(write(tmp_path / "mail", stored))
    assert shown.exit_code == 0
    assert "broken       a header line is not a field" in shown.stdout
    assert 'its first line begins with "From ", as in an mbox: remove the line, or use `relay simulate`' in shown.stdout


def test_what_the_relay_refuses_for_its_size_is_not_read(tmp_path: Path) -> None:
    large = write(tmp_path / "large.eml", PLAIN * 20)
    told = explain(large, "--set", "limits.message_size=1KiB")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "larger than limits.message_size (1KiB), so the relay refuses it" in told.stderr
    assert explain(large, "--set", f"limits.message_size={len(PLAIN) * 20}").exit_code == 0
    # Nor is what has no end.
    assert "larger than limits.message_size" in explain("/dev/zero", "--set", "limits.message_size=1MiB").stderr


@pytest.mark.parametrize("empty", ["/dev/null", "empty.eml"])
def test_an_empty_file_is_a_message_of_no_bytes(tmp_path: Path, empty: str) -> None:
    path = Path(empty) if empty.startswith("/") else write(tmp_path / empty, b"")
    shown = explain(path)
    assert shown.exit_code == 0
    assert shown.stderr == f"warning: {path}: empty; judged as a message of no bytes\n"
    assert fingerprints(shown)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (b"To: bob", "no blank line after the header section"),
        (b"Content-Type", "no blank line after the header section"),
    ],
)
def test_a_file_that_was_cut_off_is_judged_by_its_raw_bytes(tmp_path: Path, end: bytes, reason: str) -> None:
    mail = (CORPUS / "avideo" / "different" / "avideo-receipts.a.eml").read_bytes()
    shown = explain(write(tmp_path / "cut.eml", mail[: mail.rindex(end)] if end != b"To: bob" else mail[:40]))
    assert shown.exit_code == 0
    assert f"  broken       {reason}: its raw bytes count\n" in shown.stdout
    assert "  note         a truncated file looks like this\n" in shown.stdout
    assert re.search(r"^    raw (body|content) +\d+ bytes, blake2b ", shown.stdout, re.MULTILINE)


def test_a_file_without_its_closing_boundary_is_read_to_its_end_with_a_note(tmp_path: Path) -> None:
    mail = (CORPUS / "avideo" / "different" / "avideo-receipts.a.eml").read_bytes()
    whole = explain(write(tmp_path / "a.eml", mail))
    cut = explain(write(tmp_path / "b.eml", mail[: mail.rindex(b"--b1_")]))
    assert fingerprints(cut) == fingerprints(whole)
    assert "  note         a truncated file looks like this\n" in cut.stdout
    assert "truncated" not in whole.stdout


# Hostile bytes

OUR_COLOURS = re.compile(r"\x1b\[(?:0|1|4|31|32)m")
HOSTILE = (
    f"From: {ESCAPE}a@example.org\r\nSubject: {ESCAPE}\u202eevil\u202c\x07\r\n"
    f"X-{{}}: {ESCAPE}\r\nDate: \x1b]0;x\x07\r\n"
    f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b\x9b"; x="{ESCAPE}"\r\n\r\n'
    f"--b\x9b\r\nContent-Type: text/html; charset=utf-8; name*0*=utf-8''%1b%5b35m\r\nContent-ID: <{ESCAPE}>\r\n\r\n"
    f"<a href='{ESCAPE}\u2066'>\x08</a>\r\n--b\x9b\r\n"
    f'Content-Type: application/x; name="{ESCAPE}.pdf"\r\nContent-Description: {ESCAPE}\r\n\r\n\0\x1b]\r\n--b\x9b--\r\n'
).encode()


@pytest.mark.parametrize(
    "mail",
    [
        HOSTILE,
        HOSTILE.replace(b"--b\xc2\x9b--", b""),
        b"\x00\xff\x1b[35mContent-Type: multipart/mixed\n\n--\n\xfe",
        bytes(range(256)) * 50,
    ],
    ids=["parsed", "broken", "garbage", "binary"],
)
def test_a_message_can_put_nothing_on_the_terminal_but_text(tmp_path: Path, mail: bytes) -> None:
    one = write(tmp_path / f"one{ESCAPE}.eml", mail)
    other = write(
        tmp_path / "other.eml", mail.replace(b"[35m", b"[36m").replace(b"\xfe", b"\x1b").replace(b"evil", b"")
    )
    for shown in (explain(one), explain(one, other), explain(one, other, "--full"), explain(one, other, "--json")):
        assert shown.exit_code in {0, 1}
        assert all(char.isprintable() or char == "\n" for char in shown.stdout)
    # Where it is not written to a terminal click takes escape sequences out, so look at what goes to one.
    written = "".join(
        on_a_terminal("explain", *arguments)
        for arguments in ((one, other, "--full"), (one,), (tmp_path / f"none{ESCAPE}",))
    )
    assert all(char.isprintable() or char in "\r\n" for char in OUR_COLOURS.sub("", written))


def test_a_field_may_have_a_name_of_ours(tmp_path: Path) -> None:
    head = PLAIN.partition(b"Content-Type")[0] + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    odd = b"Part: a/b\r\nParts: c/d\r\nText: x\r\nBytes: y\r\nRaw: z\r\n\r\nwords\r\n--b--\r\n"
    shown = compared(head + odd, head + odd.partition(b"\r\n")[2].replace(b"words", b"other words"), tmp_path)
    assert (shown.exit_code, shown.exception.__class__) == (1, SystemExit)
    assert "{+other +}words" in shown.stdout
    assert "only the first has field part in part 1 (text/plain)" in shown.stdout


def test_an_id_of_a_part_that_counts_is_not_among_what_does_not(tmp_path: Path) -> None:
    """Without angle brackets it is none that a mailer has made, so it may say something."""
    mail = b"Content-ID: one\r\n" + PLAIN
    shown = compared(mail, mail.replace(b"one", b"two"), tmp_path, "--json")
    told = json.loads(shown.stdout)["comparison"]
    assert [found["what"] for found in told["differences"]] == ["field content-id"]
    assert told["uncounted"] == []


def test_octets_are_shown_where_no_text_is(tmp_path: Path) -> None:
    mail = PLAIN.replace(b"text/plain; charset=utf-8", b"application/x")
    shown = compared(mail + bytes(range(1, 201)), mail + bytes(range(1, 101)) + b"\xff" * 100, tmp_path).stdout
    assert "the content of part 1 (application/x)\n    - 212 bytes, from offset 112: 65 66 67 68" in shown
    assert "    + 212 bytes, from offset 112: ff ff ff ff" in shown


def test_a_nul_in_octets_is_none_of_what_was_ignored(tmp_path: Path) -> None:
    mail = PLAIN + b"many words and more " * 5
    assert "{+\\x00+}" in compared(mail + b"\x01", mail + b"\0", tmp_path).stdout


def test_what_was_ignored_makes_a_short_text_no_octets(tmp_path: Path) -> None:
    file = settings(tmp_path, "[[ignore]]\ntext = '[0-9]+'\n")
    shown = compared(PLAIN + b"17 ants", PLAIN + b"18 bees", tmp_path, "-c", file)
    assert "\n    - some words\\n[ignored] [-ants-]\n    + some words\\n[ignored] {+bees+}\n" in shown.stdout
    assert "bytes, from offset" not in shown.stdout


def test_a_multipart_that_only_one_has_is_told_once_with_its_parts(tmp_path: Path) -> None:
    def multipart(boundary: bytes, *parts: bytes) -> bytes:
        lines = b"".join(b"\r\n--%s\r\n%s" % (boundary, part) for part in parts)
        return b"Content-Type: multipart/mixed; boundary=%s\r\n%s\r\n--%s--\r\n" % (boundary, lines, boundary)

    leaf = b"Content-Type: text/plain\r\n\r\nx"
    inner = multipart(b"inner", leaf)
    shown = compared(multipart(b"b", leaf), multipart(b"b", leaf, inner), tmp_path, "--json")
    told = json.loads(shown.stdout)["comparison"]["differences"]
    assert [(found["part"], found["what"], found["only"]) for found in told] == [
        ("2", "", "second"),
        ("2.1", "", "second"),
    ]


def test_of_many_places_the_sentence_says_that_there_are_more(tmp_path: Path) -> None:
    first, second = (
        b"".join(b"same %d %s, https://example.org/%s here\r\n" % (line, word, word) for line in range(100))
        for word in (b"x", b"y")
    )
    shown = compared(PLAIN + first, PLAIN + second, tmp_path)
    assert shown.stdout.splitlines()[0].endswith("; at least 19 more differences")
    assert shown.stdout.count("[-x-]") == 20
    assert shown.stdout.count("… and more; --full shows all") == 1
    whole = compared(PLAIN + first, PLAIN + second, tmp_path, "--full")
    assert whole.stdout.splitlines()[0].endswith("; 199 more differences")


def test_one_place_in_five_megabytes_is_found_in_time(tmp_path: Path) -> None:
    text = PLAIN + b"lorem ipsum dolor sit amet, consectetur\r\n" * 125_000
    began = time.process_time()
    shown = compared(text, text[:3_000_000] + b"x" + text[3_000_000:], tmp_path)
    assert time.process_time() - began < 5
    assert shown.exit_code == 1
    assert len(shown.stdout) < 3_000
    assert re.match(r"different: the \w+ of part 1 \(text/plain\) differs \(…?\w* ?\w+ → …?\w+\)\n", shown.stdout)


def test_one_tag_of_a_megabyte_is_compared_in_time(tmp_path: Path) -> None:
    page = PLAIN.replace(b"text/plain", b"text/html") + b"<a " + b"x" * 1_000_000
    began = time.process_time()
    shown = compared(page + b"1>", page + b"2>", tmp_path)
    assert time.process_time() - began < 5
    assert shown.stdout.startswith("different: a tag in part 1 (text/html) differs ")


def test_ten_thousand_parts_are_compared_in_time(tmp_path: Path) -> None:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\n%d\r\n"
    head = PLAIN.partition(b"Content-Type")[0] + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    mail = head + b"".join(part % number for number in range(9_990)) + b"--b--\r\n"
    began = time.process_time()
    shown = compared(mail, mail.replace(b"\n5000\r", b"\nfive\r").replace(b"\n7\r", b"\nseven\r"), tmp_path)
    assert time.process_time() - began < 15
    assert shown.stdout.splitlines()[0] == (
        "different: the text in part 8 (text/plain) differs (7 → seven); 1 more difference"
    )


# Mistakes, colour, start


def test_three_files_are_too_many(first: Path) -> None:
    shown = explain(first, first, first)
    assert shown.exit_code == 2
    assert "one or two files, not more" in shown.stderr


@pytest.mark.parametrize("recipient", ["nonsense", "@example.org", "alice@", ""])
def test_a_recipient_that_is_no_address_is_refused(first: Path, recipient: str) -> None:
    shown = explain(first, "--recipient", recipient)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert f"'{recipient}' is no address; write NAME@DOMAIN" in shown.stderr


def test_postmaster_needs_no_domain(first: Path) -> None:
    assert explain(first, "--recipient", "Postmaster").exit_code == 0


def test_wrong_settings_end_with_78(first: Path) -> None:
    told = explain(first, "--set", "dedup.window=soon")
    assert (told.exit_code, told.stdout) == (78, "")
    assert told.stderr.startswith('error: dedup.window = "soon"')


def test_colours_are_for_terminals_that_want_them() -> None:
    files = [CORPUS / "subject" / "different" / f"subject-digit.{letter}.eml" for letter in "ab"]
    coloured = on_a_terminal("explain", *files)
    assert "\x1b[31m\x1b[1mdifferent\x1b[0m" in coloured
    assert "[-" not in coloured.replace("\x1b[", "")
    plain = on_a_terminal("explain", *files, NO_COLOR="1").replace("\r\n", "\n")
    assert plain == explain(*files).stdout
    assert "\x1b" not in plain


def test_help_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys; import relay.cli.explain; print([n for n in ('pydantic', 'relay.settings') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == "[]\n"


# The page

EXAMPLE = re.compile(r"^```console\n\$ relay (explain [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page_are_what_the_command_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change: python tests/cli/test_explain.py writes them anew."""
    monkeypatch.chdir(ROOT)
    page = PAGE.read_text()
    assert len(EXAMPLE.findall(page)) >= 3
    assert page == with_examples(page)


def with_examples(page: str) -> str:
    def run(example: re.Match[str]) -> str:
        shown = CliRunner().invoke(main, example[1].split())
        return f"```console\n$ relay {example[1]}\n{shown.output}```"

    return EXAMPLE.sub(run, page)


if __name__ == "__main__":
    os.chdir(ROOT)
    PAGE.write_text(with_examples(PAGE.read_text()))
