"""The receivers: an SMTP peer and a real Postfix, which record what they accepted and whether their 250 was sent."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from parts.faults import Action, Step
from parts.peer import ScriptedPeer
from parts.postfix import Postfix

from faults.history import Copy, Outage

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from parts.peer_session import Message, Session

_MESSAGE_ID = re.compile(rb"^Message-ID: <(m(\d+)\.\d+)@", re.MULTILINE)
_RECORD = re.compile(rb"\(smtp-dedup-relay \w+\)\s+with ESMTPS?A? id (\w+)")
_RECEIVED = re.compile(
    rb"^Received: from .*?\(Postfix\)\s+with ESMTPS?A? id (\w+).*?;\s+([^\n]+)", re.MULTILINE | re.DOTALL
)
# RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets. A longer one may not be understood.
_UNDERSTOOD = re.compile(rb"(?:250-[^\r\n]{0,506}\r\n)*2\d\d [^\r\n]{0,506}")
_MOST_COMMANDS = 1000


def identify(content: bytes) -> tuple[int, str, str]:
    """Returns the message's number, the attempt's id and the relay's record id of a header section."""
    found = _MESSAGE_ID.search(content)
    assert found, f"not a message of ours: {content[:300]!r}"
    record = _RECORD.search(content)
    return int(found[2]), found[1].decode(), record[1].decode() if record else ""


def received_fields(head: bytes) -> bytes:
    """Returns the Received fields of a header section."""
    return b"".join(re.findall(rb"^Received: .*\r\n(?:[ \t].*\r\n)*", head, re.MULTILINE))


class RecordingPeer(ScriptedPeer):
    """The scripted peer, with an entry for each accepted message, and with random faults.

    The entry is made before the reply. It becomes `confirmed` when a reply that is valid by RFC 5321 was sent while the
    client was connected.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.taken: list[Copy] = []
        self.taken_in: Counter[int] = Counter()
        """The number of messages accepted in each session."""
        self.heads: dict[str, bytes] | None = None
        """The header sections of accepted messages by attempt, if a scenario asks for them."""
        self._chance = chance
        self._now_and_then: list[tuple[Step, float, Action]] = []

    def now_and_then(self, step: Step, share: float, action: Action) -> None:
        """Does this at a random share of all visits to the step."""
        self._now_and_then.append((step, share, action))

    def forgive(self) -> None:
        super().forgive()
        self._now_and_then.clear()

    async def visit(self, step: Step, session: Session, subject: bytes = b"") -> bytes | None:
        if len(session.commands) > _MOST_COMMANDS:
            session.commands.clear()
        if step is not Step.REPLY:
            return await self._do(step, session, subject)
        copy = self._write_down(session)
        reply = await self._do(step, session, subject)
        left = session.reader.at_eof() or session.reader.exception() or session.writer.transport.is_closing()
        copy.confirmed = not left and (reply is None or _UNDERSTOOD.fullmatch(reply) is not None)
        return reply

    async def _do(self, step: Step, session: Session, subject: bytes) -> bytes | None:
        reply = await super().visit(step, session, subject)
        for at, share, action in self._now_and_then:
            if reply is None and at is step and self._chance.random() < share:
                reply = await action(session)
        return reply

    def _write_down(self, session: Session) -> Copy:
        message: Message = next(taken for taken in reversed(self.accepted) if taken.session == session.number)
        number, attempt, record = identify(message.content)
        recipients = tuple(path.decode() for path in message.recipients)
        copy = Copy(number, attempt, record, recipients, message.at, time.monotonic(), confirmed=False)
        self.taken.append(copy)
        self.taken_in[session.number] += 1
        if self.heads is not None:
            self.heads[attempt] = message.content.partition(b"\r\n\r\n")[0] + b"\r\n"
        # A long run has many contents, which are no longer needed.
        self.accepted.remove(message)
        self.received.remove(message)
        return copy


class RecordingPostfix(Postfix):
    """A real Postfix. The times of its stops, and attempts without a reply, show which replies it could not send."""

    restarts: list[Outage]

    def __init__(self, *settings: str, certificate: Path | None = None) -> None:
        # `in_flow_delay` would slow a long series of repeats, whose transactions are abandoned (ADR 8).
        # Postfix retries at once what a stop deferred.
        soon = ["minimal_backoff_time = 1s", "maximal_backoff_time = 2s", "queue_run_delay = 1s"]
        more = ["in_flow_delay = 0", "default_process_limit = 200", *soon, *settings]
        super().__init__(settings=more, certificate=certificate)
        self.restarts = []
        self.redelivered = 0

    async def bounce(self, seconds: float) -> None:
        """Stops Postfix for so long, and starts it again."""
        begun = time.monotonic()
        await asyncio.to_thread(self.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)
        self.restarts.append(Outage(begun, time.monotonic()))

    async def copies(self) -> list[Copy]:
        await self.wait_delivered(seconds=600)
        return await asyncio.to_thread(self.delivered)

    def delivered(self) -> list[Copy]:
        """Returns the copies in the mailboxes.

        A message that Postfix accepted once and delivered twice because of a stop is one copy; `redelivered` counts it.
        """
        offset = time.time() - time.monotonic()
        heard = answered(self.log())
        copies: dict[tuple[str, str, str], Copy] = {}
        self.redelivered = 0
        for file in self._mail.glob("*/new/*"):
            head = file.read_bytes()
            number, attempt, record = identify(head)
            queue_id, at = _received(head)
            at -= offset
            confirmed = queue_id in heard or not any(down.begun - 2 < at < down.ended + 1 for down in self.restarts)
            user = f"{file.parts[-3]}@example.test"
            # Postfix reuses queue ids; the relay never reuses record ids.
            self.redelivered += (queue_id, record, user) in copies
            copies[queue_id, record, user] = Copy(number, attempt, record, (user,), at, at, confirmed)
        return list(copies.values())


def answered(log: str) -> set[str]:
    """Returns the queue ids of the mails with a reply: those whose session continued after them in the log.

    Whether the last mail of a process that was killed had a reply is unknown.
    """
    last: dict[str, str] = {}
    heard = set()
    for process, said in re.findall(r"smtpd\[(\d+)\]: (.*)", log):
        if said.startswith("lost connection after END-OF-MESSAGE"):
            last.pop(process, None)
            continue
        if process in last and not said.startswith("connect from"):
            heard.add(last.pop(process))
        if begun := re.match(r"(\w+): client=", said):
            last[process] = begun[1]
    return heard


def _received(head: bytes) -> tuple[str, float]:
    """Returns the queue id and the time (whole seconds) from the Received field of Postfix."""
    field = _RECEIVED.search(head)
    assert field, head[:300]
    return field[1].decode(), parsedate_to_datetime(field[2].decode()).timestamp()
