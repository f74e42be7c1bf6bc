"""The parts of `docs/` that follow from the code. `python -m tests.parts.pages` writes them; a test compares them."""

from __future__ import annotations

import re
from pathlib import Path

from relay.core.claim import Done
from relay.core.life_cycle import TABLE, Row, State, Trigger

ROOT = Path(__file__).parents[2]
WIDTH = 32
"""Characters from one state to the next."""


def diagram() -> str:
    """Returns a picture of all changes of state: one arrow a line, from state to state."""
    changes = [row for row in TABLE if row.new_state not in (None, row.state)]
    arrows: dict[tuple[State, State | None, Trigger], list[str]] = {}
    for row in changes:
        arrows.setdefault((row.state, row.new_state, row.trigger), []).append(row.condition.value)
    columns = {state: number * WIDTH for number, state in enumerate(State)}
    lines = ["".join(state.value.ljust(WIDTH) for state in State)]
    for (start, end, trigger), conditions in arrows.items():
        condition = f"({conditions[0]}) " if conditions[0] and len(conditions) == 1 else ""
        label = f" {_name(trigger)} {condition}"
        left, right = sorted([columns[start], columns[end]])
        space = right - left - 1
        arrow = label.center(space - 1, "─") + "▶" if columns[start] == left else "◀" + label.center(space - 1, "─")
        line = [" "] * (columns[State.SENT] + 1)
        for column in columns.values():
            line[column] = "│"
        line[left + 1 : right] = arrow
        lines.append("".join(line))
    return "\n".join(f" {line}".rstrip() for line in lines)


def matrix() -> str:
    """Returns a table: the answer to each command in each state, and the new state."""
    lines = ["| | " + " | ".join(state.value for state in State) + " |", "|---|---|---|---|"]
    for trigger in dict.fromkeys(row.trigger for row in TABLE):
        cells = [[_cell(row) for row in TABLE if row[:2] == (state, trigger)] for state in State]
        lines.append(f"| {_name(trigger)} | " + " | ".join(map("<br>".join, cells)) + " |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    match row.answer:
        case None:
            answer = ""
        case Done(claim_lost=True):
            answer = f"`{row.answer}` "
        case type():
            answer = f"`{row.answer.__name__}` "
        case _:
            answer = f"`{type(row.answer).__name__}` "
    condition = f"{row.condition.value}: " if row.condition.value else ""
    return (condition + answer + (f"→ {row.new_state.value}" if row.new_state else "")).strip()


def _name(trigger: Trigger) -> str:
    return trigger.__name__ if isinstance(trigger, type) else trigger.value


def pages() -> dict[Path, str]:
    """Returns the text that each page should have."""
    path = ROOT / "docs" / "architecture.md"
    generated = f"```\n{diagram()}\n```\n\n{matrix()}\n"
    before, after = "<!-- life cycle -->", "<!-- /life cycle -->"
    pattern = re.compile(f"(?<={re.escape(before)}\n).*?(?=\n{re.escape(after)})", re.DOTALL)
    return {path: pattern.sub(lambda _: generated, path.read_text("utf-8"))}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, "utf-8")
