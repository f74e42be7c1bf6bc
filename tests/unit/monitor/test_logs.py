"""The log of a running relay: one line for each message, for machines or for people, and nobody's address in it."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

import pytest
from parts.avideo import notification
from parts.client import RawClient, send
from parts.faults import Step, say, say_and_drop
from parts.logged import lines, messages, wait_logged, wait_messages

from relay.core.redact import without_addresses
from relay.monitor.logs import HumanFormatter, JsonFormatter

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer

SENDER, USER, OTHER = b"sender@example.test", b"user@example.test", b"other@example.test"
MAIL = b"Message-ID: <1@site.example>\r\nSubject: x\r\n\r\nhello\r\n"


async def test_each_message_has_one_line_that_says_what_became_of_it(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    relay = await start_relay(upstream=peer.url)
    first = await send(relay.port, SENDER, [USER], MAIL)
    again = await send(relay.port, SENDER, [USER, OTHER], MAIL)
    peer.on(Step.DOT, say(b"554 5.7.1 no"))
    await send(relay.port, SENDER, [USER], MAIL + b"more")
    await send(relay.port, SENDER, [USER], notification())
    [one, two, three, four] = await wait_messages(relay, 4)
    assert one["recipients"] == {"forwarded": 1}
    assert (one["reply"], one["reply_text"]) == (250, first.final.text.decode())
    assert (one["message_id"], one["size_bytes"], one["peer"]) == ("<1@site.example>", len(MAIL), "127.0.0.1")
    assert 0 < one["seconds"] < 30
    assert two["recipients"] == {"suppressed": 1, "forwarded": 1}
    assert two["reply_text"] == again.final.text.decode()
    [repeat] = two["repeats"]
    assert (repeat["record"], repeat["message_id"]) == (one["record"], "<1@site.example>")
    assert 0 <= repeat["age_seconds"] < 30
    assert (three["reply"], three["recipients"]) == (554, {"refused": 1})
    assert "repeats" not in four
    assert len({line["record"] for line in (one, two, three, four)}) == 4
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines(relay))
    # The record is in the message itself too, for whoever holds only that.
    assert one["record"].encode() in peer.accepted[0].content


@pytest.mark.parametrize("shown", [False, True], ids=["without addresses", "with addresses"])
async def test_addresses_are_written_only_where_the_operator_wants_them(
    start_relay: StartRelay, peer: ScriptedPeer, shown: bool
) -> None:
    relay = await start_relay(
        upstream=peer.url, settings={"log.addresses": str(shown).lower(), "upstream.patience": "0s"}
    )
    peer.on(Step.DOT, say(b"554 5.7.1 <user@example.test>: refused for sender@example.test"))
    sent = await send(relay.port, SENDER, [USER, OTHER], MAIL)
    # The client hears all of it.
    assert sent.final.text == b"5.7.1 <user@example.test>: refused for sender@example.test"
    peer.on(Step.RCPT, say_and_drop(b"421 4.7.0 user@example.test, later"), times=None)
    await send(relay.port, SENDER, [USER], MAIL)
    await wait_logged(relay, "no transaction with the upstream could begin")
    log = relay.stderr()
    assert ("user@example.test" in log, "sender@example.test" in log, "other@example.test" in log) == (shown,) * 3
    [line] = messages(relay)
    if shown:
        assert line["from"] == SENDER.decode()
        assert line["to"] == {USER.decode(): "refused", OTHER.decode(): "refused"}
    else:
        assert line["reply_text"] == "5.7.1 <address>: refused for <address>"
        assert not {"from", "to"} & line.keys()


async def test_a_client_that_leaves_in_its_content_has_a_line(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    async with await RawClient.open(relay.port) as client:
        await client.begin(SENDER, USER)
        assert (await client.command(b"DATA")).code == 354
        await client.send_raw(b"Subject: half")
    await wait_logged(relay, "client left before the final dot")
    assert (await relay.metrics()).messages() == {"aborted": 1}
    assert messages(relay) == []


@pytest.mark.parametrize("shown", [False, True], ids=["without addresses", "with addresses"])
async def test_who_is_refused_at_rcpt_has_a_line(start_relay: StartRelay, peer: ScriptedPeer, shown: bool) -> None:
    """Where all are refused there is no message, and nothing else that an operator could find."""
    relay = await start_relay(
        upstream=peer.url, settings={"log.addresses": str(shown).lower(), "upstream.patience": "0s"}
    )
    peer.on(Step.RCPT, say(b"550 5.1.1 <user@example.test>: unknown"))
    async with await RawClient.open(relay.port) as client:
        await client.begin(SENDER, USER, USER, OTHER)
        await client.command(b"RSET")
        await peer.stop()
        assert (await client.begin(SENDER, OTHER))[0].code == 451
    await wait_logged(relay, '"reply": 451')
    refused, down = [line for line in lines(relay) if line["event"] == "recipient refused"]
    assert (refused["level"], refused["reply"], refused["peer"]) == ("info", 550, "127.0.0.1")
    assert re.fullmatch("[0-9a-f]{12}", refused["record"])
    assert down["record"] != refused["record"]
    assert down["reply_text"].startswith("4.4.1 ")
    assert refused["reply_text"] == f"5.1.1 {'<user@example.test>' if shown else '<address>'}: unknown"
    assert ("user@example.test" in relay.stderr()) == shown
    assert [line.get("to") for line in (refused, down)] == ([USER.decode(), OTHER.decode()] if shown else [None] * 2)
    assert (await relay.metrics()).value("smtp_dedup_rcpt_refused_total") == 2


async def test_the_first_line_names_all_upstreams(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.fallback_urls": "smtp://mail2.example.test"})
    await wait_logged(relay, '"serving"')
    [serving] = [line for line in lines(relay) if line["event"] == "serving"]
    assert (serving["upstream"], serving["fallback_upstreams"]) == (peer.url, ["smtp://mail2.example.test:25"])


async def test_people_read_a_sentence_a_line(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = await start_relay(upstream=f"maildir:{tmp_path}/mail", settings={"log.format": "human"})
    for _ in range(2):
        assert (await send(relay.port, SENDER, [USER], MAIL)).ok
    await wait_logged(relay, "suppressed:1")
    told = [line for line in relay.stderr().splitlines() if " message " in line]
    assert len(told) == 2
    assert re.fullmatch(
        r"\S+Z message record=\w+ reply=250 reply_text=\"2\.0\.0 Ok: queued as \S+\" recipients=forwarded:1 "
        r"size_bytes=\d+ seconds=[\d.]+ message_id=<1@site\.example> peer=127\.0\.0\.1",
        told[0],
    )
    assert re.search(r"repeats=record:\w+,message_id:<1@site\.example>,age_seconds:[\d.]+$", told[1])
    assert "\x1b" not in relay.stderr()


def _record(text: str, fields: dict[str, object], error: Exception | None = None) -> logging.LogRecord:
    caught = (type(error), error, None) if error else None
    record = logging.LogRecord("relay", logging.WARNING, "", 0, text, None, caught)
    record.fields = fields
    return record


@pytest.mark.parametrize("formatter", [HumanFormatter(addresses=True), JsonFormatter(addresses=True)])
def test_what_others_say_stays_in_its_line_and_its_field(formatter: logging.Formatter) -> None:
    evil = "a\x1b[2J\x85b\u2028c\nd\re\x7f\u202ef\udc80"
    line = formatter.format(_record(evil, {"reply_text": evil, "to": {evil: "forwarded"}}))
    assert line.isprintable()
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["to"] == {evil: "forwarded"}
        assert json.loads(line)["event"] == evil
    else:
        assert r"warning: a\x1b[2J\x85b\u2028c\nd\re\x7f\u202ef\udc80 reply_text=" in line


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("answered 550\r\n  a@b.example:\tno", "answered 550 <address>: no"),
        (
            FileNotFoundError(2, "No such file or directory", "/certificate.pem"),
            "No such file or directory: /certificate.pem",
        ),
        (OSError("half a sentence"), "half a sentence"),
        (TimeoutError(), "TimeoutError()"),
        ("ab " * 70_000, ("ab " * 400)[:1000]),
    ],
)
def test_an_error_is_one_short_line_without_addresses(error: object, shown: str) -> None:
    fields = {"error": error, "after": "1"}
    assert json.loads(JsonFormatter(addresses=False).format(_record("oh", fields)))["error"] == shown
    assert " ".join(HumanFormatter(addresses=False).format(_record("oh", fields)).split()[2:]) in (
        f"oh error={shown} after=1",
        f'oh error="{shown}" after=1',
    )


def test_only_plain_values_and_keys_go_without_quotes() -> None:
    fields = {
        "a": 'x" y=1',
        "b": "x,y",
        "c": "",
        "d": "<ä.1+2@x/y:z>",
        "to": {'"a:forwarded b"@x': "forwarded", "a:refused,b@x": "forwarded", "ä@x": "forwarded"},
        "list": ["one", "t;wo"],
        "none": {},
    }
    line = HumanFormatter(addresses=True).format(_record("event", fields))
    assert line.partition("event ")[2] == (
        r'a="x\" y=1" b="x,y" c="" d=<ä.1+2@x/y:z> '
        r'to="\"a:forwarded b\"@x":forwarded,"a:refused,b@x":forwarded,ä@x:forwarded list=one;"t;wo" none=-'
    )


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    line = HumanFormatter(addresses=True).format(_record("oh", {}, ValueError("a\x1b[2J\u2028")))
    assert line.split("\n")[1:] == [r"ValueError: a\x1b[2J\u2028"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("550 <a.b+c@example.test>: unknown", "550 <address>: unknown"),
        ("ask post@example.test, or x@y; (z@w) 'q@r'", "ask <address>, or <address>; <address>) <address>'"),
        ('"odd name"@example.test gone', "<address> gone"),
        ("user@[IPv6:2001:db8::1] gone", "<address> gone"),
        ("jörg@bücher.example: später", "<address>: später"),
        ("nobody here at all @ noon", "nobody here at all @ noon"),
    ],
)
def test_addresses_are_found_in_sentences(text: str, left: str) -> None:
    assert without_addresses(text) == left
