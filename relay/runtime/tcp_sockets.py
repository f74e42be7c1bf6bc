"""TCP sockets to listen on."""

from __future__ import annotations

import asyncio
import socket


async def listen_on(host: str, port: int, backlog: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Returns a listening socket for each address of a host. Raises `OSError`.

    `::` means IPv6 and, where the system allows it, IPv4. By default it would be IPv6 only. With `reuse_port` other
    processes can listen there too.
    """
    sockets = await _listen_on(host, port, backlog, reuse_port)
    for listening in sockets:
        send_at_once(listening)
    return sockets


def send_at_once(listening: socket.socket) -> None:
    """Lets the connections of a listening socket send small pieces without a delay.

    asyncio (not uvloop) leaves TCP_NODELAY off for sockets that it did not make itself, and the second of two pipelined
    replies then waits 40 ms for the client's delayed ACK.
    """
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _listen_on(host: str, port: int, backlog: int, reuse_port: bool) -> list[socket.socket]:
    if host == "::":
        dual = socket.has_dualstack_ipv6()
        made = socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dual
        )
        return [made]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            sockets.append(socket.create_server(address, family=family, backlog=backlog, reuse_port=reuse_port))
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
