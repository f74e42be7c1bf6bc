"""What the judgement costs: an AVideo notification against email's parser, and large attachments with the GIL watched.

python bench/fingerprint.py
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import statistics
import sys
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the relay, where it is not installed, and the tests' mails

from parts.avideo import CONTACT, Sending, notification  # noqa: E402

from relay.core.envelope import Recipient  # noqa: E402
from relay.judge.rules.rule import NO_RULE  # noqa: E402
from relay.settings import Settings  # noqa: E402
from relay.settings.rules import build_judge  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1_000_000
SENDER = CONTACT.encode()
judge = build_judge(Settings())
RECIPIENTS = [Recipient(f"user{number}@example.org") for number in range(50)]


def attachment(encoding: str, size: int = 20 * MEGABYTE) -> bytes:
    """Make a message with one attachment of that many bytes."""
    octets = b"".join(hashlib.blake2b(number.to_bytes(4)).digest() for number in range(size // 64))
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n") if encoding == "base64" else octets.replace(b"\r", b"")
    boundary = b"b1=" + hashlib.sha256(b"boundary").hexdigest()[:43].encode()  # As long as PHPMailer's.
    return (
        b"Subject: big\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n--%b\r\n\r\nhello\r\n--%b\r\n'
        b"Content-Type: application/pdf\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: %b\r\n\r\n"
        b"%b\r\n--%b--\r\n"
    ) % (boundary, boundary, boundary, encoding.encode(), body, boundary)


def notifications(number: int) -> list[bytes]:
    """Make notifications of which no two have a subject, a user, a video, a body or a boundary in common."""
    return [
        notification(
            video=f"{seed:08x}",
            cache=f"?cache={1741234567 + seed}{1741234567 + seed}",
            title=f"Sunrise 🎬 over the lake — part {seed}",
            user=f"marta{seed}",
            sending=Sending(seed=str(seed)),
        )
        for seed in range(number)
    ]


def bulk(number: int) -> list[bytes]:
    """Make the mails by which AVideo sends one notification to many, fifty recipients each."""
    return [notification(sending=Sending(seed=str(seed))) for seed in range(number)]


def median(work: Callable[[], object], rounds: int) -> float:
    """Give the median in seconds of the processor, which nobody else's work lengthens much."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def medians_in_turn(*works: Callable[[], object], rounds: int) -> list[float]:
    """Give the median of each in seconds. In blocks by turns, so that what else the machine does strikes all."""
    blocks = [[median(work, 25) for work in works] for _ in range(rounds // 25)]
    return [statistics.median(column) for column in zip(*blocks, strict=True)]


def longest_pause(work: Callable[[], object]) -> float:
    """Give the longest time in seconds for which another thread got no turn while the work ran."""
    gaps = [0.0]
    done = threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(gaps)


def compared(ours: float, theirs: float) -> str:
    return f"{ours * 1e3:.3f} ms, {theirs / ours:.1f} times as fast"


def judge_for_all(content: bytes) -> None:
    judged = judge(content, SENDER)
    for recipient in RECIPIENTS:
        judged.fingerprint(recipient)


def main() -> None:
    contents = notifications(200)
    if judge(contents[0], SENDER).normal_form(NO_RULE).broken:
        raise SystemExit("the notification was not taken apart: this measures nothing")
    # Never the same one twice in a row, so that what remembers a whole message cannot flatter.
    following, sent_on = cycle(contents), cycle(bulk(200))
    alone, new, known, theirs = medians_in_turn(
        lambda: judge(next(following), SENDER),
        lambda: judge_for_all(next(following)),
        lambda: judge_for_all(next(sent_on)),
        lambda: email.message_from_bytes(next(following), policy=email.policy.default),
        rounds=1000,
    )
    lines = contents[0].count(b"\n")
    print(f"notification of {len(contents[0])} bytes in {lines} lines, default rules")
    print(f"email.message_from_bytes(policy=default): {theirs * 1e3:.3f} ms")
    print(f"judge with {len(RECIPIENTS)} fingerprints, a twin or the next mail of a bulk: {compared(known, theirs)}")
    print(f"judge with {len(RECIPIENTS)} fingerprints, a body never seen: {compared(new, theirs)}")
    print(f"  {alone * 1e3:.3f} ms of it for the message")
    for encoding in ("base64", "8bit"):
        large = attachment(encoding)
        seconds = median(lambda: judge(large, b""), 5)  # noqa: B023 - called at once
        pause = longest_pause(lambda: judge(large, b""))  # noqa: B023 - called at once
        rate = len(large) / MEGABYTE / seconds
        print(
            f"{encoding} message of {len(large) / MEGABYTE:.0f} MB: {rate:.0f} MB/s, longest pause {pause * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
