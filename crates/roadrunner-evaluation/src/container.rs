//! Programs in containers, by runc alone: a bundle that sees the host's system libraries, read-only, and one program.
//!
//! A container shares the host's network unless it is on a host of its own, which is the fastest that containers can be
//! connected, and so the hardest to beat.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::hosts::Host;
use crate::leftovers::GROUP;

/// What the host's programs are linked with, where it is there.
const LIBRARIES: [&str; 3] = ["/usr", "/lib", "/lib64"];

/// Where the program is in the container.
const PROGRAM: &str = "/function";

/// What is in a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'c> {
    /// The host whose network it has; this one's without.
    pub(crate) host: Option<&'c Host>,
    pub(crate) program: &'c Path,
    pub(crate) args: &'c [&'c str],
    /// `NAME=VALUE` each.
    pub(crate) variables: &'c [String],
    /// What it can read beside the libraries, by the same path as outside.
    pub(crate) files: &'c [&'c Path],
}

/// A bundle, removed with this value.
#[derive(Debug)]
pub(crate) struct Container {
    runc: PathBuf,
    folder: PathBuf,
    id: String,
}

impl Container {
    /// A bundle for a program.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn new(runc: &Path, work: &Path, contents: &Contents<'_>) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{GROUP}{}-{number}", std::process::id());
        let this = Self { runc: runc.to_owned(), folder: work.join(&id), id };
        fs::create_dir_all(this.folder.join("bundle/rootfs"))?;
        fs::write(this.folder.join("bundle/config.json"), config(contents).to_string())?;
        Ok(this)
    }

    /// What runc is told, to run it and end with it.
    #[must_use]
    pub(crate) fn args(&self) -> [OsString; 6] {
        let [state, bundle] =
            ["state", "bundle"].map(|name| self.folder.join(name).into_os_string());
        ["--root".into(), state, "run".into(), "--bundle".into(), bundle, self.id.clone().into()]
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut delete = Command::new(&self.runc);
        delete.arg("--root").arg(self.folder.join("state")).args(["delete", "--force", &self.id]);
        // It has ended by itself, as a rule.
        let _ = delete.output();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn config(Contents { host, program, args, variables, files }: &Contents<'_>) -> Value {
    let bind = |from: &Path, to: &Path| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"] });
    let mut mounts = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
    let libraries = LIBRARIES.iter().map(Path::new).filter(|path| path.exists());
    mounts.extend(libraries.map(|path| bind(path, path)));
    mounts.push(bind(program, Path::new(PROGRAM)));
    mounts.extend(files.iter().map(|file| bind(file, file)));
    let mut namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount"].map(|name| json!({ "type": name })).into();
    if let Some(host) = host {
        let path = format!("/proc/{}/ns/net", host.pid());
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    let args: Vec<_> = [PROGRAM].iter().chain(*args).collect();
    let variables: Vec<_> =
        ["PATH=/usr/bin:/bin"].into_iter().chain(variables.iter().map(String::as_str)).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": variables,
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": mounts,
        "linux": { "namespaces": namespaces },
    })
}
