"""`relay config`, and the flags that it shares with `serve` and `check`."""

from __future__ import annotations

import errno
import os
import tomllib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.settings import sources

if TYPE_CHECKING:
    from pathlib import Path


def _run(*arguments: str, **environ: str) -> Result:
    # An empty file, so that this machine's settings file is not read.
    return CliRunner().invoke(main, ["config", *arguments], env={"RELAY_CONFIG": os.devnull, **environ})


def test_the_result_is_toml_on_stdout() -> None:
    result = _run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert tomllib.loads(result.stdout)["dedup"]["window"] == "10m"


def test_every_flag_sets_its_key(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[limits]\nsessions = 5\n")
    flags = {
        "--config": str(file),
        "--listen": "127.0.0.1:1",
        "--upstream": "smtp://h:2",
        "--store": "sqlite:/s.db",
        "--window": "1h",
        "--http": "",
        "--set": "limits.recipients=7",
    }
    result = _run(*(word for pair in flags.items() for word in pair), "--observe", "--set", "log.level = debug")
    tables = tomllib.loads(result.stdout)
    assert tables["limits"]["sessions"] == 5
    assert tables["listen"]["address"] == "127.0.0.1:1"
    assert tables["upstream"]["url"] == "smtp://h:2"
    assert tables["store"]["url"] == "sqlite:/s.db"
    assert (tables["dedup"]["window"], tables["dedup"]["mode"]) == ("1h", "observe")
    assert tables["http"]["address"] == ""
    assert (tables["limits"]["recipients"], tables["log"]["level"]) == (7, "debug")


def test_the_environment_is_read() -> None:
    assert 'wait = "3m"  # environment RELAY_DEDUP__WAIT' in _run(RELAY_DEDUP__WAIT="3m").stdout


def test_the_rules_of_presets_are_shown_as_comments() -> None:
    text = _run().stdout
    assert '# [[rules]]  # preset avideo\n# name = "avideo: password recovery"\n' in text
    assert '# [[ignore]]  # preset avideo\n# name = "avideo: image cache"\n' in text
    assert "avideo:" not in _run("--set", "dedup.presets=").stdout


def test_every_kind_of_ignore_is_shown_as_written(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    written = (
        "header = 'x-campaign'\n",
        "calendar = 'DTSTAMP'\n",
        "pdf = 'metadata'\n",
        "part_parameter = 'creation-date'\n",
        "content_id = 'comment'\n",
    )
    file.write_text("".join(f"[[ignore]]\n{each}" for each in written))
    result = _run("-c", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert tomllib.loads(result.stdout)["ignore"] == tomllib.loads(file.read_text())["ignore"]


def test_a_wrong_rule_ends_with_78_and_names_rule_key_and_part(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[[rules]]\nname = 'mine'\nsubject = ['a', '(?i)(foo']\naction = 'exempt'\n")
    result = _run("-c", str(file))
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == (
        f"error: rule 1 \"mine\" (file {file}): subject = ['a', '(?i)(foo']: missing ) at \"(?i)(foo\"\n"
    )


def test_warnings_go_to_stderr() -> None:
    result = _run("--window", "5s")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: dedup.window is 5s")
    assert "warning" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "600"], 'dedup.window = "600" (flag --window): "600" has no unit; write "600s" or "10m"\n'),
        (["--set", "dedup.windw=1"], "dedup.windw (flag --set): unknown key; did you mean dedup.window?\n"),
        (["--set", "dedup.window 1h"], '--set dedup.window: "=" is missing; write --set SECTION.KEY=VALUE\n'),
        (
            ["--set", 'http.address=""'],
            r'http.address = "\"\"" (flag --set): the port is missing; write HOST:PORT, for example "127.0.0.1:9625"',
        ),
        (["-c", "/nowhere.toml"], "settings file /nowhere.toml: No such file or directory; name a file that exists"),
    ],
)
def test_wrong_settings_end_with_78_and_name_the_remedy(arguments: list[str], message: str) -> None:
    result = _run(*arguments)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1", "redis://127.0.0.1"])
def test_a_settings_file_with_a_password_that_every_user_can_read_is_a_warning(tmp_path: Path, url: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'[store]\nurl = "{url}"\n')
    file.chmod(0o644)
    warning = f"warning: settings file {file}: every user of this host can read it and the password in store.url; "
    shown = _run("-c", str(file), "--set", "record.addresses=true").stderr
    assert (warning in shown) == ("secret" in url)
    assert "secret@" not in shown
    assert warning not in _run("-c", str(file), "--store", "memory:").stderr
    file.chmod(0o640)
    assert warning not in _run("-c", str(file)).stderr


def test_a_settings_file_that_may_not_be_read_ends_with_78(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who can read every file.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = tmp_path / "relay.toml"
    file.touch()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(type(file), "read_text", refuse)
    for result in (_run("-c", str(file)), _run(RELAY_CONFIG=str(file))):
        assert result.exit_code == 78
        assert result.stderr == (
            f"error: settings file {file}: Permission denied; name a file that exists and that this user may read\n"
        )


def test_the_help_shows_an_example_and_every_flag() -> None:
    text = _run("--help").stdout
    assert "  relay config -c /etc/smtp-dedup-relay/relay.toml --set dedup.window=1h\n" in text
    assert all(f"{flag} " in text for flag in (*sources.OPTIONS, "--config", "--set"))
