"""Measures the judge: AVideo notifications, compared with the standard library's parser, and large attachments.

For attachments it also measures how long the GIL is held. Run it with `python bench/fingerprint.py`.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the relay, if it is not installed, and the test mails

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
    """Returns a message with one attachment. `size` in bytes, before encoding."""
    octets = b"".join(hashlib.blake2b(number.to_bytes(4)).digest() for number in range(size // 64))
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n") if encoding == "base64" else octets.replace(b"\r", b"")
    boundary = b"b1=" + hashlib.sha256(b"boundary").hexdigest()[:43].encode()  # As long as PHPMailer's boundaries.
    return (
        b"Subject: big\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n--%b\r\n\r\nhello\r\n--%b\r\n'
        b"Content-Type: application/pdf\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: %b\r\n\r\n"
        b"%b\r\n--%b--\r\n"
    ) % (boundary, boundary, boundary, encoding.encode(), body, boundary)


def notifications(number: int) -> list[bytes]:
    """Returns notifications that share no subject, user, video, body or boundary."""
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
    """Returns the mails in which AVideo sends one notification to many recipients, fifty per mail."""
    return [notification(sending=Sending(seed=str(seed))) for seed in range(number)]


def median_cpu(function: Callable[[], object], rounds: int) -> float:
    """Returns the median CPU time in seconds, which other processes hardly affect."""
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def interleaved_medians(*functions: Callable[[], object], rounds: int) -> list[float]:
    """Returns the median CPU time of each function in seconds.

    Runs them in alternating blocks, so that other load on the machine affects all of them.
    """
    blocks = [[median_cpu(function, 25) for function in functions] for _ in range(rounds // 25)]
    return [statistics.median(column) for column in zip(*blocks, strict=True)]


def longest_pause(function: Callable[[], object]) -> float:
    """Returns the longest time in seconds for which another thread could not run."""
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
    function()
    done.set()
    watcher.join()
    return max(gaps)


def compare(ours: float, theirs: float) -> str:
    return f"{ours * 1e3:.3f} ms, {theirs / ours:.1f} times as fast"


def judge_for_all(content: bytes) -> None:
    analysis = judge(content, SENDER)
    for recipient in RECIPIENTS:
        analysis.fingerprint(recipient)


def main() -> None:
    contents = notifications(200)
    if judge(contents[0], SENDER).normal_form(NO_RULE).broken:
        raise SystemExit("the notification could not be parsed, so this benchmark would measure nothing")
    # No message follows itself, so that a cache of whole messages cannot improve the figures.
    unseen, repeated = cycle(contents), cycle(bulk(200))
    alone, new, known, theirs = interleaved_medians(
        lambda: judge(next(unseen), SENDER),
        lambda: judge_for_all(next(unseen)),
        lambda: judge_for_all(next(repeated)),
        lambda: email.message_from_bytes(next(unseen), policy=email.policy.default),
        rounds=1000,
    )
    lines = contents[0].count(b"\n")
    print(f"notification of {len(contents[0])} bytes in {lines} lines, default rules")
    print(f"email.message_from_bytes(policy=default): {theirs * 1e3:.3f} ms")
    print(f"judge with {len(RECIPIENTS)} fingerprints, a twin or the next mail of a bulk: {compare(known, theirs)}")
    print(f"judge with {len(RECIPIENTS)} fingerprints, a body never seen: {compare(new, theirs)}")
    print(f"  {alone * 1e3:.3f} ms of it without the fingerprints")
    for encoding in ("base64", "8bit"):
        large = attachment(encoding)
        seconds = median_cpu(lambda: judge(large, b""), 5)  # noqa: B023 - called immediately
        pause = longest_pause(lambda: judge(large, b""))  # noqa: B023 - called immediately
        rate = len(large) / MEGABYTE / seconds
        print(
            f"{encoding} message of {len(large) / MEGABYTE:.0f} MB: {rate:.0f} MB/s, longest pause {pause * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
