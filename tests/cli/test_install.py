"""The systemd unit, and what `make test` reports to a user who cannot run it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from relay.cli.exit_status import EX_CONFIG
from relay.settings.sources import DEFAULT_FILE
from relay.settings.warnings import LONG_DRAIN

_TREE = Path(__file__).parents[2]
_NOBODY = 65534
"""The user ID of `nobody`."""


def unit() -> dict[str, str]:
    """Return the values of the unit by their names."""
    text = (_TREE / "systemd" / "smtp-dedup-relay.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_systemd_restarts_it_always_unless_the_settings_are_wrong() -> None:
    values = unit()
    assert (values["Restart"], values["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert values["RestartPreventExitStatus"] == str(EX_CONFIG)


def test_systemd_waits_for_every_drain_without_a_warning() -> None:
    assert int(unit()["TimeoutStopSec"]) > LONG_DRAIN


def test_systemd_reads_passwords_from_a_file_beside_the_settings() -> None:
    assert unit()["EnvironmentFile"] == f"-{DEFAULT_FILE.with_name('environment')}"


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_user_who_is_not_root_is_shown_how_to_run_the_tests(arguments: list[str]) -> None:
    with (_TREE / "tests" / "needs.sh").open() as script:
        result = subprocess.run(
            ["sh", "-s", "--", *arguments], stdin=script, capture_output=True, text=True, user=_NOBODY, check=False
        )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "The tests start a Postfix, and Postfix starts as root only:\n    sudo make test\n"
