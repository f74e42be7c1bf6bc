"""The harness breaks what it says: a disk hangs, and of two addresses the first is dead."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import pytest
from parts.peer import ScriptedPeer
from parts.ports import HOST

from faults.hung_disk import hung_disk
from faults.two_addresses import TwoAddresses

if TYPE_CHECKING:
    from pathlib import Path

LONG = 0.3
"""Seconds in which an open of a disk that does not hang is over many times."""


def test_a_hung_disk_lets_no_file_be_opened_until_it_recovers(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    with ThreadPoolExecutor(2) as threads:
        with hung_disk(tmp_path):
            opens = [threads.submit((tmp_path / "old").read_bytes), threads.submit((tmp_path / "new").write_bytes, b"")]
            assert wait(opens, LONG).done == set()
        assert [each.result(10) for each in opens] == [b"", 0]


async def test_only_the_second_of_two_addresses_works(tmp_path: Path) -> None:
    async with ScriptedPeer() as peer, TwoAddresses(peer.port, tmp_path / "hosts") as name:
        code = "import socket; print(*(each[4][0] for each in socket.getaddrinfo('two.example.test', 25, type=1)))"
        command = [*name.prefix, sys.executable, "-c", code]
        found = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert found.stdout.split() == [HOST, "127.0.0.2"]
        _, writer = await asyncio.open_connection("127.0.0.2", name.port)
        await peer.wait_for(lambda: peer.sessions, "a session through the second address")
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, name.port)
        async with name.unanswered():
            with socket.socket() as client:
                client.settimeout(LONG)
                with pytest.raises(TimeoutError):
                    client.connect((HOST, name.port))
