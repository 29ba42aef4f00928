#!/bin/bash
# A registry of images (distribution 2.8) out of Debian's package, for tests. Installs nothing outside PREFIX and starts
# nothing.
#
# usage: registry.sh PREFIX        then: PREFIX/bin/docker-registry serve CONFIG
set -eu
[ $# -eq 1 ] || { echo "usage: $0 PREFIX" >&2; exit 2; }
rm -rf "$1"
mkdir -p "$1/packages" "$1/bin"
prefix=$(cd "$1" && pwd)

cd "$prefix/packages"
[ -n "$(apt-cache madison docker-registry)" ] || apt-get update -qq
apt-get -qq -o APT::Sandbox::User=root download docker-registry
dpkg -x docker-registry*.deb "$prefix"
ln -s "$prefix/usr/bin/docker-registry" "$prefix/bin/docker-registry"
rm -rf "$prefix/packages"
"$prefix/bin/docker-registry" --version
