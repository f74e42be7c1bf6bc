"""Sends 400 mails, 40 a second, each on a connection of its own. Prints how many were accepted, and each error."""

import smtplib
import sys
import threading
import time
from collections import Counter

MAILS, EVERY = 400, 1 / 40
results: Counter[str] = Counter()


def send(number: int) -> None:
    """Sends one mail, as PHPMailer does: no second try."""
    try:
        with smtplib.SMTP("127.0.0.1", 2525, timeout=60) as client:
            text = f"From: a@example.test\r\nSubject: {number}\r\n\r\nmail {number}\r\n"
            client.sendmail("a@example.test", ["reader@localhost"], text)
    except OSError as error:
        results[repr(error)] += 1
    else:
        results["accepted"] += 1


threads = [threading.Thread(target=send, args=(number,)) for number in range(MAILS)]
for thread in threads:
    thread.start()
    time.sleep(EVERY)
for thread in threads:
    thread.join()
sys.stdout.write(f"{dict(results)}\n")
sys.exit(results["accepted"] != MAILS)
