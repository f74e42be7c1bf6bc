"""What `relay serve` reports when it cannot listen on an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts.check_command import holding
from parts.ports import HOST, free_port
from parts.relay_process import run_relay

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer


@pytest.mark.parametrize("key", ["listen", "http"])
async def test_an_address_in_use_ends_it_with_1(tmp_path: Path, key: str) -> None:
    addresses = {"listen": f"{HOST}:{free_port()}", "http": f"{HOST}:{free_port()}"}
    async with holding(b"220 mx\r\n") as taken:
        flags = [f"--{name}={address}" for name, address in (addresses | {key: taken}).items()]
        result = await run_relay("serve", *flags, "--upstream", f"maildir:{tmp_path}", "--store", "memory:")
    assert result.status == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    remedy = f"choose another {key}.address, or stop the program that uses it"
    assert last == f'error: {key}.address = "{taken}": cannot listen there: Address already in use; {remedy}'
    assert "Traceback" not in result.stderr
    assert '"ended"' not in result.stderr


async def test_the_relay_that_holds_both_addresses_is_named(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    flags = ["--listen", f"{HOST}:{relay.port}", "--http", f"{HOST}:{relay.http_port}", "--store", "memory:"]
    result = await run_relay("serve", *flags, "--upstream", peer.url)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.status == 1
    assert [line.split()[1] for line in errors] == ["listen.address", "http.address"]
    assert all("cannot listen there: Address already in use, by a relay; " in line for line in errors)


async def test_an_address_of_another_host_is_reported(tmp_path: Path) -> None:
    # RFC 5737: an address of documentation, which no host has.
    flags = ["--listen", "192.0.2.1:2525", "--http", "", "--upstream", f"maildir:{tmp_path}", "--store", "memory:"]
    result = await run_relay("serve", *flags)
    assert result.status == 1
    assert "cannot listen there: Cannot assign requested address; choose another listen.address\n" in result.stderr
