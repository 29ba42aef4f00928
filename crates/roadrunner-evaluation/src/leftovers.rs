//! What an evaluation leaves behind that was killed and could not tidy up: nobody else does, and it is in nobody's way
//! but a reader's. Its processes end by themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where control groups are, and below it in version 1 a folder for each kind, all of which runc uses.
const GROUPS: &str = "/sys/fs/cgroup";

/// Where iceoryx2 has its files.
const FILES: [&str; 2] = ["/dev/shm", "/tmp"];

/// What control groups and containers are called; the number of the evaluation's process follows.
pub(crate) const GROUP: &str = "roadrunner-evaluation-";

/// The same of shared memory: short, as iceoryx2 makes paths of sockets of it, which have 108 bytes.
pub(crate) const SHARED: &str = "rre-";

/// Removes what is in the folder of `work` under a name like its own, and in places like the kernel's, and belongs to
/// processes that are gone. How many of these there were.
#[must_use]
pub fn sweep(work: &Path) -> usize {
    let own = work.parent().zip(work.file_name()).and_then(|(folder, name)| {
        Some((folder, name.to_str()?.trim_end_matches(|digit: char| digit.is_ascii_digit())))
    });
    let own = own.map_or(0, |(folder, prefix)| sweep_folder(folder, prefix, remove));
    let files = FILES.map(|folder| sweep_folder(Path::new(folder), SHARED, remove));
    let groups = folders(Path::new(GROUPS)).into_iter().chain([GROUPS.into()]);
    let groups = groups.map(|folder| sweep_folder(&folder, GROUP, remove_group));
    own + files.into_iter().chain(groups).sum::<usize>()
}

fn sweep_folder(folder: &Path, prefix: &str, remove: impl Fn(&Path) -> io::Result<()>) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let gone = entries.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        rest.and_then(number).is_some_and(|process| !Path::new("/proc").join(process).exists())
    });
    gone.filter(|entry| remove(&entry.path()).is_ok()).count()
}

fn remove(path: &Path) -> io::Result<()> {
    let is_folder = fs::symlink_metadata(path)?.is_dir();
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// A group with those in it. Its files are the kernel's, and go with it.
fn remove_group(path: &Path) -> io::Result<()> {
    folders(path).iter().try_for_each(|group| remove_group(group))?;
    fs::remove_dir(path)
}

/// The folders in a folder.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// The number that a name goes on with.
fn number(rest: &str) -> Option<&str> {
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end).filter(|digits| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_processes_that_are_gone_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [own, gone] = [std::process::id(), u32::MAX].map(|process| format!("work-{process}"));
        let names = [own.clone(), gone.clone(), format!("{gone}-3"), "work-".into(), "w".into()];
        for name in &names {
            fs::create_dir_all(folder.path().join(name).join("bundle")).unwrap();
        }
        fs::write(folder.path().join(format!("{gone}.log")), "").unwrap();
        // Whatever the machine has in the other places stays out of this count.
        assert_eq!(sweep_folder(folder.path(), "work-", remove), 3);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().flatten().map(|it| it.file_name()).collect();
        left.sort();
        assert_eq!(left, ["w", "work-", own.as_str()]);
    }

    #[test]
    fn a_group_goes_with_those_in_it_and_stays_while_there_is_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("group");
        fs::create_dir_all(group.join("container")).unwrap();
        // A folder with a file is what the kernel refuses to remove, as it does a group with a process.
        fs::write(group.join("file"), "").unwrap();
        assert!(remove_group(&group).is_err());
        fs::remove_file(group.join("file")).unwrap();
        fs::create_dir_all(group.join("container")).unwrap();
        remove_group(&group).unwrap();
        assert!(!group.exists());
    }
}
