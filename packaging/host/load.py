"""Sends mails at a rate, each on a connection of its own, and prints how many were accepted, each error, and the times.

`load.py NAME MAILS RATE LIMIT`: NAME is in each subject, RATE is in mails per second. The exit status is 0 if all were
accepted, each within LIMIT seconds.
"""

import smtplib
import statistics
import sys
import threading
import time
from collections import Counter

NAME, MAILS, RATE, LIMIT = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
results: Counter[str] = Counter()
seconds = []


def send(number: int) -> None:
    """Sends one mail, as PHPMailer does: no second try."""
    begin = time.monotonic()
    try:
        with smtplib.SMTP("127.0.0.1", 2525, timeout=60) as client:
            text = f"From: a@example.test\r\nSubject: {NAME} {number}\r\n\r\nmail {NAME} {number}\r\n"
            client.sendmail("a@example.test", ["reader@localhost"], text)
    except OSError as error:
        results[repr(error)] += 1
    else:
        results["accepted"] += 1
    seconds.append(time.monotonic() - begin)


threads = [threading.Thread(target=send, args=(number,)) for number in range(MAILS)]
for thread in threads:
    thread.start()
    time.sleep(1 / RATE)
for thread in threads:
    thread.join()
times = f"median {statistics.median(seconds):.3f} s, slowest {max(seconds):.3f} s"
sys.stdout.write(f"figures {NAME}: {dict(results)}, {times}\n")
sys.exit(results["accepted"] != MAILS or max(seconds) > LIMIT)
