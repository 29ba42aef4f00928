//! A compiler for the guests: rustup's where it can fetch the target, else a private one from Debian's packages.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::Workspace;
use crate::tools;

/// Core WebAssembly modules with WASI preview 1.
pub(crate) const TARGET: &str = "wasm32-wasip1";

/// A compiler that has a standard library for [`TARGET`].
pub(crate) enum Toolchain {
    /// The `rustc` on `PATH`.
    Rustup,
    /// A private compiler, this executable.
    Private(PathBuf),
}

/// Finds a compiler for the guests, and installs what is missing of it.
pub(crate) fn find(workspace: &Workspace) -> Result<Toolchain> {
    if tools::has_std(workspace, TARGET) {
        return Ok(Toolchain::Rustup);
    }
    let prefix = workspace.target.join("guest-toolchain");
    let rustc = prefix.join("bin/rustc");
    // The script creates this file last: what an interrupted run left is not taken for a toolchain.
    let complete = prefix.join("complete");
    if complete.exists() {
        return Ok(Toolchain::Private(rustc));
    }
    println!("installing the standard library for {TARGET}");
    let added = tools::download(workspace, &["rustup", "target", "add", TARGET]).run();
    match added {
        Ok(()) if tools::has_std(workspace, TARGET) => return Ok(Toolchain::Rustup),
        Ok(()) => println!("rustup added it to another toolchain than the `rustc` on PATH"),
        Err(error) => println!("rustup can't: {error:#}"),
    }
    println!("installing a private toolchain from Debian's packages into {}", prefix.display());
    let script = workspace.root.join("scripts/guest-toolchain-rust.sh");
    let built = workspace.command(script).args([&prefix]).run();
    built.context(format!(
        "no compiler for the guests can be had: neither `rustup target add {TARGET}` nor Debian's packages work here"
    ))?;
    Ok(Toolchain::Private(rustc))
}

impl Toolchain {
    /// The compiler to give to cargo, if it is not cargo's own.
    pub(crate) fn rustc(&self) -> Option<&Path> {
        match self {
            Self::Rustup => None,
            Self::Private(rustc) => Some(rustc),
        }
    }

    /// Names this toolchain's target directory: two compilers' files must not mix.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Private(_) => "private",
        }
    }

    /// What the compiler says of itself, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub(super) fn version(&self, workspace: &Workspace) -> Result<String> {
        let rustc = self.rustc().unwrap_or(Path::new("rustc"));
        let printed = workspace.command(rustc).args(["--version"]).output()?;
        Ok(printed.trim().to_owned())
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup => write!(f, "the installed compiler has {TARGET}"),
            Self::Private(rustc) => {
                write!(f, "a private compiler has {TARGET}: {}", rustc.display())
            }
        }
    }
}
