"""The Debian package, installed, upgraded and purged in a separate root folder. `make test-packages` runs these tests.

No systemd runs there: they do not show how the service behaves on a booted host.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_TREE = Path(__file__).parents[1]
_NAME = "smtp-dedup-relay"
_EXPOSURE = 1.2
"""The exposure of the service that `systemd-analyze security` may report at most; 0 is the best, 10 the worst."""
_OWN_FOLDERS = ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/lib/dpkg", "/var/log", "/var/cache", "/root")
"""Folders in which dpkg itself and the kernel leave files."""


class Root:
    """A root folder with a Debian system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, status: int = 0) -> str:
        """Runs a command in the root, in a network of its own, and returns what it printed."""
        isolated = ["unshare", "--net", "--mount", "--pid", "--fork", "chroot", str(self.folder)]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        result = subprocess.run([*isolated, *command], env=environ, capture_output=True, text=True, check=False)
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout

    def shell(self, script: str, **variables: str) -> str:
        """Runs a shell script in the root."""
        return self.run("env", *(f"{key}={value}" for key, value in variables.items()), "sh", "-euc", script)

    def install(self, package: Path) -> str:
        """Installs a package, or another version of it."""
        shutil.copy(package, self.folder / "root")
        return self.run("dpkg", "--install", f"/root/{package.name}")

    def files(self) -> set[str]:
        """Returns the paths of all files and folders that a package may leave behind."""
        found = set()
        for folder, folders, names in os.walk(self.folder):
            inside = "/" + str(Path(folder).relative_to(self.folder)).removeprefix(".")
            folders[:] = [name for name in folders if os.path.join(inside, name) not in _OWN_FOLDERS]  # noqa: PTH118
            found |= {os.path.join(inside, name) for name in (*folders, *names)}  # noqa: PTH118
        return found

    def accounts(self) -> list[str]:
        """Returns the lines of the account files."""
        return [
            line
            for name in ("passwd", "group", "shadow", "gshadow")
            for line in (self.folder / "etc" / name).read_text().splitlines()
        ]


@pytest.fixture(scope="session")
def package() -> Path:
    """The package that `make deb` has built last."""
    return max((_TREE / "dist").glob("*.deb"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="session")
def contents(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package."""
    folder = tmp_path_factory.mktemp("contents")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return folder


@pytest.fixture(scope="session")
def older(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package under an older version."""
    folder = tmp_path_factory.mktemp("older")
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder / "tree"], check=True)
    control = folder / "tree" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.0.1-1", control.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "-Znone", "--build", folder / "tree", folder / "older.deb"], check=True)
    return folder / "older.deb"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A bare system, from the archive that the Makefile has made."""
    subprocess.run(["tar", "--extract", "--file", _TREE / "build" / "root.tar", "--directory", tmp_path], check=True)
    return Root(tmp_path)


def test_lintian_finds_no_error(package: Path) -> None:
    checked = subprocess.run(
        ["lintian", "--profile", "debian", "--allow-root", "--fail-on", "error", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_second_build_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    (wheel,) = (_TREE / "build" / "wheel").glob("*.whl")
    subprocess.run([_TREE / "packaging" / "deb.sh", wheel, tmp_path], check=True)
    assert filecmp.cmp(package, tmp_path / package.name, shallow=False)


def test_no_file_names_the_folder_of_the_build(contents: Path) -> None:
    found = subprocess.run(
        ["grep", "--recursive", "--files-with-matches", "--fixed-strings", f"{_TREE}/", contents],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")


def test_the_pages_are_there_with_their_pictures(contents: Path) -> None:
    folder = contents / "usr/share/doc" / _NAME
    for page in ("README.md", "docs/README.md"):
        assert (folder / page).is_file()
    assert {path.suffix for path in (folder / "docs/pictures").iterdir()} == {".svg", ".png"}, "not compressed"


def test_neither_pip_nor_build_tools_are_installed(contents: Path) -> None:
    (libraries,) = (contents / "usr/lib" / _NAME / "lib").glob("python3*/site-packages")
    present = {path.name.partition("-")[0] for path in libraries.iterdir()}
    assert "relay" in present
    assert not present & {"pip", "setuptools", "wheel", "hatchling", "editables"}


@pytest.mark.parametrize(
    ("shell", "path"),
    [
        (["bash", "-n"], "usr/share/bash-completion/completions/relay"),
        (["zsh", "-n"], "usr/share/zsh/vendor-completions/_relay"),
        (["fish", "--no-execute"], "usr/share/fish/vendor_completions.d/relay.fish"),
    ],
)
def test_each_shell_can_read_its_completion(contents: Path, shell: list[str], path: str) -> None:
    assert "_RELAY_COMPLETE" in (contents / path).read_text()
    subprocess.run([*shell, contents / path], check=True)


@pytest.mark.parametrize("page", ["man1/relay.1.gz", "man5/relay.toml.5.gz"])
def test_the_man_pages_have_no_errors(contents: Path, page: str) -> None:
    command = ["mandoc", "-T", "lint", "-W", "error", contents / "usr/share/man" / page]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_systemd_accepts_the_units_and_finds_the_service_little_exposed(root: Root, package: Path) -> None:
    root.install(package)
    folder = root.folder / "usr/lib/systemd/system"
    units = [path.name.replace("@.", "@1.") for path in folder.glob(f"{_NAME}*") if path.is_file()]
    assert {f"{_NAME}.service", f"{_NAME}.socket"} <= set(units)
    # It reports what it does not understand, and ends with 0 all the same.
    root.shell(f"systemd-analyze verify {' '.join(units)} 2>&1 | (! grep .)")
    for service in (name for name in units if name.endswith(".service")):
        root.run("systemd-analyze", "security", "--offline=true", f"--threshold={_EXPOSURE * 10:.0f}", service)


def test_an_installed_relay_serves_and_suppresses_a_repeat(root: Root, package: Path) -> None:
    root.install(package)
    assert root.run("relay", "--version").startswith(f"{_NAME}, version ")
    assert root.run("stat", "-c", "%a %U", "/etc/smtp-dedup-relay/relay.toml") == "644 root\n"
    assert root.run("stat", "-c", "%a %U", "/etc/smtp-dedup-relay/environment") == "600 root\n"
    assert root.run("systemctl", "is-enabled", _NAME) == "enabled\n"
    assert root.run("getent", "passwd", _NAME).split(":")[5] == f"/var/lib/{_NAME}"
    root.shell(_SERVE, **_SETTINGS)
    assert len(list((root.folder / "var/lib" / _NAME / "mail/new").iterdir())) == 1
    assert root.shell("relay suppressed", **_SETTINGS).count(" suppressed ") == 1


def test_upgrade_and_rollback_keep_settings_and_state(root: Root, package: Path, older: Path) -> None:
    root.install(older)
    settings = root.folder / "etc" / _NAME / "relay.toml"
    settings.write_text('[dedup]\nwindow = "3m"\n')
    secrets = root.folder / "etc" / _NAME / "environment"
    secrets.write_text("RELAY_UPSTREAM__PASSWORD=secret\n")
    root.shell(_SERVE, **_SETTINGS)
    for each in (package, older, package):
        root.install(each)
        assert settings.read_text() == '[dedup]\nwindow = "3m"\n'
        assert secrets.read_text() == "RELAY_UPSTREAM__PASSWORD=secret\n"
        assert secrets.stat().st_mode & 0o777 == 0o600
        assert root.shell("relay suppressed", **_SETTINGS).count(" suppressed ") == 1
        assert 'window = "3m"' in root.run("relay", "config")


def test_purge_leaves_nothing(root: Root, package: Path, older: Path) -> None:
    before, accounts = root.files(), root.accounts()
    root.install(older)
    root.install(package)
    root.shell(_SERVE, **_SETTINGS)
    root.run("dpkg", "--remove", _NAME)
    assert (root.folder / "etc" / _NAME / "relay.toml").exists()
    assert (root.folder / "var/lib" / _NAME / "relay.db").exists()
    root.run("dpkg", "--purge", _NAME)
    assert root.files() - before == set()
    assert root.accounts() == accounts


_SETTINGS = {
    "STATE_DIRECTORY": f"/var/lib/{_NAME}",
    "RELAY_UPSTREAM__URL": f"maildir:/var/lib/{_NAME}/mail",
}
_SERVE = f"""
ip link set lo up
install -d -o {_NAME} -g {_NAME} -m 700 /var/lib/{_NAME}
setpriv --reuid={_NAME} --regid={_NAME} --clear-groups relay serve 2>/tmp/log &
timeout 60 sh -c 'until grep -q serving /tmp/log; do sleep 0.1; done'
for copy in 1 2; do printf 'From: a@example.org\\nSubject: s\\n\\nhello\\n' | relay sendmail bob@example.org; done
kill $!
wait $!
"""
"""Starts the installed relay as its user, sends the same mail twice, and ends the relay."""
