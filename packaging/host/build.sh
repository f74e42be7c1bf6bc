#!/bin/sh
# Builds the Debian package for a release of Debian, in a bare system of it, and tests it with that release's lintian:
# build.sh SUITE FOLDER. As root. Prints the name of the package. The system stays in build/ for the next time.
set -eu
cd "$(dirname "$0")/../.."

suite=$1
folder=$2
root=build/builder-$suite
if [ ! -e "$root" ]; then
    rm -rf "$root.new"
    mmdebstrap --quiet --variant=minbase --include=make,python3-venv,debhelper,dpkg-dev,lintian "$suite" "$root.new" ${MIRROR:+"$MIRROR"}
    mv "$root.new" "$root"
fi
version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# The build has no network. The libraries are fetched here, for the other Python.
# Without the conditions, which pip would test with the Python here.
sed 's/ ; .* \\$/ \\/' requirements/run.txt requirements/build.txt >"build/wheels-$suite.txt"
if ! cmp -s "build/wheels-$suite.txt" "$root/wheels/requirements.txt"; then
    rm -rf "$root/wheels"
    platforms=
    for glibc in 2_17 2_28 2_34; do platforms="$platforms --platform manylinux_${glibc}_$(uname -m)"; done
    # shellcheck disable=SC2086
    .venv/bin/python -m pip download -qq --disable-pip-version-check --require-hashes --only-binary :all: \
        --python-version "$version" $platforms --platform "manylinux2014_$(uname -m)" \
        -r "build/wheels-$suite.txt" -d "$root/wheels"
    mv "build/wheels-$suite.txt" "$root/wheels/requirements.txt"
fi

mkdir -p "$root/src"
find "$root/src" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
tar -c --exclude=./.git --exclude='./.venv*' --exclude=./build --exclude=./dist --exclude=./var . | tar -x -C "$root/src"
# The processes and mounts of the build end with it.
unshare --net --mount --pid --fork --mount-proc="$PWD/$root/proc" chroot "$root" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels \
    SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" sh -euc '
        cd /src
        make deb
        lintian --profile debian --allow-root --fail-on error dist/*.deb' >"build/builder-$suite.log" 2>&1 || {
    tail -n 40 "build/builder-$suite.log" >&2
    exit 1
}
mkdir -p "$folder"
cp "$root"/src/dist/*.deb "$folder"
ls "$root/src/dist" | sed "s,^,$folder/,"
