"""What `relay simulate` costs: time and memory for an mbox of many AVideo notifications of 9 KB.

python bench/simulate.py [MESSAGES...]
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import tempfile
from email.utils import format_datetime
from pathlib import Path

TREE = Path(__file__).parents[1]
BEGIN = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def write(path: Path, count: int) -> None:
    """Write notices 37 seconds apart; every fifth repeats the one before it, with another cache value."""
    sys.path.insert(0, str(TREE / "tests"))
    from parts.avideo import Sending, notification

    with path.open("wb") as file:
        for number in range(count):
            video, to = number - (number % 5 == 1), f"user{number // 5 % 50}@example.org"
            mail = notification(
                video=f"{video:08x}",
                cache=f"?cache={1700000000 + number}",
                title=f"Video {video}",
                sending=Sending(seed=f"{number}"),
            )
            at = BEGIN + dt.timedelta(seconds=37 * number)
            head = (
                f"From contact@example.org {at:%a %b %e %H:%M:%S %Y}\nReturn-Path: <contact@example.org>\n"
                f"X-Original-To: {to}\nReceived: from a by b;\n\t{format_datetime(at)}\n"
            )
            file.write(head.encode() + mail.replace(b"\r\n", b"\n") + b"\n")


def main() -> None:
    for count in map(int, sys.argv[1:] or ["1000", "10000"]):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "archive.mbox")
            write(path, count)
            command = [sys.executable, "-m", "relay", "simulate", "--top", "0", str(path)]
            with subprocess.Popen(command, cwd=TREE, stdout=subprocess.DEVNULL) as process:
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            seconds = used.ru_utime + used.ru_stime
            print(
                f"{count:,} messages, {path.stat().st_size / 1e6:.0f} MB: {seconds:.1f} s of CPU time, "
                f"{seconds / count * 1e3:.2f} ms a message, at most {used.ru_maxrss / 1024:.0f} MiB of memory"
            )


if __name__ == "__main__":
    main()
