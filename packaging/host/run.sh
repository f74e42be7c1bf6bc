#!/bin/sh
# Builds the package for each release of Debian that is named, boots a bare system of it with systemd in a container of its
# own network, installs the package, and tests the service there: run.sh SUITE... As root. Needs systemd-container,
# mmdebstrap, and .venv. Prints one line for each test. MIRROR= names another mirror than Debian's.
set -eu
cd "$(dirname "$0")/../.."
# Mounts of its own, which end with it.
[ "${HOST_TEST_MOUNTS:-}" ] || exec env HOST_TEST_MOUNTS=own unshare --mount "$0" "$@"

for needed in systemd-nspawn mmdebstrap; do
    command -v "$needed" >/dev/null || {
        echo "$needed is missing: sudo apt-get install systemd-container mmdebstrap" >&2
        exit 1
    }
done
mkdir -p build
group=smtp-dedup-relay-host-test.$$
# In memory: a disk that other programs keep busy would be measured, not the relay.
work=$(mktemp -d)
mount -t tmpfs -o size=3g none "$work"
end() {
    umount "$work" && rmdir "$work"
    for each in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuacct; do
        [ ! -e "$each/$group" ] || find "$each/$group" -depth -type d -exec rmdir {} +
    done
}
trap end EXIT
trap 'exit 1' INT TERM HUP

# Writes the package of the first argument to the second one, under a version that is lower than any other.
make_older() {
    dpkg-deb --raw-extract "$1" "$work/older"
    sed -i 's/^Version: .*/Version: 0.0.1-1/' "$work/older/DEBIAN/control"
    dpkg-deb -Znone --build "$work/older" "$2" >/dev/null
    rm -rf "$work/older"
}

# Boots a bare system of a release, with a package. Its log is build/host-test-SUITE.log.
boot() { # suite, package
    base=build/booted-$1
    [ -e "$base" ] || {
        rm -rf "$base.new"
        mmdebstrap --quiet --variant=minbase \
            --include=python3,systemd,systemd-sysv,dbus,iproute2,postfix,procps,redis-server,openssl "$1" "$base.new" ${MIRROR:+"$MIRROR"}
        mv "$base.new" "$base"
    }
    root=$work/$1
    cp -a "$base" "$root"
    cp packaging/host/guest.sh packaging/host/load.py "$root/root/"
    cp "$2" "$root/root/newer.deb"
    make_older "$2" "$root/root/older.deb"
    cp packaging/host/guest.service "$root/etc/systemd/system/"
    echo mail.example.test >"$root/etc/mailname"
    rm -f "$root/etc/resolv.conf" "$root/etc/systemd/system/multi-user.target.wants/redis-server.service"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../guest.service "$root/etc/systemd/system/multi-user.target.wants/"
    # With control groups of version 1 the system gets groups of its own, in which it can set weights.
    timeout 1500 sh -c '
        for each in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuacct; do
            [ ! -d "$each" ] || { mkdir -p "$each/$1" && echo $$ >"$each/$1/cgroup.procs"; }
        done
        exec systemd-nspawn --quiet -D "$2" -b --private-network --register=no --keep-unit' sh "$group" "$root" \
        >"build/host-test-$1.boot.log" 2>&1 || true # a bare system powers itself off
    cp "$root/root/log" "build/host-test-$1.log" 2>/dev/null || {
        echo "the system did not boot; see build/host-test-$1.boot.log" >&2
        return 1
    }
    mv "$root/root/journal" "build/host-test-$1.journal"
    rm -rf "$root"
}

passed=yes
for suite in "$@"; do
    package=$(packaging/host/build.sh "$suite" build/host-packages)
    echo "$suite: booting with $package; it takes some minutes"
    boot "$suite" "$package" || passed=no
    log=build/host-test-$suite.log
    grep -a -E '^(ok|FAIL)  [^:]*$|^(figures|with|without|not run|# )' "$log" | sed "s/^/$suite: /"
    grep -q '^ok    all tests have run$' "$log" && ! grep -q '^FAIL' "$log" || {
        echo "failed; see $log" >&2
        passed=no
    }
done
[ $passed = yes ]
