"""Command injection: no octet of a client becomes a command, a header field or a log line of its own."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient
from parts.peer import ScriptedPeer
from parts.peer_session import EXTENSIONS

if TYPE_CHECKING:
    from conftest import StartRelay

EVIL = b"X-Evil: 1"
OCTETS = [
    *(bytes([octet]) for octet in (*range(32), 127, 128, 133, 155, 160, 255)),
    *(b"\r\n", b"\n\r", b"\r\r\n", b"\0\r\n", b"\xc2\x85", b"\xe2\x80\xa8", b"\\\r", b'"\r', b"%0D%0A", b"+0D+0A"),
]
PLACES = [
    b"EHLO client%s",
    b"XFORWARD NAME=a%s ADDR=192.0.2.1",
    b"XFORWARD ADDR=192.0.2.1%s",
    b"XFORWARD HELO=a%s IDENT=b%s",
    b"MAIL FROM:<a%s@example.test>",
    b'MAIL FROM:<"a%s"@example.test>',
    b"MAIL FROM:<@relay%s:a@example.test>",
    b"MAIL FROM:a%s",
    b"MAIL FROM:<a@example.test> SIZE=1%s",
    b"MAIL FROM:<a@example.test> BODY=8BITMIME%s",
    b"MAIL FROM:<a@example.test> ENVID=a%s",
    b"MAIL FROM:<a@example.test> AUTH=a%s",
    b"RCPT TO:<b%s@example.test>",
    b'RCPT TO:<"b%s"@example.test>',
    b"RCPT TO:<b@example.test> ORCPT=rfc822;a%s",
    b"RCPT TO:<b@example.test> NOTIFY=NEVER%s",
    b"NOOP%s",
    b"VRFY %s",
]
_PATH = rb"<[^\x00-\x1f\x7f]*>(?: [!-~\x80-\xff]+)*"
_COMMAND = re.compile(rb"EHLO [!-~]+|MAIL FROM:" + _PATH + rb"|RCPT TO:" + _PATH + rb"|DATA|\.|RSET|NOOP|QUIT")
_CONTENT = re.compile(rb"Received: [ -~]+(?:\r\n\t[ -~]+)+\r\nSubject: [0-9]+\r\n\r\nx\r\n")


async def send_behind(port: int, probe: bytes, number: int) -> list[int]:
    """Sends a command with hostile octets, then a mail. Returns the codes of all replies."""
    before = b"MAIL FROM:<a@example.test>\r\n" if probe.startswith(b"RCPT") else b""
    mail = b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\nSubject: %d\r\n\r\nx\r\n.\r\n" % number
    async with await RawClient.open(port) as client:
        await client.send_raw(b"EHLO client.example.test\r\n" + before + probe + b"\r\n" + mail + b"QUIT\r\n")
        codes = []
        while (answer := await client.read_reply()).code:
            codes.append(answer.code)
        return codes


@pytest.mark.parametrize("style", ["json", "human"])
async def test_octets_of_a_client_stay_where_they_are(start_relay: StartRelay, style: str) -> None:
    """18 places, 48 strings of octets each: 864 mails for each form of the log."""
    async with ScriptedPeer(extensions=[*EXTENSIONS, b"DSN"]) as peer:
        relay = await start_relay("--set", f"log.format={style}", "--set", "auth.mode=any", upstream=peer.url)
        probes = [place.replace(b"%s", octets + EVIL) for place in PLACES for octets in OCTETS]
        for number, probe in enumerate(probes):
            codes = await send_behind(relay.port, probe, number)
            assert codes[-3:] == [354, 250, 221], (probe, codes)
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO client.example.test")
            response = base64.b64encode(b"\0user\r\n" + EVIL + b"\0password")
            assert (await client.command(b"AUTH PLAIN " + response)).code == 235
        assert len(peer.accepted) == len(probes) == 864
        for command in peer.commands():
            assert _COMMAND.fullmatch(command), command
        for message in peer.accepted:
            assert _CONTENT.fullmatch(message.content), message.content
        assert (await relay.metrics()).value("smtp_dedup_faults_total") == 0
        relay.terminate()
        await relay.wait()
    lines = relay.stderr().split("\n")
    assert len(lines) > len(probes)
    for line in lines:
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", line), line
        assert not line.startswith(EVIL.decode()), line
        assert style == "human" or not line or json.loads(line)
