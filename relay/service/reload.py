"""Reloads the settings of a running relay, at SIGHUP (ADR 35)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.core.errors import SettingsError
from relay.events.settings import DOUBTFUL, NOT_RELOADED, RELOAD_FAULT, RELOADED, RESTART_TO_CHANGE
from relay.monitor.logs import reconfigure
from relay.runtime.executor import Executor
from relay.runtime.tasks import Tasks
from relay.service.prepared import prepare
from relay.settings.reload import RESTART, changed_keys, in_force_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.monitor.log_writer import LogWriter
    from relay.runtime.systemd import ServiceManager
    from relay.service.prepared import Prepared
    from relay.service.service import Service
    from relay.settings import Loaded
    from relay.settings.sections.monitor import LogSection

_LONGEST_READ = 30.0
"""Seconds for reading and compiling the settings: a file may be on a disk that hangs."""


async def reload(
    service: Service, load: Callable[[], Loaded], reading: Executor, configure_log: Callable[[LogSection], None]
) -> bool:
    """Uses the settings that `load` returns; all of them, except what only a restart changes, or none.

    Returns whether they could be used. `reading` is where files are read.
    """
    before = service.prepared
    try:
        new, prepared = await reading.run(lambda: _prepare(load, before))
        await service.use(prepared)
    except SettingsError as error:
        problems = str(error).splitlines()
    except TimeoutError:
        problems = [f"the files were not read within {_LONGEST_READ:g} s"]
    except Exception as error:  # noqa: BLE001 - the settings before are still in force
        service.metrics.faults.inc()
        RELOAD_FAULT.log(error)
        problems = ["an internal fault"]
    else:
        configure_log(service.loaded.settings.log)
        _report_success(service, before.loaded, new)
        return True
    NOT_RELOADED.log(problems=problems)
    service.reload_problem = problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
    service.metrics.reloaded(None)
    return False


def _prepare(load: Callable[[], Loaded], before: Prepared) -> tuple[Loaded, Prepared]:
    new = load()
    return new, prepare(in_force_after(before.loaded, new), before)


def _report_success(service: Service, before: Loaded, new: Loaded) -> None:
    in_force = service.loaded.settings
    needs_restart = [key for key in changed_keys(in_force, new.settings) if key in RESTART]
    service.reload_problem, service.restart_to_change = "", tuple(needs_restart)
    service.metrics.reloaded(time.time())
    RELOADED.log(changed=changed_keys(before.settings, in_force))
    if needs_restart:
        RESTART_TO_CHANGE.log(keys=needs_restart)
    for warning in new.warnings:
        DOUBTFUL.log(warning=warning)


class Reloads:
    """The reloads of a process: one at a time. Requests during one lead to one more."""

    def __init__(
        self, service: Service, load: Callable[[], Loaded], manager: ServiceManager, log_writer: LogWriter
    ) -> None:
        self._service = service
        self._load = load
        self._manager = manager
        self._log_writer = log_writer
        self._reading = Executor("reload", 1, _LONGEST_READ)
        self._tasks = Tasks()
        self._requested = False

    def request(self) -> None:
        """Reloads in the background, now or after the reload in progress."""
        self._requested = True
        if not len(self._tasks):
            self._tasks.start(self._run(), "reload")

    async def close(self) -> None:
        """Ends a reload in progress."""
        await self._tasks.cancel()
        self._reading.close()

    async def _run(self) -> None:
        while self._requested:
            self._requested = False
            self._manager.reloading()
            await reload(self._service, self._load, self._reading, self._configure_log)
            self._manager.notify("READY=1", f"STATUS={self._service.summary}")

    def _configure_log(self, log: LogSection) -> None:
        reconfigure(self._log_writer, log.format, log.level, addresses=log.addresses)
