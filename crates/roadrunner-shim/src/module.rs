//! Finds a container's module in its root file system and sees what it is.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use roadrunner_image::limit::MODULE_BYTES;
use roadrunner_sys::open_below;

use crate::error::Refusal;
use crate::spec::Spec;

/// What every binary module begins with, in the version that engines run.
const CORE: &[u8] = b"\0asm\x01\0\0\0";

/// What components begin with.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What native programs and scripts begin with.
const NATIVE: [&[u8]; 2] = [b"\x7fELF", b"#!"];

/// Where programs are looked for when the environment says nothing.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/";

/// The module that a container's first argument names, with its name.
pub(crate) fn find(spec: &Spec, rootfs: &Path) -> Result<(String, Vec<u8>), Refusal> {
    let Some(entry) = spec.process.args.first().filter(|entry| !entry.is_empty()) else {
        let why =
            "the container has no entry point: its image or its command must name a .wasm file";
        return Err(Refusal::Invalid(why.into()));
    };
    let root = File::open(rootfs).map_err(Refusal::failed("open the root file system"))?;
    let mut file = open(&root, spec, entry)?;
    let what = format!("read the entry point {entry}");
    let meta = file.metadata().map_err(Refusal::failed(&what))?;
    if !meta.is_file() {
        return Err(Refusal::Invalid(format!("the entry point {entry} is no file")));
    }
    if meta.len() > MODULE_BYTES {
        let limit = format!("{} bytes, over the limit of {MODULE_BYTES}", meta.len());
        return Err(Refusal::Invalid(format!("the entry point {entry} has {limit}")));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MODULE_BYTES).read_to_end(&mut bytes).map_err(Refusal::failed(&what))?;
    check(entry, &bytes)?;
    Ok((entry.clone(), bytes))
}

/// Opens the entry point as a shell would find it.
fn open(root: &File, spec: &Spec, entry: &str) -> Result<File, Refusal> {
    let places = places(spec, entry);
    for place in &places {
        match open_below(root.as_fd(), place) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("open the entry point {}", place.display());
                return Err(Refusal::failed(what)(error));
            }
        }
    }
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let looked = places.join(", ");
    Err(Refusal::Invalid(format!("the image has no entry point {entry}; looked for {looked}")))
}

fn places(spec: &Spec, entry: &str) -> Vec<PathBuf> {
    let cwd = Path::new("/").join(&spec.process.cwd);
    if entry.contains('/') {
        return vec![cwd.join(entry)];
    }
    let env = spec.env();
    let path = env.get("PATH").map_or(PATH, String::as_str);
    let dirs = path.split(':').filter(|dir| dir.starts_with('/')).map(PathBuf::from);
    // Images of single modules have them at the root and name them without a slash.
    dirs.chain([cwd]).map(|dir| dir.join(entry)).collect()
}

/// Whether these bytes are a module that can run here.
pub(crate) fn check(entry: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let what = if bytes.starts_with(CORE) {
        return Ok(());
    } else if bytes.starts_with(COMPONENT) {
        "is a WebAssembly component; this runtime runs core modules (build for wasm32-wasip1)"
    } else if NATIVE.iter().any(|magic| bytes.starts_with(magic)) {
        "is a native program; this runtime runs WebAssembly only, so give its container another \
         runtime class, in a pod of its own"
    } else {
        "is no WebAssembly module"
    };
    Err(Refusal::Invalid(format!("the entry point {entry} {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn rootfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("app/bin")).unwrap();
        for place in ["root.wasm", "app/bin/tool.wasm", "app/here.wasm"] {
            fs::write(dir.path().join(place), MODULE).unwrap();
        }
        dir
    }

    fn found(entry: &str) -> Result<(String, Vec<u8>), Refusal> {
        let dir = rootfs();
        let mut spec = Spec::default();
        spec.process.args = vec![entry.into()];
        spec.process.env = vec!["PATH=/nowhere:/app/bin".into()];
        spec.process.cwd = "/app".into();
        find(&spec, dir.path())
    }

    #[test]
    fn entries_are_found_as_a_shell_would() {
        for entry in ["/root.wasm", "tool.wasm", "here.wasm", "./here.wasm", "../root.wasm"] {
            assert_eq!(found(entry).unwrap().1, MODULE, "{entry}");
        }
        for entry in ["root.wasm", "/app", "/none.wasm", ""] {
            assert!(matches!(found(entry), Err(Refusal::Invalid(_))), "{entry}");
        }
        let missing = found("none.wasm").unwrap_err().to_string();
        assert!(missing.contains("/app/bin/none.wasm"), "{missing}");
    }

    #[test]
    fn what_is_no_module_is_called_by_its_name() {
        let cases: [(&[u8], &str); 5] = [
            (b"\x7fELF\x02", "native program"),
            (b"#!/bin/sh", "native program"),
            (COMPONENT, "component"),
            (b"(module)", "no WebAssembly module"),
            (b"", "no WebAssembly module"),
        ];
        for (bytes, expected) in cases {
            let refused = check("/a", bytes).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(check("/a", MODULE).is_ok());
    }
}
