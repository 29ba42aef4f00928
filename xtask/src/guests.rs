//! The guest modules: built from `guests/`, and the committed ones in `guests/dist` held to their sources.
//!
//! `guests/` is a workspace of its own for `wasm32-wasip1`. All modules go to `target/guests`, where the tests load them.
//! The ones that `roadrunner demo` and the benchmarks carry are also committed, so that those need no Wasm toolchain;
//! [`check`] proves that they were built from the sources beside them.

mod build;
mod record;
pub(crate) mod toolchain;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::Workspace;
use record::Record;

/// The modules in `guests/dist`: those of the demo first, then those of the benchmarks and of the evaluation.
const COMMITTED: [&str; 19] = [
    "decode",
    "resize",
    "greyscale",
    "edges",
    "blur",
    "sheet",
    "encode",
    "produce",
    "consume",
    "verify",
    "noop",
    "echo",
    "glance",
    "json-source",
    "json-sink",
    "hello",
    "shrink",
    "nop",
    "cat",
];

const REMEDY: &str = "run `cargo xtask guests` and commit guests/dist";

/// Builds everything, then writes the committed modules and the record of what they were built from.
pub(crate) fn build_and_record(workspace: &Workspace) -> Result<()> {
    let toolchain = toolchain::find(workspace)?;
    println!("guests: {toolchain}");
    let built = build::all(workspace, &toolchain)?;
    let dist = dist(workspace);
    fs::create_dir_all(&dist).with_context(|| format!("could not create {}", dist.display()))?;
    for name in COMMITTED {
        let file = format!("{name}.wasm");
        copy(&built.join(&file), &dist.join(&file))?;
    }
    let record = Record {
        rustc: toolchain.version(workspace)?,
        sources: record::digest_of_sources(workspace)?,
        modules: record::digests_of_modules(&dist)?,
    };
    let path = dist.join(record::FILE);
    fs::write(&path, record.to_text())
        .with_context(|| format!("could not write {}", path.display()))?;
    println!("wrote {} modules and {}", COMMITTED.len(), path.display());
    Ok(())
}

/// Fails unless the committed modules are what the sources give; changes nothing but `target/`.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let recorded = check_record(workspace)?;
    let toolchain = toolchain::find(workspace)?;
    println!("guests: {toolchain}");
    let built = build::all(workspace, &toolchain)?;
    let rustc = toolchain.version(workspace)?;
    if rustc != recorded.rustc {
        println!(
            "not compared byte by byte: the committed modules were built by `{}`, this is `{rustc}`",
            recorded.rustc
        );
        return Ok(());
    }
    let fresh = record::digests_of_modules(&built)?;
    for (name, committed) in &recorded.modules {
        ensure!(
            fresh.get(name) == Some(committed),
            "guests/dist/{name} is not what {rustc} builds from the sources; {REMEDY}"
        );
    }
    println!("{} committed modules are byte for byte what {rustc} builds", recorded.modules.len());
    Ok(())
}

/// Compares `guests/dist` with its record; needs no toolchain.
fn check_record(workspace: &Workspace) -> Result<Record> {
    let dist = dist(workspace);
    let path = dist.join(record::FILE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("could not read {}; {REMEDY}", path.display()))?;
    let recorded =
        Record::parse(&text).with_context(|| format!("{} is damaged; {REMEDY}", path.display()))?;
    if recorded.sources != record::digest_of_sources(workspace)? {
        bail!("the sources of the guests changed since guests/dist was built; {REMEDY}");
    }
    if let Some(name) =
        COMMITTED.iter().find(|name| !recorded.modules.contains_key(&format!("{name}.wasm")))
    {
        bail!("guests/dist/{name}.wasm is missing from the record; {REMEDY}");
    }
    let found = record::digests_of_modules(&dist)?;
    if found != recorded.modules {
        let all: BTreeSet<&String> = recorded.modules.keys().chain(found.keys()).collect();
        let differs = |name: &&String| found.get(*name) != recorded.modules.get(*name);
        let names: Vec<&str> = all.into_iter().filter(differs).map(String::as_str).collect();
        bail!(
            "in guests/dist, these differ from their recorded digests: {}; {REMEDY}",
            names.join(", ")
        );
    }
    println!("the record of guests/dist matches the sources and the {} modules", found.len());
    Ok(recorded)
}

fn dist(workspace: &Workspace) -> PathBuf {
    workspace.root.join("guests/dist")
}

/// Copies the bytes only: the linker marks a module executable, which it is not.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    fs::write(to, bytes).with_context(|| format!("could not write {}", to.display()))
}

/// The `.wasm` files of a directory, sorted by name.
fn modules_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("could not list {}", dir.display()))?;
    let mut modules = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("could not list {}", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            modules.push(path);
        }
    }
    modules.sort();
    Ok(modules)
}
