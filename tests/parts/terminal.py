"""Commands of the relay on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

_TREE = Path(__file__).parents[2]


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """Runs a command on a pseudo-terminal and returns its output."""
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environment
    command = [sys.executable, "-m", "relay", *map(str, arguments)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ, cwd=_TREE) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        process.wait()
    os.close(ours)
    return shown.decode()


def _read(ours: int) -> bytes:
    """Reads from the terminal. Linux raises EIO when the other end is closed."""
    try:
        return os.read(ours, 65536)
    except OSError:
        return b""
