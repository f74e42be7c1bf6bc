"""`relay serve`: runs the relay until SIGTERM or SIGINT, which let transactions finish."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from relay.cli.exit_status import CommandError
from relay.cli.options import print_warnings, reloadable_options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from relay.core.errors import CannotListenError
    from relay.service import Service
    from relay.settings import Loaded, Settings


@click.command(
    short_help="Run the relay until SIGTERM or SIGINT.",
    epilog="""\b
Example:
  relay serve --upstream smtp://127.0.0.1:25 --store redis://127.0.0.1 --window 15m
Then point the application's SMTP host and port at 127.0.0.1:2525.
Exit status: 0 ended as asked, 1 an address is in use or the drain was cut short,
78 the settings are wrong.""",
)
@reloadable_options
def serve(load: Callable[[], Loaded]) -> None:
    """Run the relay until SIGTERM or SIGINT.

    Both let running transactions finish, for limits.drain at most. A second signal ends the relay at once.
    SIGHUP reloads settings, passwords and certificates; mistakes in them leave the old ones in force, and the log
    names the settings that need a restart. SIGUSR1 and SIGUSR2 are logged and have no effect.
    """
    from relay import __version__
    from relay.admin.server import AdminServer
    from relay.core.errors import CannotListenError
    from relay.events.service import SERVING
    from relay.monitor.logs import configure
    from relay.service import ignore_other_signals
    from relay.service import serve as run
    from relay.settings.passwords import upstream_password

    loaded = load()
    print_warnings(loaded)
    settings = loaded.settings
    upstream_password(settings)  # a wrong file is reported now, in one line, and not in the log
    ignore_other_signals()  # until the relay handles them
    lines = configure(settings.log.format, settings.log.level, sys.stderr, addresses=settings.log.addresses)

    def log_start(service: Service) -> None:
        fields = {
            "version": __version__,
            "listen": service.address,
            **({"listen_tls": service.tls_address} if service.tls_address else {}),
            "http": service.http_address or "off",
            "upstream": str(settings.upstream.url),
            **_fallbacks(settings),
            "store": str(settings.store.url),
            "mode": settings.dedup.mode,
            "window_seconds": settings.dedup.window,
        }
        SERVING.log(**fields)

    try:
        _run(run(loaded, load, log_start, lines, AdminServer))
    except CannotListenError as error:
        # Status 1, not 78, after which systemd would not restart the relay: the address may become free.
        raise CommandError(*_listen_errors(error, settings)) from error
    finally:
        lines.stop()


def _fallbacks(settings: Settings) -> dict[str, object]:
    urls = [str(url) for url in settings.upstream.fallback_urls]
    return {"fallback_upstreams": urls} if urls else {}


def _listen_errors(error: CannotListenError, settings: Settings) -> list[str]:
    """Returns a message for every address that cannot be listened on, not only for the first."""
    from relay.check.listening import addresses, bind_error, held_by_relay, listen_remedy

    messages = []
    for key, address in addresses(settings).items():
        reason = error.reason if key == error.key else bind_error(address, settings)
        if reason:
            holder = ", by a relay" if held_by_relay(key, address, reason, settings) else ""
            remedy = listen_remedy(key, reason)
            messages.append(f'{key} = "{address}": cannot listen there: {reason}{holder}; {remedy}')
    return messages


def _run(main: Coroutine[object, object, NoReturn]) -> None:
    try:
        import uvloop
    except ImportError:  # not available on every platform; asyncio's own loop is slower, but works the same
        asyncio.run(main)
    else:
        uvloop.run(main)
