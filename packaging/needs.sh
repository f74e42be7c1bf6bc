#!/bin/sh
# Installs the Debian packages that `make test-packages` needs and that are missing. Prints nothing if none is missing.
set -eu

missing=
need() { # package, then a command that succeeds if the package is installed
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
need mmdebstrap command -v mmdebstrap
need lintian command -v lintian
need mandoc command -v mandoc
need zsh command -v zsh
need fish command -v fish
need buildah command -v buildah
need debhelper command -v dh
need python3-venv /usr/bin/python3 -c 'import ensurepip'
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests of the packages run as root and need programs that are not installed. On Debian or Ubuntu:" >&2
    echo "    sudo apt-get install -y$missing && sudo make test-packages" >&2
    exit 1
fi
echo "Installing for the tests of the packages:$missing" >&2
apt-get update -qq >&2
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
