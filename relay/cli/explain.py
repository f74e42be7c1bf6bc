"""`relay explain`: what counts of a message, and whether two are the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from relay.core.fingerprint import Judged

_AROUND = 60
"""Characters before and behind the first difference."""
_STDIN = Path("-")
EQUAL, DIFFERENT, UNREADABLE = 0, 1, 2


@click.command(
    short_help="Show what counts of a message, or whether two are equal.",
    epilog="""\b
Examples:
  relay explain notice.eml
  relay explain first.eml second.eml --recipient alice@example.org
  relay explain - < notice.eml
Exit status: 0 equal (or one file), 1 different, 2 unreadable.""",
)
@click.argument("files", nargs=-1, metavar="A.eml [B.eml]", type=click.Path(path_type=Path))
@click.option("--recipient", metavar="ADDRESS", default="", help="Whose fingerprint to show; without it nobody's.")
def explain(files: tuple[Path, ...], recipient: str) -> None:
    """Show the normalised form and the fingerprint of a message, or say whether two messages are equal.

    The file - is standard input.
    """
    if not files:
        raise click.UsageError("Missing argument 'A.eml'.")
    if len(files) > 2 or files.count(_STDIN) > 1:  # noqa: PLR2004 - A and B
        raise click.UsageError("one or two files, not more; one of them may be -, which is standard input")
    name, at, domain = recipient.rpartition("@")
    # RFC 5321 section 4.1.1.3: the one address that needs no domain.
    if recipient and not (name and at and domain) and recipient.lower() != "postmaster":
        raise click.BadParameter(f"'{recipient}' is no address; write NAME@DOMAIN", param_hint="'--recipient'")
    judged = [_read(path) for path in files]
    for path, one in zip(files, judged, strict=True):
        _show(path, one, recipient)
    if len(judged) == 1:
        return
    first, second = judged
    if first.form.fields == second.form.fields:
        click.echo("equal: a second copy for the same recipient inside the window is a repeat" + _but(first))
        sys.exit(EQUAL)
    click.echo("different:")
    _show_difference(first, second)
    sys.exit(DIFFERENT)


def _read(path: Path) -> Judged:
    from relay.core.fingerprint import judge

    try:
        content = sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
    except OSError as error:
        click.echo(f"error: {path}: {error.strerror}", err=True)
        sys.exit(UNREADABLE)
    if b"\r\n" not in content:
        # A file of this system; on the wire lines end with CRLF.
        content = content.replace(b"\n", b"\r\n")
    return judge(content, b"")


def _show(path: Path, judged: Judged, recipient: str) -> None:
    from relay.core.envelope import fold

    click.echo(click.style(str(path), bold=True))
    click.echo(
        f"  fingerprint  {judged.fingerprint(fold(recipient.encode()))}" + (f"  {recipient}" if recipient else "")
    )
    rule = f"exempt: {judged.exempt}" if judged.exempt else "dedupe (default)"
    click.echo(f"  rule         {rule}")
    if judged.form.broken:
        click.echo(f"  broken       {judged.form.broken}: its raw bytes count")
    click.echo("  normalised form")
    width = max(len(field.label) for field in judged.form.fields) if judged.form.fields else 0
    for label, value in judged.form.fields:
        click.echo(f"    {label.ljust(width)}  {_text(value)}".rstrip())


def _but(judged: Judged) -> str:
    return f"; yet never suppressed, being exempt ({judged.exempt})" if judged.exempt else ""


def _show_difference(first: Judged, second: Judged) -> None:
    ours, theirs = list(first.form.fields), list(second.form.fields)
    for number in range(max(len(ours), len(theirs))):
        one = ours[number] if number < len(ours) else None
        other = theirs[number] if number < len(theirs) else None
        if one == other:
            continue
        start = 0
        if one and other and one.label == other.label:
            pairs = zip(one.value, other.value, strict=False)
            start = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.value), len(other.value)))
        for sign, field in (("-", one), ("+", other)):
            if field is not None:
                begin = max(0, start - _AROUND)
                click.echo(
                    f"  {sign} {field.label}: {'…' if begin else ''}{_text(field.value[begin : start + _AROUND])}"
                )


def _text(value: bytes) -> str:
    # In the normalised form NUL stands for what was left out.
    text = value.decode("utf-8", "backslashreplace").replace("\0", "[ignored]")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
