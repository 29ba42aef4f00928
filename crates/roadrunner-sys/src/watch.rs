//! Hearing of the files that come and go in a directory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Bytes of news that one read takes: some hundred files' names.
const NEWS: usize = 64 << 10;

/// `struct inotify_event` before its name: descriptor, mask, cookie, length of the name.
const HEAD: usize = 16;

/// A directory that is watched.
#[derive(Debug)]
pub struct Watch(File);

/// What has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that came or went, in order; one can be there twice.
    pub names: Vec<OsString>,
    /// Some of it was lost: the directory must be read again.
    pub lost: bool,
}

impl Watch {
    /// Watches a directory from now on.
    ///
    /// # Errors
    /// When it is no directory, or the user watches too much (`fs.inotify.max_user_watches`).
    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: R2.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: R4.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let news = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_DELETE | libc::IN_ONLYDIR;
        // SAFETY: R3, the string ends in zero.
        if unsafe { libc::inotify_add_watch(file.as_raw_fd(), path.as_ptr(), news) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(file))
    }

    /// Waits until something happens, and says what.
    ///
    /// # Errors
    /// The kernel's, where it has no memory.
    pub fn wait(&self) -> io::Result<Changes> {
        let mut news = vec![0; NEWS];
        let len = loop {
            match (&self.0).read(&mut news) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(changes(&news[..len]))
    }
}

fn changes(mut news: &[u8]) -> Changes {
    let mut changes = Changes::default();
    while let Some((head, rest)) = news.split_at_checked(HEAD) {
        let word = |at: usize| head[at..].first_chunk().map_or(0, |it| u32::from_ne_bytes(*it));
        let (mask, len) = (word(4), word(12) as usize);
        let (name, next) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        // The name is filled up with zeros.
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if mask & (libc::IN_Q_OVERFLOW | libc::IN_IGNORED) != 0 {
            changes.lost = true;
        } else if !name.is_empty() {
            changes.names.push(OsString::from_vec(name.to_vec()));
        }
        news = next;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_comes_and_goes_is_heard_of() {
        let dir = std::env::temp_dir().join(format!("roadrunner-watch-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let watch = Watch::new(&dir).unwrap();
        fs::write(dir.join("one"), "").unwrap();
        fs::rename(dir.join("one"), dir.join("another")).unwrap();
        fs::remove_file(dir.join("another")).unwrap();
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let changes = watch.wait().unwrap();
            assert!(!changes.lost);
            heard.extend(changes.names);
        }
        assert_eq!(heard, ["one", "another", "another"]);
        assert!(Watch::new(&dir.join("none")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lost_news_are_known_to_be_lost() {
        let mut news = Vec::new();
        for (mask, name) in [(libc::IN_CREATE, &b"file\0\0\0\0"[..]), (libc::IN_Q_OVERFLOW, b"")] {
            for word in [1, mask, 0, u32::try_from(name.len()).unwrap()] {
                news.extend(word.to_ne_bytes());
            }
            news.extend(name);
        }
        let names = vec![OsString::from("file")];
        assert_eq!(changes(&news), Changes { names, lost: true });
        assert_eq!(changes(&news[..HEAD - 1]), Changes::default());
    }
}
