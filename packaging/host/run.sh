#!/bin/sh
# Boots a bare system with systemd in a container of its own network, installs the package, and tests the service there.
# As root. Needs systemd-container and mmdebstrap, and the package in dist/ (make deb). Prints one line for each test.
# The system is of the same release as this one: the package contains libraries for its Python.
set -eu

cd "$(dirname "$0")/../.."
. /etc/os-release
suite=$VERSION_CODENAME
package=$(ls dist/smtp-dedup-relay_*.deb)
for needed in systemd-nspawn mmdebstrap; do
    command -v "$needed" >/dev/null || {
        echo "$needed is missing: sudo apt-get install systemd-container mmdebstrap" >&2
        exit 1
    }
done

base=build/host-$suite.tar
[ -e "$base" ] || mmdebstrap --quiet --variant=minbase \
    --include=python3,systemd,systemd-sysv,dbus,iproute2,postfix,procps "$suite" "$base"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar -C "$root" -xf "$base"
cp "$package" packaging/host/guest.sh packaging/host/load.py "$root/root/"
cp packaging/host/guest.service "$root/etc/systemd/system/"
echo mail.example.test >"$root/etc/mailname"
rm -f "$root/etc/resolv.conf"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../guest.service "$root/etc/systemd/system/multi-user.target.wants/"

echo "booting $PRETTY_NAME with $package; it takes about three minutes"
# A bare test system says when it is ready and powers itself off.
timeout 600 systemd-nspawn --quiet -D "$root" -b --private-network --register=no --keep-unit \
    >build/host-test.boot.log 2>&1 || true
cp "$root/root/log" build/host-test.log 2>/dev/null || {
    echo "the system did not boot; see build/host-test.boot.log" >&2
    exit 1
}
grep -E '^(ok|FAIL)    ?[^:]*$' build/host-test.log
grep -q '^ok    all tests have run$' build/host-test.log && ! grep -q '^FAIL' build/host-test.log || {
    echo "failed; see build/host-test.log" >&2
    exit 1
}
