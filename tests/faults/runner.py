"""Runs scenarios, keeps each result in a file, skips finished ones, and writes the report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faults.play import Result, play
from faults.scenario import ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from faults.run import Run
    from faults.scenario import Scenario


class Results:
    """A folder with one JSON file for each scenario."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, scenario: Scenario) -> dict[str, Any] | None:
        """Returns the last result of a scenario, or None if there is none that can be read."""
        try:
            found: dict[str, Any] = json.loads(self._file(scenario).read_text())
        except (OSError, ValueError):
            return None
        # A result of an older harness lacks fields of the report.
        return found if found.keys() >= Result.__dataclass_fields__.keys() else None

    def save(self, scenario: Scenario, result: Result) -> None:
        """Writes a result, in place of an earlier one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(scenario)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**result.as_dict(), "at": time.strftime("%Y-%m-%d")}, indent=1) + "\n")
        fresh.replace(file)

    def forget(self, scenario: Scenario) -> None:
        """Removes the last result of a scenario."""
        self._file(scenario).unlink(missing_ok=True)

    def _file(self, scenario: Scenario) -> Path:
        return self.folder / (re.sub(r"[^a-z0-9]+", "-", scenario.name.lower()).strip("-") + ".json")


def chosen(words: Iterable[str]) -> list[Scenario]:
    """Returns the scenarios whose name or group contains one of the words, or all if there are no words."""
    wanted = [word.lower() for word in words]
    found = [
        each
        for each in ordered()
        if not wanted or any(word in each.name.lower() or word in each.group.lower() for word in wanted)
    ]
    if not found:
        raise SystemExit(f"no scenario is called {' or '.join(wanted)}; `list` shows all names")
    return found


def finished(scenario: Scenario, result: dict[str, Any] | None, messages: int | None) -> bool:
    """Returns whether a result is clean and has the number of messages asked for."""
    return bool(result and result["asked"] >= (messages or scenario.messages) and not _failed(result))


def _failed(result: Mapping[str, Any]) -> bool:
    return bool(result["lost"] or result["doubled"] or result["findings"])


@dataclass(frozen=True)
class Round:
    """What to run, and how: each scenario in a separate process, so many at once if they allow it."""

    results: Results
    seed: int
    messages: int | None = None
    """Messages of each scenario, in place of its default."""
    minutes: float | None = None
    """The time after which no further scenario starts."""
    again: bool = False
    """Whether to repeat finished scenarios."""
    at_once: int = 1

    async def run(self, scenarios: Sequence[Scenario]) -> bool:
        """Runs what is not finished. Returns whether all results are clean."""
        deadline = time.monotonic() + 60 * self.minutes if self.minutes else float("inf")
        places = asyncio.Semaphore(self.at_once)
        ends: list[bool] = []

        async def one(scenario: Scenario, head: str) -> None:
            async with places:
                if time.monotonic() < deadline:
                    ends.append(await self._play(scenario, head))
                else:
                    click.echo(f"{head}: left for the next run, the time is over")
                    ends.append(False)

        due = list(self._due(scenarios))
        async with asyncio.TaskGroup() as group:
            for scenario, head in due:
                if not scenario.alone:
                    group.create_task(one(scenario, head))
        for scenario, head in due:
            if scenario.alone:
                await one(scenario, head)
        return all(ends)

    def _due(self, scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, str]]:
        """Returns the scenarios to run, each with the prefix of its progress lines."""
        for number, scenario in enumerate(scenarios, 1):
            head = f"[{number}/{len(scenarios)}] {scenario.name}"
            kept = self.results.load(scenario)
            if kept and not self.again and finished(scenario, kept, self.messages):
                click.echo(f"{head}: finished before, seed {kept['seed']}")
            else:
                yield scenario, head

    async def _play(self, scenario: Scenario, head: str) -> bool:
        """Runs a scenario in a separate process, which keeps its result."""
        self.results.forget(scenario)
        words = ["--seed", str(self.seed), "--messages", str(self.messages or scenario.messages)]
        words += ["--results", str(self.results.folder)]
        player = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults", "play", scenario.name, *words), cwd=Path(__file__).parents[2]
        )
        try:
            await player.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                player.terminate()
            await player.wait()
            raise
        result = self.results.load(scenario)
        if result is None:
            click.echo(f"{head}: FAILED, ended with {player.returncode} and left no result")
            return False
        click.echo(f"{head}: {summary(result)}")
        for finding in result["findings"]:
            click.echo(f"    {finding}")
        return not _failed(result)


async def play_one(scenario: Scenario, results: Results, seed: int, messages: int) -> None:
    """Runs a scenario in this process and keeps its result."""
    results.save(scenario, await play(scenario, messages, seed, _progress(scenario.name)))
    _end_progress()


def summary(result: Mapping[str, Any]) -> str:
    """Returns a line about a result."""
    excused = "".join(f", {count} {cause}" for cause, count in result["excused"].items())
    word = "FAILED" if _failed(result) else "ok"
    return (
        f"{word}, {result['messages']} messages, {result['attempts']} sent, {result['lost']} lost, "
        f"{result['doubled']} doubled{excused}, {result['seconds']:.0f} s, seed {result['seed']}"
    )


def _progress(head: str) -> Callable[[Run], None]:
    def show(run: Run) -> None:
        if sys.stderr.isatty():
            heard = len(run.history.attempts)
            click.echo(f"\r{head}: {run.done} of {run.messages}, {heard} sent \033[K", nl=False, err=True)

    return show


def _end_progress() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
