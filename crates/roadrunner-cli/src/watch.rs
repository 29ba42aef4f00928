//! Whether files changed, by what the kernel says about them. They are looked at from time to time: a
//! look costs a microsecond a file, and works where notifications don't, as for files that another
//! host changes or that are replaced by way of a link.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use roadrunner_workflow::Found;

/// Files as they were at some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<PathBuf, State>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Nothing,
    /// What is in it may be changed by the very functions that see it.
    Folder,
    File {
        id: (u64, u64),
        len: u64,
        written: (i64, i64),
        changed: (i64, i64),
    },
}

impl Files {
    /// Looks at one more.
    pub(crate) fn note(&mut self, path: &Path) -> Found {
        let state = State::of(path);
        let found = match state {
            State::Nothing => Found::Nothing,
            State::Folder => Found::Folder,
            State::File { .. } => Found::File,
        };
        self.0.insert(path.to_owned(), state);
        found
    }

    /// The same files as they are now.
    pub(crate) fn now(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), State::of(path))).collect())
    }
}

impl State {
    fn of(path: &Path) -> Self {
        let file = |found: Metadata| Self::File {
            id: (found.dev(), found.ino()),
            len: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        match path.metadata() {
            Ok(found) if found.is_dir() => Self::Folder,
            Ok(found) => file(found),
            Err(_) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_change_of_a_file_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.wasm");
        let mut files = Files::default();
        assert_eq!(files.note(&path), Found::Nothing);
        assert_eq!(files.note(folder.path()), Found::Folder);
        assert_eq!(files, files.now());
        let mut change = |what: &str, change: &dyn Fn()| {
            change();
            let now = files.now();
            assert_ne!(files, now, "{what}");
            assert_eq!(now, now.now(), "{what}");
            files = now;
        };
        change("it is there", &|| fs::write(&path, "one").unwrap());
        change("it is longer", &|| fs::write(&path, "three").unwrap());
        change("another has its name, length and time", &|| {
            let (beside, time) = (path.with_extension("new"), fs::metadata(&path).unwrap());
            fs::write(&beside, "seven").unwrap();
            let file = fs::File::options().write(true).open(&beside).unwrap();
            file.set_modified(time.modified().unwrap()).unwrap();
            fs::rename(beside, &path).unwrap();
        });
        change("it is gone", &|| fs::remove_file(&path).unwrap());
        change("a folder has its name", &|| fs::create_dir(&path).unwrap());
        fs::write(path.join("inside"), "").unwrap();
        assert_eq!(files, files.now(), "functions may write into folders");
    }
}
