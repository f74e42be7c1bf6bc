"""What the judgement costs: an AVideo notification against email's parser, and large attachments with the GIL watched.

python bench/fingerprint.py
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import statistics
import threading
import time
from typing import TYPE_CHECKING

from relay.core.envelope import Recipient
from relay.core.fingerprint import judge

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1_000_000
RECIPIENTS = [Recipient(f"user{number}@example.org") for number in range(50)]


def notification(rules: int = 110) -> bytes:
    """Lay out a notification like AVideo's: long CSS, nested tables, a logo and a thumbnail with cache-busters."""
    css = "\r\n".join(
        f"        .rule{number} td {{\r\n            font-size: {number % 9 + 9}px;\r\n        }}"
        for number in range(rules)
    )
    row = '<tr>\r\n      <td style="text-align: center;" class="cell">{}</td>\r\n    </tr>\r\n'
    cells = [
        '<img src="https://tube.example.org/logo.png?cache=16244653051624465305" alt="Tube"/>',
        "<img src='https://tube.example.org/videos/v1/v1.jpg?cache=1624465305' style='width: 100%;'>",
        "Anna has uploaded a new video <b>Kraniche \u2013 \U0001f426 im Nebel</b>",
        '<a href="https://tube.example.org/video/1/kraniche?a=1&amp;b=2" class="button">Watch</a>',
        *(f"<span>Line {number}</span><br>" for number in range(12)),
    ]
    html = (
        '<!doctype html>\r\n<html><head><meta charset="UTF-8" /><title>Tube</title>\r\n<style>\r\n'
        + css
        + '\r\n</style></head>\r\n<body class="">\r\n<table border="0" class="body">\r\n<!-- START -->\r\n'
        + "".join(map(row.format, cells))
        + "</table></body></html>\r\n"
    )
    return (
        "Date: Tue, 1 Jul 2025 10:00:00 +0000\r\nTo: undisclosed-recipients:;\r\nFrom: Tube <contact@example.org>\r\n"
        "Subject: =?UTF-8?Q?New_video_=E2=80=93_Tube?=\r\nMessage-ID: <abc@tube.example.org>\r\n"
        "X-Mailer: PHPMailer 6.9.1\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/alternative;\r\n boundary="b1_abc"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
        "This is a multi-part message in MIME format.\r\n\r\n--b1_abc\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n"
        "Anna has uploaded a new video Kraniche \u2013 \U0001f426 im Nebel\r\n\r\n"
        "--b1_abc\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + html
        + "\r\n\r\n--b1_abc--\r\n"
    ).encode()


def attachment(encoding: str, size: int = 20 * MEGABYTE) -> bytes:
    """Make a message with one attachment of that many bytes."""
    octets = b"".join(hashlib.blake2b(number.to_bytes(4)).digest() for number in range(size // 64))
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n") if encoding == "base64" else octets.replace(b"\r", b"")
    return (
        b"Subject: big\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment\r\n"
        b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n" + body + b"\r\n--b--\r\n"
    )


def median(work: Callable[[], object], rounds: int) -> float:
    """Give the median in seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


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


def judge_for_all(content: bytes) -> None:
    judged = judge(content, b"contact@example.org")
    for recipient in RECIPIENTS:
        judged.fingerprint(recipient)


def main() -> None:
    content = notification()
    ours = median(lambda: judge_for_all(content), 500)
    alone = median(lambda: judge(content, b"contact@example.org"), 500)
    theirs = median(lambda: email.message_from_bytes(content, policy=email.policy.default), 200)
    print(f"notification of {len(content)} bytes: judge {alone * 1e3:.3f} ms, with 50 fingerprints {ours * 1e3:.3f} ms")
    print(f"email.message_from_bytes(policy=default): {theirs * 1e3:.3f} ms, {theirs / ours:.1f} times as long")
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
