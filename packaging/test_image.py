"""The container image, built by Buildah on a local base, and run on a read-only root by `make test-packages`.

No container engine runs here: the image runs as its user in separate namespaces.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_TREE = Path(__file__).parents[1]
_OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_STATE = "/var/lib/smtp-dedup-relay"


def buildah(*arguments: str) -> str:
    result = subprocess.run(["buildah", *arguments], cwd=_TREE, check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, on the bare system that the Makefile has made as its base."""
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, "build/root.tar", "/")
    # Authorities that the administrator of this machine has added: a registry may have its certificate from one.
    if _OWN_AUTHORITIES.is_dir():
        buildah("add", "--quiet", base, str(_OWN_AUTHORITIES), str(_OWN_AUTHORITIES))
    base_image = buildah("commit", "--quiet", "--rm", base)
    built = buildah(
        *("build", "--quiet", "--isolation", "chroot", "--format", "docker", "--build-arg", "VERSION=1.2.3"),
        *("--build-arg", f"BASE={base_image}", "."),
    )
    yield built
    buildah("rmi", "--force", built, base_image)


@pytest.fixture(scope="module")
def config(image: str) -> Any:
    """What the image tells a container engine."""
    return json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]


@pytest.fixture(scope="module")
def root(image: str) -> Iterator[Path]:
    """The root folder of a container of the image."""
    container = buildah("from", image)
    yield Path(buildah("mount", container))
    buildah("rm", container)


def run(root: Path, config: dict[str, Any], script: str) -> str:
    """Runs a shell script as the image's user, on a read-only root with a state folder and a network of its own."""
    inner = f'exec chroot --userspec={config["User"]} {root} env -i "$@" bash -euc {shlex.quote(script)}'
    outer = f"""
    ip link set lo up; ip address add 172.17.0.2/16 dev lo
    mount --bind {root} {root}; mount -o remount,bind,ro {root}
    mount -t tmpfs -o uid=12525,mode=700 none {root}{_STATE}
    mount -t tmpfs none {root}/tmp; mount -t proc none {root}/proc
    {inner}"""
    result = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-euc", outer, "sh", *config["Env"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_image_names_user_health_check_and_version(config: dict[str, Any]) -> None:
    assert config["User"] == "12525:12525"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["StopSignal"] == "SIGTERM"
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["licenses"]) == ("smtp-dedup-relay", "1.2.3", "Apache-2.0")
    assert "suppresses repeated mail" in labels["description"]


def test_the_image_has_neither_pip_nor_build_tools(root: Path) -> None:
    found = subprocess.run(
        ["find", root, "-name", "pip", "-o", "-name", "ensurepip", "-o", "-name", "hatchling", "-o", "-name", "cc"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""


def test_a_container_on_a_read_only_root_serves_its_network_and_is_healthy(root: Path, config: dict[str, Any]) -> None:
    check = shlex.join(config["Healthcheck"]["Test"][1:])
    mail = run(
        root,
        config,
        f"""
        ! touch /writable 2>/dev/null
        ! {check} 2>/dev/null
        relay serve --upstream maildir:{_STATE}/mail 2>/tmp/log &
        until grep -q serving /tmp/log; do sleep 0.1; done
        {check}
        for copy in 1 2; do
            printf 'From: a@example.org\\nSubject: s\\n\\nhello\\n' |
                relay sendmail --relay 172.17.0.2:2525 bob@example.org
        done
        kill $!
        wait $!
        ls {_STATE}/mail/new
        """,
    )
    assert len(mail.split()) == 1


def test_a_container_whose_settings_serve_only_loopback_says_so(root: Path, config: dict[str, Any]) -> None:
    said = run(
        root,
        config,
        f"""
        export RELAY_LISTEN__NETWORKS=127.0.0.0/8
        relay serve --upstream maildir:{_STATE}/mail 2>/tmp/log &
        until grep -q serving /tmp/log; do sleep 0.1; done
        printf 'Subject: s\n\nhello\n' | relay sendmail --relay 172.17.0.2:2525 bob@example.org 2>&1 && exit 1
        kill $!
        wait $!
        cat /tmp/log
        """,
    )
    assert "554 5.7.1" in said
    assert "listen.networks holds only loopback, but the relay listens on 0.0.0.0:2525" in said
    assert "session refused" in said
