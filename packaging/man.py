"""Writes the man pages relay(1) and relay.toml(5): `python packaging/man.py FOLDER`.

relay(1) is made from the help texts of the commands, relay.toml(5) from the settings page.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay import __version__
from relay.cli import main as relay
from relay.settings.render import reference_markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEE_ALSO = ".SH SEE ALSO\n.BR {} ,\nthe pages in\n.IR /usr/share/doc/smtp-dedup-relay .\n"


def command_page() -> str:
    """Returns relay(1)."""
    context = click.Context(relay, info_name="relay")
    return "\n".join(
        [
            _title("RELAY", 1, "relay", "SMTP proxy that suppresses repeated mail"),
            ".SH SYNOPSIS\n.B relay\n.I COMMAND\n.RI [ OPTION ]...",
            f".SH DESCRIPTION\n{_paragraphs(relay.help or '')}\n{_paragraphs(relay.epilog or '')}",
            ".SH COMMANDS",
            *_commands(relay, context),
            ".SH FILES\n.TP\n.I /etc/smtp-dedup-relay/relay.toml\nSettings.",
            ".TP\n.I /etc/smtp-dedup-relay/environment\nPasswords of the service, as environment variables.",
            ".TP\n.I /var/lib/smtp-dedup-relay\nThe store of the service.",
            _SEE_ALSO.format("relay.toml (5)"),
        ]
    )


def settings_page() -> str:
    """Returns relay.toml(5)."""
    body = "\n".join(_roff_of_markdown(reference_markdown()))
    title = _title("RELAY.TOML", 5, "relay.toml", "settings of smtp-dedup-relay")
    return f"{title}\n.SH DESCRIPTION\n{body}\n{_SEE_ALSO.format('relay (1)')}"


def _title(upper: str, section: int, name: str, summary: str) -> str:
    # Without a date, so that every build writes the same bytes. .nh: a URL or key broken in two misleads.
    return f'.TH {upper} {section} "" "smtp-dedup-relay {__version__}"\n.nh\n.ad l\n.SH NAME\n{name} \\- {summary}'


def _commands(group: click.Group, parent: click.Context) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None:
            continue
        context = click.Context(command, info_name=name, parent=parent)
        usage = " ".join(command.collect_usage_pieces(context))
        yield f".SS {_escaped(f'{context.command_path} {usage}')}\n{_paragraphs(command.help or '')}"
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record and record[1] and "--help" not in parameter.opts:
                yield f".TP\n.B {_escaped(record[0])}\n{_escaped(record[1])}"
        yield f".PP\n{_paragraphs(command.epilog or '')}"
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def _paragraphs(text: str) -> str:
    """Returns a help text of click. A paragraph after a line with only a backspace keeps its line breaks."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        kept = paragraph.removeprefix("\b\n")
        lines = _escaped(kept)
        parts.append(f".nf\n{lines}\n.fi" if kept != paragraph else lines)
    return "\n.PP\n".join(parts)


def _roff_of_markdown(text: str) -> Iterator[str]:
    """Yields the lines of the settings page as roff: its headings, lists, tables and paragraphs."""
    for line in text.splitlines():
        if line.startswith(("<!--", "# ", "|---", "| key |")):
            continue
        if line.startswith("## "):
            yield f".SH {_inline(line[3:]).upper()}"
        elif line.startswith("### "):
            yield f".SS {_inline(line[4:])}"
        elif line.startswith("- "):
            yield f".IP \\(bu 2\n{_inline(line[2:])}"
        elif line.startswith("| "):
            key, kind, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:4])
            yield f".TP\n{_inline(key)} ({_inline(kind)})\n{_inline(meaning)}"
        elif line:
            yield _inline(line.removesuffix("\\").strip()) + ("\n.br" if line.endswith("\\") else "")
        else:
            yield ".PP"


def _inline(text: str) -> str:
    """Returns a line with code and bold text in bold, and links without their targets."""
    text = _escaped(re.sub(r"\[([^][]+)\]\([^)]+\)", r"\1", text))
    return re.sub(r"\*\*(.+?)\*\*|`(.+?)`", lambda match: rf"\fB{match[1] or match[2]}\fR", text)


def _escaped(text: str) -> str:
    lines = text.replace("\\", "\\e").replace("-", "\\-").replace("·", "\\(pc").replace("…", "...").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def _write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "relay.1").write_text(_without_gaps(command_page()), "utf-8")
    (folder / "relay.toml.5").write_text(_without_gaps(settings_page()), "utf-8")


def _without_gaps(text: str) -> str:
    """Removes empty lines, which are vertical space in roff, and paragraph breaks beside a heading or a list item."""
    text = re.sub(r"\n\n+", "\n", text)
    text = re.sub(r"(?<=\n)(?:\.PP\n)+(?=\.(?:PP|SH|SS|TP|IP)\b)", "", text)
    return re.sub(r"(\n\.S[HS] .*\n)\.PP\n", r"\1", text)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
