"""Runs a relay until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from relay.monitor.logs import log
from relay.runtime.descriptors import raise_descriptor_limit
from relay.service.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.settings import Settings


async def serve(settings: Settings, password: str | None, ready: Callable[[Service], None]) -> bool:
    """Runs until SIGTERM or SIGINT, then drains. A second signal ends the process at once.

    `ready` is called once the relay listens. Returns False if transactions were cut off at the end of the drain.
    """
    raise_descriptor_limit()
    service = Service(settings, password)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await service.start()
        ready(service)
        await stop.wait()
        log.info("draining")
        drained = await service.drain()
    finally:
        await service.close()
    log.info("ended")
    return drained
