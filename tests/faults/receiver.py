"""The receiving ends: an SMTP peer and a real Postfix, which say what they took and whether their yes went out."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from parts.faults import Action, Step
from parts.peer import ScriptedPeer
from parts.postfix import Postfix

from faults.history import Copy, Outage

if TYPE_CHECKING:
    import random

    from parts.peer_session import Message, Session

_MESSAGE_ID = re.compile(rb"^Message-ID: <(m(\d+)\.\d+)@", re.MULTILINE)
_RECORD = re.compile(rb"\(smtp-dedup-relay \w+\)\s+with ESMTP id (\w+)")
_RECEIVED = re.compile(
    rb"^Received: from .*?\(Postfix\)\s+with ESMTP id (\w+).*?;\s+([^\n]+)", re.MULTILINE | re.DOTALL
)
# RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets. Who says more cannot know that he was understood.
_UNDERSTOOD = re.compile(rb"(?:250-[^\r\n]{0,506}\r\n)*2\d\d [^\r\n]{0,506}")
_MOST_COMMANDS = 1000


def identify(content: bytes) -> tuple[int, str, str]:
    """Give the message's number, the attempt's id and the relay's record id of what arrived."""
    found = _MESSAGE_ID.search(content)
    assert found, f"not a message of ours: {content[:300]!r}"
    record = _RECORD.search(content)
    return int(found[2]), found[1].decode(), record[1].decode() if record else ""


def received_fields(head: bytes) -> bytes:
    """Give the Received fields of a header section."""
    return b"".join(re.findall(rb"^Received: .*\r\n(?:[ \t].*\r\n)*", head, re.MULTILINE))


class RecordingPeer(ScriptedPeer):
    """The scripted peer, with an entry for each message it took, and faults that come by chance.

    An entry is made before anything is said. It is `told` only when the yes was said, in words that must be understood,
    on a connection that the client had not left.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.taken: list[Copy] = []
        self.heads: dict[str, bytes] | None = None
        """The header sections of what was taken, by attempt; kept only where a scenario wants them."""
        self._chance = chance
        self._now_and_then: list[tuple[Step, float, Action]] = []

    def now_and_then(self, step: Step, share: float, action: Action) -> None:
        """Do this at a share of all visits to the step."""
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
        copy.told = not left and (reply is None or _UNDERSTOOD.fullmatch(reply) is not None)
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
        copy = Copy(number, attempt, record, recipients, message.at, time.monotonic(), told=False)
        self.taken.append(copy)
        if self.heads is not None:
            self.heads[attempt] = message.content.partition(b"\r\n\r\n")[0] + b"\r\n"
        # Contents are not needed any more, and a long run has many.
        self.accepted.remove(message)
        self.received.remove(message)
        return copy


class RecordingPostfix(Postfix):
    """A real Postfix. Which replies it could not give is known from when it was stopped, and from who heard none."""

    restarts: list[Outage]

    def __init__(self) -> None:
        # Without `in_flow_delay` a long row of repeats, whose transactions are begun and given up, is not slowed.
        # What a stop puts off is tried again at once.
        soon = ["minimal_backoff_time = 1s", "maximal_backoff_time = 2s", "queue_run_delay = 1s"]
        super().__init__(settings=["in_flow_delay = 0", "default_process_limit = 200", *soon])
        self.restarts = []
        self.redelivered = 0

    async def bounce(self, seconds: float) -> None:
        """Stop it for so long, and start it again."""
        begun = time.monotonic()
        await asyncio.to_thread(self.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.start)
        self.restarts.append(Outage(begun, time.monotonic()))

    async def copies(self) -> list[Copy]:
        await self.wait_delivered(seconds=600)
        return await asyncio.to_thread(self.delivered)

    def delivered(self) -> list[Copy]:
        """Give what lies in the mailboxes now.

        What Postfix took once and, stopped in between, put into a mailbox twice is one copy: `redelivered` counts it.
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
            told = queue_id in heard or not any(down.begun - 2 < at < down.ended + 1 for down in self.restarts)
            user = f"{file.parts[-3]}@example.test"
            # Postfix gives queue ids anew, the relay its records never.
            self.redelivered += (queue_id, record, user) in copies
            copies[queue_id, record, user] = Copy(number, attempt, record, (user,), at, at, told)
        return list(copies.values())


def answered(log: str) -> set[str]:
    """Give the mails whose session went on after them: it does one thing at a time, so its client has heard the yes.

    Of the last mail of a process that was ended nobody knows.
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
    """Give the queue id and the time at which Postfix took it, as its own Received field says: whole seconds."""
    field = re.search(
        rb"^Received: from .*?\(Postfix\)\s+with ESMTP id (\w+).*?;\s+([^\n]+)", head, re.MULTILINE | re.DOTALL
    )
    assert field, head[:300]
    return field[1].decode(), parsedate_to_datetime(field[2].decode()).timestamp()
