"""Foreign SMTP clients as programs: swaks, and Postfix's smtp-source."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass

from parts.ports import HOST
from parts.waiting import LONGEST


@dataclass(frozen=True)
class Ran:
    """A program that has ended, and what it said on both outputs."""

    status: int
    said: str


async def swaks(port: int, *arguments: str) -> Ran:
    """Send one message; `said` is the dialogue, lines of the server with an arrow to the left."""
    return await _run("swaks", "--server", f"{HOST}:{port}", *arguments)


async def smtp_source(port: int, *arguments: str) -> Ran:
    """Send many messages; it ends with an error at the first reply that is not the expected one."""
    return await _run("smtp-source", *arguments, f"inet:{HOST}:{port}")


async def _run(*command: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(LONGEST):
            said, _ = await process.communicate()
    except TimeoutError:
        raise TimeoutError(f"{command[0]} did not end within {LONGEST:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return Ran(process.returncode or 0, said.decode(errors="replace"))
