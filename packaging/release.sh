#!/bin/sh
# Builds the files of a release: wheel, source, Debian package, bill of materials (CycloneDX) and checksums.
# `make release` calls it: release.sh FOLDER. Two runs at the same commit give the same bytes.
set -eu
cd "$(dirname "$0")/.."

folder=$1
python=.venv/bin/python
version=$($python -c 'import relay; print(relay.__version__)')

heading=$(grep -m 1 '^## ' CHANGELOG.md)
case "$heading" in
"## [$version] - "*) ;;
*)
    echo "relay/__init__.py says $version, CHANGELOG.md begins with \"$heading\"" >&2
    exit 1
    ;;
esac

rm -rf "$folder" build/sbom
mkdir -p "$folder"
$python -m hatchling build -t wheel -t sdist -d "$folder" >/dev/null
packaging/deb.sh "$folder"/*.whl "$folder" >/dev/null

# What an installation contains, without pip. The name in place of the file keeps the path of this folder out of it.
$python -m venv --without-pip build/sbom
install="$python -m pip --python build/sbom/bin/python install --quiet --disable-pip-version-check --no-compile"
$install --require-hashes -r requirements/run.txt
$install --no-index --no-deps --find-links "$folder" "smtp-dedup-relay==$version"
sed "s/^dynamic = .*/version = \"$version\"/" pyproject.toml >build/sbom/pyproject.toml
.venv/release/bin/cyclonedx-py environment build/sbom/bin/python --pyproject build/sbom/pyproject.toml \
    --output-reproducible -o "$folder/smtp-dedup-relay-$version.cdx.json"

(cd "$folder" && sha256sum -- *) >build/SHA256SUMS
mv build/SHA256SUMS "$folder"
ls -l "$folder"
case "$heading" in *"not released") echo "To publish it, write its date in CHANGELOG.md first: $heading" >&2 ;; esac
