"""What stands around the command: the systemd unit, and what `make test` says to those who cannot run it."""

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


def unit() -> dict[str, str]:
    """Give the values of the unit by their names."""
    text = (_TREE / "systemd" / "smtp-dedup-relay.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_systemd_starts_it_again_for_ever_unless_the_settings_are_wrong() -> None:
    values = unit()
    assert (values["Restart"], values["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert values["RestartPreventExitStatus"] == str(EX_CONFIG)


def test_systemd_waits_for_every_drain_that_is_not_warned_of() -> None:
    assert int(unit()["TimeoutStopSec"]) > LONG_DRAIN


def test_systemd_reads_the_passwords_beside_the_settings() -> None:
    assert unit()["EnvironmentFile"] == f"-{DEFAULT_FILE.with_name('environment')}"


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_who_is_not_root_hears_at_once_how_to_test(arguments: list[str]) -> None:
    with (_TREE / "tests" / "needs.sh").open() as script:
        told = subprocess.run(
            ["sh", "-s", "--", *arguments], stdin=script, capture_output=True, text=True, user=_NOBODY, check=False
        )
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == "The tests start a Postfix, and Postfix starts as root only:\n    sudo make test\n"
