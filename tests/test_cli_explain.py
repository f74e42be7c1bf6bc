"""`relay explain`: what counts of a message, and whether two are equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from parts.avideo import AGAIN, notification, recovery

from relay.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write(tmp_path / "first.eml", notification())


def write(path: Path, mail: bytes) -> Path:
    path.write_bytes(mail)
    return path


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def fingerprints(shown: Result) -> list[str]:
    return re.findall(r"^  fingerprint  (\S+)", shown.stdout, re.MULTILINE)


def test_one_file_shows_form_rule_and_fingerprint(first: Path) -> None:
    shown = explain(first)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert re.search(r"^  fingerprint  v\d+:[0-9a-f]{32,}$", shown.stdout, re.MULTILINE)
    assert "  rule         dedupe (default)\n" in shown.stdout
    assert "marta has uploaded a new video Sunrise 🎬 over the lake" in shown.stdout
    assert "1741234567" not in shown.stdout  # the cache value does not count
    assert "?cache=[ignored]" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_two_sends_of_one_notice_are_equal(first: Path, tmp_path: Path) -> None:
    later = write(tmp_path / "later.eml", notification(cache="?cache=1741239999", sending=AGAIN))
    shown = explain(first, later)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1].startswith("equal: ")
    assert len(set(fingerprints(shown))) == 1


def test_two_notices_are_different_and_the_difference_is_shown(first: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.eml", notification(title="Sunset over the sea"))
    shown = explain(first, other)
    assert shown.exit_code == 1
    assert len(set(fingerprints(shown))) == 2
    difference = shown.stdout.partition("different:\n")[2]
    assert "  - Subject: New video: Sunrise" in difference
    assert "  + Subject: New video: Sunset over the sea" in difference


def test_an_exempt_mail_is_equal_and_still_never_suppressed(tmp_path: Path) -> None:
    mail = write(tmp_path / "recovery.eml", recovery("61f0a9c4"))
    shown = explain(mail, mail)
    assert shown.exit_code == 0
    assert "  rule         exempt: avideo: password recovery\n" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("yet never suppressed, being exempt (avideo: password recovery)")


def test_a_recipient_has_a_fingerprint_of_its_own_in_every_spelling(first: Path) -> None:
    nobody, alice, again = (
        fingerprints(explain(first, *more))[0]
        for more in ((), ("--recipient", "alice@example.org"), ("--recipient", "Alice@EXAMPLE.org"))
    )
    assert nobody != alice
    assert alice == again


def test_line_ends_of_this_system_do_not_matter(first: Path, tmp_path: Path) -> None:
    local = write(tmp_path / "local.eml", notification().replace(b"\r\n", b"\n"))
    assert explain(first, local).exit_code == 0


def test_garbage_is_explained_as_garbage(tmp_path: Path) -> None:
    garbage = write(tmp_path / "garbage.eml", b"\x00\xff\x1b[31mContent-Type: multipart/mixed\n\n--\n\xfe")
    shown = explain(garbage)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("name", ["missing.eml", ""])
def test_what_cannot_be_read_ends_with_2(first: Path, name: str) -> None:
    shown = explain(first, first.parent / name)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"error: {first.parent / name}: ")


def test_three_files_are_too_many(first: Path) -> None:
    shown = explain(first, first, first)
    assert shown.exit_code == 2
    assert "one or two files, not more" in shown.stderr


def test_a_message_may_come_on_standard_input(first: Path) -> None:
    shown = CliRunner().invoke(main, ["explain", "-", str(first)], input=notification())
    assert (shown.exit_code, len(set(fingerprints(shown)))) == (0, 1)
    assert "one of them may be -" in explain("-", "-").stderr


@pytest.mark.parametrize("recipient", ["nonsense", "@example.org", "alice@"])
def test_a_recipient_that_is_no_address_is_refused(first: Path, recipient: str) -> None:
    shown = explain(first, "--recipient", recipient)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert f"'{recipient}' is no address; write NAME@DOMAIN" in shown.stderr


def test_postmaster_needs_no_domain(first: Path) -> None:
    assert explain(first, "--recipient", "Postmaster").exit_code == 0
