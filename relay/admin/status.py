"""The state of a running relay, for `relay status`."""

from __future__ import annotations

import os
import pwd
import time
from typing import TYPE_CHECKING, Any

from relay import __version__
from relay.admin.rates import LONGEST, Rates

if TYPE_CHECKING:
    from relay.service import Service

_MINUTE = 60.0


class Status:
    """The state of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._since = time.time()
        self.rates = Rates(service.metrics.totals)

    @staticmethod
    def process() -> dict[str, Any]:
        """Returns which relay answers."""
        return {"version": __version__, "pid": os.getpid(), "user": _user()}

    def __call__(self, admin_address: str) -> dict[str, Any]:
        """Returns the state as it is shown with `--json`. Contains no password and no mail address."""
        service, settings = self._service, self._service.loaded.settings
        ready, parts = service.state()
        return {
            **self.process(),
            "since": self._since,
            "ready": ready,
            "parts": parts,
            "listening": {
                name: address
                for name, address in {
                    "smtp": service.address,
                    "smtps": service.tls_address,
                    "http": service.http_address,
                    "admin": admin_address,
                }.items()
                if address
            },
            "upstream": [str(settings.upstream.url), *map(str, settings.upstream.fallback_urls)],
            "store": str(settings.store.url),
            "mode": settings.dedup.mode,
            "window_seconds": settings.dedup.window,
            "reload_problem": service.reload_problem,
            "restart_to_change": service.restart_to_change,
            **service.load(),
            "last_minute": self.rates.within(_MINUTE),
            "last_5_minutes": self.rates.within(LONGEST),
            "since_start": service.metrics.totals(),
            "warnings": service.warnings.lines,
        }


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
