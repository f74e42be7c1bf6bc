"""`relay forget` on stores that the tests have filled."""

from __future__ import annotations

import pytest
from parts.store_folder import OTHER, StoreFolder, record, repeat


def test_an_accepted_message_is_freed_for_all_its_recipients(folder: StoreFolder) -> None:
    folder.fill(sent=[folder.sent("k1"), folder.sent("k2"), folder.sent("k3", OTHER)])
    result = folder.call("forget", "aaaaaaaaaaaa")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "forgot 2 acceptances\n", "")
    result = folder.call("forget", "aaaaaaaaaaaa")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: nothing that was sent is remembered for aaaaaaaaaaaa: ")
    assert result.stderr.endswith("its window is over, or it was forgotten before\n")
    assert folder.call("forget", "other@example.test").stdout == "forgot 1 acceptance\n"


@pytest.mark.parametrize("what", ["000000000001", "000000000001@example.test"])
def test_a_suppressed_message_frees_what_it_repeats(folder: StoreFolder, what: str) -> None:
    folder.fill(
        record("000000000001", repeat("h:a", fingerprint="k1")),
        record("000000000002", repeat("h:b", fingerprint="k2")),
        sent=[folder.sent("k1"), folder.sent("k2")],
    )
    assert folder.call("forget", what).stdout == "forgot 1 acceptance\n"
    assert folder.call("forget", "--all").stdout == "forgot 1 acceptance\n"
    assert folder.call("why", "000000000001").exit_code == 0


@pytest.mark.parametrize("what", ["Alice@Example.test", "name"])
def test_a_recipient_is_freed(folder: StoreFolder, what: str) -> None:
    folder.fill(sent=[folder.sent(f"k{number}", to=f"{who}@example.test") for number, who in enumerate(["alice"] * 3)])
    folder.fill(sent=[folder.sent("k9", to="bob@example.test")])
    result = folder.call("forget", folder.name("alice@example.test") if what == "name" else what)
    assert result.stdout == "forgot 3 acceptances\n"


def test_acceptances_are_freed_by_age_or_all_of_them(folder: StoreFolder) -> None:
    folder.fill(sent=[folder.sent(f"k{age}", age=age) for age in (1.0, 100.0, 400.0)])
    assert folder.call("forget", "--since", "10s").stdout == "forgot 1 acceptance\n"
    assert folder.call("forget", "--since", "5m", "--dry-run").stdout == "would forget 1 acceptance\n"
    assert folder.call("forget", "--all", "--dry-run").stdout == "would forget 2 acceptances\n"
    assert folder.call("forget", "--all").stdout == "forgot 2 acceptances\n"
    result = folder.call("forget", "--all")
    assert (result.exit_code, result.stdout) == (0, "forgot 0 acceptances\n")


@pytest.mark.parametrize("arguments", ["", "0123456789ab --all", "--since 1h --all", "a@b --since 1h", "a@b c@d"])
def test_exactly_one_selection_is_accepted(folder: StoreFolder, arguments: str) -> None:
    folder.fill(sent=[folder.sent("k1")])
    result = folder.call("forget", *arguments.split())
    assert result.exit_code == 2
    assert "Give one of these: " in result.stderr or "unexpected extra argument" in result.stderr
    assert folder.call("forget", "--all").stdout == "forgot 1 acceptance\n"


@pytest.mark.parametrize("what", ["", " "])
def test_an_empty_argument_is_an_error(folder: StoreFolder, what: str) -> None:
    result = folder.call("forget", what)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "it is empty; write NAME@DOMAIN, the 12 hexadecimal digits of a trace, or <MESSAGE-ID>" in result.stderr


def test_an_argument_of_no_known_form_is_an_error(folder: StoreFolder) -> None:
    result = folder.call("forget", "not-an-address")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'not-an-address' is no address, id or Message-ID; write NAME@DOMAIN" in result.stderr
    assert folder.call("forget", "postmaster").exit_code == 1
    assert folder.call("forget", "<of-an-odd-sender>").exit_code == 1


def test_control_characters_in_arguments_are_escaped(folder: StoreFolder) -> None:
    folder.fill(sent=[folder.sent("k1")])
    for what, status in (("\x1b]0;x\x07", 2), ("\x1b]0;x\x07@", 1)):
        result = folder.call("forget", what)
        assert result.exit_code == status
        assert "\\x1b]0;x\\x07" in result.stderr


@pytest.mark.parametrize("command", ["suppressed", "forget"])
def test_a_wrong_duration_is_an_error_with_its_remedy(folder: StoreFolder, command: str) -> None:
    result = folder.call(command, "--since", "soon")
    assert result.exit_code == 2
    assert "Invalid value for '--since': not a duration; write for example \"10m\"" in result.stderr
    result = folder.call(command, "--since", "-1h")
    assert result.exit_code == 2
    assert "Invalid value for '--since': negative; write \"1h\"" in result.stderr
