"""Plays the SMTP dialogs of `tests/contract/dialogs` against the relay and against aiosmtpd."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop
from parts import dialog_servers as servers
from parts.dialog_player import Dialog, play, read
from parts.faults import say
from parts.peer import ScriptedPeer

DIALOGS = [read(path) for path in sorted(Path(__file__).with_name("dialogs").glob("*.txt"))]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("pace", ["line by line", "byte by byte", "one write"])
@pytest.mark.parametrize("dialog", DIALOGS, ids=str)
def test_the_relay_answers_as_written(dialog: Dialog, pace: str, loop: str) -> None:
    async def hold() -> None:
        async with ScriptedPeer() as peer:
            for step, word, reply in dialog.upstream:
                peer.on(step, say(reply), matching=word, times=None)
            async with servers.relay(peer.url, dialog.settings) as relay:
                await relay.service.upstream.probe()
                await play(dialog, relay.port, peer.accepted, pace=pace, relay=True)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(hold())


@pytest.mark.parametrize("dialog", [dialog for dialog in DIALOGS if not dialog.only_relay], ids=str)
async def test_aiosmtpd_answers_alike_or_the_dialog_says_why_not(dialog: Dialog) -> None:
    async with servers.aiosmtpd() as (port, arrived):
        await play(dialog, port, arrived, pace="line by line", relay=False)
