//! `guests/dist/SOURCES`: what the committed modules were built from, and by which compiler.
//!
//! One fact per line, a name, a space, a value; lines that start with `#` are comments:
//! ```text
//! compiler rustc 1.95.0 (59807616e 2026-04-14)
//! sources 5f2c...                                 SHA-256 over the paths and contents of all source files
//! blur.wasm 09ab...                               SHA-256 of the module, one line each
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::modules_in;
use crate::shell::Workspace;

/// The record's name in `guests/dist`.
pub(super) const FILE: &str = "SOURCES";

const HEADER: &str = "\
# What the modules in this directory were built from. Written by `cargo xtask guests`, verified by `cargo xtask guests --check`.
# compiler: which rustc. sources: SHA-256 over guests/ and the crates it uses. The rest: SHA-256 of each module.
";

/// What decides the bytes of a module: the guests, the crates of this repository that they use, and the build's own script.
const SOURCES: [&str; 4] = [
    "guests",
    "crates/roadrunner-guest",
    "crates/roadrunner-abi",
    "scripts/rustc-stable-metadata.sh",
];

/// Files of these kinds are sources; a README or an editor's backup is not.
const EXTENSIONS: [&str; 7] = ["c", "h", "lock", "rs", "sh", "toml", "wat"];

/// Directories below [`SOURCES`] that hold results.
const RESULTS: [&str; 2] = ["dist", "target"];

/// The contents of the record.
pub(super) struct Record {
    /// The compiler, as it prints its version.
    pub(super) rustc: String,
    /// The digest of all sources.
    pub(super) sources: String,
    /// The digest of each module, by file name.
    pub(super) modules: BTreeMap<String, String>,
}

impl Record {
    /// Reads a record; every line must be one that [`Record::to_text`] writes.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut modules = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) =
                line.split_once(' ').with_context(|| format!("`{line}` is not `name value`"))?;
            modules.insert(name.to_owned(), value.to_owned());
        }
        let rustc = modules.remove("compiler").context("the line `compiler` is missing")?;
        let sources = modules.remove("sources").context("the line `sources` is missing")?;
        Ok(Self { rustc, sources, modules })
    }

    /// The record as a file.
    pub(super) fn to_text(&self) -> String {
        let modules = self.modules.iter().map(|(name, digest)| format!("{name} {digest}\n"));
        let modules: String = modules.collect();
        format!("{HEADER}compiler {}\nsources {}\n{modules}", self.rustc, self.sources)
    }
}

/// The digest of all sources: of each file its path in the repository, its length and its bytes, in the order of the paths.
pub(super) fn digest_of_sources(workspace: &Workspace) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect_sources(&workspace.root.join(source), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in &files {
        let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        let path = file.strip_prefix(&workspace.root).context("a source lies in the repository")?;
        hasher.update(format!("{}\n{}\n", path.display(), bytes.len()));
        hasher.update(&bytes);
    }
    Ok(hex(&hasher.finalize()))
}

/// The digest of each module in a directory, by file name.
pub(super) fn digests_of_modules(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for module in modules_in(dir)? {
        let bytes =
            fs::read(&module).with_context(|| format!("could not read {}", module.display()))?;
        let name = module.file_name().context("a listed file has a name")?;
        digests.insert(name.display().to_string(), hex(&Sha256::digest(&bytes)));
    }
    Ok(digests)
}

/// Adds the source files at or below a path.
fn collect_sources(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let named = |names: &[&str], name: Option<&std::ffi::OsStr>| {
        names.iter().any(|known| name.is_some_and(|name| name == *known))
    };
    if path.is_dir() {
        if !named(&RESULTS, path.file_name()) {
            let entries =
                fs::read_dir(path).with_context(|| format!("could not list {}", path.display()))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("could not list {}", path.display()))?;
                collect_sources(&entry.path(), files)?;
            }
        }
    } else if named(&EXTENSIONS, path.extension()) {
        files.push(path.to_owned());
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let modules = BTreeMap::from([("blur.wasm".to_owned(), hex(&Sha256::digest(b"blur")))]);
        let rustc = "rustc 1.95.0 (59807616e 2026-04-14)".to_owned();
        let written = Record { rustc, sources: hex(&[0, 255]), modules };
        let read = Record::parse(&written.to_text()).unwrap();
        assert_eq!(read.rustc, written.rustc);
        assert_eq!(read.sources, "00ff");
        assert_eq!(read.modules, written.modules);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        for text in [
            "",
            "sources 00\n",
            "compiler rustc 1.95.0\n",
            "compiler rustc\nsources 00\nblur.wasm\n",
        ] {
            assert!(Record::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_sources_are_collected() {
        let mut files = Vec::new();
        collect_sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut files).unwrap();
        assert!(
            files
                .iter()
                .all(|file| { file.extension().is_some_and(|extension| extension != "wasm") })
        );
        assert!(files.iter().any(|file| file.ends_with("src/guests/record.rs")));
    }
}
