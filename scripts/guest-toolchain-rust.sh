#!/bin/bash
# A private Rust compiler with a standard library for wasm32-wasip1, out of Debian's packages: for machines where
# `rustup target add wasm32-wasip1` can't download. Installs nothing outside PREFIX; the result can't be moved.
#
# usage: guest-toolchain-rust.sh PREFIX        then: RUSTC=PREFIX/bin/rustc cargo build --target wasm32-wasip1
#
# Debian's rustc-web has the WebAssembly backend but no library for WASI's current target name, so the library is built
# here once, from the package with its sources. Needs apt and cargo; no root, unless apt's lists must be fetched first.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 PREFIX" >&2; exit 2; }
target=wasm32-wasip1
rm -rf "$1"
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
usr=$prefix/usr
rustlib=$usr/lib/rustlib
host=$(uname -m)-unknown-linux-gnu

newest() { apt-cache madison rustc-web | awk '{ print $3; exit }'; }
version=$(newest)
if [ -z "$version" ]; then
  apt-get update -qq
  version=$(newest)
fi
[ -n "$version" ] || { echo "$0: Debian's package rustc-web is not available here" >&2; exit 1; }

# Compiler, library and sources must be of one version, and the linker of the LLVM that the compiler was built with.
release=$(echo "$version" | cut -d. -f1,2)
llvm=$(apt-cache show "libstd-rust-web-$release=$version" | grep -o 'libllvm[0-9]*' | head -n 1 | tr -dc 0-9)
echo "unpacking rustc-web $version with LLVM $llvm into $prefix"
mkdir "$prefix/packages"
(cd "$prefix/packages" && apt-get download -qq -o APT::Sandbox::User=root "rustc-web=$version" "libstd-rust-web-$release=$version" \
  "libstd-rust-web-dev=$version" "rust-web-src=$version" "libllvm$llvm" "lld-$llvm" libz3-4 wasi-libc)
for package in "$prefix"/packages/*.deb; do dpkg -x "$package" "$prefix"; done

# Wrappers, so that the programs find the unpacked libraries without a change to the environment.
mkdir "$prefix/bin"
wrap() {
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$usr/lib/$(uname -m)-linux-gnu" "$2" > "$prefix/bin/$1"
  chmod +x "$prefix/bin/$1"
}
wrap rustc "$usr/bin/rustc"
wrap rust-lld "$usr/bin/lld-$llvm"
mkdir -p "$rustlib/$host/bin"
ln -sf "$prefix/bin/rust-lld" "$rustlib/$host/bin/rust-lld"

# The C library and start files, where rustc looks for a target's own.
own=$rustlib/$target/lib/self-contained
mkdir -p "$own"
cp "$usr"/lib/wasm32-wasi/{crt1-command.o,crt1-reactor.o,libc.a} "$own"

# The standard library, by building an empty crate on it.
echo "building the standard library for $target"
seed=$prefix/seed
mkdir -p "$seed/src"
echo '#![no_std]' > "$seed/src/lib.rs"
cat > "$seed/Cargo.toml" <<'TOML'
[package]
name = "seed"
version = "0.0.0"
edition = "2021"
[workspace]
[profile.release]
opt-level = 3
codegen-units = 1
TOML
(cd "$seed" && env -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER RUSTC="$prefix/bin/rustc" RUSTC_BOOTSTRAP=1 \
  RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$usr/src=/rustc --remap-path-prefix=$rustlib/src=/rustc" \
  CARGO_TARGET_DIR="$seed/target" cargo build --quiet --release --target $target -Zbuild-std=std,panic_abort)
cp "$seed/target/$target/release/deps/"*.rlib "$rustlib/$target/lib"
rm -f "$rustlib/$target/lib/"libseed-*

rm -rf "$seed" "$prefix/packages" "$usr/src" "$usr/share"
"$prefix/bin/rustc" --version
touch "$prefix/complete"
