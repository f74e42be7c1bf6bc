"""Real web servers in front of the page of a relay, with the configurations that docs/page.md shows."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parts.ports import HOST, answers, free_port
from parts.waiting import LONGEST, block_until

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "relay.example.com"
"""The host name in docs/page.md."""
_RELAY = "127.0.0.1:9625"
"""The address of the relay in docs/page.md."""
_PAGE = Path(__file__).parents[2] / "docs" / "page.md"

# What stands around the documented lines. Each server listens with TLS and without, and compresses all that it can.
_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1;
    gzip_types *;
    server {{
        listen {host}:{plain_port};
        listen {host}:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        {documented}
    }}
}}
"""
_APACHE_MODULES = ("mpm_event", "authz_core", "ssl", "http2", "filter", "deflate", "headers", "proxy", "proxy_http")
_APACHE = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
ServerName {name}
User www-data
Group www-data
StartServers 1
Listen {host}:{plain_port}
Listen {host}:{port}
Protocols h2 http/1.1
SetOutputFilter DEFLATE
<VirtualHost {host}:{plain_port}>
{documented}
</VirtualHost>
<VirtualHost {host}:{port}>
SSLEngine on
SSLCertificateFile {certificate}
{documented}
</VirtualHost>
"""
_CADDY = """
{{
    admin off
    auto_https disable_redirects
    default_bind {host}
    log {{
        output file {folder}/log
    }}
}}
"""
_COMMANDS = {
    "nginx": ("nginx", "-p", "{folder}", "-e", "{folder}/log", "-c", "{folder}/config"),
    "Apache": ("apache2", "-D", "FOREGROUND", "-f", "{folder}/config"),
    "Caddy": ("caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/config"),
}
KINDS = tuple(_COMMANDS)


def documented_settings() -> dict[str, Any]:
    """Returns the section `http` of the relay's settings in docs/page.md."""
    found: dict[str, Any] = tomllib.loads(_documented(""))["http"]
    return found


def _documented(start: str) -> str:
    """Returns the first lines of configuration in docs/page.md from the line on that starts so."""
    chapter = _PAGE.read_text("utf-8").partition("\n## From other hosts, behind a web server")[2]
    return chapter[chapter.index(f"\n{start}") :].split("```\n")[1]


class WebServer:
    """A running web server that passes all requests to a relay on this machine."""

    def __init__(self, kind: str, folder: Path, certificate: Path, relay_port: int) -> None:
        """Keeps all its files in `folder`. `certificate` is that of `Authority.issue(NAME)`."""
        self.kind = kind
        self.port, self.plain_port = free_port(), free_port()
        """With TLS, and without."""
        self.url = f"https://{NAME}:{self.port}"
        self._folder = folder
        values = {
            "folder": str(folder),
            "host": HOST,
            "name": NAME,
            "port": self.port,
            "plain_port": self.plain_port,
            "certificate": certificate,
            "documented": _documented(kind).replace(_RELAY, f"{HOST}:{relay_port}"),
        }
        (folder / "config").write_text(_CONFIGS[kind](values))
        self._command = [word.format(folder=folder) for word in _COMMANDS[kind]]

    def __enter__(self) -> Self:
        home = str(self._folder)
        environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": home, "XDG_DATA_HOME": home}
        with (self._folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )
        try:
            block_until(self._listens, f"{self.kind} listens")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # Apache ends its own processes then
        self._process.wait(timeout=LONGEST)

    def said(self) -> str:
        """Returns what the server has written about problems."""
        files = [self._folder / name for name in ("stderr", "log")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.kind} ended with {self._process.returncode} at its start:\n{self.said()}")
        return answers(self.port) and answers(self.plain_port)


def _apache(values: Mapping[str, Any]) -> str:
    modules = (f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in _APACHE_MODULES)
    return "".join(modules) + _APACHE.format(**values)


def _caddy(values: Mapping[str, Any]) -> str:
    """Returns the documented site twice: with TLS, by the test's certificate in place of a public one, and without."""
    documented, start = values["documented"], f"{NAME} {{\n"
    assert start in documented
    tls = f"{NAME}:{values['port']} {{\n    encode gzip\n    tls {values['certificate']} {values['certificate']}\n"
    plain = f"http://{NAME}:{values['plain_port']} {{\n"
    return _CADDY.format(**values) + documented.replace(start, tls) + documented.replace(start, plain)


_CONFIGS = {"nginx": lambda values: _NGINX.format(**values), "Apache": _apache, "Caddy": _caddy}
