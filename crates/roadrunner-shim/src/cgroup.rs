//! The control group that a pod's first container names: the pod's process is in it, so that what the pod uses is counted, and
//! limited by the groups above it, which whoever orders pods sets up. Both versions of the kernel's interface.
//!
//! Nothing is limited in the group itself: it would hold for all containers of the pod, and the limits that a pod's own
//! container comes with are those of a process that does nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::Refusal;

/// Where the kernel's interface is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The file that only the second version has, at its root.
const UNIFIED: &str = "cgroup.controllers";

/// The file by which processes are put into a group.
const PROCESSES: &str = "cgroup.procs";

/// The hierarchies of the first version that count or limit what a pod uses. Those for devices, freezing and the like mean
/// nothing to a sandbox.
const HIERARCHIES: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "blkio"];

/// A group whose last process has just been killed can be busy for a moment: so often it is tried again, and that far
/// apart.
const REMOVALS: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the host has the second version alone.
pub(crate) fn is_unified() -> bool {
    Path::new(ROOT).join(UNIFIED).exists()
}

/// A pod's group, in each hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// The roots of the hierarchies, and the group's directory in each.
    dirs: Vec<(PathBuf, PathBuf)>,
}

impl Cgroup {
    /// The group of this name, as a container's configuration has it.
    pub(crate) fn named(name: &str) -> Result<Self, Refusal> {
        Self::below(Path::new(ROOT), name)
    }

    fn below(root: &Path, name: &str) -> Result<Self, Refusal> {
        let path = path_of(name)?;
        let roots = if root.join(UNIFIED).exists() {
            vec![root.to_owned()]
        } else {
            let all = HIERARCHIES.map(|hierarchy| root.join(hierarchy));
            all.into_iter().filter(|root| root.join(PROCESSES).exists()).collect()
        };
        Ok(Self { dirs: roots.into_iter().map(|root| (root.clone(), root.join(&path))).collect() })
    }

    /// Makes the group where it is not there, and puts a process into it.
    pub(crate) fn join(&self, pid: u32) -> Result<(), Refusal> {
        for (_, dir) in &self.dirs {
            let joined = fs::create_dir_all(dir)
                .and_then(|()| fs::write(dir.join(PROCESSES), pid.to_string()));
            joined.map_err(Refusal::failed(format!("join the control group {}", dir.display())))?;
        }
        Ok(())
    }

    /// Takes this process, which is the last one, out of the group, and removes it.
    pub(crate) fn leave(&self) {
        for (root, _) in &self.dirs {
            if let Err(error) = fs::write(root.join(PROCESSES), std::process::id().to_string()) {
                tracing::warn!(root = %root.display(), %error, "can't leave a control group");
            }
        }
        self.remove();
    }

    /// Removes the group, whose processes are gone.
    pub(crate) fn remove(&self) {
        for (_, dir) in &self.dirs {
            if let Err(error) = remove(dir) {
                tracing::warn!(group = %dir.display(), %error, "can't remove a control group");
            }
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && tries < REMOVALS => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Where a group is below a hierarchy's root. Its name is a path, or `SLICE:PREFIX:NAME` as systemd has it: there the slice
/// `a-b.slice` lies in `a.slice`.
fn path_of(name: &str) -> Result<PathBuf, Refusal> {
    let parts: Vec<&str> = name.split(':').collect();
    let path = match parts[..] {
        [slice, prefix, unit] => {
            let slices = slices(slice).join("/");
            let unit = if unit.ends_with(".slice") {
                unit.to_owned()
            } else {
                format!("{prefix}-{unit}.scope")
            };
            PathBuf::from(slices).join(unit)
        }
        _ => Path::new(name).strip_prefix("/").unwrap_or(Path::new(name)).to_owned(),
    };
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_below || path.as_os_str().is_empty() {
        return Err(Refusal::Invalid(format!("{name:?} is no name of a control group")));
    }
    Ok(path)
}

/// A slice with those that it lies in, outermost first.
fn slices(slice: &str) -> Vec<String> {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("{}.slice", &stem[..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_or_systemd_s() {
        let cases = [
            ("/k8s.io/abc", "k8s.io/abc"),
            ("relative/abc", "relative/abc"),
            (
                "kubepods-burstable-pod1.slice:cri-containerd:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-abc.scope",
            ),
            ("system.slice:x:y.slice", "system.slice/y.slice"),
        ];
        for (name, expected) in cases {
            assert_eq!(path_of(name).unwrap(), Path::new(expected), "{name}");
        }
        for name in ["", "/", "/a/../../b", "..", "a:../../x:b"] {
            assert!(path_of(name).is_err(), "{name}");
        }
    }

    /// A tree of files like the kernel's.
    fn tree(hierarchies: &[&str], unified: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for hierarchy in hierarchies {
            fs::create_dir_all(dir.path().join(hierarchy)).unwrap();
            fs::write(dir.path().join(hierarchy).join(PROCESSES), "").unwrap();
        }
        if unified {
            fs::write(dir.path().join(UNIFIED), "cpu memory").unwrap();
        }
        dir
    }

    fn groups(root: &Path) -> Vec<PathBuf> {
        let cgroup = Cgroup::below(root, "/pods/one").unwrap();
        cgroup.join(4711).unwrap();
        for (_, dir) in &cgroup.dirs {
            assert_eq!(fs::read_to_string(dir.join(PROCESSES)).unwrap(), "4711");
            // The kernel's are no files that have to be removed.
            fs::remove_file(dir.join(PROCESSES)).unwrap();
        }
        cgroup.leave();
        let own = std::process::id().to_string();
        let dirs: Vec<PathBuf> = cgroup
            .dirs
            .into_iter()
            .map(|(root, dir)| {
                assert_eq!(fs::read_to_string(root.join(PROCESSES)).unwrap(), own, "it left");
                assert!(
                    !dir.exists() && dir.parent().unwrap().exists(),
                    "only what is the pod's goes"
                );
                dir.strip_prefix(root.parent().unwrap()).unwrap().to_owned()
            })
            .collect();
        dirs
    }

    #[test]
    fn both_versions_are_joined_and_left() {
        let first = tree(&["cpu", "memory", "devices", "unified"], false);
        assert_eq!(groups(first.path()), ["cpu/pods/one", "memory/pods/one"].map(PathBuf::from));
        let second = tree(&[""], true);
        let name = second.path().file_name().unwrap();
        assert_eq!(groups(second.path()), [Path::new(name).join("pods/one")]);
    }

    #[test]
    fn a_group_that_is_in_use_is_not_removed_and_one_that_is_gone_is_no_error() {
        let root = tree(&[""], true);
        let cgroup = Cgroup::below(root.path(), "one").unwrap();
        cgroup.remove();
        cgroup.join(1).unwrap();
        // Another one's group in it.
        fs::create_dir(root.path().join("one/more")).unwrap();
        cgroup.remove();
        assert!(root.path().join("one/more").exists());
    }
}
