#!/bin/bash
# A private Go toolchain for tests, out of Debian 13's packages: Debian 12's has no target wasip1. Installs nothing outside
# PREFIX. 50 MB to download, 330 MB unpacked.
#
# usage: go.sh PREFIX        then: GOOS=wasip1 GOARCH=wasm PREFIX/bin/go build
set -eu
[ $# -eq 1 ] || { echo "usage: $0 PREFIX" >&2; exit 2; }
rm -rf "$1"
mkdir -p "$1/packages" "$1/apt/lists/partial" "$1/apt/cache/archives/partial" "$1/bin"
prefix=$(cd "$1" && pwd)

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keys" ] || { echo "$0: this is no Debian: $keys is missing" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' | sort -u | grep -v security | head -n 1)
echo "deb [signed-by=$keys] ${mirror:-http://deb.debian.org/debian} trixie main" > "$prefix/apt/sources.list"
options="-qq -o Acquire::Languages=none -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=$prefix/apt/sources.list \
  -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$prefix/apt/lists -o Dir::Cache=$prefix/apt/cache"

cd "$prefix/packages"
apt-get $options update
apt-get $options download golang-1.24-go golang-1.24-src
for package in *.deb; do dpkg -x "$package" "$prefix"; done
cd "$prefix"
rm -rf "$prefix/packages" "$prefix/apt"
# Last: what an interrupted run left is not taken for a toolchain.
ln -s "$prefix/usr/lib/go-1.24/bin/go" "$prefix/bin/go"
"$prefix/bin/go" version
