"""The files in `config/postfix/`, with the ports of a test in place of theirs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parents[2] / "config" / "postfix"
RELAY, FILTERED, RETURNED, MTA = 2525, 10025, 10026, 25
"""The ports in the files: the relay's, those of Postfix before and after the relay, and that of an MTA."""


def lines(wiring: str, name: str, ports: Mapping[int, int]) -> list[str]:
    """Returns the lines of a file; none if the wiring needs no such file."""
    file = FOLDER / wiring / name
    if not file.exists():
        return []
    text = file.read_text("utf-8")
    for port, replacement in ports.items():
        text = re.sub(rf"(?<=:){port}\b", str(replacement), text)
    return text.splitlines()


def write_relay_settings(wiring: str, folder: Path, ports: Mapping[int, int]) -> tuple[Path, str]:
    """Writes relay.toml to a folder. Returns its path and its `upstream.url`."""
    text = "\n".join(lines(wiring, "relay.toml", ports))
    path = folder / "relay.toml"
    path.write_text(text, "utf-8")
    url: str = tomllib.loads(text)["upstream"]["url"]
    return path, url
