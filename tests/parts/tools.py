"""SMTP clients by others: swaks, curl, msmtp, openssl, nodemailer, and Postfix's smtp-source."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from parts.ports import HOST
from parts.waiting import LONGEST

_SEND = Path(__file__).parent / "readers" / "send.mjs"


@dataclass(frozen=True)
class Ran:
    """The result of a program. `said` is the text of stdout and stderr."""

    status: int
    said: str


async def swaks(port: int, *arguments: str) -> Ran:
    """Sends one message. `said` is the dialogue, in which an arrow to the left marks the server's lines."""
    return await _run("swaks", "--server", f"{HOST}:{port}", *arguments)


async def smtp_source(port: int, *arguments: str) -> Ran:
    """Sends many messages. smtp-source fails at the first reply that it does not expect."""
    return await _run("smtp-source", *arguments, f"inet:{HOST}:{port}")


async def curl(port: int, *arguments: str, content: str, scheme: str = "smtp") -> Ran:
    """Sends one message from stdin. `said` is the dialogue, without the passwords."""
    return await _run("curl", "-sSv", f"{scheme}://{HOST}:{port}", "--upload-file", "-", *arguments, stdin=content)


async def msmtp(port: int, *arguments: str, content: str) -> Ran:
    """Sends one message from stdin, without a configuration file."""
    return await _run("msmtp", f"--host={HOST}", f"--port={port}", "--debug", *arguments, stdin=content)


async def nodemailer(job: str) -> Ran:
    """Sends one message (`tests/parts/readers/send.mjs`)."""
    return await _run("node", str(_SEND), stdin=job)


async def openssl(port: int, *arguments: str, dialog: str) -> Ran:
    """Says a dialogue in TLS, all of it at once, and reads the replies. The certificate is not verified."""
    return await _run("openssl", "s_client", "-quiet", "-connect", f"{HOST}:{port}", *arguments, stdin=dialog)


async def _run(*command: str, stdin: str = "") -> Ran:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(LONGEST):
            said, _ = await process.communicate(stdin.encode())
    except TimeoutError:
        raise TimeoutError(f"{command[0]} did not end within {LONGEST:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return Ran(process.returncode or 0, said.decode(errors="replace"))
