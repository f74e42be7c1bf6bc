"""What `connect` reports when it fails."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from parts.certificates import Authority, server_context
from parts.peer import ScriptedPeer
from parts.ports import HOST

from relay.core.errors import UpstreamRefused
from relay.upstream.connect import Target, connect

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_ca_without_key_usage_is_refused_with_the_remedy(tmp_path: Path) -> None:
    authority = Authority(tmp_path, extensions=())
    trust = authority.trust()
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    async with ScriptedPeer(tls=server_context(authority.issue())) as peer:
        target = Target(HOST, peer.port, implicit_tls=True, tls=trust)
        with pytest.raises(UpstreamRefused) as raised:
            await connect(target)
    assert "CA cert does not include key usage extension; Python 3.13" in str(raised.value)
    assert "keyUsage=critical,keyCertSign,cRLSign" in str(raised.value)
