"""A process that sends one message as AVideo does: a new connection, no retry. It reads the job as JSON from stdin.

It writes `ready` when it is connected and waits for a line, so that several processes can send at the same moment.
"""

from __future__ import annotations

import json
import smtplib
import sys


def main() -> None:
    """Sends one message to many recipients."""
    job = json.loads(sys.stdin.readline())
    with smtplib.SMTP(job["host"], job["port"], timeout=15) as session:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        session.sendmail(job["sender"], job["recipients"], job["content"].encode())


if __name__ == "__main__":
    main()
