"""How many messages a second one relay process takes, as a ratio to a naive relay in the same run.

    python bench/throughput.py [MESSAGES [ROUNDS [CLIENTS]]]
    python bench/throughput.py traces     what traces cost, beside a relay that keeps none

10 KB notifications, all different, with one recipient, on a connection each. Relays, sink and clients are separate
processes. CPU per message is the better measure on a machine that does other work.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

from processes import HOST, RedisServer, Speed, start, start_relay

if TYPE_CHECKING:
    from collections.abc import Iterator


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


TRACES = {"none": "record.keep_for=0", "repeats": "record.trace=repeats", "all": "record.trace=all"}


def compare_traces(messages: int = 3000, rounds: int = 10) -> None:
    """Prints the CPU of a message with traces of all messages and of repeats only, beside that without traces."""
    with ExitStack() as servers:
        redis = servers.enter_context(RedisServer())
        sink = servers.enter_context(start("traffic.py", "sink"))
        for store in ("SQLite", "Redis"):
            costs: dict[str, list[float]] = {name: [] for name in TRACES}
            for number in range(rounds):
                print(f"{store}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                for name, cost in _costs(sink.port, store, redis, messages, backwards=number % 2 == 1):
                    costs[name].append(cost)
            for name in ("repeats", "all"):
                ratios = [some / least for some, least in zip(costs[name], costs["none"], strict=True)]
                low, middle, high = (f"{ratio - 1:+.1%}" for ratio in statistics.quantiles(ratios, method="inclusive"))
                cost = statistics.median(costs[name])
                print(
                    f"{store}, traces of {name}: {cost:.3f} ms of CPU a message, {middle} [{low} to {high}]", flush=True
                )


def _costs(
    upstream: int, store: str, redis: RedisServer, messages: int, *, backwards: bool
) -> Iterator[tuple[str, float]]:
    """Yields the CPU of a message in milliseconds for each kind of traces, with new processes."""
    with ExitStack() as servers:
        relays = {}
        for number, (name, setting) in enumerate(TRACES.items()):
            folder = servers.enter_context(tempfile.TemporaryDirectory())
            url = f"sqlite:{folder}/relay.db" if store == "SQLite" else f"{redis.url.removesuffix('/0')}/{number}"
            relays[name] = servers.enter_context(start_relay(upstream, store=url, settings=[setting]))
            relays[name].measure(messages // 5, clients=20, per_connection=50)
        for name in reversed(relays) if backwards else relays:
            yield name, relays[name].measure(messages, clients=20, per_connection=50).cpu


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["traces"]:
            compare_traces()
        case ["naive", port]:
            asyncio.run(naive(int(port)))
        case numbers:
            main(*map(int, numbers))
