"""`docs/reliability.md`, written from the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.scenario import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from faults.runner import Results
    from faults.scenario import Scenario

_HEAD = """\
# Reliability

What the relay does when things break, as measured by the last `make faults`, which wrote this page. Everything is
broken for real: relay processes, Redis, SQLite's disk, a Postfix, or an SMTP peer that misbehaves at a chosen step.
Clients write down every reply, the receiving end every message; the accounting is done over both:

- **lost**: a client heard 250, and the message never arrived. Must be 0.
- **doubled**: a second equal copy for a recipient, without a named cause. Must be 0.
- **named**: second copies with a cause that the [architecture](architecture.md) names. The cause is taken from what the
  receiver, the clients and the one who broke things wrote down, never from the relay's own counters.

In every row also: recipients sent are the sum of all outcomes, in the log and in `/metrics`; each suppression names an
original that the receiver holds; no key without an expiry, no claim held after its lease, no descriptor, session or
claim left over; every message arrived in the end. *Sent* counts every try of every client: twins, repeats and retries.

*Memory* is the first relay's, before and after, where it lived through the run.

Any row can be run again: `python -m tests.faults run "NAME" --again --seed SEED`.
"""
_COLUMNS = (
    "fault",
    "what the client hears",
    "what the operator sees",
    "relays, store",
    "messages",
    "sent",
    "lost",
    "doubled",
    "named",
    "slowest reply",
    "memory",
    "seed",
)


def write_report(file: Path, results: Results) -> None:
    """Write the page. Scenarios that have not run stand in it, and say so."""
    groups: dict[str, list[Scenario]] = {}
    for scenario in ALL.values():
        groups.setdefault(scenario.group, []).append(scenario)
    text = _HEAD
    for group, scenarios in groups.items():
        text += f"\n## {group}\n\n" + _line(_COLUMNS) + "|---" * len(_COLUMNS) + "|\n"
        text += "".join(_row(scenario, results.load(scenario)) for scenario in scenarios)
    found = [result for scenario in ALL.values() if (result := results.load(scenario))]
    file.write_text(text + _foot(found))


def _row(scenario: Scenario, result: dict[str, Any] | None) -> str:
    where = f"{scenario.relays}, {scenario.store.removeprefix('wired ')}"
    if scenario.upstream == "postfix":
        where += ", Postfix"
    cells = [scenario.name, scenario.hears, scenario.sees, where]
    if result is None:
        cells += ["not run yet"] + [""] * (len(_COLUMNS) - len(cells) - 1)
    else:
        named = "; ".join(f"{count} {cause.partition(':')[0]}" for cause, count in result["excused"].items()) or "0"
        wrong = " (**not clean**)" if result["findings"] else ""
        cells += [f"{result['messages']:,}{wrong}", f"{result['attempts']:,}", str(result["lost"])]
        cells += [str(result["doubled"]), named, f"{result['slowest']:.1f} s"]
        before, after = (kib // 1024 for kib in result["memory"])
        cells += [f"{before} → {after} MiB" if after else "", str(result["seed"])]
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _foot(results: list[dict[str, Any]]) -> str:
    total = {key: sum(result[key] for result in results) for key in ("messages", "attempts", "lost", "doubled")}
    seconds = sum(result["seconds"] for result in results)
    days = sorted({result["at"] for result in results})
    return (
        f"\n{len(results)} of {len(ALL)} scenarios, {total['messages']:,} messages, {total['attempts']:,} sent, "
        f"{total['lost']} lost, {total['doubled']} doubled without a name, {seconds / 60:.0f} minutes"
        + (f", {days[-1]}" if days else "")
        + ".\n"
    )
