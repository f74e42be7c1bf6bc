"""The events of the log: each call has the fields that the event names, and the page lists all of them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import relay
from relay.events.limit import LOG_EVERY, LogLimit
from relay.events.store import STORE_DOWN, STORE_FAULT
from relay.monitor.log_reference import GROUPS, all_events, log_markdown

PACKAGE = Path(relay.__file__).parent
EVENTS = all_events()
CHOSEN = {
    ("claims/sqlite/file.py", "self._schema.set_aside"): ("FILE_SET_ASIDE", "TRACES_SET_ASIDE"),
    ("monitor/logs.py", "event"): ("LOGIN_REFUSED", "SENDER_REFUSED"),
    ("monitor/reporter.py", "event"): ("SESSION_REFUSED", "SESSION_ENDED"),
    ("claims/manager.py", "_BOUND_EVENTS[bound]"): ("STORE_FULL", "MEMORY_FULL"),
}
"""The calls whose event depends on something else than the place, by file and expression."""
USERS_OF_LOGGERS = {"admin/server.py", "monitor/http.py", "monitor/logs.py", "smtp/proxy_header.py"}
"""The modules that set levels, or give a logger to a library."""
LOGGERS = {"log", "logger", "logging"}
METHODS = {"debug", "info", "warning", "warn", "error", "exception", "critical", "log"}
IN_EACH_LINE = {"time", "level", "event"}


@cache
def sources() -> list[tuple[str, ast.Module]]:
    """Returns file and syntax tree of each module of the relay."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [(str(file.relative_to(PACKAGE)), ast.parse(file.read_text("utf-8"))) for file in files]


@cache
def calls() -> list[tuple[str, tuple[str, ...], ast.Call]]:
    """Returns file, events and call of each `EVENT.log(...)` in the relay."""
    found = []
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "log":
                target = node.func.value
                constants = {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
                if events := CHOSEN.get((name, ast.unparse(target)), tuple(constants & EVENTS.keys())):
                    found.append((f"{name}:{node.lineno}", events, node))
    return found


def test_each_call_has_the_fields_of_its_event() -> None:
    wrong = [(place, *problem) for place, names, call in calls() for name in names for problem in problems(name, call)]
    assert wrong == []


def problems(name: str, call: ast.Call) -> list[tuple[str, str]]:
    """Returns what a call has too much or too little. `parts.logged` checks those that come in a mapping."""
    event = EVENTS[name]
    given = {keyword.arg for keyword in call.keywords if keyword.arg} | ({"traceback"} if call.args else set())
    has_mapping = any(keyword.arg is None for keyword in call.keywords)
    unknown = given - event.fields.keys() - event.optional.keys()
    missing = set() if has_mapping else event.fields.keys() - given
    return [*((name, f"unknown: {each}") for each in unknown), *((name, f"missing: {each}") for each in missing)]


def test_nothing_else_logs() -> None:
    """No module calls a logger, except for `Event.log`, and few know one."""
    logged, known = [], set()
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                target, method = ast.unparse(node.func.value).rpartition(".")[2].strip("_"), node.func.attr
                if method in METHODS and target in LOGGERS:
                    logged.append(f"{name}:{node.lineno}")
                if method == "getLogger" and not name.startswith("events/"):
                    known.add(name)
    assert logged == []
    assert known == USERS_OF_LOGGERS


def test_each_event_is_logged_somewhere() -> None:
    assert {name for _, names, _ in calls() for name in names} == EVENTS.keys()


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_complete(name: str) -> None:
    event = EVENTS[name]
    assert event.text.isprintable()
    assert "%" not in event.text
    assert event.advice.endswith(".")
    assert not IN_EACH_LINE & (event.fields.keys() | event.optional.keys())
    assert event.logger.name.startswith("relay")
    alike = [other for other in EVENTS.values() if (other.text, other.level) == (event.text, event.level)]
    assert alike == [event]


def test_every_module_of_events_is_on_the_page() -> None:
    modules = {file.stem for file in (PACKAGE / "events").glob("*.py")} - {"__init__", "event", "limit"}
    assert {module.__name__.rpartition(".")[2] for module in GROUPS.values()} == modules
    assert all(f"`{event.text}`" in log_markdown() for event in EVENTS.values())


def test_one_line_a_minute_has_the_number_of_the_others() -> None:
    now = 0.0
    limit = LogLimit(lambda: now)
    assert [limit.count("a") for _ in range(3)] == [1, 0, 0]
    assert limit.count("b", 5) == 5, "another kind"
    now = LOG_EVERY
    assert [limit.count("a", 2), limit.count("a")] == [4, 0]


def test_a_line_is_logged_from_its_level_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", "relay.store")
    assert not STORE_DOWN.is_logged
    STORE_DOWN.log(error="x")
    STORE_FAULT.log(ValueError("oh"))
    [line] = caplog.records
    assert (line.name, line.levelname, line.getMessage()) == ("relay.store", "ERROR", "fault in the store")
    assert "ValueError: oh" in caplog.text
