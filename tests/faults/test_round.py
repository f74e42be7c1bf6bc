"""A short round of `make faults`: scenarios that are over soon, with some tens of messages each."""

from __future__ import annotations

import pytest

from faults import scenarios
from faults.play import play
from faults.scenario import ALL

SEED = 1
MESSAGES = 20
ROUND = [
    "kill -9 at the dot, and the upstream takes the message",
    "kill -9 before the acceptance is written",
    "SIGTERM under load, again and again",
    "upstream drops the connection before the dot",
    "upstream cannot verify the logins of clients for a while (auth.mode = passthrough)",
    "upstream takes the message, then resets",
    "the preferred upstream refuses connections for a while",
    "an upstream that replies 452 at DATA after 3 messages in a session",
    "Redis refuses connections for a while",
    "Redis killed and restarted empty, in a stream of twins",
    "Redis answers NOAUTH (a password was set)",
    "SQLite on a full disk",
    "the certificate is exchanged under load, and now and then the new one cannot be used",
    "the log is a pipe that is not read",
    "500 twins at once at two relays",
    "clients that half-close after the dot",
    "the relay's wall clock jumps up to a day, forwards and back",
    "a mail that is routed back into the relay, round and round",
    "both cores burnt",
]
assert scenarios  # the import registers them


@pytest.mark.parametrize("name", ROUND)
async def test_nothing_is_lost_and_nothing_doubled(name: str) -> None:
    result = await play(ALL[name], MESSAGES, SEED)
    assert result.clean, "\n".join(result.findings)
    assert result.messages
