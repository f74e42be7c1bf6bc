"""Runs a relay until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

from relay.core.errors import SettingsError
from relay.events.service import DRAINING, ENDED
from relay.runtime.descriptors import raise_descriptor_limit
from relay.runtime.systemd import ServiceManager, inherited_sockets
from relay.runtime.tasks import Tasks, run_within
from relay.service.reload import Reloads
from relay.service.service import Service
from relay.service.signals import handled_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.monitor.log_writer import LogWriter
    from relay.settings import Loaded, Settings

_FORCE_AFTER = 1.0
"""Seconds from the end of `limits.drain` to the end by force."""

_ADMIN_ENDS = 1.0
"""Seconds for the commands that are being answered at the end."""
_REPORT_EVERY = 10.0
"""Seconds between two reports of the state to the service manager, if its watchdog wants none more often."""
_SWITCH_INTERVAL = 0.0005
"""Seconds that the event loop waits for the GIL while a thread judges a large message. Python's default is 0.005."""


class Companion(Protocol):
    """A server beside the service, such as the admin API. Mail does not depend on it: its `start` does not fail."""

    async def start(self, inherited: Sequence[socket.socket]) -> None:
        """Listens on sockets of the service manager, or on its own."""

    async def close(self) -> None:
        """Stops listening."""


async def serve(
    loaded: Loaded,
    load: Callable[[], Loaded],
    ready: Callable[[Service], None],
    log_writer: LogWriter,
    make_admin: Callable[[Service, Callable[[], Loaded]], Companion],
) -> NoReturn:
    """Runs until SIGTERM or SIGINT, then drains and ends the process. A second signal ends it at once.

    `load` reads the settings again, for a reload; it raises `SettingsError`. `make_admin` makes the server of the
    commands, which answers until the service is closed. `ready` is called once the relay listens. The exit status is 1
    if transactions were cut off at the end of the drain, else 0. Raises `SettingsError` or `CannotListenError` if the
    relay cannot start.
    """
    inherited = _inherited_sockets(loaded.settings)
    manager = ServiceManager(os.environ)
    raise_descriptor_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    service = Service(loaded)
    admin = make_admin(service, load)
    log_writer.start(service.metrics.log_lines_dropped.inc)

    reloads = Reloads(service, load, manager, log_writer)
    background = Tasks()

    def drain_limit() -> float:
        return service.loaded.settings.limits.drain + _FORCE_AFTER

    with handled_signals(drain_limit, reloads.request, log_writer.stop) as stop:
        try:
            await service.start(inherited)
            await admin.start(inherited.get("admin", ()))
            ready(service)
            manager.notify("READY=1", f"STATUS={service.summary}")
            background.start_loop(lambda: _report(manager, service), "report to the service manager")
            await stop.wait()
            DRAINING.log()
            manager.notify("STOPPING=1", "STATUS=draining: running transactions may finish")
            drained = await service.drain()
        finally:
            await background.cancel()
            await reloads.close()
            await run_within(_ADMIN_ENDS, {"admin": admin.close()})
            await service.close()
    ENDED.log()
    log_writer.stop()
    # Python would wait for all threads, also for one that hangs in a call of a disk or a store.
    os._exit(0 if drained else 1)


def _inherited_sockets(settings: Settings) -> dict[str, list[socket.socket]]:
    try:
        found = inherited_sockets(os.environ)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if "smtps" in found and not settings.tls.is_offered:
        raise SettingsError(
            'the service manager passed a socket "smtps", which needs tls.certificate or tls.self_signed = true; set '
            "one of them, or stop that socket unit"
        )
    if any(each.family != socket.AF_UNIX for each in found.get("admin", ())):
        raise SettingsError(
            'the service manager passed a socket "admin" that is no Unix socket, so everyone who can connect could '
            "command the relay; write ListenStream= with a path, and SocketMode=0660, in its socket unit"
        )
    return found


async def _report(manager: ServiceManager, service: Service) -> None:
    """Says that the event loop runs, and what the relay does."""
    manager.notify("WATCHDOG=1", f"STATUS={service.summary}")
    await asyncio.sleep(min(_REPORT_EVERY, manager.watchdog / 2 or _REPORT_EVERY))
