"""Runs a relay until a signal ends it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from relay.monitor.logs import log
from relay.runtime.descriptors import raise_descriptor_limit
from relay.service.service import Service
from relay.service.signals import handled_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.monitor.log_writer import LogWriter
    from relay.settings import Settings

_FORCE_AFTER = 1.0
"""Seconds from the end of `limits.drain` to the end by force."""

_SWITCH_INTERVAL = 0.0005
"""Seconds that the event loop waits for the GIL while a thread judges a large message. Python's default is 0.005."""


async def serve(
    settings: Settings, password: str | None, ready: Callable[[Service], None], log_writer: LogWriter
) -> NoReturn:
    """Runs until SIGTERM or SIGINT, then drains and ends the process. A second signal ends it at once.

    `ready` is called once the relay listens. The exit status is 1 if transactions were cut off at the end of the drain,
    else 0. Raises `SettingsError` or `CannotListenError` if the relay cannot start.
    """
    raise_descriptor_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    service = Service(settings, password)
    log_writer.start(service.metrics.log_lines_dropped.inc)
    with handled_signals(settings.limits.drain + _FORCE_AFTER, service.reload) as stop:
        try:
            await service.start()
            ready(service)
            await stop.wait()
            log.info("draining")
            drained = await service.drain()
        finally:
            await service.close()
    log.info("ended")
    log_writer.stop()
    # Python would wait for all threads, also for one that hangs in a call of a disk or a store.
    os._exit(0 if drained else 1)
