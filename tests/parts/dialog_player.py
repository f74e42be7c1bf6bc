"""Plays an SMTP dialog from a text file against a server, and fails at the first reply that differs.

    # a comment
    only relay: why the dialog is not played against aiosmtpd
    set limits.recipients = 2           a setting of the relay
    upstream RCPT bob 550 5.1.1 no      the upstream's reply at this step, if the command contains this word
    C: RCPT TO:<bob@example.test>       a line from the client; CRLF is added
    c: text                             octets from the client, without a line end
    S: 550 5.1.1 *                      a line of the reply; * matches anything, and S: 250-... any number of lines
    A: 250 -- why                       aiosmtpd replies with this code, and why the relay does not
    S: closed                           the server closes the connection
    M: <anna@x> -> <bob@y> <carl@z>     the next message that arrived has this envelope
    M: nothing                          no further message has arrived
    B: Subject: x\\r\\n\\r\\n               the message has this content

`\\r`, `\\n`, `\\\\` and `\\xff` are octets; `{x*5000}` is x repeated 5000 times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from parts.client import RawClient
from parts.faults import Step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ESCAPE = re.compile(rb"\\(r|n|t|\\|x[0-9a-f]{2})")
_REPEAT = re.compile(rb"\{(.+?)\*(\d+)\}")
_NAMES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
MORE = b"250-..."
CLOSED = b"closed"


class Arrived(Protocol):
    """A message that the server accepted."""

    @property
    def reverse_path(self) -> bytes: ...
    @property
    def recipients(self) -> Sequence[bytes]: ...
    @property
    def content(self) -> bytes: ...


@dataclass
class Turn:
    """A line or reply that is sent or expected. `kind` is the letter in the file, `where` the file and line number."""

    kind: str
    where: str
    lines: list[bytes]
    other: int | None = None
    """aiosmtpd's reply code, if it differs."""

    @property
    def awaits_more(self) -> bool:
        """Whether another line of the same reply must follow."""
        return self.kind == "S" and self.lines[-1][3:4] == b"-"


@dataclass
class Dialog:
    """The content of a file. `name` is its family and its stem."""

    name: str
    only_relay: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    upstream: list[tuple[Step, bytes, bytes]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


def read(path: Path) -> Dialog:
    """Returns the dialog in a file. Raises `ValueError` at a line that it cannot parse."""
    dialog = Dialog(f"{path.parent.name}/{path.stem}")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        head, _, rest = line.partition(" ")
        match head:
            case "" | "#":
                pass
            case "only":
                dialog.only_relay = rest
            case "set":
                key, _, value = rest.partition(" = ")
                dialog.settings[key] = value
            case "upstream":
                step, word, reply = rest.split(" ", 2)
                dialog.upstream.append((Step(step), word.encode(), _octets(reply)))
            case "C:" | "c:" | "M:" | "B:":
                end = b"\r\n" if head == "C:" else b""
                dialog.turns.append(Turn(head[0], where, [_octets(rest) + end]))
            case "S:" if dialog.turns and dialog.turns[-1].awaits_more:
                dialog.turns[-1].lines.append(_octets(rest))
            case "S:":
                dialog.turns.append(Turn("S", where, [_octets(rest)]))
            case "A:" if dialog.turns[-1].kind == "S" and " -- " in rest:
                dialog.turns[-1].other = int(rest.partition(" -- ")[0])
            case _:
                raise ValueError(f"{where}: cannot be parsed, or not in this place")
    return dialog


def _octets(text: str) -> bytes:
    repeated = _REPEAT.sub(lambda match: match[1] * int(match[2]), text.encode())
    return _ESCAPE.sub(lambda match: _NAMES.get(match[1]) or bytes.fromhex(match[1][1:].decode()), repeated)


async def play(dialog: Dialog, port: int, arrived: Sequence[Arrived], *, pace: str, relay: bool) -> None:
    """Plays a dialog. `pace` is "one write", "byte by byte", or "line by line": each line after the last reply."""
    seen = 0
    async with await RawClient.open(port, greeted=False) as client:
        if pace == "one write":
            await client.send_raw(b"".join(turn.lines[0] for turn in dialog.turns if turn.kind in "Cc"))
        for turn in dialog.turns:
            match turn.kind:
                case "C" | "c" if pace == "line by line":
                    await client.send_raw(turn.lines[0])
                case "C" | "c" if pace == "byte by byte":
                    for piece in _single_octets(turn.lines[0]):
                        await client.send_raw(piece)
                case "S":
                    await _expect(client, turn, relay=relay)
                case "M" if turn.lines[0] == b"nothing":
                    # With one write the server may be ahead of the replies. The next M, or the end, looks then.
                    assert len(arrived) == seen or pace == "one write", turn.where
                case "M":
                    seen += 1
                    assert len(arrived) >= seen, f"{turn.where}: no message has arrived"
                    assert _envelope(arrived[seen - 1]) == turn.lines[0], turn.where
                case "B":
                    assert arrived[seen - 1].content == turn.lines[0], turn.where
    assert len(arrived) == seen, "a message arrived that the dialog does not mention"


def _single_octets(octets: bytes) -> list[bytes]:
    """Returns single octets. The middle of a very long line stays one piece."""
    edge = 100 if len(octets) > 10_000 else len(octets)
    middle = [octets[edge:-edge]] if octets[edge:-edge] else []
    return [bytes([octet]) for octet in octets[:edge]] + middle + [bytes([o]) for o in octets[edge:][-edge:]]


async def _expect(client: RawClient, turn: Turn, *, relay: bool) -> None:
    answer = await client.read_reply()
    if turn.lines == [CLOSED]:
        assert answer.code == 0, f"{turn.where}: still open, and replied {answer}"
    elif relay:
        last = len(answer.lines) - 1
        received = [b"%d%b%b" % (answer.code, b" -"[n < last :][:1], text) for n, text in enumerate(answer.lines)]
        pattern = b"".join(_pattern(line) for line in turn.lines)
        assert re.fullmatch(pattern, b"".join(line + b"\n" for line in received)), f"{turn.where}: received {received}"
    else:
        code = turn.other or int(turn.lines[0][:3])
        assert answer.code == code, f"{turn.where}: aiosmtpd replied {answer}"


def _pattern(line: bytes) -> bytes:
    if line == MORE:
        return rb"(?:250-[^\n]*\n)*"
    return re.escape(line).replace(rb"\*", rb"[^\n]*") + rb"\n"


def _envelope(message: Arrived) -> bytes:
    return b"<%b> -> %b" % (message.reverse_path, b" ".join(b"<%b>" % path for path in message.recipients))
