#!/bin/bash
# A RUSTC_WRAPPER that makes a build independent of the directory it runs in.
#
# Cargo hashes the absolute path of a package outside the workspace root into `-C metadata`, rustc hashes that into symbol
# names, and their order decides the layout of the linked module. The package's name and version say the same without the
# path. File names keep cargo's own hash (`-C extra-filename`), so nothing collides in the target directory.
set -eu
rustc=$1
shift
args=()
for arg in "$@"; do
  case $arg in
    metadata=*) arg="metadata=$CARGO_PKG_NAME-$CARGO_PKG_VERSION-$CARGO_CRATE_NAME" ;;
  esac
  args+=("$arg")
done
exec "$rustc" "${args[@]}"
