//! Builds the guest workspace so that the same sources give the same bytes, wherever the repository lies.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::modules_in;
use super::toolchain::{TARGET, Toolchain};
use crate::shell::Workspace;

/// Builds every guest and returns the directory with the modules: `target/guests`, emptied before.
pub(super) fn all(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let guests = workspace.root.join("guests");
    let target_dir = workspace.target.join("guest-build").join(toolchain.key());
    let released = target_dir.join(TARGET).join("release");
    // Unpacks the registry's crates, whose directories are renamed below.
    workspace
        .cargo(&["fetch", "--locked", "--quiet", "--target", TARGET])
        .dir(&guests)
        .run()
        .context("the crates of the guests can't be fetched")?;
    let homes = private_directories(workspace)?;
    remove_modules(&released)?;
    let cargo =
        workspace.cargo(&["build", "--release", "--locked", "--target", TARGET, "--config"]);
    let mut cargo = cargo
        .args([remapping(&homes)])
        .dir(&guests)
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTC_WRAPPER", workspace.root.join("scripts/rustc-stable-metadata.sh"))
        // Flags of the environment would replace the ones given here.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(rustc) = toolchain.rustc() {
        cargo = cargo.env("RUSTC", rustc);
    }
    cargo.run().context("the guests don't build")?;

    let out = workspace.root.join("target/guests");
    fs::create_dir_all(&out).with_context(|| format!("could not create {}", out.display()))?;
    remove_modules(&out)?;
    let modules = modules_in(&released)?;
    ensure!(!modules.is_empty(), "the guest workspace built no module in {}", released.display());
    for module in &modules {
        ensure_portable(module, &homes)?;
        let to = out.join(module.file_name().context("a listed file has a name")?);
        super::copy(module, &to)?;
    }
    println!("{} modules in {}", modules.len(), out.display());
    Ok(out)
}

/// Directories whose names must not get into a module, each with the name that takes its place.
fn private_directories(workspace: &Workspace) -> Result<Vec<(String, &'static str)>> {
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut directories = Vec::new();
    // First, as they lie in cargo's home: these are named after the registry or its mirror.
    for unpacked in fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten() {
        let unpacked = unpacked.context("could not list the crates in cargo's home")?;
        directories.push((unpacked.path(), "/crates"));
    }
    directories.extend([
        (workspace.target.clone(), "/target"),
        (workspace.root.clone(), "/roadrunner"),
        (cargo_home, "/cargo"),
        (home.join(".rustup"), "/rustup"),
    ]);
    let named = directories.into_iter().map(|(directory, name)| {
        let directory = directory.into_os_string().into_string();
        let directory = directory
            .ok()
            .context("the paths of the repository and of cargo's home must be UTF-8")?;
        Ok((directory, name))
    });
    named.collect()
}

/// Compiler flags as a cargo setting, which adds to those of `guests/.cargo/config.toml` instead of replacing them.
/// rustc applies the last matching rule, so the innermost directory comes last.
fn remapping(homes: &[(String, &str)]) -> String {
    let flags = homes
        .iter()
        .rev()
        .map(|(from, to)| format!("{:?}", format!("--remap-path-prefix={from}={to}")));
    let flags: Vec<String> = flags.collect();
    format!("target.{TARGET}.rustflags=[{}]", flags.join(","))
}

/// Fails when a module carries a path of this machine: it could not be built again elsewhere.
fn ensure_portable(module: &Path, homes: &[(String, &str)]) -> Result<()> {
    let bytes = fs::read(module).with_context(|| format!("could not read {}", module.display()))?;
    for (directory, _) in homes {
        let needle = directory.as_bytes();
        ensure!(
            !bytes.windows(needle.len()).any(|window| window == needle),
            "{} contains the path {directory}; see the remapping in xtask/src/guests/build.rs",
            module.display()
        );
    }
    Ok(())
}

/// Removes modules of earlier builds, so that a guest that was deleted leaves nothing behind.
fn remove_modules(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        for module in modules_in(dir)? {
            fs::remove_file(&module)
                .with_context(|| format!("could not remove {}", module.display()))?;
        }
    }
    Ok(())
}
