"""The log of a relay process, and waits for its entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from parts.waiting import until, until_told
from relay.monitor.log_reference import all_events

if TYPE_CHECKING:
    import pytest

    from parts.relay_process import RelayProcess


def lines(relay: RelayProcess) -> list[dict[str, Any]]:
    """Returns the entries of a JSON log. Fails if stderr has anything else than warnings about settings.

    The relay may be writing the last line at this moment: one without its line end is left out.
    """
    complete, _, _ = relay.stderr().rpartition("\n")
    found = [json.loads(line) for line in complete.splitlines() if not line.startswith("warning: ")]
    assert [line for line in found if not _has_the_fields_of_its_event(line)] == []
    return found


def _has_the_fields_of_its_event(line: dict[str, Any]) -> bool:
    """Returns whether a line has all fields of an event, and no others. Libraries log what is no event."""
    alike = [event for event in all_events().values() if event.text == line["event"]]
    given = line.keys() - {"time", "level", "event"}
    return not alike or any(event.fields.keys() <= given <= event.fields.keys() | event.optional for event in alike)


def messages(relay: RelayProcess) -> list[dict[str, Any]]:
    """Returns the entries about messages."""
    return [line for line in lines(relay) if line["event"] == "message"]


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns level, text and fields of each event that was logged in this process."""
    return [(record.levelname, record.getMessage(), getattr(record, "fields", {})) for record in caplog.records]


async def wait_logged(relay: RelayProcess, text: str) -> None:
    """Waits until the log contains the text. The relay writes its log outside of the event loop."""
    try:
        await until(lambda: text in relay.stderr(), f"{text!r} in the log")
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it holds:\n{relay.stderr()}") from None


async def wait_messages(relay: RelayProcess, count: int) -> list[dict[str, Any]]:
    """Waits for so many entries about messages, and returns them."""
    await until(lambda: len(messages(relay)) >= count, f"{count} messages in the log")
    return messages(relay)


async def wait_upstream(relay: RelayProcess, state: str) -> None:
    """Waits until the relay reports its upstream as "up" or "down"."""

    async def is_reported() -> bool:
        return bool((await relay.readyz())["upstream"] == state)

    await until_told(is_reported, f"an upstream that is {state}")
