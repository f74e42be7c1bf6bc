"""What a relay process has written to its log, and waiting for what only it can tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from parts.waiting import until, until_told

if TYPE_CHECKING:
    from parts.relay_process import RelayProcess


def lines(relay: RelayProcess) -> list[dict[str, Any]]:
    """Give all lines of a log that is in JSON; fails at anything else on stderr but warnings about settings."""
    found = [line for line in relay.stderr().splitlines() if not line.startswith("warning: ")]
    return [json.loads(line) for line in found]


def messages(relay: RelayProcess) -> list[dict[str, Any]]:
    """Give the lines about messages."""
    return [line for line in lines(relay) if line["event"] == "message"]


async def wait_logged(relay: RelayProcess, text: str) -> None:
    """Wait until the log, which is written off the event loop, holds this text."""
    try:
        await until(lambda: text in relay.stderr(), f"{text!r} in the log")
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it holds:\n{relay.stderr()}") from None


async def wait_messages(relay: RelayProcess, count: int) -> list[dict[str, Any]]:
    """Wait until so many messages have their line, and give them."""
    await until(lambda: relay.stderr().count('"event": "message"') >= count, f"{count} messages in the log")
    return messages(relay)


async def wait_upstream(relay: RelayProcess, state: str) -> None:
    """Wait until the relay believes that its upstream is "up", or "down"."""

    async def believes() -> bool:
        return bool((await relay.readyz())["upstream"] == state)

    await until_told(believes, f"an upstream that is {state}")
