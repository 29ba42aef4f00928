#!/bin/bash
# A private containerd 1.7 with runc and the CNI plugins, out of Debian's packages, for tests. Installs nothing outside
# PREFIX and needs no service manager.
#
# usage: containerd.sh PREFIX        then: PREFIX/bin has containerd, ctr, runc; PREFIX/usr/lib/cni the plugins
#
# Debian 12's own containerd (1.6) can't take WebAssembly layers. The build of Debian 13 runs on the C library of 12, so it
# is unpacked here and not installed. runc and the plugins come from the machine's own suite.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 PREFIX" >&2; exit 2; }
rm -rf "$1"
mkdir -p "$1/packages" "$1/apt/lists/partial" "$1/apt/cache/archives/partial" "$1/bin"
prefix=$(cd "$1" && pwd)

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keys" ] || { echo "$0: this is no Debian: $keys is missing" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' | sort -u | grep -v security | head -n 1)
if [ -z "$mirror" ]; then
  apt-get update -qq
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | sort -u | grep -v security | head -n 1)
fi
echo "deb [signed-by=$keys] ${mirror:-http://deb.debian.org/debian} trixie main" > "$prefix/apt/sources.list"
options="-qq -o Acquire::Languages=none -o APT::Sandbox::User=root"
of_trixie="$options -o Dir::Etc::sourcelist=$prefix/apt/sources.list -o Dir::Etc::sourceparts=/dev/null \
  -o Dir::State::lists=$prefix/apt/lists -o Dir::Cache=$prefix/apt/cache"

cd "$prefix/packages"
apt-get $of_trixie update
apt-get $of_trixie download containerd/trixie
[ -n "$(apt-cache madison runc)" ] || apt-get update -qq
apt-get $options download runc containernetworking-plugins libseccomp2
for package in *.deb; do dpkg -x "$package" "$prefix"; done

for program in containerd ctr; do ln -s "$prefix/usr/bin/$program" "$prefix/bin/$program"; done
ln -s "$prefix/usr/bin/containerd-shim-runc-v2" "$prefix/bin/containerd-shim-runc-v2"
libraries=$prefix/usr/lib/$(uname -m)-linux-gnu
# The library that runc was built with; the package may not be installed here.
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$prefix/usr/sbin/runc" > "$prefix/bin/runc"
chmod +x "$prefix/bin/runc"
cd "$prefix"
rm -rf "$prefix/packages" "$prefix/apt"
"$prefix/bin/containerd" --version
"$prefix/bin/runc" --version | head -n 1
