#!/bin/sh
# Installs the Debian and npm packages that the tests need and that are missing. Prints nothing if none is missing.
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
need libnet-ssleay-perl perl -MNet::SSLeay -e 1
need curl command -v curl
need msmtp command -v msmtp
need openssl command -v openssl
need haproxy command -v haproxy
need prometheus command -v promtool
need chromium command -v chromium
need nginx command -v nginx
need apache2-bin command -v apache2
need caddy command -v caddy
# Readers of mail, whose views of a message are compared. npm packages of fixed versions and digests come after these.
need nodejs command -v node
need npm command -v npm
need php-mbstring php -r 'mb_internal_encoding("UTF-8");'
need php-mailparse php -r 'mailparse_msg_create();'
READERS=$(dirname "$0")/parts/readers
# Each name once.
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
missing=${missing% }

has_readers() { # the npm packages of the lock, copied when they were installed
    cmp -s "$READERS/package-lock.json" "$READERS/node_modules/installed-lock.json"
}
[ -n "$missing" ] || ! has_readers || exit 0

say_how() {
    echo "The tests need programs that are not installed. On Debian or Ubuntu:" >&2
    [ -z "$missing" ] || echo "    sudo apt-get install -y $missing" >&2
    has_readers || echo "    cd tests/parts/readers && sudo npm ci --ignore-scripts &&" \
        "sudo cp package-lock.json node_modules/installed-lock.json    # mailparser, postal-mime" >&2
    exit 1
}
install_readers() {
    has_readers && return
    echo "Installing for the tests: mailparser, postal-mime" >&2
    (cd "$READERS" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || say_how
    cp "$READERS/package-lock.json" "$READERS/node_modules/installed-lock.json"
}
[ "${1:-}" != --check ] || say_how
if [ -z "$missing" ]; then
    install_readers
    exit 0
fi
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
install_readers
