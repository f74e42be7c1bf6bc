"""`relay serve`: run until SIGTERM or SIGINT; both drain."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from relay.cli.exit_status import EX_CONFIG
from relay.cli.options import settings_options

if TYPE_CHECKING:
    from relay.core.errors import CannotListenError
    from relay.service import Service
    from relay.settings import Loaded, Settings


@click.command(
    short_help="Run the relay until SIGTERM or SIGINT.",
    epilog="""\b
Example:
  relay serve --upstream smtp://127.0.0.1:25 --store redis://127.0.0.1 --window 15m
Then point the application's SMTP host and port at 127.0.0.1:2525.
Exit status: 0 ended as asked, 1 an address is taken or the drain was cut short,
78 the settings are wrong.""",
)
@settings_options
def serve(loaded: Loaded) -> None:
    """Run the relay until SIGTERM or SIGINT. Both let running transactions finish; a second one ends at once."""
    from relay import __version__
    from relay.core.errors import CannotListenError, SettingsError
    from relay.monitor.logs import configure, log
    from relay.service import serve as run
    from relay.settings.sources import upstream_password

    settings = loaded.settings
    lines = configure(settings.log.format, settings.log.level, sys.stderr, addresses=settings.log.addresses)

    def ready(service: Service) -> None:
        fields = {
            "version": __version__,
            "listen": service.address,
            "http": service.http_address or "off",
            "upstream": str(settings.upstream.url),
            **_fallbacks(settings),
            "store": str(settings.store.url),
            "mode": settings.dedup.mode,
            "window_seconds": settings.dedup.window,
        }
        log.info("serving", extra={"fields": fields})

    try:
        drained = _run(run(settings, upstream_password(settings), ready))
    except SettingsError as error:
        lines.stop()
        click.echo(f"error: {error}", err=True)
        sys.exit(EX_CONFIG)
    except CannotListenError as error:
        lines.stop()
        _tell(error, settings)
        # Not 78, after which systemd would leave it: whoever holds the address may end.
        sys.exit(1)
    lines.stop()
    sys.exit(0 if drained else 1)


def _fallbacks(settings: Settings) -> dict[str, object]:
    urls = [str(url) for url in settings.upstream.fallback_urls]
    return {"fallback_upstreams": urls} if urls else {}


def _tell(error: CannotListenError, settings: Settings) -> None:
    """Tell of every address that cannot be had, not only of the first."""
    from relay.cli.listening import addresses, held_by_relay, mend, obstacle

    for key, address in addresses(settings).items():
        reason = error.reason if key == error.key else obstacle(address)
        if reason:
            holder = ", by a relay" if held_by_relay(key, address, reason) else ""
            told = f'{key} = "{address}": cannot listen there: {reason}{holder}; {mend(key, reason)}'
            click.echo(f"error: {told}", err=True)


def _run(main: object) -> bool:
    try:
        import uvloop
    except ImportError:  # not every platform has it; asyncio's own loop is slower, nothing else
        return asyncio.run(main)  # type: ignore[arg-type]
    return uvloop.run(main)  # type: ignore[arg-type]
