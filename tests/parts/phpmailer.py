"""The real PHPMailer, used as AVideo uses it (`tests/parts/php/avideo_send.php`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parts.avideo import CONTACT, SITE
from parts.ports import HOST
from parts.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTOLOAD = Path("/usr/share/php/libphp-phpmailer/autoload.php")
CHUNK = 50
_SCRIPT = Path(__file__).parent / "php" / "avideo_send.php"


@dataclass(frozen=True)
class Chunk:
    """What AVideo learns from one `send()`, and the replies of the server."""

    ok: bool
    error: str
    """PHPMailer's ErrorInfo. A refused recipient sets it too, although the others received the mail."""
    recipients: tuple[str, ...]
    heard: tuple[str, ...]
    """Each reply of the server, from the greeting to the one to QUIT."""


async def send_as_avideo(
    port: int,
    recipients: Sequence[str],
    subject: str,
    html: str,
    *,
    sender: str = CONTACT,
    name: str = SITE,
    chunk: int = CHUNK,
    login: tuple[str, str] | None = None,
    secure: str = "",
    host: str = HOST,
    without_smtp: str = "",
    sendmail: str = "",
    seconds: float = LONGEST,
) -> list[Chunk]:
    """Sends in a separate PHP process. Several at once (`asyncio.gather`) are AVideo's usual twins.

    `login` are the name and password of AVideo's settings, if its SMTP authentication is on. `secure` is its
    "SMTP secure". Without SMTP settings (`isMail` or `isSendmail`), PHP calls the command `sendmail`.
    """
    job = {"recipients": list(recipients), "subject": subject, "html": html, "from": sender, "name": name}
    process = await asyncio.create_subprocess_exec(
        *("php", "-d", "display_errors=stderr", "-d", f"sendmail_path={sendmail}", str(_SCRIPT), host, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate(
                json.dumps(job | {"chunk": chunk, "login": login, "secure": secure, "without": without_smtp}).encode()
            )
    except TimeoutError:
        raise TimeoutError(f"PHPMailer did not end within {seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode or stderr:
        raise RuntimeError(f"PHPMailer's script failed with {process.returncode}:\n{stderr.decode(errors='replace')}")
    results = [json.loads(line) for line in stdout.splitlines()]
    return [Chunk(r["ok"], r["error"], tuple(r["recipients"]), tuple(r["heard"])) for r in results]
