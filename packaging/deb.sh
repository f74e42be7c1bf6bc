#!/bin/sh
# Builds the Debian package for this system and its own Python, from a wheel: deb.sh WHEEL FOLDER. `make deb` calls it.
set -eu
cd "$(dirname "$0")/.."

wheel=$1
folder=$2
tree=build/deb
# Not /usr/bin/python3: after an upgrade of the system that would be a Python for which the libraries were not built.
DEB_PYTHON=$(readlink -f "${DEB_PYTHON:-/usr/bin/python3}")
PIP="$PWD/.venv/bin/python -m pip"
BUILD_RELAY=$PWD/.venv/bin/relay
export DEB_PYTHON PIP BUILD_RELAY

for needed in dh dpkg-buildpackage "$DEB_PYTHON"; do
    command -v "$needed" >/dev/null || {
        echo "$needed is missing: sudo apt-get install debhelper python3-venv" >&2
        exit 1
    }
done
. /etc/os-release
version=$(.venv/bin/python -c 'import relay; print(relay.__version__)')-1+$ID$VERSION_ID

rm -rf "$tree"
mkdir -p "$tree" "$folder"
cp -r packaging/debian "$tree/debian"
cp systemd/* "$tree/debian/"
# debhelper's name for a unit that is not called like the package.
mv "$tree/debian/smtp-dedup-relay-tls.socket" "$tree/debian/smtp-dedup-relay.smtp-dedup-relay-tls.socket"
sed -i 's,/opt/smtp-dedup-relay,/usr/lib/smtp-dedup-relay,' "$tree"/debian/*.service
cp -r "$wheel" requirements/run.txt config/relay.toml packaging/environment README.md CHANGELOG.md docs "$tree"
.venv/bin/python packaging/man.py "$tree/man"
cat >"$tree/debian/changelog" <<END
smtp-dedup-relay ($version) unstable; urgency=medium

  * See changelog.gz in this folder.

 -- smtp-dedup-relay maintainers <maintainers@smtp-dedup-relay.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

(cd "$tree" && umask 022 && dpkg-buildpackage --build=binary --no-check-builddeps --no-sign >../deb.log 2>&1) || {
    tail -n 40 build/deb.log >&2
    exit 1
}
cp build/smtp-dedup-relay_*"_$(dpkg --print-architecture).deb" "$folder"
echo "$folder/smtp-dedup-relay_${version}_$(dpkg --print-architecture).deb"
