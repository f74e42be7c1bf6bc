"""`relay sendmail`, as programs call it: with a running relay, with PHP, and without a relay."""

from __future__ import annotations

import asyncio
import math
import shlex
import sys
import time
from typing import TYPE_CHECKING

import pytest
from parts.faults import Step, say
from parts.peer import ScriptedPeer
from parts.phpmailer import send_as_avideo
from parts.ports import HOST, free_port
from parts.relay_process import Finished
from parts.shared_relay import SharedRelay
from parts.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SENDMAIL = (sys.executable, "-m", "relay", "sendmail")
MAIL = b"From: cron@example.test\nSubject: disk\n\nalmost full\n"
MOST_CALLS = 30
"""Calls of which one must be quick."""


@pytest.fixture(scope="module")
def relay() -> Iterator[SharedRelay]:
    with SharedRelay() as running:
        yield running


async def call(*arguments: str, stdin: bytes = MAIL, environment: dict[str, str] | None = None) -> Finished:
    process = await asyncio.create_subprocess_exec(
        *(*SENDMAIL, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    async with asyncio.timeout(LONGEST):
        stdout, stderr = await process.communicate(stdin)
    return Finished(process.returncode or 0, stdout.decode(), stderr.decode())


def at(relay: SharedRelay) -> tuple[str, str]:
    return "--relay", f"{HOST}:{relay.port}"


async def test_a_mail_is_forwarded_and_its_repeat_suppressed(relay: SharedRelay) -> None:
    async with relay.peer() as upstream:
        for _ in range(2):
            result = await call(*at(relay), "-f", "bounces@example.test", "a@example.test", "b@example.test")
            assert result == Finished(0, "", "")
    (mail,) = upstream.accepted
    assert mail.reverse_path == b"bounces@example.test"
    assert sorted(mail.recipients) == [b"a@example.test", b"b@example.test"]
    assert b"\r\nSubject: disk\r\n\r\nalmost full\r\n" in mail.content
    assert b"\r\nDate: " in mail.content
    assert b"\r\nMessage-ID: <" in mail.content


async def test_recipients_come_from_the_header_section(relay: SharedRelay) -> None:
    source = (
        b"To: One <t1@example.test>,\n\t(comment) t2@example.test\nCc: Friends: t3@example.test;\n"
        b"Bcc: t4@example.test\nSubject: to all\n\nhello\n"
    )
    async with relay.peer() as upstream:
        assert (await call(*at(relay), "-t", "-i", "t5@example.test", stdin=source)).status == 0
    (mail,) = upstream.accepted
    assert sorted(mail.recipients) == [b"t%d@example.test" % number for number in range(1, 6)]
    assert b"\nbcc:" not in mail.content.lower()
    assert b"t4@" not in mail.content


async def test_a_mail_to_an_address_literal(relay: SharedRelay) -> None:
    source = b"To: <u2@[IPv6:2001:db8::1]>\nSubject: literal\n\nhello\n"
    async with relay.peer() as upstream:
        result = await call(*at(relay), "-t", "-f", "u@[127.0.0.1]", "u1@[IPv6:::1]", stdin=source)
    assert result == Finished(0, "", "")
    (mail,) = upstream.accepted
    assert mail.reverse_path == b"u@[127.0.0.1]"
    assert sorted(mail.recipients) == [b"u1@[IPv6:::1]", b"u2@[IPv6:2001:db8::1]"]


async def test_a_lone_dot_ends_the_message_only_without_i(relay: SharedRelay) -> None:
    source = b"From: cron@example.test\nSubject: dots\n\nfirst\n.\nsecond\n"
    async with relay.peer() as upstream:
        for flags in (), ("-i",), ("-oi",):
            assert (await call(*at(relay), *flags, "dot@example.test", stdin=source)).status == 0
    texts = [mail.content.partition(b"\r\n\r\n")[2] for mail in upstream.accepted]
    assert texts == [b"first\r\n", b"first\r\n.\r\nsecond\r\n"], "-i and -oi send the same mail"


@pytest.mark.parametrize("mode", ["isMail", "isSendmail"])
async def test_avideo_without_smtp_settings(relay: SharedRelay, mode: str) -> None:
    command = shlex.join([*SENDMAIL, *at(relay), "-t", "-i"])
    recipients = [f"user{number}@{mode.lower()}.test" for number in range(3)]
    async with relay.peer() as upstream:
        for _ in range(2):
            results = await send_as_avideo(
                0, recipients, "New video", "<p>Grüße</p>", without_smtp=mode, sendmail=command
            )
            assert [chunk.ok for chunk in results] == [True]
    (mail,) = upstream.accepted
    assert sorted(mail.recipients) == [recipient.encode() for recipient in recipients]
    assert b"\nbcc:" not in mail.content.lower()


async def test_a_program_speaks_smtp_itself(relay: SharedRelay) -> None:
    dialog = (
        b"EHLO program\r\nMAIL FROM:<bs@example.test>\r\nRCPT TO:<c@example.test>\r\nDATA\r\n"
        b"From: bs@example.test\r\nSubject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
    async with relay.peer() as upstream:
        result = await call(*at(relay), "-bs", stdin=dialog)
    assert result.status == 0
    assert [line[:4] for line in result.stdout.splitlines()][-6:] == ["250 ", "250 ", "250 ", "354 ", "250 ", "221 "]
    assert [mail.recipients for mail in upstream.accepted] == [(b"c@example.test",)]


@pytest.mark.parametrize(
    ("step", "reply", "status"),
    [
        (Step.RCPT, b"550 5.1.1 no such user", 67),
        (Step.RCPT, b"550 5.7.1 not you", 77),
        (Step.RCPT, b"554 5.3.0 no", 69),
        (Step.DOT, b"554 5.6.0 no", 69),
        (Step.DOT, b"451 4.3.0 later", 75),
    ],
)
async def test_refusals_have_the_status_of_sysexits(relay: SharedRelay, step: Step, reply: bytes, status: int) -> None:
    source = MAIL.replace(b"disk", reply)
    async with relay.peer() as upstream:
        upstream.on(step, say(reply))
        result = await call(*at(relay), "d@example.test", stdin=source)
    assert result.status == status
    assert reply[4:].decode() in result.stderr


async def test_without_a_relay_the_caller_must_try_again() -> None:
    result = await call("--relay", f"{HOST}:{free_port()}", "e@example.test")
    assert result.status == 75
    assert result.stderr.startswith("error: no relay answers at 127.0.0.1:")
    assert result.stderr.endswith("; start it, or name its address by --relay\n")
    result = await call("--relay", "unix:/nonexistent/socket", "-bs")
    assert result.status == 75
    assert result.stdout == "421 4.3.2 The relay is not available, try again later\r\n"


async def test_without_a_relay_the_fallback_command_takes_the_mail(tmp_path: Path) -> None:
    fallback = tmp_path / "sendmail"
    fallback.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/stdin\nexit 3\n')
    fallback.chmod(0o755)
    away = ("--relay", f"{HOST}:{free_port()}", "--fallback", str(fallback))
    source = b"From: x@example.test\nBcc: g@example.test\n\nhidden\n"
    assert (await call(*away, "-t", "-f", "s@example.test", "f@example.test", stdin=source)).status == 3
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments == ["-i", "-f", "s@example.test", "--", "f@example.test", "g@example.test"]
    content = (tmp_path / "stdin").read_bytes()
    assert b"g@example.test" not in content
    assert content.endswith(b"\n\nhidden\n")
    assert b"\r" not in content
    assert (await call(*away, "-bs", stdin=b"EHLO x\r\n")).status == 3
    assert (tmp_path / "arguments").read_text() == "-bs\n"
    assert (tmp_path / "stdin").read_bytes() == b"EHLO x\r\n"


async def test_a_refusal_for_now_sends_only_those_recipients_to_the_fallback(
    relay: SharedRelay, tmp_path: Path
) -> None:
    fallback = tmp_path / "sendmail"
    fallback.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\ncat > /dev/null\n')
    fallback.chmod(0o755)
    async with relay.peer() as upstream:
        upstream.on(Step.RCPT, say(b"451 4.2.1 busy"), matching=b"h@")
        result = await call(
            *at(relay), "--fallback", str(fallback), "h@example.test", "i@example.test", stdin=MAIL + b"fallback\n"
        )
    assert result.status == 0
    assert [mail.recipients for mail in upstream.accepted] == [(b"i@example.test",)]
    assert (tmp_path / "arguments").read_text().split()[-1] == "h@example.test"


async def test_a_fallback_for_some_recipients_hides_no_permanent_refusal(relay: SharedRelay) -> None:
    async with relay.peer() as upstream:
        upstream.on(Step.RCPT, say(b"451 4.2.1 busy"), matching=b"later@")
        upstream.on(Step.RCPT, say(b"550 5.1.1 no such user"), matching=b"unknown@")
        recipients = ("later@example.test", "unknown@example.test")
        result = await call(*at(relay), "--fallback", "true", *recipients, stdin=MAIL + b"mixed\n")
    assert result.status == 67
    assert "unknown@example.test: 550" in result.stderr


async def test_a_421_to_quit_does_not_undo_an_accepted_mail() -> None:
    """A relay that begins to drain closes its idle sessions with 421."""
    async with ScriptedPeer() as relay:
        relay.on(Step.QUIT, say(b"421 4.3.2 draining"))
        arguments = ("--relay", f"{HOST}:{relay.port}", "--fallback", "false", "q@example.test")
        assert await call(*arguments) == Finished(0, "", "")
    assert [mail.recipients for mail in relay.accepted] == [(b"q@example.test",)]


async def test_a_from_field_is_made_of_any_name_and_address(relay: SharedRelay) -> None:
    source = b"Subject: names\n\nx\n"
    async with relay.peer() as upstream:
        for name, sender in (
            ("J\u00fcrgen", "a@example.test"),
            ("\udcfc", "j\u00fcrgen@example.test"),
            ("A\nB: c", "b@x.test"),
        ):
            assert await call(*at(relay), "-F", name, "-f", sender, "n@example.test", stdin=source) == Finished(
                0, "", ""
            )
    found = [mail.content.partition(b"From: ")[2].partition(b"\r\n")[0] for mail in upstream.accepted]
    assert found == [
        b"=?utf-8?q?J=C3=BCrgen?= <a@example.test>",
        "=?utf-8?b?77+9?= <j\u00fcrgen@example.test>".encode(),
        b'"A B: c" <b@x.test>',
    ]


async def test_a_closed_stdin_is_explained() -> None:
    command = f"{shlex.join(SENDMAIL)} --relay {HOST}:1 x@example.test <&-"
    process = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (65, b"error: stdin is closed; pass the message there\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "says"),
    [
        (("-t",), b"Subject: nobody\n\n", 65, "no recipient"),
        ((), MAIL, 64, "no recipient"),
        (("--", "-oQ/tmp"), MAIL, 65, "'-oQ/tmp' is no mail address"),
        (("-t",), b"To: -oQ/tmp@example.test\n\n", 65, "is no mail address"),
        (("-f", "a b@example.test", "x@example.test"), MAIL, 65, "'a b@example.test' is no mail address"),
        (("-t",), b"To: \xff@example.test\n\n", 65, "is no mail address"),
        (("--relay", ".x.:25", "x@example.test"), MAIL, 75, "no relay answers at .x.:25"),
        (("-bp",), b"", 64, "-bp is not supported; call the mail server's own sendmail for it"),
        (("-q",), b"", 64, "-q is not supported; call the mail server's own sendmail for it"),
        (("-q15m",), b"", 64, "-q15m is not supported; call the mail server's own sendmail for it"),
        (("-N", "always", "x@example.test"), MAIL, 64, "write never, or some of"),
        (("--unknown",), b"", 64, "No such option"),
        (("--relay", "nowhere", "x@example.test"), MAIL, 64, "write HOST:2525 or unix:PATH"),
    ],
)
async def test_wrong_arguments_and_mails_are_explained(
    arguments: tuple[str, ...], stdin: bytes, status: int, says: str
) -> None:
    result = await call(*arguments, stdin=stdin)
    assert result.status == status
    assert says in result.stderr
    assert "Traceback" not in result.stderr


async def test_it_is_quick(relay: SharedRelay) -> None:
    """The bound for users is 0.15 s on a machine at rest."""
    async with relay.peer():
        durations = [math.inf]
        # On a busy machine most calls wait for a core. One that does not is enough.
        while min(durations) >= 3 * 0.15 and len(durations) <= MOST_CALLS:
            start = time.monotonic()
            assert (await call(*at(relay), "j@example.test", stdin=MAIL + b"%d" % len(durations))).status == 0
            durations.append(time.monotonic() - start)
    assert min(durations) < 3 * 0.15
