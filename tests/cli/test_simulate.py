"""`relay simulate` as an operator meets it: what it says, where, and how it ends."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from parts.archived import Delivered, as_mbox, notices, write_maildir
from parts.avideo import NOW, Sending, comment, going_live, notification
from parts.avideo_pairs import DIFFERENT_PAIRS, EQUAL_PAIRS
from parts.client import send
from parts.relay_process import run_relay

from relay.cli import main
from relay.simulate.mbox import is_truncated

if TYPE_CHECKING:
    from conftest import StartRelay
    from parts.peer import ScriptedPeer

ANNA = "anna@example.test"


def simulate(*arguments: object) -> Result:
    """Runs the command without presets, whose rules have windows of their own."""
    presets = ("--set", "dedup.presets=[]")
    return CliRunner().invoke(main, ["simulate", *map(str, (*presets, *arguments))], prog_name="relay")


def found(*arguments: object) -> dict[str, Any]:
    shown = simulate("--json", *arguments)
    assert shown.exit_code in (0, 1), shown.output
    return json.loads(shown.stdout)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "archive.mbox"
    file.write_bytes(as_mbox(notices(6, copies={0: 1.0, 1: 60.0, 2: 3000.0})))
    return file


# What it says


def test_the_result_is_on_stdout_and_nothing_else(archive: Path) -> None:
    shown = simulate(archive)
    assert (shown.exit_code, shown.stderr) == (0, "")
    text = shown.stdout
    assert text.startswith(f"9 messages from {NOW:%FT%TZ} to {NOW + dt.timedelta(5):%FT%TZ}\n")
    assert "  dated by      9 Received\n  recipients by 9 X-Original-To\n  reverse-paths 9 Return-Path\n" in text
    assert "With dedup.window = 10m, 2 of 9 recipients would not have received a second copy\n" in text
    assert re.search(r"^  default  dedupe     10m           9        2$", text, re.MULTILINE)
    assert re.search(r"^ +10m +2  in force\n.*30m +2\n +1h +3$", text, re.MULTILINE)
    assert re.search(r"^ +30 min to 1 h +1  █{40}$", text, re.MULTILINE)
    assert re.search(r"^ +1 +1 +1 +1 min +New video: Video 1 - Example Tube$", text, re.MULTILINE)
    assert "\x1b" not in text


def test_the_window_may_be_tried(archive: Path) -> None:
    for arguments in (["--window", "1h"], ["--set", "dedup.window=1h"]):
        assert found(archive, *arguments)["suppressed"]["recipients"] == 3
    assert found(archive, "--window", "90s")["windows"][2] == {"window_seconds": 90.0, "recipients": 2}
    off = found(archive, "--window", "0")
    assert off["suppressed"]["recipients"] == 0
    assert off["rules"] == [
        {"rule": "window is 0", "action": "exempt", "window_seconds": 0.0, "recipients": 9, "repeats": 0}
    ]


def test_rules_of_a_file_are_obeyed(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text('[[rules]]\nname = "never"\nsubject = "Video [01]"\naction = "exempt"\n')
    rules = {row["rule"]: row["repeats"] for row in found(archive, "-c", tmp_path / "relay.toml")["rules"]}
    assert rules == {"never": 0, "default": 0}


def test_observing_is_told_apart(archive: Path) -> None:
    shown = simulate(archive, "--set", "dedup.mode=observe")
    assert "0 of 9 recipients would not have received a second copy" in shown.stdout
    assert "2 more recipients only counted (action observe)\n" in shown.stdout


def test_top_says_how_many_groups_are_shown(archive: Path) -> None:
    assert len(found(archive, "--top", 1)["groups"]) == 1
    assert "Most repeated (1 of 3)" in simulate(archive, "--top", 1).stdout
    assert simulate(archive, "--top", -1).exit_code == 2
    # No heading stands above nothing.
    none = simulate(archive, "--top", 0).stdout
    assert "Gaps between copies" in none
    assert "Most repeated" not in none
    assert "Near misses" not in none


def test_near_misses_show_the_piece(tmp_path: Path) -> None:
    mails = [notification(cache=f"?fresh=a{n}b", sending=Sending(seed=f"{n}")) for n in range(3)]
    (tmp_path / "box").write_bytes(as_mbox([Delivered(mail, ANNA, 60.0 * n) for n, mail in enumerate(mails)]))
    text = simulate(tmp_path / "box").stdout
    assert "Near misses: 2 pairs of one subject and recipient, one piece different\n" in text
    assert "  2 pairs, 1 min apart: New video: Sunrise" in text
    assert re.search(r"^    text: ….*thumbsV2.jpg\?fresh=\[-a0b-\]\{\+a1b\+\}' width", text, re.MULTILINE)


def test_no_control_sequence_of_a_mail_reaches_the_terminal(tmp_path: Path) -> None:
    nasty = b"\x1b]0;owned\x07\x1b[31m\xe2\x80\xaeevil\xff"
    mail = notification().replace(b"Subject: ", b"Subject: " + nasty)
    other = comment("plain", sending=Sending(seed="2")).replace(b"plain", nasty)
    third = comment("plain", sending=Sending(seed="3")).replace(b"plain", nasty + b"x")
    for number, (one, after) in enumerate([(mail, 0), (mail, 1), (other, 2), (third, 3)]):
        (tmp_path / f"{number}\x1b[1m.eml").write_bytes(Delivered(one, ANNA, after).content)
    (tmp_path / "\x1b[2m.txt").write_bytes(b"no mail")
    (tmp_path / "\x1b[3m\x07").symlink_to("nowhere")
    shown = simulate(tmp_path)
    assert shown.exit_code == 1
    assert "evil" in shown.stdout
    for text in (shown.stdout, shown.stderr):
        assert all(char.isprintable() or char == "\n" for char in text), text


def test_json_is_one_object_of_the_documented_form(archive: Path) -> None:
    documented = Path(__file__).parents[2].joinpath("docs/simulate.md").read_text()
    told = found(archive)
    assert told["version"] == 1
    missing = [key for key in told if f"`{key}`" not in documented]
    assert missing == []


def test_broken_messages_are_told_with_the_reason(archive: Path) -> None:
    broken = notification().replace(b"Subject:", b"Content-Type: text/plain\r\nSubject:")
    archive.write_bytes(as_mbox([Delivered(broken, ANNA, 0), *notices(1)]))
    assert "  broken        1, whose raw bytes count: two content-type fields (1)\n" in simulate(archive).stdout


def test_the_ignore_of_the_manual_makes_repeats_of_near_misses(tmp_path: Path) -> None:
    manual = Path(__file__).parents[2].joinpath("docs/simulate.md").read_text()
    (tmp_path / "relay.toml").write_text(manual.partition("```toml\n")[2].partition("```")[0])
    mails = [going_live(cache=f"?thumb=live{n}x", sending=Sending(seed=f"{n}")) for n in range(3)]
    (tmp_path / "box").write_bytes(as_mbox([Delivered(mail, ANNA, 60.0 * n) for n, mail in enumerate(mails)]))
    before, after = found(tmp_path / "box"), found(tmp_path / "box", "-c", tmp_path / "relay.toml")
    assert (before["near_miss_pairs"], before["suppressed"]["recipients"]) == (2, 0)
    assert (after["near_miss_pairs"], after["suppressed"]["recipients"]) == (0, 2)


# What cannot be read


def test_a_path_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    shown = simulate(tmp_path / "none.mbox")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == f"error: {tmp_path}/none.mbox: No such file or directory\n"


def test_what_is_no_mail_at_all_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert simulate(tmp_path / "picture").exit_code == 2
    assert simulate().exit_code == 2


def test_the_rest_is_simulated_when_something_cannot_be_read(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    write_maildir(tmp_path / "Maildir", notices(2, copies={0: 5}))
    shown = simulate(archive, tmp_path / "Maildir", tmp_path / "none")
    assert shown.exit_code == 1
    assert shown.stdout.startswith("7 messages ")
    first, second = shown.stderr.splitlines()
    assert re.fullmatch(
        rf"error: {archive} at byte \d+: the mbox ends in the middle of this message, which is left out", first
    )
    assert second == f"error: {tmp_path}/none: No such file or directory"


def test_only_the_first_of_many_problems_are_told(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").symlink_to("nowhere")
    told = simulate(tmp_path)
    assert told.exit_code == 2
    assert len(told.stderr.splitlines()) == 21
    assert told.stderr.endswith("error: and 10 more\n")


def test_what_is_left_out_without_fault_is_said(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "undated.eml").write_text("Subject: x\n\n")
    (tmp_path / "again.mbox").symlink_to(archive)
    shown = simulate(tmp_path)
    assert shown.exit_code == 0
    assert shown.stderr.splitlines() == [
        "warning: 1 message without a usable date, left out",
        f"skipped 1 file without mail, such as {tmp_path}/notes.txt",
        "reached 1 file again, and read each only once",
    ]


def test_an_empty_archive_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for path in ("empty", "folder"):
        shown = simulate(tmp_path / path)
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert shown.stderr == (
            "error: no message was found; name an mbox, a Maildir, a file with one message or a folder\n"
        )


def test_wrong_settings_end_with_78(archive: Path) -> None:
    shown = simulate(archive, "--window", "soon")
    assert (shown.exit_code, shown.stdout) == (78, "")
    assert 'dedup.window = "soon"' in shown.stderr


# On a terminal


def test_ctrl_c_ends_a_long_run_with_a_word_and_130(tmp_path: Path) -> None:
    """On a terminal the progress is shown; nothing of the result is, since half of it would mislead."""
    (tmp_path / "box").write_bytes(as_mbox([Delivered(notification(), ANNA, 0)]) * 5000)
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "relay", "simulate", str(tmp_path / "box")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, cwd=Path(__file__).parents[2]) as process:
        os.close(theirs)
        said = b""
        while b"replaying them" not in said:
            said += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while piece := read_terminal(ours):
            said += piece
        assert process.stdout
        assert process.stdout.read() == b""
        assert process.wait() == 130
    os.close(ours)
    assert b"looking for messages: 5,000" in said
    assert re.search(rb"interrupted: [0-9,]+ of 5,000 messages were replayed; there is no result\r\n", said)
    assert b"Traceback" not in said


def read_terminal(ours: int) -> bytes:
    """Linux says EIO where the other side is closed."""
    try:
        return os.read(ours, 4096)
    except OSError:
        return b""


async def test_nothing_of_the_progress_is_said_on_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "box").write_bytes(as_mbox([Delivered(comment("x"), ANNA, 0)]) * 600)
    ran = await run_relay("simulate", str(tmp_path / "box"))
    assert (ran.status, ran.stderr) == (0, "")
    assert "599 of 600 recipients" in ran.stdout


# Against the relay itself


async def test_a_relay_suppresses_as_many_as_the_simulation_says(
    start_relay: StartRelay, peer: ScriptedPeer, tmp_path: Path
) -> None:
    relay = await start_relay(upstream=peer.url, store="memory:")
    delivered = []
    for number, pair in enumerate([*EQUAL_PAIRS, *DIFFERENT_PAIRS]):
        for place, mail, recipients in ((0, pair.a, pair.a_recipients), (1, pair.b, pair.b_recipients)):
            answer = await send(relay.port, b"contact@tube.example.test", [to.encode() for to in recipients], mail)
            assert answer.ok
            delivered += [Delivered(mail, to, 2.0 * number + place) for to in recipients]
    (tmp_path / "box").write_bytes(as_mbox(delivered))
    ran = await run_relay("simulate", "--json", str(tmp_path / "box"))
    outcomes = (await relay.metrics()).outcomes()
    told = json.loads(ran.stdout)
    assert told["recipients"] == len(delivered) == sum(outcomes.values())
    assert told["suppressed"]["recipients"] == outcomes["suppressed"] >= len(EQUAL_PAIRS)


def test_a_last_message_without_its_closing_boundary_is_cut_off() -> None:
    line, mail = b"From a Mon Mar  1 10:57:00 2026\r\n", notification()
    assert not is_truncated(line + mail)
    assert is_truncated(line + mail[: len(mail) // 2])
