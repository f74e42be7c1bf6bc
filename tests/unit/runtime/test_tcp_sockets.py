"""TCP sockets to listen on."""

from __future__ import annotations

import socket

import pytest
from parts.ports import HOST

from relay.runtime.tcp_sockets import listen_on


@pytest.mark.parametrize("host", [HOST, "::"])
async def test_connections_send_each_reply_at_once(host: str) -> None:
    (listening,) = await listen_on(host, 0, 1)
    with listening, socket.create_connection((HOST, listening.getsockname()[1])):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
