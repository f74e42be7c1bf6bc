"""Reloads the settings of a running relay, at SIGHUP (ADR 35)."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from relay.core.errors import SettingsError
from relay.events.settings import DOUBTFUL, NOT_RELOADED, RELOAD_FAULT, RELOADED, RESTART_TO_CHANGE
from relay.monitor.logs import reconfigure
from relay.runtime.executor import Executor
from relay.runtime.guard import Guard
from relay.runtime.tasks import Tasks
from relay.service.prepared import prepare
from relay.settings.passwords import store_password
from relay.settings.reload import RESTART, changed_keys, in_force_after

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.monitor.log_writer import LogWriter
    from relay.runtime.systemd import ServiceManager
    from relay.service.prepared import Prepared
    from relay.service.service import Service
    from relay.settings import Loaded
    from relay.settings.sections.monitor import LogSection

_STORE_PASSWORD = "store.password_file"  # noqa: S105 - the name of the key
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
        new, prepared, restart = await reading.run(lambda: _prepare(load, before))
        await service.use(prepared)
    except SettingsError as error:
        problems = str(error).splitlines()
    except TimeoutError:
        problems = [f"the files were not read within {_LONGEST_READ:g} s"]
    except Exception as error:  # noqa: BLE001 - the settings before are still in force
        _report_fault(service, error)
        problems = ["an internal fault"]
    else:
        configure_log(service.loaded.settings.log)
        _report_success(service, before.loaded, new, restart)
        return True
    NOT_RELOADED.log(problems=problems)
    service.reload_problem = problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
    service.metrics.reloaded(None)
    return False


def _prepare(load: Callable[[], Loaded], before: Prepared) -> tuple[Loaded, Prepared, list[str]]:
    """Returns the settings as they were read, what is to be used of them, and the keys that need a restart."""
    new = load()
    prepared = prepare(in_force_after(before.loaded, new), before)
    restart = [key for key in changed_keys(prepared.loaded.settings, new.settings) if key in RESTART]
    if store_password(new.settings) != prepared.store_password and _STORE_PASSWORD not in restart:
        restart.append(_STORE_PASSWORD)
    return new, prepared, restart


def _report_fault(service: Service, error: Exception) -> None:
    service.metrics.faults.inc()
    RELOAD_FAULT.log(error)


def _report_success(service: Service, before: Loaded, new: Loaded, restart: Sequence[str]) -> None:
    service.reload_problem, service.restart_to_change = "", tuple(restart)
    service.metrics.reloaded(time.time())
    RELOADED.log(changed=changed_keys(before.settings, service.loaded.settings))
    if restart:
        RESTART_TO_CHANGE.log(keys=restart)
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
        self._requested = self._running = False

    def request(self) -> None:
        """Reloads in the background, now or after the reload in progress."""
        self._requested = True
        if not self._running:
            self._running = True
            self._tasks.start(self._run(), "reload")

    async def close(self) -> None:
        """Ends a reload in progress."""
        await self._tasks.cancel()
        self._reading.close()

    async def _run(self) -> None:
        while self._running:
            self._requested = False
            self._manager.reloading()
            with Guard(partial(_report_fault, self._service)):
                await reload(self._service, self._load, self._reading, self._configure_log)
            self._manager.notify("READY=1", f"STATUS={self._service.summary}")
            self._running = self._requested

    def _configure_log(self, log: LogSection) -> None:
        reconfigure(self._log_writer, log.format, log.level, addresses=log.addresses)
