"""A private Postfix as the MTA behind the relay. Its queue, log and mailboxes are not the host's."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

from parts.ports import HOST, answers, free_port
from parts.postfix_config import main_cf, master_cf
from parts.waiting import LONGEST, block_until, until

if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAIN = "example.test"
USERS = tuple(f"user{number}@{DOMAIN}" for number in range(1, 1001))
"""The addresses with a mailbox. Postfix refuses all others at RCPT."""

_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")


class Postfix:
    """Accepts mail for `USERS` on a loopback port and writes each copy to the recipient's Maildir.

    With a certificate (`Authority.issue`) it offers STARTTLS on that port, and implicit TLS on `tls_port`. `settings`
    are further lines of main.cf, `services` further lines of master.cf. The methods block for some tenths of a second,
    except the coroutines.
    """

    def __init__(
        self, *, certificate: Path | None = None, settings: Iterable[str] = (), services: Iterable[str] = ()
    ) -> None:
        self.port = free_port()
        self.tls_port = free_port() if certificate else 0
        self.url = f"smtp://{HOST}:{self.port}"
        self._home = tempfile.TemporaryDirectory(prefix="relay-postfix-")
        self._root = Path(self._home.name)
        self._config = self._root / "config"
        self._mail = self._root / "mail"
        self._process: subprocess.Popen[bytes] | None = None
        self._lay_out(certificate, settings, services)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Start and stop

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts Postfix and waits until it listens. It continues to deliver what is in the queue."""
        if os.geteuid() != 0:
            raise PermissionError("Postfix starts as root only; run the tests as root, as in: sudo make test")
        # In a separate process group, because `master` signals its whole group when it ends.
        with (self._root / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen(
                self._command("start-fg"),
                env={"PATH": _PATH, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        block_until(self._listens, f"a listener of Postfix on port {self.port}", seconds=60)

    def stop(self) -> None:
        """Stops Postfix. Unfinished deliveries return to the queue."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            subprocess.run(self._command("stop"), env={"PATH": _PATH}, capture_output=True, check=False, timeout=60)
            try:
                process.wait(timeout=LONGEST)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the servers that `master` started too
                process.wait()

    def restart(self) -> None:
        """Stops Postfix and starts it on the same ports."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops Postfix and removes its files."""
        self.stop()
        self._home.cleanup()

    def clean(self) -> None:
        """Empties the queue and the mailboxes for the next test."""
        self._run("postsuper", "-c", str(self._config), "-d", "ALL")
        for mailbox in self._mail.iterdir():
            shutil.rmtree(mailbox)

    def sendmail(self, content: bytes, sender: str, recipients: Iterable[str]) -> None:
        """Hands a mail to Postfix's own `sendmail`, as programs without SMTP do."""
        self._run("sendmail", "-C", str(self._config), "-i", "-f", sender, "--", *recipients, stdin=content)

    def flush(self) -> None:
        """Lets Postfix try all queued mail now."""
        self._run("postqueue", "-c", str(self._config), "-f")

    def setting(self, name: str) -> str:
        """Returns the value of a parameter of main.cf."""
        return self._run("postconf", "-c", str(self._config), "-xh", name).stdout.decode().strip()

    def warnings(self) -> str:
        """Returns what Postfix says about unknown or overridden parameters in main.cf and master.cf."""
        runs = [self._run("postconf", "-c", str(self._config), option) for option in ("-n", "-M", "-P")]
        return b"".join(run.stderr for run in runs).decode()

    # Deliveries

    def copies(self, address: str) -> int:
        """Returns the number of mails in a mailbox."""
        return self.deliveries()[address]

    def deliveries(self) -> Counter[str]:
        """Returns the number of mails in each mailbox, without empty ones."""
        return Counter(f"{file.parts[-3]}@{DOMAIN}" for file in self._mail.glob("*/new/*"))

    def messages(self, address: str) -> list[bytes]:
        """Returns the mails in a mailbox, oldest first, with Postfix's header fields and LF line ends."""
        files = self._mail.glob(f"{address.partition('@')[0]}/new/*")
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]

    def queued(self) -> int:
        """Returns the number of accepted messages that are not yet in all mailboxes."""
        return sum(len(files) for name in _QUEUES for _, _, files in os.walk(self._root / "queue" / name))

    def log(self) -> str:
        """Returns the whole log."""
        return (self._root / "log").read_text(errors="replace")

    def deferred(self) -> int:
        """Returns the number of messages that wait for their next try."""
        return sum(len(files) for _, _, files in os.walk(self._root / "queue" / "deferred"))

    async def wait_delivered(self, count: int = 0, *, seconds: float = LONGEST) -> None:
        """Waits until at least so many copies are in mailboxes and the queue is empty, so that no more can follow."""
        await until(
            lambda: not self.queued() and self.deliveries().total() >= count,
            f"{count} copies in mailboxes and an empty queue of Postfix",
            seconds=seconds,
        )

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            said = (self._root / "stderr").read_text(errors="replace")
            raise RuntimeError(f"Postfix ended at its start:\n{said}\n{self.log()}")
        return answers(self.port)

    def _run(self, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs one of Postfix's commands. Raises `CalledProcessError` if it fails."""
        return subprocess.run(command, env={"PATH": _PATH}, input=stdin, capture_output=True, check=True, timeout=60)

    def _command(self, verb: str) -> list[str]:
        return ["postfix", "-c", str(self._config), verb]

    def _lay_out(self, certificate: Path | None, settings: Iterable[str], services: Iterable[str]) -> None:
        """Creates the folders, with the owners that Postfix requires, and the configuration."""
        owner = pwd.getpwnam("postfix")
        nobody = pwd.getpwnam("nobody")
        self._root.chmod(0o755)
        for name in ("config", "queue", "data", "mail"):
            (self._root / name).mkdir()
        (self._root / "log").touch()
        for name in ("data", "log"):
            os.chown(self._root / name, owner.pw_uid, owner.pw_gid)
        os.chown(self._mail, nobody.pw_uid, nobody.pw_gid)
        main = main_cf(self._root, DOMAIN, nobody.pw_uid, nobody.pw_gid, certificate)
        (self._config / "main.cf").write_text(main + "".join(f"{line}\n" for line in settings))
        master = master_cf(HOST, self.port, self.tls_port)
        (self._config / "master.cf").write_text(master + "".join(f"{line}\n" for line in services))
        (self._config / "users").write_text("".join(f"{user} {user.partition('@')[0]}/\n" for user in USERS))
