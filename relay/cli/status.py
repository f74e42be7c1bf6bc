"""`relay status`: the state of the running relay."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from relay.cli.exit_status import UnavailableError, run
from relay.cli.options import Target, target_options
from relay.cli.records import timestamp
from relay.core.errors import AdminError, NoRelayError
from relay.core.quantities import duration, size
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command(
    short_help="Show what the running relay does.",
    epilog="""\b
Examples:
  relay status
  relay status --json | jq .ready
Exit status: 0 mail can flow, 1 the relay answers and mail cannot flow,
69 no relay answers.""",
)
@target_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def status(target: Target, as_json: bool) -> None:
    """Show the state of the running relay: its parts, what it does now, and its last warnings.

    It asks the relay on admin.socket. On a host with several relays, name the socket of one:
    --set admin.socket=PATH.
    """
    run(_show(target, as_json))


async def _show(target: Target, as_json: bool) -> bool:
    from relay.admin.client import running_relay
    from relay.admin.protocol import ANSWER_LIMIT

    if target.socket is None:
        raise UnavailableError(
            "these settings name no running relay: admin.socket is empty, or a flag sets something else; name its "
            "socket with --set admin.socket=PATH"
        )
    try:
        async with running_relay(target.socket) as relay:
            found = await relay.json("GET", "/status", ANSWER_LIMIT)
    except NoRelayError as error:
        raise UnavailableError(
            f"{error}; start it, or name the socket of a running one: --set admin.socket=PATH"
        ) from error
    except AdminError as error:
        raise UnavailableError(*error.args) from error
    try:
        lines = [json.dumps(found)] if as_json else list(_lines(found))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UnavailableError(
            f"the relay at admin.socket {target.socket} answers what this command does not understand; use the "
            "command of its version, or --json"
        ) from None
    for line in lines:
        click.echo(line)
    return bool(found.get("ready"))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    age = duration(max(0.0, time.time() - found["since"]))
    yield f"relay {printable(found['version'])}, pid {found['pid']:d}, user {printable(found['user'])}"
    yield _row("since", f"{timestamp(found['since'])} ({age})")
    yield _row("mail", "can flow" if found["ready"] else "cannot flow")
    for part, state in found["parts"].items():
        yield _row(part, _joined(state) if isinstance(state, dict) else printable(str(state)))
    yield _row("listens on", _joined(found["listening"]))
    yield _row("sends to", printable(", ".join(found["upstream"])))
    yield _row("claims in", printable(found["store"]))
    yield _row("mode", f"{printable(found['mode'])}, window {duration(found['window_seconds'])}")
    if problem := found.get("reload_problem"):
        yield _row("reload", f"failed: {printable(problem)}")
    if keys := found.get("restart_to_change"):
        yield _row("restart", f"to change: {printable(', '.join(keys))}")
    yield _row("sessions", f"{found['sessions']:d}, with {found['upstream_connections']:d} upstream connections")
    yield _row("claims", f"{found['claims']:d} held, {found['waiting_twins']:d} messages wait for a first copy")
    yield _row("memory", f"{size(found['memory_bytes'])} of {size(found['memory_limit_bytes'])}")
    for name, key in (("last minute", "last_minute"), ("last 5 min", "last_5_minutes"), ("in all", "since_start")):
        counts = found[key]
        yield _row(name, f"messages: {_counted(counts['messages'])}; recipients: {_counted(counts['recipients'])}")
    lines = found["warnings"]
    yield _row("warnings", "the last ones:" if lines else "none")
    yield from (f"    {printable(line)}" for line in lines)


def _row(label: str, text: str) -> str:
    return f"  {printable(label):<12} {text}"


def _joined(values: Mapping[str, object]) -> str:
    return printable(", ".join(f"{name} {value}" for name, value in values.items()))


def _counted(counts: Mapping[str, int]) -> str:
    return printable(", ".join(f"{count} {label}" for label, count in counts.items() if count)) or "none"
