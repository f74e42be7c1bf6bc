"""What mail readers show of a message: Python's email (modern and compat32), mailparser, postal-mime, and PHP.

The readers of Node.js and PHP run in one process each, which answers lines of JSON.
"""

from __future__ import annotations

import base64
import contextlib
import email
import email.header
import email.policy
import hashlib
import json
import re
import subprocess
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message

FOLDER = Path(__file__).parent / "readers"
COMMANDS = {"node": ["node", "read.mjs"], "php": ["php", "read.php"]}
_AT_ONCE = 20
"""Messages on the way to a reader: few enough for the buffers of both pipes."""

Shown = dict[str, Any]
"""By reader: subject, from, texts, file names and attachments, white space folded, so that only the rest can differ."""


class Readers:
    """All readers. `show` takes messages one after the other; the processes stay."""

    def __init__(self, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        self._processes = processes

    def show(self, messages: Iterable[bytes]) -> list[Shown]:
        """Returns what each reader shows of each message."""
        shown: list[Shown] = []
        some = list(messages)
        for start in range(0, len(some), _AT_ONCE):
            batch = some[start : start + _AT_ONCE]
            asked = [{"message": base64.b64encode(message).decode()} for message in batch]
            node, php = (self._ask(name, asked) for name in COMMANDS)
            shown += [
                _fold({**_python(message), **one, **_blank_for_underscore(_from_hex(other))})
                for message, one, other in zip(batch, node, php, strict=True)
            ]
        return shown

    def decode(self, charset: str, codes: list[bytes]) -> dict[str, list[str] | None]:
        """Returns by table what it makes of each code; None if it does not know the charset."""
        asked = [{"charset": charset, "codes": [code.hex() for code in codes]}]
        return {**self._ask("node", asked)[0], **_from_hex(self._ask("php", asked)[0])}

    def _ask(self, name: str, asked: list[Shown]) -> list[Shown]:
        process = self._processes[name]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(json.dumps(one).encode() + b"\n" for one in asked))
        process.stdin.flush()
        return [json.loads(process.stdout.readline()) for _ in asked]


@contextlib.contextmanager
def started() -> Iterator[Readers]:
    """Starts the readers and ends them."""
    with contextlib.ExitStack() as stack:
        yield Readers(
            {
                name: stack.enter_context(
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=FOLDER)
                )
                for name, command in COMMANDS.items()
            }
        )


def _python(message: bytes) -> Shown:
    shown: Shown = {}
    for name, policy in (("email", email.policy.default), ("compat32", email.policy.compat32)):
        try:
            parsed = email.message_from_bytes(message, policy=policy)
            fields = [str(parsed.get(field)) for field in ("subject", "from", "reply-to")]
            if name == "compat32":
                fields = [str(email.header.make_header(email.header.decode_header(field))) for field in fields]
            shown[name] = {"fields": fields, "parts": [_part(part) for part in parsed.walk()]}
        except Exception as error:  # noqa: BLE001 - a reader that fails shows its error
            shown[name] = {"error": repr(error)[:60]}
    return shown


def _part(part: Message) -> list[str | None]:
    kind = part.get_content_type()
    if part.is_multipart():
        return [kind]
    octets = part.get_payload(decode=True) or b""
    if part.get_content_maintype() == "text" and not part.get_filename():
        try:
            text = octets.decode(part.get_content_charset() or "us-ascii", "replace")
        except LookupError:
            text = octets.decode("latin-1")
        return [kind, part.get_content_disposition(), text]
    return [kind, part.get_content_disposition(), part.get_filename(), hashlib.md5(octets).hexdigest()]


def _fold(shown: Any) -> Any:
    if isinstance(shown, str):
        return re.sub(r"[ \t\r\n\f]+", " ", unicodedata.normalize("NFC", shown)).strip(" ")
    if isinstance(shown, list):
        return [_fold(one) for one in shown]
    return {name: _fold(one) for name, one in shown.items()} if isinstance(shown, dict) else shown


def _blank_for_underscore(shown: Shown) -> Shown:
    """PHP shows the blanks of encoded words as `_` before version 8.3: a known fault of that function."""
    fields = {name: text.replace("_", " ") for name, text in shown["mbstring"].items()}
    return {**shown, "mbstring": fields}


def _from_hex(shown: Any) -> Any:
    if isinstance(shown, str) and re.fullmatch(r"(?:[0-9a-f]{2})+", shown):
        return bytes.fromhex(shown).decode("utf-8", "backslashreplace")
    if isinstance(shown, list):
        return [_from_hex(one) for one in shown]
    return {name: _from_hex(one) for name, one in shown.items()} if isinstance(shown, dict) else shown
