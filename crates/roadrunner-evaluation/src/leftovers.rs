//! What an evaluation leaves behind that was killed and could not tidy up: nobody else does, and it is in nobody's way
//! but a reader's. Its processes end by themselves.

use std::fs;
use std::path::Path;

/// Where an evaluation makes something of its own, and what its name begins with; its process's number follows.
const PLACES: [(&str, &str); 5] = [
    ("/sys/fs/cgroup", GROUP),
    ("/sys/fs/cgroup/cpuacct", GROUP),
    ("/sys/fs/cgroup/memory", GROUP),
    ("/dev/shm", SHARED),
    ("/tmp", SHARED),
];

/// What control groups and containers are called.
pub(crate) const GROUP: &str = "roadrunner-evaluation-";

/// What shared memory and its files are called: short, as iceoryx2 makes paths of sockets of it, which have 108 bytes.
pub(crate) const SHARED: &str = "rre-";

/// Removes what is in the folder of `work` under a name like its own, and in places like the kernel's, and belongs to
/// processes that are gone. How many of these there were.
#[must_use]
pub fn sweep(work: &Path) -> usize {
    let own = work.parent().zip(work.file_name()).and_then(|(folder, name)| {
        Some((folder, name.to_str()?.trim_end_matches(|digit: char| digit.is_ascii_digit())))
    });
    let places = PLACES.into_iter().map(|(folder, prefix)| (Path::new(folder), prefix));
    places.chain(own).map(|(folder, prefix)| sweep_folder(folder, prefix)).sum()
}

fn sweep_folder(folder: &Path, prefix: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let gone = entries.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        rest.and_then(number).is_some_and(|process| !Path::new("/proc").join(process).exists())
    });
    let removed = gone.filter(|entry| {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // The files of a control group are the kernel's, and go with it.
        let removed = if !is_folder {
            fs::remove_file(&path)
        } else if prefix == GROUP {
            fs::remove_dir(&path)
        } else {
            fs::remove_dir_all(&path)
        };
        removed.is_ok()
    });
    removed.count()
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
        assert_eq!(sweep_folder(folder.path(), "work-"), 3);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().flatten().map(|it| it.file_name()).collect();
        left.sort();
        assert_eq!(left, ["w", "work-", own.as_str()]);
    }
}
