"""The table of the life cycle: complete, unambiguous, and drawn in the documentation."""

from __future__ import annotations

import pytest
from parts.pages import pages

from relay.core.claim import Claim, Confirm, Peek, Release, Renew
from relay.core.life_cycle import (
    ALWAYS,
    IN_WINDOW,
    OTHER_MESSAGE,
    OTHER_TOKEN,
    PAST_WINDOW,
    SAME_MESSAGE,
    SAME_TOKEN,
    TABLE,
    State,
)

COMPLETE = [
    [ALWAYS],
    [SAME_TOKEN, OTHER_TOKEN],
    [IN_WINDOW, PAST_WINDOW],
    [SAME_TOKEN, OTHER_TOKEN, PAST_WINDOW],
    [SAME_MESSAGE, OTHER_MESSAGE, PAST_WINDOW],
]
"""Conditions of which exactly one holds."""


@pytest.mark.parametrize("command", [Claim, Peek, Confirm, Renew, Release])
@pytest.mark.parametrize("state", State)
def test_each_command_has_one_answer_in_each_state(state: State, command: type) -> None:
    assert [row.condition for row in TABLE if row[:2] == (state, command)] in COMPLETE


def test_the_documentation_shows_the_table() -> None:
    for page, text in pages().items():
        assert page.read_text("utf-8") == text, f"{page.name} is stale; `make fix` writes it"
