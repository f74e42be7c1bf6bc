"""`docs/replies.md` lists every reply of the relay."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.core import reply
from relay.core.reply import Reply

PAGE = (Path(__file__).parents[3] / "docs" / "replies.md").read_text("utf-8")
CONSTANTS = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS.keys())
def test_the_page_lists_the_reply(constant: Reply) -> None:
    assert f"`{constant.code} {constant.text}`" in PAGE


def test_the_page_lists_the_reply_to_an_internal_fault() -> None:
    assert f"`451 {reply.INTERNAL_FAULT.format(id='…')}`" in PAGE
