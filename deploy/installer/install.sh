#!/bin/sh
# Puts the shim and its part of containerd's configuration on a host, and restarts containerd if that changed. What is there
# already stays as it is; the configuration before the change is kept beside it.
#
# usage: install.sh ROOT        ROOT is the host's root directory: / on the host itself, /host in the installer's pod
set -eu
[ $# -eq 1 ] || { echo "usage: $0 ROOT" >&2; exit 2; }
root=${1%/}
here=$(cd "$(dirname "$0")" && pwd)
shim=containerd-shim-roadrunner-v1
config=$root/etc/containerd/config.toml

mkdir -p "$root/usr/local/bin" "$root/etc/containerd"
# Renamed into place: running shims keep the file that they were started from.
cp "$here/$shim" "$root/usr/local/bin/.$shim.new"
chmod 755 "$root/usr/local/bin/.$shim.new"
mv "$root/usr/local/bin/.$shim.new" "$root/usr/local/bin/$shim"

if [ -f "$config" ] && grep -q 'runtimes\.roadrunner\]' "$config"; then
  echo "$config has the runtime already"
  exit 0
fi
# A file without a version is of containerd 1's first format, which has other names for everything.
version=$(sed -n 's/^version *= *\([0-9]*\).*/\1/p' "$config" 2>/dev/null | head -n 1)
case "$version" in
  2) part=$here/containerd-1.toml ;;
  3) part=$here/containerd-2.toml ;;
  *) echo "$0: $config says no version that is known (2 or 3); make one with \`containerd config default\`" >&2; exit 1 ;;
esac
cp -p "$config" "$config.before-roadrunner"
{ cat "$config"; echo; cat "$part"; } > "$config.new"
mv "$config.new" "$config"
echo "$config: added the runtime, for version = $version"

# Of the host's own processes; without a service manager somebody else restarts it.
if [ -n "$root" ] && nsenter --target 1 --mount -- systemctl --version > /dev/null 2>&1; then
  nsenter --target 1 --mount -- systemctl restart containerd
elif [ -z "$root" ] && command -v systemctl > /dev/null; then
  systemctl restart containerd
else
  echo "restart containerd: there is no systemd to ask"
fi
