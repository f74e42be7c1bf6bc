"""`relay demo`: a newcomer's first command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from parts.relay_process import run_relay
from parts.waiting import LONGEST

from relay.cli.demo import LIMIT, show_results
from relay.demo.scenario import StepResult

_TREE = Path(__file__).parents[2]
RIGHT = StepResult("a new video", received=100, forwarded=50, suppressed=50, expected=50, why="twins")


def processes_of(mark: str) -> list[str]:
    """Returns the command lines of the processes with this text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:  # ended meanwhile, or not ours
            continue
    return found


def files_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_it_shows_what_came_in_and_what_went_out_and_leaves_nothing(tmp_path: Path) -> None:
    told = await run_relay("demo", environment={"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}, seconds=LIMIT + 10)
    assert told.status == 0, told.stderr
    lines = told.stdout.splitlines()
    counts = [[int(word) for word in line.split() if word.isdigit()] for line in lines if not line.startswith("─")]
    assert counts[1:] == [[100, 50, 50], [50, 0, 50], [50, 50, 0], [2, 2, 0], [202, 102, 100]]
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in told.stdout
    assert "Traceback" not in told.stderr
    assert files_in(tmp_path) == []
    assert processes_of(str(tmp_path)) == []
    assert "".join(f"    {line}\n" for line in lines) in (_TREE / "README.md").read_text()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_with_page_it_goes_on_until_ctrl_c_and_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "demo", "--page"), stderr=asyncio.subprocess.PIPE, env=environment, cwd=_TREE
    )
    assert process.stderr is not None
    async with asyncio.timeout(LONGEST):
        address = (await process.stderr.readline()).decode().rpartition(" ")[2].strip()
        async with aiohttp.ClientSession(address) as client:
            recipients = 0
            while not recipients:
                async with client.get("/metrics") as response:
                    found = re.findall(r'recipients_total{outcome="forwarded"} ([0-9.]+)', await response.text())
                recipients = int(float(found[0]))
            async with client.get("/") as response:
                assert "Mail flows" in await response.text()
        process.send_signal(end)
        _, rest = await process.communicate()
    assert (process.returncode, b"Traceback" in rest) == (130, False), rest.decode()
    assert files_in(tmp_path) == []


def test_its_lines_are_in_order_where_both_streams_are_one() -> None:
    code = (
        "from relay.cli.demo import show_results; from relay.demo.scenario import StepResult\n"
        "show_results([StepResult('new', 2, 1, 1, 1, 'twins')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=_TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout.splitlines()
    assert [told[number].split()[0] for number in (0, -2, -1)] == ["what", "Each", "Next,"]


def test_a_wrong_count_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_results([RIGHT])
    assert "error" not in capsys.readouterr().err
    assert not show_results(
        [RIGHT, StepResult("another", received=50, forwarded=49, suppressed=1, expected=50, why="no repeat")]
    )
    told = capsys.readouterr()
    assert told.err == "error: another: of 50 mails 50 had to be forwarded and the others suppressed\n"
    assert re.search(r"^another +50 +49 +1 +no repeat$", told.out, re.MULTILINE)


def test_a_lost_copy_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert not show_results(
        [StepResult("a new video", received=100, forwarded=50, suppressed=49, expected=50, why="twins")]
    )
    assert "error: a new video: of 100 mails 50 had to be" in capsys.readouterr().err


async def test_it_leaves_nothing_when_it_takes_too_long(tmp_path: Path) -> None:
    told = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-c",
            "from relay.cli.demo import run_demo; raise SystemExit(0 if run_demo(limit=0.2) else 1)",
        ],
        cwd=_TREE,
        env=os.environ | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert told.returncode == 1
    assert told.stderr.endswith("error: not finished within 0.2 s; is the machine very busy? Try again.\n")
    assert files_in(tmp_path) == []
    assert processes_of(str(tmp_path)) == []


def test_it_names_the_next_commands_as_it_was_called_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/relay", "demo"])
    assert show_results([RIGHT])
    assert capsys.readouterr().err.endswith(" Beside one: .venv/bin/relay check, then .venv/bin/relay serve.\n")
    monkeypatch.setattr(sys, "argv", ["/opt/relay/__main__.py", "demo"])
    assert show_results([RIGHT])
    assert capsys.readouterr().err.endswith(
        "\nNext, without an MTA: make run. Beside one: relay check, then relay serve.\n"
    )
