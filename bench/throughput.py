"""How many messages a second one relay process takes, as a ratio to a naive relay in the same run.

    python bench/throughput.py [MESSAGES [ROUNDS [CLIENTS]]]
    python bench/throughput.py traces     what the traces of all messages cost, beside those of repeats only

10 KB notifications, all different, with one recipient, on a connection each. Relays, sink and clients are separate
processes. CPU per message is the better measure on a machine that does other work.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack

from processes import HOST, Speed, start, start_relay


async def naive(upstream: int) -> None:
    """Prints the port of a relay made of aiosmtpd's handler and aiosmtplib, with a connection per message."""
    import aiosmtplib
    from aiosmtpd.smtp import SMTP

    class Handler:
        async def handle_DATA(self, _: SMTP, __: object, envelope: object) -> str:  # noqa: N802
            await aiosmtplib.send(
                envelope.content,  # type: ignore[attr-defined]
                sender=envelope.mail_from,  # type: ignore[attr-defined]
                recipients=envelope.rcpt_tos,  # type: ignore[attr-defined]
                hostname=HOST,
                port=upstream,
            )
            return "250 OK"

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), hostname="naive", loop=loop), HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(messages: int = 3000, rounds: int = 3, clients: int = 20) -> None:
    found: dict[str, list[Speed]] = {"naive": [], "relay": []}
    with ExitStack() as servers:
        sink = servers.enter_context(start("traffic.py", "sink"))
        rivals = {
            "naive": servers.enter_context(start("throughput.py", "naive", str(sink.port))),
            "relay": servers.enter_context(start_relay(sink.port)),
        }
        for server in rivals.values():
            server.measure(messages // 10, clients=clients)
        for _ in range(rounds):
            for name, server in rivals.items():
                found[name].append(server.measure(messages // (4 if name == "naive" else 1), clients=clients))
    middle = {name: Speed(*map(statistics.median, zip(*runs, strict=True))) for name, runs in found.items()}
    for name, speed in middle.items():
        print(f"{name}: {speed.rate:7.0f} messages a second, {speed.cpu:.2f} ms of CPU a message")
    print(f"ratio: {middle['relay'].rate / middle['naive'].rate:.1f} times the messages, "
          f"{middle['naive'].cpu / middle['relay'].cpu:.1f} times less CPU")  # fmt: skip


def compare_traces(messages: int = 3000, rounds: int = 5) -> None:
    """Prints the CPU of a message with traces of all messages and of repeats only, on a store in SQLite."""
    found: dict[str, list[float]] = {"all": [], "repeats": []}
    with ExitStack() as servers:
        sink = servers.enter_context(start("traffic.py", "sink"))
        relays = {}
        for name in found:
            settings = [f"record.trace={name}"]
            store = f"sqlite:{servers.enter_context(tempfile.TemporaryDirectory())}/relay.db"
            relays[name] = servers.enter_context(start_relay(sink.port, store=store, settings=settings))
            relays[name].measure(messages // 10, clients=20, per_connection=50)
        for _ in range(rounds):
            for name, relay in relays.items():
                found[name].append(relay.measure(messages, clients=20, per_connection=50).cpu)
    most, least = (statistics.median(found[name]) for name in ("all", "repeats"))
    print(f"traces of all messages {most:.3f} ms of CPU a message, of repeats {least:.3f} ms: {most / least - 1:+.1%}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["traces"]:
            compare_traces()
        case ["naive", port]:
            asyncio.run(naive(int(port)))
        case numbers:
            main(*map(int, numbers))
