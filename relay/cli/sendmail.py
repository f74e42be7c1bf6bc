"""`relay sendmail`: what PHP's `mail()`, cron and other local programs call in place of `/usr/sbin/sendmail`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.sendmail.handover import Refusal, RelayAddress
    from relay.sendmail.mail import Mail, Sender

EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 64, 65, 67, 69, 75, 77, 78
"""From sysexits.h."""
_CONFIG = Path("/etc/smtp-dedup-relay/relay.toml")
_DEFAULT = "127.0.0.1:2525"
_MAIL_NAME = Path("/etc/mailname")
"""The host's name in mail addresses, on Debian."""
_XCHAR = frozenset(map(chr, range(0x21, 0x7F))) - frozenset("+=")


class _WrongArguments(click.UsageError):
    exit_code = EX_USAGE


class _Sendmail(click.Command):
    """A command that ends with 64 on wrong arguments, as sysexits.h has it."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parses the arguments."""
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            raise _WrongArguments(error.format_message(), error.ctx) from None


def _accepted_only(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options with a value that other sendmails have, and that change nothing here."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in names:
            command = click.option(name, metavar="VALUE", multiple=True, hidden=True, expose_value=False)(command)
        return command

    return add


def _accepted_flags(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in names:
            command = click.option(name, is_flag=True, hidden=True, expose_value=False)(command)
        return command

    return add


@click.command(
    cls=_Sendmail,
    context_settings={"help_option_names": ["--help"]},
    short_help="Hand over the mail of a local program, as sendmail does.",
    epilog="""\b
Examples:
  relay sendmail root@example.org < mail.eml
  sendmail_path = "relay sendmail -t -i --fallback /usr/sbin/sendmail"   (php.ini)
Exit status: 0 the relay accepted the mail for every recipient,
64 wrong arguments, 65 unreadable mail, 67 unknown recipient, 69 refused,
75 try again later, 77 refused by policy, 78 the relay's address is wrong.""",
)
@click.option("-t", "from_fields", is_flag=True, help="Send to the addresses in To, Cc and Bcc too, and remove Bcc.")
@click.option("-i", "dots", is_flag=True, help="A line with a single dot does not end the message.  [as -oi]")
@click.option("-f", "-r", "reverse_path", metavar="ADDRESS", help="Sender of the envelope; <> for none.")
@click.option("-F", "full_name", metavar="NAME", default="", help="Name in From, if the message has no From field.")
@click.option("-b", "mode", metavar="MODE", default="m", help="m: read a message; s: speak SMTP on stdin and stdout.")
@click.option("-q", "queue", metavar="VALUE", is_flag=False, flag_value="", hidden=True)
@click.option("-o", "options", metavar="OPTION", multiple=True, help="i: as -i. Others change nothing.")
@click.option("-N", "notify", metavar="WHEN", default="", help="Delivery reports: never, or success,failure,delay.")
@click.option("-R", "ret", type=click.Choice(["full", "hdrs"]), help="What a delivery report contains.")
@click.option("-V", "envelope_id", metavar="ID", default="", help="The id of the message in delivery reports.")
@click.option(
    "--relay",
    "address",
    metavar="HOST:PORT|unix:PATH",
    help=f"Where the relay listens.  [RELAY_LISTEN__ADDRESS, listen.address in {_CONFIG}, {_DEFAULT}]",
)
@click.option(
    "--fallback",
    metavar="COMMAND",
    default="",
    help="A sendmail that takes the mail if the relay is away or refuses it for now.",
)
@_accepted_only("-A", "-B", "-C", "-h", "-L", "-O", "-X")
@_accepted_flags("-G", "-m", "-n", "-U", "-v")
@click.argument("recipients", nargs=-1)
def sendmail(mode: str, queue: str | None, address: str | None, fallback: str, **options: Any) -> None:
    """Read a message from stdin and hand it to the relay, which forwards it or suppresses it as a repeat.

    From, Date and Message-ID are added where they are missing. A mail that cannot be handed over is not kept: the
    command ends with a status other than 0, and the program that called it must try again.
    """
    if mode not in ("m", "s") or queue is not None:
        option = f"-b{mode}" if queue is None else f"-q{queue}"
        raise _WrongArguments(
            f"{option} is not supported; call the mail server's own sendmail for it, or use -bm or -bs"
        )
    if sys.stdin is None:
        _end(EX_DATAERR, "stdin is closed; pass the message there")
    relay = _relay_address(address)
    if mode == "s":
        _speak(relay, fallback)
    else:
        _send(relay, fallback, **options)


def _speak(relay: RelayAddress, fallback: str) -> None:
    from relay.sendmail.dialog import run_dialog
    from relay.sendmail.handover import RelayAway

    try:
        run_dialog(relay, sys.stdin.fileno(), sys.stdout.fileno())
    except RelayAway as error:
        if fallback:
            raise click.exceptions.Exit(_run_fallback(fallback, ["-bs"])) from None
        click.echo("421 4.3.2 The relay is not available, try again later\r\n", nl=False)
        _end(EX_TEMPFAIL, str(error))


def _send(
    relay: RelayAddress,
    fallback: str,
    *,
    from_fields: bool,
    dots: bool,
    reverse_path: str | None,
    full_name: str,
    options: Sequence[str],
    notify: str,
    ret: str | None,
    envelope_id: str,
    recipients: Sequence[str],
) -> None:
    import datetime as dt

    from relay.sendmail.handover import Notification, RelayAway, hand_over
    from relay.sendmail.mail import UnreadableMail, complete, until_lone_dot

    lines = sys.stdin.buffer if dots or "i" in options else until_lone_dot(sys.stdin.buffer)
    sender = _sender(reverse_path, full_name)
    try:
        mail = complete(lines, recipients, sender, dt.datetime.now().astimezone(), from_fields=from_fields)
    except UnreadableMail as error:
        _end(EX_DATAERR if recipients or from_fields else EX_USAGE, str(error))
    notification = Notification(_notify(notify), (ret or "").upper(), _xtext(envelope_id))
    try:
        refusals = hand_over(mail, relay, sender.host, notification)
    except RelayAway as error:
        if fallback:
            raise click.exceptions.Exit(_fall_back(fallback, mail, mail.recipients)) from None
        _end(EX_TEMPFAIL, str(error))
    _report(mail, refusals, fallback)


def _report(mail: Mail, refusals: Sequence[Refusal], fallback: str) -> None:
    """Ends with the status that the refusals ask for. Recipients who are refused for now go to the fallback command."""
    for refusal in refusals:
        click.echo(f"error: {printable(refusal.recipient)}: {refusal.code} {printable(refusal.text)}", err=True)
    waiting = [refusal.recipient for refusal in refusals if not refusal.is_permanent]
    if waiting and not fallback:
        _end(EX_TEMPFAIL, "the relay did not take the mail for all recipients; try again later")
    status = _fall_back(fallback, mail, waiting) if waiting else 0
    permanent = [_status(refusal) for refusal in refusals if refusal.is_permanent]
    raise click.exceptions.Exit(status or next(iter(permanent), 0))


def _status(refusal: Refusal) -> int:
    if refusal.text.startswith("5.7."):
        return EX_NOPERM
    return EX_NOUSER if refusal.text.startswith("5.1.1") else EX_UNAVAILABLE


def _fall_back(command: str, mail: Mail, recipients: Sequence[str]) -> int:
    arguments = ["-i", "-f", mail.reverse_path or "<>", "--", *recipients]
    return _run_fallback(command, arguments, mail.content.replace(b"\r\n", b"\n"))


def _run_fallback(command: str, arguments: Sequence[str], content: bytes | None = None) -> int:
    """Runs the fallback command and returns its exit status. Without content it inherits stdin."""
    import shlex
    import subprocess

    try:
        finished = subprocess.run([*shlex.split(command), *arguments], input=content, check=False)  # noqa: S603
    except (OSError, ValueError) as error:
        _end(EX_TEMPFAIL, f"the fallback command cannot be run: {error}")
    return finished.returncode if finished.returncode >= 0 else EX_TEMPFAIL


def _relay_address(given: str | None) -> RelayAddress:
    from relay.sendmail.handover import RelayAddress

    text = given or os.environ.get("RELAY_LISTEN__ADDRESS") or _configured() or _DEFAULT
    try:
        return RelayAddress.parse(text)
    except ValueError as error:
        if given:
            raise _WrongArguments(f"--relay: {error}") from None
        _end(EX_CONFIG, f"listen.address: {error}")


def _configured() -> str:
    """Returns listen.address of the settings file; empty if the program's user may not read it.

    `relay.settings` would check all settings, which takes longer than to hand over the mail.
    """
    try:
        text = _CONFIG.read_text("utf-8")
    except OSError:
        return ""
    except UnicodeDecodeError as error:
        _end(EX_CONFIG, f"{_CONFIG} cannot be read: {error}; give --relay, or correct the file")
    import tomllib

    try:
        return str(tomllib.loads(text).get("listen", {}).get("address", ""))
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        _end(EX_CONFIG, f"{_CONFIG} cannot be read: {error}; give --relay, or correct the file")


def _sender(reverse_path: str | None, full_name: str) -> Sender:
    import pwd
    import socket

    from relay.sendmail.mail import Sender

    try:
        host = _MAIL_NAME.read_text("ascii").strip().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        host = ""
    host = host or socket.gethostname()
    try:
        user = pwd.getpwuid(os.getuid())
        name, real_name = user.pw_name, user.pw_gecos.partition(",")[0]
    except KeyError:  # a container with a user id of its own
        name, real_name = str(os.getuid()), ""
    address = f"{name}@{host}"
    path = address if reverse_path is None else reverse_path.removeprefix("<").removesuffix(">")
    return Sender(path, path or address, full_name or real_name, host)


def _notify(text: str) -> str:
    words = [word.upper() for word in text.split(",") if word]
    if not set(words) <= {"NEVER", "SUCCESS", "FAILURE", "DELAY"} or ("NEVER" in words and len(words) > 1):
        raise _WrongArguments(f"-N {text}: write never, or some of success,failure,delay")
    return ",".join(words)


def _xtext(text: str) -> str:
    """Returns a text as RFC 3461 section 4 has it."""
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if chr(octet) in _XCHAR else f"+{octet:02X}" for octet in octets)


def _end(status: int, message: str) -> NoReturn:
    click.echo(f"error: {printable(message)}", err=True)
    raise click.exceptions.Exit(status)
