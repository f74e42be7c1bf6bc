"""Breaks the relay. From the top of the tree:

    python -m tests.faults list                       the scenarios
    python -m tests.faults run                        all that are not finished, with their full number of messages
    python -m tests.faults run "kill -9" --seed 7     those whose name contains these words
    python -m tests.faults play "kill -9 at MAIL" --seed 7 --messages 50     this one here, with its progress
    python -m tests.faults report                     docs/reliability.md from the results so far

Results are kept in var/faults. Scenarios that are finished there run again only with --again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from pathlib import Path

import click

_TREE = Path(__file__).parents[2]
sys.path[:0] = [str(_TREE / "tests"), str(_TREE)]

import faults.scenarios  # noqa: E402, F401 - registers them
from faults.report import write_report  # noqa: E402
from faults.runner import Results, Round, chosen, finished, play_one  # noqa: E402


def main() -> int:
    """Runs what the arguments ask for. Returns 0 if every result is clean, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["list", "run", "play", "report"])
    parser.add_argument("names", nargs="*", help="words of which a scenario's name or group holds one")
    parser.add_argument("--messages", type=int, help="for each scenario, in place of its own number")
    parser.add_argument("--seed", type=int, help="of an earlier run, to do the same again (default: a new one)")
    parser.add_argument("--minutes", type=float, help="begin no further scenario after so many minutes")
    parser.add_argument("--at-once", type=int, default=2, help="how many scenarios that do not mind (default: 2)")
    parser.add_argument("--again", action="store_true", help="run also what is finished")
    parser.add_argument("--results", type=Path, default=_TREE / "var" / "faults", help="the folder of results")
    parser.add_argument("--report", type=Path, default=_TREE / "docs" / "reliability.md", help="the page to write")
    given = parser.parse_args()
    results = Results(given.results)
    scenarios = chosen(given.names)
    if given.what == "list":
        for each in scenarios:
            done = "done" if finished(each, results.load(each), given.messages) else "    "
            click.echo(f"{done}  {each.messages:6}  {each.relays} on {each.store:12}  {each.group}: {each.name}")
        return 0
    # A signal that ends this process must end its relays and servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    if given.what == "play":
        for each in [each for each in scenarios if each.name in given.names] or scenarios:
            asyncio.run(play_one(each, results, seed, given.messages or each.messages))
        return 0
    clean = True
    if given.what == "run":
        click.echo(f"seed {seed}")
        round_ = Round(results, seed, given.messages, given.minutes, given.again, given.at_once)
        clean = asyncio.run(round_.run(scenarios))
    write_report(given.report, results)
    click.echo(f"written: {given.report}")
    return 0 if clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
