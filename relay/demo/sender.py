"""A process that sends mail as AVideo does: a connection per message, no retry. The job comes as JSON on stdin.

It says `ready` when it is about to send and waits for a line, so that several can start at one moment.
"""

from __future__ import annotations

import json
import smtplib
import sys


def main() -> None:
    """Send one message to many recipients."""
    job = json.loads(sys.stdin.readline())
    with smtplib.SMTP(job["host"], job["port"], timeout=15) as session:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        session.sendmail(job["sender"], job["recipients"], job["content"].encode())


if __name__ == "__main__":
    main()
