"""Plays the SMTP dialogs in `dialogs/FAMILY/` against the relay and against aiosmtpd.

Each family is a folder whose README.md says why the family exists.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop
from parts import dialog_servers as servers
from parts.dialog_player import Dialog, play, read
from parts.faults import say
from parts.peer import ScriptedPeer

FOLDER = Path(__file__).with_name("dialogs")
DIALOGS = [read(path) for path in sorted(FOLDER.glob("*/*.txt"))]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("pace", ["line by line", "byte by byte", "one write"])
@pytest.mark.parametrize("dialog", DIALOGS, ids=str)
def test_the_relay_replies_as_the_dialog_says(dialog: Dialog, pace: str, loop: str) -> None:
    async def play_dialog() -> None:
        async with ScriptedPeer() as peer:
            for step, word, reply in dialog.upstream:
                peer.on(step, say(reply), matching=word, times=None)
            async with servers.relay(peer.url, dialog.settings) as relay:
                await relay.service.upstream.probe()
                await play(dialog, relay.port, peer.accepted, pace=pace, relay=True)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play_dialog())


@pytest.mark.parametrize("dialog", [dialog for dialog in DIALOGS if not dialog.only_relay], ids=str)
async def test_aiosmtpd_replies_alike_or_the_dialog_says_why_not(dialog: Dialog) -> None:
    async with servers.aiosmtpd() as (port, arrived):
        await play(dialog, port, arrived, pace="line by line", relay=False)


def test_each_family_says_why_it_exists() -> None:
    assert all((family / "README.md").read_text() for family in FOLDER.iterdir())
