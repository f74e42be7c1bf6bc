"""Run scenarios, keep each result as a file, skip what is finished, and write the report."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from faults.play import Result, play
from faults.scenario import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from faults.run import Run
    from faults.scenario import Scenario


class Results:
    """A folder with one JSON file for each scenario."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, scenario: Scenario) -> dict[str, Any] | None:
        """Give the last result of a scenario, if it has one that can be read."""
        try:
            found: dict[str, Any] = json.loads(self._file(scenario).read_text())
        except (OSError, ValueError):
            return None
        return found

    def save(self, scenario: Scenario, result: Result) -> None:
        """Keep a result in place of the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(scenario)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**result.as_dict(), "at": time.strftime("%Y-%m-%d")}, indent=1) + "\n")
        fresh.replace(file)

    def _file(self, scenario: Scenario) -> Path:
        return self._folder / (re.sub(r"[^a-z0-9]+", "-", scenario.name.lower()).strip("-") + ".json")


def chosen(words: Iterable[str]) -> list[Scenario]:
    """Give the scenarios whose name or group holds any of the words; all where there are none."""
    wanted = [word.lower() for word in words]
    found = [
        each
        for each in ALL.values()
        if not wanted or any(word in each.name.lower() or word in each.group.lower() for word in wanted)
    ]
    if not found:
        raise SystemExit(f"no scenario is called {' or '.join(wanted)}; `list` shows all names")
    return found


def finished(scenario: Scenario, result: dict[str, Any] | None, messages: int | None) -> bool:
    """Say whether a result stands for what was asked: so many messages, nothing wrong."""
    return bool(result and result["asked"] >= (messages or scenario.messages) and not _failed(result))


def _failed(result: dict[str, Any]) -> bool:
    return bool(result["lost"] or result["doubled"] or result["findings"])


async def run_all(
    scenarios: Sequence[Scenario],
    results: Results,
    *,
    seed: int,
    messages: int | None = None,
    minutes: float | None = None,
    again: bool = False,
) -> bool:
    """Run what is not finished, as long as the minutes last. True when every result there is now is clean."""
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    clean = True
    for number, scenario in enumerate(scenarios, 1):
        head = f"[{number}/{len(scenarios)}] {scenario.name}"
        kept = results.load(scenario)
        if not again and finished(scenario, kept, messages):
            click.echo(f"{head}: finished before, seed {kept['seed'] if kept else ''}")
            continue
        if time.monotonic() > deadline:
            click.echo(f"{head}: left for the next run, the time is over")
            clean = False
            continue
        result = await play(scenario, messages or scenario.messages, seed, _progress(head))
        results.save(scenario, result)
        _end_progress()
        click.echo(f"{head}: {summary(result)}")
        for finding in result.findings:
            click.echo(f"    {finding}")
        clean = clean and result.clean
    return clean


def summary(result: Result) -> str:
    """Say in a line what came of it."""
    excused = "".join(f", {count} {cause}" for cause, count in result.excused.items())
    word = "ok" if result.clean else "FAILED"
    return (
        f"{word}, {result.messages} messages, {result.attempts} sent, {result.lost} lost, {result.doubled} doubled"
        f"{excused}, {result.seconds:.0f} s, seed {result.seed}"
    )


def _progress(head: str) -> Any:
    def show(run: Run) -> None:
        if sys.stderr.isatty():
            heard = len(run.history.attempts)
            click.echo(f"\r{head}: {run.done} of {run.messages}, {heard} sent \033[K", nl=False, err=True)

    return show


def _end_progress() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
