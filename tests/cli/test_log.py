"""`relay log`, on stores that the tests have filled."""

from __future__ import annotations

import json

import pytest
from parts.store_folder import NOW, OTHER, StoreFolder, record, repeat

from relay.cli.log import new_traces
from relay.core.errors import AdminError, StoreError
from relay.core.trace import RecipientTrace, TraceOutcome, TracePage, TraceQuery

BOTH = (RecipientTrace("h:a", TraceOutcome.FORWARDED, "250 Ok"), RecipientTrace("h:b", TraceOutcome.REFUSED, "550 no"))


@pytest.fixture
def filled(folder: StoreFolder) -> StoreFolder:
    folder.fill(
        record("000000000001", *BOTH, at=NOW - 7200, reply="450 4.5.0 some"),
        record("000000000002", repeat("h:a", rule="codes"), at=NOW - 100, reply="250 Ok", peer="192.0.2.1", size=4213),
        record("000000000003", *BOTH, at=NOW - 50, reply="450 4.5.0 some"),
        record("000000000004", RecipientTrace("h:c", TraceOutcome.RCPT_REFUSED, "550 5.1.1 no"), at=NOW - 10),
    )
    return folder


def ids(folder: StoreFolder, *flags: str) -> list[str]:
    return [json.loads(line)["id"][-1] for line in folder.call("log", "--json", *flags).stdout.splitlines()]


def test_each_message_is_one_line_and_the_latest_is_last(filled: StoreFolder) -> None:
    result = filled.call("log", "--since", "1d")
    lines = [line.split("  ", 1)[1] for line in result.stdout.splitlines()]
    assert lines == [
        "000000000001                           0 B  1 forwarded, 1 refused  450 4.5.0 some",
        "000000000002  192.0.2.1             4213 B  1 suppressed  250 Ok",
        "000000000003                           0 B  1 forwarded, 1 refused  450 4.5.0 some",
        "000000000004                           0 B  1 rcpt_refused  550 5.1.1 no",
    ]
    assert result.stderr == "4 messages in the last 24 h\n"


def test_flags_select_messages(filled: StoreFolder) -> None:
    assert ids(filled) == ["2", "3", "4"]
    assert ids(filled, "--since", "1d", "--outcome", "refused") == ["1", "3"]
    assert ids(filled, "--outcome", "suppressed", "--outcome", "rcpt_refused") == ["2", "4"]
    assert ids(filled, "--to", "h:a") == ["2", "3"]
    assert ids(filled, "--to", "h:a", "--outcome", "suppressed") == ["2"]
    assert ids(filled, "--rule", "codes") == ["2"]
    assert ids(filled, "--to", "nobody@example.test") == []


def test_all_pages_are_read(folder: StoreFolder) -> None:
    folder.fill(*(record(f"{number:012x}", repeat("h:a", OTHER)) for number in range(250)))
    assert len(ids(folder)) == 250


def test_a_store_without_traces_says_so(folder: StoreFolder) -> None:
    folder.fill()
    result = folder.call("log", "--set", "record.keep_for=0")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "0 messages in the last 1 h; record.keep_for is 0, so no traces are kept\n"
    result = folder.call("log", "--set", "record.trace=repeats")
    assert result.stderr == "0 messages in the last 1 h; only repeats leave a trace (record.trace)\n"


@pytest.mark.parametrize("flags", [("--outcome", "lost"), ("--since", "soon"), ("--to", "")])
def test_wrong_flags_are_errors(folder: StoreFolder, flags: tuple[str, str]) -> None:
    result = folder.call("log", *flags)
    assert (result.exit_code, result.stdout) == (2, "")


class Restarted:
    """What a command sees of a relay that restarts: answers, or errors in place of one."""

    def __init__(self, *answers: TracePage | Exception) -> None:
        self._answers = iter(answers)

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        del query, limit, start
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_following_goes_on_after_a_restart_of_the_relay(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (record(f"00000000000{number}", *BOTH, at=NOW + number) for number in (1, 2))
    away = AdminError("no relay listens on admin.socket /run/admin.sock")
    source = Restarted(TracePage((old,)), away, StoreError("broke off"), TracePage((new, old)))
    found = new_traces(source, TraceQuery(), {}, every=0)  # type: ignore[arg-type]
    assert [await anext(found), await anext(found)] == [old, new]
    assert capsys.readouterr().err.splitlines() == [
        "note: no relay listens on admin.socket /run/admin.sock; waiting until it does",
        "note: the traces can be read again",
    ]
