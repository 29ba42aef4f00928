//! What an evaluation leaves behind that was killed and could not tidy up. Its processes end by themselves; the rest the
//! next one removes, which would else meet it when it gets the same number as a process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::ROOT;

/// What a folder for a run's own files is called; the number of the evaluation's process follows.
const WORK: &str = "evaluation-";

/// What control groups and containers are called; that number follows, `-`, and a number of their own.
pub(crate) const GROUP: &str = "roadrunner-evaluation-";

/// What iceoryx2's shared memory and folder are called; that number follows, and `-`. Short, as paths of sockets are made
/// of it, which have 108 bytes.
pub(crate) const SHARED: &str = "rre-";

/// Where iceoryx2 has shared memory.
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";

/// The folder for this process's files, in another one.
#[must_use]
pub fn own_folder(work: &Path) -> PathBuf {
    work.join(format!("{WORK}{}", std::process::id()))
}

/// Removes what evaluations made whose processes are gone: their folders in `work`, their control groups in the first
/// level of each hierarchy, and iceoryx2's files. Called before this process has made any of its own, so that what has
/// its number is another one's. Says how many of these were removed.
#[must_use]
pub fn sweep(work: &Path) -> usize {
    let numbered = |rest: &str| {
        rest.strip_prefix('-')
            .is_some_and(|own| !own.is_empty() && own.bytes().all(|b| b.is_ascii_digit()))
    };
    let removed = sweep_folder(work, WORK, str::is_empty, remove)
        + sweep_folder(&std::env::temp_dir(), SHARED, |rest| rest == "-", remove)
        + sweep_folder(Path::new(SHARED_MEMORY), SHARED, |rest| rest.starts_with('-'), remove);
    // In version 1 there is a hierarchy for each kind, all of which runc uses.
    let hierarchies = folders(Path::new(ROOT)).into_iter().chain([ROOT.into()]);
    let groups =
        hierarchies.map(|folder: PathBuf| sweep_folder(&folder, GROUP, numbered, remove_group));
    removed + groups.sum::<usize>()
}

/// Removes what is named by `prefix`, the number of a process that is gone, and what `follows` lets follow.
fn sweep_folder(
    folder: &Path,
    prefix: &str,
    follows: impl Fn(&str) -> bool,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let gone = entries.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let parts = rest.map(|rest| rest.split_at(digits(rest)));
        parts.is_some_and(|(process, rest)| follows(rest) && is_gone(process))
    });
    gone.filter(|entry| remove(&entry.path()).is_ok()).count()
}

/// How many digits a text begins with.
fn digits(text: &str) -> usize {
    text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len())
}

/// Whether there is no process of this number, or it is this one.
fn is_gone(process: &str) -> bool {
    let Ok(number) = process.parse::<u32>() else { return false };
    let there = Path::new("/proc").join(process).try_exists();
    number == std::process::id() || there.is_ok_and(|there| !there)
}

fn remove(path: &Path) -> io::Result<()> {
    let is_folder = fs::symlink_metadata(path)?.is_dir();
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// A group with those in it; one with a process stays. Its files are the kernel's, and go with it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_evaluations_left_that_are_gone_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, parent) = (u32::MAX, std::os::unix::process::parent_id());
        let own = own_folder(folder.path());
        let left = format!("{WORK}{gone}");
        let stays = [
            format!("{WORK}{parent}"),
            format!("{left}.log"),
            format!("{left}-notes"),
            WORK.to_owned(),
            gone.to_string(),
        ];
        for name in stays.iter().chain([&left]) {
            fs::create_dir_all(folder.path().join(name).join("bundle")).unwrap();
        }
        fs::create_dir(&own).unwrap();
        assert_eq!(sweep_folder(folder.path(), WORK, str::is_empty, remove), 2);
        assert!(!own.exists() && !folder.path().join(left).exists());
        for name in stays {
            assert!(folder.path().join(&name).join("bundle").exists(), "{name}");
        }
    }

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::create_dir_all(precious.join("inside")).unwrap();
        let link = folder.path().join(format!("{WORK}{}", u32::MAX));
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        assert_eq!(sweep_folder(folder.path(), WORK, str::is_empty, remove), 1);
        assert!(precious.join("inside").exists() && !link.exists());
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
