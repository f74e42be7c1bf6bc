"""Writes `docs/reliability.md` from the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.scenario import ordered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from faults.runner import Results
    from faults.scenario import Scenario

_HEAD = """\
# Reliability

This page shows what the relay does when things break. `make faults` measures it and writes this page. The faults are
real: relay processes are killed, Redis servers and a Postfix are stopped, disks are full or hang, and an SMTP server
misbehaves at a chosen step. The clients record every reply, and the receiving end records every message. The figures
are the comparison of the two.

- **lost**: a client received 250, and the message never arrived. Must be 0.
- **doubled**: a recipient received a second equal copy without a named cause. Must be 0.
- **named**: second copies with a cause that the [architecture](architecture.md) names. The cause is derived from the
  records of the receiver, the clients and the fault, never from the relay's own counters. *Of at most* is the number
  that the fault could have doubled: what several relays received while they had no common store.

Each row also checks that the outcomes add up to the recipients sent, in the log and in `/metrics`; that each
suppression names an original that the receiver holds; that every key expires and no claim outlives its lease; that no
descriptor, session or claim is left over; that every relay ends with status 0; and that every message arrived in the
end. After most runs, and after each death of a relay, some delivered messages are sent once more.

Text in *italics* was counted in the run. *Messages* are different ones; the number in brackets is how often they were
sent: twins, repeats and retries. All relays here run with `dedup.reply = "explain"`, so that the clients can count
repeats: `250 duplicate` stands for `250 2.0.0 Ok: duplicate, record …`. By default a repeat receives the words that its
first copy received. Every relay here is one process; several relays on one store stand for several instances of the
unit, which share nothing else.

A [log entry](log.md) is quoted by its event, and by its field `error` after a colon; `N`, `FILE` and `HOST:PORT` stand
for what differs from entry to entry. `/readyz` is quoted by its status, with the parts that did not work.
"""
_COLUMNS = (
    "fault",
    "what the client hears",
    "what the operator sees",
    "relays, store",
    "messages",
    "lost",
    "doubled",
    "named",
)
_MORE = ("fault", "recipients by outcome", "slowest reply", "memory", "also", "seed")
_UPSTREAMS = {
    "postfix": "Postfix",
    "two peers": "2 upstreams",
    "two addresses": "an upstream with 2 addresses",
    "two postfixes": "Postfix on both sides",
    "postfix with logins": "Postfix with logins and TLS",
}
_MOST_REPLIES = 5
_MOST_EVENTS = 4


def write_report(file: Path, results: Results) -> None:
    """Writes the page. Scenarios that have not run are listed as such."""
    groups: dict[str, list[Scenario]] = {}
    for scenario in ordered():
        groups.setdefault(scenario.group, []).append(scenario)
    found = {each.name: result for each in ordered() if (result := results.load(each))}
    text = _HEAD + _summary(groups, found)
    for group, scenarios in groups.items():
        text += f"\n## {group}\n\n" + _table(_COLUMNS, (_row(each, found.get(each.name)) for each in scenarios))
    text += _details(groups, found)
    file.write_text(text)


def _summary(groups: Mapping[str, list[Scenario]], found: Mapping[str, dict[str, Any]]) -> str:
    """Returns one line for each group, and the sum."""
    rows = []
    for group, scenarios in [*groups.items(), ("**all**", ordered())]:
        ran = [found[each.name] for each in scenarios if each.name in found]
        named = sum(sum(result["excused"].values()) for result in ran)
        sums = [sum(result[key] for result in ran) for key in ("messages", "attempts", "lost", "doubled")]
        link = group if group.startswith("*") else f"[{group}](#{_anchor(group)})"
        rows.append([link, f"{len(ran)} of {len(scenarios)}", *(f"{each:,}" for each in (*sums, named))])
    text = "\n" + _table(("what fails", "faults run", "messages", "sent", "lost", "doubled", "named"), rows)
    return f"{text}\n{_when(found)}\n"


def _when(found: Mapping[str, dict[str, Any]]) -> str:
    """Returns when the rows were run, and which of them are incomplete or not clean."""
    if not found:
        return "Nothing has run yet."
    days = sorted({result["at"] for result in found.values()})
    minutes = sum(result["seconds"] for result in found.values()) / 60
    text = f"Run on {' to '.join(dict.fromkeys((days[0], days[-1])))} by `python -m tests.faults run`: "
    text += f"{minutes:.0f} minutes of faults, of which some ran at the same time."
    fewer = sum(each.name in found and found[each.name]["asked"] < each.messages for each in ordered())
    text += f" {fewer} rows sent fewer messages than usual (`--messages`), as they say." if fewer else ""
    unclean = [name for name, result in found.items() if result["lost"] or result["doubled"] or result["findings"]]
    return text + (f" **Not clean: {'; '.join(unclean)}.**" if unclean else "")


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _row(scenario: Scenario, result: dict[str, Any] | None) -> list[str]:
    where = f"{scenario.relays}, {scenario.store.removeprefix('wired ')}"
    if scenario.upstream != "peer":
        where += f", {_UPSTREAMS[scenario.upstream]}"
    if result is None:
        return [scenario.name, scenario.hears, scenario.sees, where, "not run yet", "", "", ""]
    usual = f", usually {scenario.messages:,}" if result["asked"] < scenario.messages else ""
    wrong = " (**not clean**)" if result["findings"] else ""
    return [
        scenario.name,
        f"{scenario.hears}<br>*{_replies(result['heard'])}*",
        f"{scenario.sees}{_seen(result)}",
        where,
        f"{result['messages']:,} ({result['attempts']:,}){usual}{wrong}",
        str(result["lost"]),
        str(result["doubled"]),
        _named(result),
    ]


def _replies(heard: Mapping[str, int]) -> str:
    """Returns the replies that clients received, the most frequent first."""
    most = sorted(heard.items(), key=lambda each: -each[1])
    text = ", ".join(f"{count:,} heard `{reply}`" for reply, count in most[:_MOST_REPLIES])
    rest = sum(count for _, count in most[_MOST_REPLIES:])
    return text + (f", {rest:,} something else" if rest else "")


def _seen(result: Mapping[str, Any]) -> str:
    """Returns the log entries other than those about messages, and the faults that `/readyz` reported."""
    events = sorted(result["events"].items(), key=lambda each: -each[1])
    # A relay logs at its start that its upstream answers. Without an earlier failure that is not worth a mention.
    events = [each for each in events if each[0] != "upstream is up" or "upstream is down" in result["events"]]
    lines = [f"`{event.replace('`', '')}`" + _times(count) for event, count in events[:_MOST_EVENTS]]
    if result["states"]:
        lines.append("`/readyz` " + _ready(result["states"]))
    return f"<br>*{'; '.join(lines)}*" if lines else ""


def _ready(states: Iterable[str]) -> str:
    """Returns each status of `/readyz`, with all parts that did not work at a time when it was reported."""
    found: dict[str, dict[str, None]] = {}
    for state in states:
        status, _, parts = state.partition(" ")
        found.setdefault(status, {}).update(dict.fromkeys(parts.split(", ") if parts else ()))
    return "; ".join(status + (f" with {' and '.join(parts)}" if parts else "") for status, parts in found.items())


def _times(count: int) -> str:
    return f" {count:,} times" if count > 1 else ""


def _named(result: Mapping[str, Any]) -> str:
    text = "; ".join(f"{count:,} {cause.partition(':')[0]}" for cause, count in result["excused"].items())
    bound = f" (of at most {result['exposed']:,})" if result["excused"] and result["exposed"] else ""
    return text + bound if text else "0"


def _details(groups: Mapping[str, list[Scenario]], found: Mapping[str, dict[str, Any]]) -> str:
    text = (
        "\n## In numbers\n\nThe time of the slowest reply begins when the client connects. Memory is that of the first"
        " relay before and after, if it was not restarted. To run a row again:\n"
        '`python -m tests.faults run "FAULT" --again --seed SEED`.\n'
    )
    for group, scenarios in groups.items():
        ran = [(each, found[each.name]) for each in scenarios if each.name in found]
        if ran:
            text += f"\n### {group}, in numbers\n\n" + _table(
                _MORE, (_numbers(each.name, result) for each, result in ran)
            )
    return text


def _numbers(name: str, result: Mapping[str, Any]) -> list[str]:
    before, after = (round(kib / 1024) for kib in result["memory"])
    outcomes = sorted(result["outcomes"].items(), key=lambda each: -each[1])
    return [
        name,
        ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes),
        f"{result['slowest']:.1f} s",
        f"{before} → {after} MiB" if after else "",
        "; ".join(result["notes"]),
        str(result["seed"]),
    ]


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    return _line(head) + "|---" * len(head) + "|\n" + "".join(_line(row) for row in rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _plain(text: str) -> str:
    """Removes what would break the page: some upstreams send garbage, which logs quote."""
    return "".join(each if each.isprintable() else "?" for each in text)
