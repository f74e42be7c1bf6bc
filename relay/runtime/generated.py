"""Files of the project that a command generates from the code: writes them, or checks that they are up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def run_generator(
    module: str, description: str | None, files: Mapping[str, Callable[[], str]], arguments: Sequence[str] | None
) -> None:
    """Writes files below the project's root, or with `--check` ends with 1 and names those that are out of date.

    `files` maps a path below the root to what returns its text. `module` is the name after `python -m`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("root", type=Path, help="the project's root folder")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name, make_text in files.items():
        path, text = options.root / name, make_text()
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `python -m {module} .`")
