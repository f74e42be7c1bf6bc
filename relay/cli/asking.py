"""How commands reach what they are about: they ask the running relay, or use the settings of their shell."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from relay.core.errors import NoRelayError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.admin.client import RunningRelay
    from relay.admin.records import Records
    from relay.cli.options import Target
    from relay.core.trace import Trace, TraceQuery


@contextlib.asynccontextmanager
async def asked_relay(target: Target) -> AsyncIterator[RunningRelay | None]:
    """Connects to the running relay. Yields None, after a remark, if none runs: then the settings count.

    Raises `AdminError` if a relay is there and does not answer.
    """
    from relay import __version__
    from relay.admin.client import running_relay

    async with contextlib.AsyncExitStack() as stack:
        relay = None
        if target.socket:
            try:
                relay = await stack.enter_async_context(running_relay(target.socket))
            except NoRelayError as error:
                click.echo(f"note: {error}; using the settings that this shell sees", err=True)
            else:
                if relay.other_version:
                    text = f"the running relay has version {relay.other_version}, this command {__version__}"
                    click.echo(f"note: {printable(text)}; restart the relay after an upgrade", err=True)
        yield relay


@contextlib.asynccontextmanager
async def open_records(target: Target) -> AsyncIterator[Records]:
    """Yields what the running relay, or the store of the settings, knows of messages. Raises `AdminError`."""
    from relay.admin import records as found

    async with asked_relay(target) as relay:
        if relay is not None:
            yield found.AskedRecords(relay)
            return
        settings = target.loaded.settings
        if error := found.memory_without_relay(settings, target.socket):
            raise error
        async with found.open_records(settings, found.files_thread()) as opened:
            yield opened


async def all_traces(source: Records, query: TraceQuery) -> AsyncIterator[Trace]:
    """Yields all traces that match, newest first. Reports damaged ones on stderr."""
    from relay.admin.protocol import MOST_TRACES
    from relay.core.quantities import counted

    start, damaged = "", 0
    while True:
        page = await source.find(query, MOST_TRACES, start)
        damaged += page.damaged
        for trace in page.traces:
            yield trace
        if not page.next:
            break
        start = page.next
    if damaged:
        click.echo(f"warning: {counted(damaged, 'trace')} cannot be read and are left out", err=True)
