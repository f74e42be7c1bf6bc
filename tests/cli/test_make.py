"""What `make` says where the machine lacks something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TREE = Path(__file__).parents[2]


def make(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `make demo` with another Python and without an environment."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "demo", f"PYTHON={python}", f"VENV={folder / 'venv'}"]
    return subprocess.run(command, cwd=_TREE, env=environ, capture_output=True, text=True, check=False)


def test_a_python_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    told = make(tmp_path / "python3", tmp_path)
    assert told.returncode == 2
    assert f"{tmp_path}/python3 is missing. On Debian or Ubuntu: sudo apt-get install python3-venv\n" in told.stderr


def test_a_python_without_venv_is_named_with_its_package(tmp_path: Path) -> None:
    python = tmp_path / "python3.12"
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = make(python, tmp_path)
    assert told.returncode == 2
    assert f"{python} has no venv module. On Debian or Ubuntu: sudo apt-get install python3.12-venv\n" in told.stderr
    assert not (tmp_path / "venv").exists()
