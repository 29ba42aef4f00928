//! Which functions the pods of this host serve, and where: a directory with one file for each function.
//!
//! ```text
//! /run/roadrunner/NAMESPACE/of/lock               held while an entry is made or removed
//! /run/roadrunner/NAMESPACE/of/functions/NAME     an entry, locked by the process that serves it as long as it lives
//! /run/roadrunner/pods/DIGEST                     where that process takes calls
//! ```
//!
//! An entry appears whole: it is written under another name and linked. The kernel releases the lock of a process that is
//! killed, so a stale entry is one that somebody else can lock; whoever finds one removes it.
//!
//! Pods keep the entries in memory, and read them again when the directory has changed: a call asks the kernel for one time.
//! They are not told of changes by inotify, of which a user has 128 instances on many hosts: a hundred pods would leave none to
//! the kubelet.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Refusal;
use crate::spec::Spec;

/// Where all registries are.
const ROOT: &str = "/run/roadrunner";

/// Bytes of an entry: some names and a path.
const ENTRY_BYTES: u64 = 64 << 10;

/// How fine the times of files are, at the coarsest: a tick of the kernel's and some. What changed so shortly before it was read
/// may change again without another time.
const TICK: Duration = Duration::from_millis(50);

/// A function that somebody serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) function: String,
    /// The pod that it is in.
    pub(crate) pod: String,
    /// Where the pod takes calls.
    pub(crate) socket: PathBuf,
    /// Who gets its responses.
    #[serde(default)]
    pub(crate) next: Vec<String>,
    /// Whom it may call itself.
    #[serde(default)]
    pub(crate) calls: Vec<String>,
}

/// Where the registry of a container's namespace is: of containerd's, and within it of Kubernetes', so that neither sees the
/// functions of another one.
pub(crate) fn dir(namespace: &str, spec: &Spec) -> PathBuf {
    let root = Path::new(ROOT).join(namespace);
    // A name of Kubernetes has no slash, but annotations may come from anybody.
    match spec.kubernetes_namespace().filter(|name| !name.is_empty() && !name.contains('/')) {
        Some(name) => root.join(format!("of-{name}")),
        None => root.join("of"),
    }
}

/// Where a pod of such a namespace takes calls: at a path that is its own and as short as sockets need it.
pub(crate) fn socket(dir: &Path, pod: &str) -> PathBuf {
    let digest = Sha256::digest(dir.join(pod).as_os_str().as_bytes());
    let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(ROOT).join("pods").join(name)
}

/// Makes a directory for this user alone, with those above it.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// All entries of a namespace, as they are now.
pub(crate) struct Registry {
    dir: PathBuf,
    known: Mutex<Known>,
    reading: Mutex<()>,
}

#[derive(Default)]
struct Known {
    entries: BTreeMap<String, Entry>,
    /// When the directory had last changed as it was read; `None` where it may have changed since.
    read_at: Option<SystemTime>,
    /// Counts changes, so that who made something of the entries knows whether they still are so.
    version: u64,
}

/// An entry of this process's own, which goes with this value.
#[derive(Debug)]
pub(crate) struct Published {
    dir: PathBuf,
    name: String,
    _locked: File,
}

impl Registry {
    /// Reads a namespace's entries.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        make_dir(&dir.join("functions"))?;
        let registry =
            Self { dir: dir.to_owned(), known: Mutex::default(), reading: Mutex::default() };
        registry.look()?;
        Ok(registry)
    }

    /// Held while entries are read, so that what was read later is also what is kept.
    fn reading(&self) -> MutexGuard<'_, ()> {
        // As below.
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries as they were at the last look, and the number of this state.
    pub(crate) fn now(&self) -> (BTreeMap<String, Entry>, u64) {
        let known = self.known();
        (known.entries.clone(), known.version)
    }

    /// The number of the state that the entries are in, after a look at them.
    pub(crate) fn version(&self) -> u64 {
        if let Err(error) = self.look() {
            tracing::error!(%error, "can't read the registry of functions");
        }
        self.known().version
    }

    /// The same, after a look at every entry: for who misses one.
    pub(crate) fn version_of_all(&self) -> u64 {
        self.known().read_at = None;
        self.version()
    }

    /// Reads the entries again where the directory has changed.
    fn look(&self) -> io::Result<()> {
        let functions = self.dir.join("functions");
        let (now, changed) = (SystemTime::now(), fs::metadata(&functions)?.modified()?);
        if self.known().read_at == Some(changed) {
            return Ok(());
        }
        let _reading = self.reading();
        let known: Vec<_> = self.known().entries.keys().cloned().collect();
        let mut is_whole = true;
        for entry in fs::read_dir(&functions)? {
            is_whole &= self.refresh(&entry?.file_name());
        }
        for name in &known {
            is_whole &= self.refresh(OsStr::new(name));
        }
        // What could not be read is read again at the next look.
        self.known().read_at = (is_whole && changed + TICK < now).then_some(changed);
        Ok(())
    }

    /// Enters a function. It must be able to take calls already.
    pub(crate) fn publish(&self, entry: &Entry) -> Result<Published, Refusal> {
        let name = entry.function.clone();
        let failed = |error| Refusal::failed(format!("enter the function {name}"))(error);
        let text = serde_json::to_vec(entry).map_err(|error| failed(error.into()))?;
        let _alone = lock(&self.dir).map_err(failed)?;
        let place = place(&self.dir, &name);
        let draft = self.dir.join(format!("draft-{}", std::process::id()));
        // One that a process of the same number left when it was killed may be an entry already.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed)?;
        let linked = file.lock().and_then(|()| file.write_all(&text)).and_then(|()| {
            match fs::hard_link(&draft, &place) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && is_stale(&place) => {
                    fs::remove_file(&place)?;
                    fs::hard_link(&draft, &place)
                }
                linked => linked,
            }
        });
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => {
                let reading = self.reading();
                self.refresh(OsStr::new(&name));
                drop(reading);
                Ok(Published { dir: self.dir.clone(), name, _locked: file })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let by = self.known().entries.get(&name).map(|entry| entry.pod.clone());
                let by = by.unwrap_or_else(|| "another".into());
                Err(Refusal::WrongState(format!(
                    "the function {name} is served by pod {by} already"
                )))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Somebody did not answer: looks whether it is still there.
    pub(crate) fn doubt(&self, function: &str) {
        let _reading = self.reading();
        self.refresh(OsStr::new(function));
    }

    /// Reads one entry, or notes that it is gone. A stale one is removed. False where it could not be read, by whatever
    /// fault of this host.
    fn refresh(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return true };
        let mut was_read = true;
        let read = match read(&self.dir, name) {
            Ok(Found::Entry(entry)) => Some(entry),
            Ok(Found::Nothing) => None,
            Ok(Found::Stale) => {
                if let Err(error) = sweep(&self.dir) {
                    tracing::warn!(%error, "can't remove stale functions");
                }
                None
            }
            Err(error) => {
                tracing::warn!(function = name, %error, "an entry of a function can't be read");
                let is_wrong = [ErrorKind::InvalidData, ErrorKind::UnexpectedEof, ErrorKind::Other];
                was_read = is_wrong.contains(&error.kind());
                None
            }
        };
        let mut known = self.known();
        if known.entries.get(name) == read.as_ref() {
            return was_read;
        }
        match read {
            Some(entry) => known.entries.insert(name.to_owned(), entry),
            None => known.entries.remove(name),
        };
        known.version += 1;
        was_read
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let removed =
            lock(&self.dir).and_then(|_alone| fs::remove_file(place(&self.dir, &self.name)));
        if let Err(error) = removed {
            tracing::warn!(function = self.name, %error, "can't remove a function's entry");
        }
    }
}

/// What is found under a function's name.
enum Found {
    Entry(Entry),
    /// Of a process that is gone.
    Stale,
    Nothing,
}

fn read(dir: &Path, name: &str) -> io::Result<Found> {
    let path = place(dir, name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        file => file?,
    };
    if !is_held(&file)? {
        return Ok(Found::Stale);
    }
    let mut text = Vec::new();
    file.take(ENTRY_BYTES).read_to_end(&mut text)?;
    let entry: Entry = serde_json::from_slice(&text)?;
    if entry.function == name {
        Ok(Found::Entry(entry))
    } else {
        Err(io::Error::other(format!("it is of function {:?}", entry.function)))
    }
}

/// Whether some process holds the lock of an entry, and so lives.
fn is_held(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_stale(path: &Path) -> bool {
    File::open(path).and_then(|file| is_held(&file)).is_ok_and(|held| !held)
}

/// Removes the entries of processes that are gone.
pub(crate) fn sweep(dir: &Path) -> io::Result<()> {
    let functions = dir.join("functions");
    let entries = match fs::read_dir(&functions) {
        // Nobody ever served a function there.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    // An entry that is in the making is locked before it is there, and nobody makes one now.
    let _alone = lock(dir)?;
    for entry in entries {
        let path = entry?.path();
        if is_stale(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Holds the lock for changes until the file is dropped.
fn lock(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file =
        options.create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn place(dir: &Path, function: &str) -> PathBuf {
    dir.join("functions").join(function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn entry(function: &str, pod: &str) -> Entry {
        let (function, pod, socket) = (function.into(), pod.into(), "/run/x".into());
        Entry { function, pod, socket, next: vec!["b".into()], calls: Vec::new() }
    }

    #[test]
    fn what_one_publishes_another_hears_of() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) =
            (Registry::open(dir.path()).unwrap(), Registry::open(dir.path()).unwrap());
        let (none, before) = other.now();
        assert!(none.is_empty());
        let published = one.publish(&entry("a", "p")).unwrap();
        let version = other.version();
        assert_ne!(version, before);
        let (entries, _) = other.now();
        assert_eq!(entries.get("a"), Some(&entry("a", "p")));
        let later = Registry::open(dir.path()).unwrap();
        assert_eq!(later.now().0, entries, "who comes later reads it");
        assert_eq!(other.version(), version, "nothing has changed");
        drop(published);
        assert_ne!(other.version(), version);
        assert!(other.now().0.is_empty());
    }

    #[test]
    fn a_change_is_seen_however_soon_it_comes_and_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) =
            (Registry::open(dir.path()).unwrap(), Registry::open(dir.path()).unwrap());
        for round in 0..500 {
            let published = one.publish(&entry("a", "p")).unwrap();
            other.version();
            assert_eq!(other.now().0.len(), 1, "round {round}");
            drop(published);
            other.version();
            assert_eq!(other.now().0.len(), 0, "round {round}");
        }
        // Long after the last change the entries are not read again.
        let long_ago = SystemTime::now() - 10 * TICK;
        File::open(dir.path().join("functions")).unwrap().set_modified(long_ago).unwrap();
        other.version();
        assert_eq!(other.known().read_at, Some(long_ago));
        let damaged = Entry { pod: "none".into(), ..entry("b", "p") };
        other.known().entries.insert("b".into(), damaged);
        other.version();
        assert_eq!(other.now().0.len(), 1, "it was read again without a change");
    }

    #[test]
    fn a_function_is_served_once() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let first = registry.publish(&entry("a", "p")).unwrap();
        let refused = registry.publish(&entry("a", "q")).unwrap_err().to_string();
        assert!(refused.contains("by pod p already"), "{refused}");
        drop(first);
        registry.publish(&entry("a", "q")).expect("it is free again");
        assert!(!dir.path().join(format!("draft-{}", std::process::id())).exists());
    }

    /// An entry whose process was killed.
    fn stale(dir: &Path, name: &str) {
        let text = serde_json::to_vec(&entry(name, "dead")).unwrap();
        fs::write(place(dir, name), text).unwrap();
        let path = place(dir, name);
        let mut holder = Command::new("flock")
            .arg("--exclusive")
            .arg(&path)
            .args(["sh", "-c", "echo held; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        holder.stdout.take().unwrap().read_exact(&mut said).unwrap();
        assert!(!is_stale(&path), "its process lives");
        drop(holder.stdin.take());
        holder.wait().unwrap();
    }

    #[test]
    fn entries_of_the_dead_are_nobody_s() {
        let dir = tempfile::tempdir().unwrap();
        let first = Registry::open(dir.path()).unwrap();
        let living = first.publish(&entry("living", "p")).unwrap();
        stale(dir.path(), "dead");
        let registry = Registry::open(dir.path()).unwrap();
        let names: Vec<_> = registry.now().0.into_keys().collect();
        assert_eq!(names, ["living"]);
        assert!(!place(dir.path(), "dead").exists(), "who finds it removes it");
        stale(dir.path(), "dead");
        registry.publish(&entry("dead", "q")).expect("its name is free");
        stale(dir.path(), "other");
        sweep(dir.path()).unwrap();
        let left = fs::read_dir(dir.path().join("functions")).unwrap().count();
        // The published one went with its value.
        assert_eq!(left, 1);
        drop(living);
    }

    #[test]
    fn damaged_entries_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let path = place(dir.path(), "a");
        for text in ["", "{", r#"{"function":"b","pod":"p","socket":"/x"}"#] {
            let mut file = File::create(&path).unwrap();
            file.lock().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            registry.doubt("a");
            assert!(registry.now().0.is_empty(), "{text}");
        }
    }
}
