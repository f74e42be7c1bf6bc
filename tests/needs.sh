#!/bin/sh
# Installs the Debian packages that the tests need and that are missing. Prints nothing if none is missing.
# `--check` installs nothing. Exits 1 and prints the command to run if it cannot install or the user is not root.
set -eu

if [ "$(id -u)" != 0 ]; then
    echo "The tests start a Postfix, and Postfix starts as root only:" >&2
    echo "    sudo make test" >&2
    exit 1
fi

PATH=$PATH:/usr/sbin:/sbin
POLICY=/usr/sbin/policy-rc.d

missing=
need() { # package, then a command that succeeds if the package is installed
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
need redis-server command -v redis-server
need postfix command -v postfix
need postfix command -v smtp-source
need php-cli command -v php
need libphp-phpmailer test -e /usr/share/php/libphp-phpmailer/autoload.php
need swaks command -v swaks
need curl command -v curl
need msmtp command -v msmtp
need openssl command -v openssl
# Each name once.
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || exit 0

say_how() {
    echo "The tests need programs that are not installed. On Debian or Ubuntu:" >&2
    echo "    sudo apt-get install -y $missing" >&2
    exit 1
}
[ "${1:-}" != --check ] || say_how
command -v apt-get >/dev/null || say_how

# The installation must start no service, because the tests start their own. An existing policy stays.
if [ ! -e "$POLICY" ]; then
    trap 'rm -f "$POLICY"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
fi

export DEBIAN_FRONTEND=noninteractive
if command -v debconf-set-selections >/dev/null; then
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
fi
echo "Installing for the tests: $missing" >&2
apt-get update -qq >&2 || say_how
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing >&2 || say_how
