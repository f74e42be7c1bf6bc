"""The systemd unit, and what `make test` reports to a user who cannot run it."""

from __future__ import annotations

import difflib
import re
import subprocess
from pathlib import Path

import pytest

from relay.cli.exit_status import EX_CONFIG
from relay.settings import load
from relay.settings.places import DEFAULT_FILE
from relay.settings.warnings import LONG_DRAIN

_TREE = Path(__file__).parents[2]
_NOBODY = 65534
"""The user ID of `nobody`."""


def unit_lines(name: str) -> list[str]:
    """Returns the lines of a unit without its comments."""
    lines = (_TREE / "systemd" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def unit() -> dict[str, str]:
    """Returns the values of the unit by their names."""
    return dict(re.findall(r"^(\w+)=(.*)$", "\n".join(unit_lines("smtp-dedup-relay.service")), re.MULTILINE))


def test_an_instance_differs_from_the_first_process_in_what_it_must() -> None:
    units = unit_lines("smtp-dedup-relay.service"), unit_lines("smtp-dedup-relay@.service")
    changed = [line for line in difflib.ndiff(*units) if line.startswith(("-", "+"))]
    assert {re.sub(r"^[+-] (\w+)=.*", r"\1", line) for line in changed} == {
        "Description", "Requires", "After", "Sockets", "Environment", "RuntimeDirectory", "Slice",
    }  # fmt: skip
    assert "+ Sockets=smtp-dedup-relay.socket" in changed
    environ = dict(re.findall(r"^\+ Environment=(\w+)=(.*)$", "\n".join(changed).replace("%i", "2"), re.MULTILINE))
    settings = load(None, {}, environ, default_file=_TREE / "missing").settings
    assert (str(settings.http.address), settings.listen.reuse_port) == ("127.0.0.2:9625", True)


def test_systemd_restarts_it_always_unless_the_settings_are_wrong() -> None:
    values = unit()
    assert (values["Restart"], values["StartLimitIntervalSec"]) == ("always", "0")
    assert values["RestartPreventExitStatus"] == str(EX_CONFIG)


def test_no_start_of_a_process_makes_the_shared_socket_block_the_others() -> None:
    assert unit()["NonBlocking"] == "yes"


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
