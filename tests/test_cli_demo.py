"""`relay demo`: a newcomer's first command."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner
from parts.relay_process import run_relay

from relay.cli import demo
from relay.demo import scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def processes_of(mark: str) -> list[str]:
    """Give the command lines of the processes that carry this in their environment."""
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
    begun = time.monotonic()
    told = await run_relay("demo", environment={"TMPDIR": str(tmp_path), "HOME": str(tmp_path)})
    assert time.monotonic() - begun < 20
    assert told.status == 0, told.stderr
    lines = told.stdout.splitlines()
    counts = [[int(word) for word in line.split() if word.isdigit()] for line in lines if not line.startswith("─")]
    assert counts[1:] == [[100, 50, 50], [50, 0, 50], [50, 50, 0], [2, 2, 0], [202, 102, 100]]
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in told.stdout
    assert "Traceback" not in told.stderr
    assert files_in(tmp_path) == []
    assert processes_of(str(tmp_path)) == []


async def test_it_fails_where_a_count_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    play = scenario.play

    async def wrong() -> Sequence[scenario.Row]:
        first, *others = await play()
        return [scenario.Row(first.what, 100, 51, 49, 50, first.why), *others]

    monkeypatch.setattr(scenario, "play", wrong)
    told = await asyncio.to_thread(CliRunner().invoke, demo.demo)
    assert told.exit_code == 1
    assert "error: new video, by two processes at once: 51 mails were forwarded, not 50\n" in told.stderr


async def test_it_leaves_nothing_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(demo, "_LIMIT", 0.2)
    told = await asyncio.to_thread(CliRunner().invoke, demo.demo)
    assert told.exit_code == 1
    assert "error: not over within 0.2 s" in told.stderr
    assert files_in(tmp_path) == []
    assert [line for line in processes_of(f"TMPDIR={tmp_path}") if "relay.demo" in line] == []
