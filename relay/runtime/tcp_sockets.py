"""TCP sockets to listen on."""

from __future__ import annotations

import asyncio
import socket


async def listen_on(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Returns a listening socket for each address of a host. Raises `OSError`.

    `::` means IPv6 and, where the system allows it, IPv4. By default it would be IPv6 only.
    """
    sockets = await _listen_on(host, port, backlog)
    for listening in sockets:
        # Connections inherit it. asyncio (not uvloop) leaves it off for sockets that it did not make itself, and the
        # second of two pipelined replies then waits 40 ms for the client's delayed ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sockets


async def _listen_on(host: str, port: int, backlog: int) -> list[socket.socket]:
    if host == "::":
        dual = socket.has_dualstack_ipv6()
        return [socket.create_server((host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=dual)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            sockets.append(socket.create_server(address, family=family, backlog=backlog))
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
