"""An authentication service as Dovecot offers it to Postfix (`smtpd_sasl_type = dovecot`), on a loopback port."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import threading
from typing import TYPE_CHECKING, Self

from parts.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HELLO = (
    "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\nCUID\t{cuid}\nCOOKIE\t{cookie}\nDONE\n"
)


class AuthService:
    """Knows some users. While it is stopped, Postfix answers `454 4.7.0 Temporary authentication failure`."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = dict(users)
        self.port = free_port()
        self.attempts: list[tuple[str, bool]] = []
        """The name and whether the password was right, for each login."""
        self._server: socketserver.ThreadingTCPServer | None = None

    @property
    def postfix_settings(self) -> tuple[str, ...]:
        """The lines of main.cf with which Postfix asks this service, and takes mail only after a login."""
        return (
            "smtpd_sasl_auth_enable = yes",
            "smtpd_sasl_type = dovecot",
            f"smtpd_sasl_path = inet:{HOST}:{self.port}",
            "smtpd_sasl_authenticated_header = yes",
            # By default Postfix waits for a minute after an smtpd that ended because the service was away.
            "service_throttle_time = 1s",
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens, always on the same port."""
        service = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # `stop` may close the connection at any time
                    for answer in service._serve(self.rfile):
                        self.wfile.write(answer.encode())

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def process_request(self, request: object, client_address: object) -> None:
                service._connections.append(request)
                super().process_request(request, client_address)  # type: ignore[arg-type]

        self._connections: list[object] = []
        self._server = Server((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Closes the port and all connections."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            for connection in self._connections:
                server.shutdown_request(connection)  # type: ignore[arg-type]

    def _serve(self, lines: Iterator[bytes]) -> Iterator[str]:
        yield _HELLO.format(cuid=1, cookie="0" * 32)
        given: dict[str, list[bytes]] = {}
        mechanisms: dict[str, str] = {}
        try:
            for line in lines:
                verb, *fields = line.decode().rstrip("\n").split("\t")
                if verb == "AUTH":
                    number, mechanisms[fields[0]] = fields[0], fields[1]
                    initial = [field[5:] for field in fields[2:] if field.startswith("resp=")]
                    given[number] = [base64.b64decode(initial[0])] if initial else []
                elif verb == "CONT":
                    number = fields[0]
                    given[number].append(base64.b64decode(fields[1]))
                else:
                    continue
                yield self._step(number, mechanisms[number], given[number])
        except ValueError:
            return

    def _step(self, number: str, mechanism: str, given: list[bytes]) -> str:
        if mechanism == "PLAIN" and given:
            _, name, password = given[0].split(b"\0")
        elif mechanism == "LOGIN" and len(given) > 1:
            name, password = given[:2]
        else:
            prompt = b"" if mechanism == "PLAIN" else b"Password:" if given else b"Username:"
            return f"CONT\t{number}\t{base64.b64encode(prompt).decode()}\n"
        right = self.users.get(name.decode()) == password.decode()
        self.attempts.append((name.decode(), right))
        return f"{'OK' if right else 'FAIL'}\t{number}\tuser={name.decode()}\n"
