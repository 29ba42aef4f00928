//! A container's file system: its image's layers mounted in this process's own tree, and the host's directories that it is
//! to see.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount as Layer;
use roadrunner_runtime::WasiDir;
use roadrunner_sys::{MountFlags, mount, restrict_mount, unmount};

use crate::error::Refusal;
use crate::spec::{Mount, Spec};

/// Bytes of a mount's options that the kernel takes: a page.
const OPTION_BYTES: usize = 4095;

/// Files that every container is given and that mean nothing to a guest without sockets and a terminal. WebAssembly's
/// system interface shows directories, not single files.
const PASSED_OVER: [&str; 4] =
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"];

/// The directory of a container for what of the host is mounted for it.
const BINDS: &str = "mounts";

/// The mounted layers, until this is dropped.
#[derive(Debug)]
pub(crate) struct Rootfs {
    path: PathBuf,
    mounted: usize,
    /// Where directories of the host are mounted: below this one, each in one of its own.
    binds: PathBuf,
    bound: usize,
}

impl Rootfs {
    /// Mounts a container's layers at the root that its configuration names.
    pub(crate) fn mount(bundle: &Path, spec: &Spec, layers: &[Layer]) -> Result<Self, Refusal> {
        let path = bundle.join(if spec.root.path.as_os_str().is_empty() {
            Path::new("rootfs")
        } else {
            &spec.root.path
        });
        let mut rootfs = Self { path, mounted: 0, binds: bundle.join(BINDS), bound: 0 };
        if layers.is_empty() {
            // A directory of the host's, with device files that are devices.
            show(&rootfs.path, &rootfs.path, spec.root.readonly)
                .map_err(Refusal::failed("mount the root file system"))?;
            rootfs.mounted += 1;
        } else {
            fs::create_dir_all(&rootfs.path).map_err(Refusal::failed("make the root directory"))?;
        }
        for layer in layers {
            rootfs.add(layer)?;
        }
        Ok(rootfs)
    }

    fn add(&mut self, layer: &Layer) -> Result<(), Refusal> {
        let Options { flags, data } = Options::of(&layer.options);
        if data.len() > OPTION_BYTES {
            let why =
                format!("its options have {} bytes, a mount takes {OPTION_BYTES}", data.len());
            return Err(Refusal::Invalid(format!("the image has too many layers: {why}")));
        }
        // Image files are of no device, whatever they say; guests act with this process's rights.
        let flags = flags.and(MountFlags::NO_DEVICES).and(MountFlags::NO_SUID);
        let source = Some(Path::new(&layer.source));
        let data = (!data.is_empty()).then_some(data.as_str());
        let what = || format!("mount the root file system ({} {:?})", layer.type_, layer.options);
        mount(source, &self.path, Some(&layer.type_), flags, data)
            .map_err(Refusal::failed(what()))?;
        self.mounted += 1;
        if layer.type_ == "bind" {
            // A bind mount takes its other flags only when it is there.
            let flags = flags.and(MountFlags::REMOUNT);
            mount(None, &self.path, None, flags, None).map_err(Refusal::failed(what()))?;
        }
        Ok(())
    }

    /// The directories that the guest sees: its root, and what of the host is mounted for it.
    pub(crate) fn directories(
        &mut self,
        spec: &Spec,
    ) -> Result<BTreeMap<String, WasiDir>, Refusal> {
        let root = WasiDir { path: self.path.clone(), write: !spec.root.readonly };
        let mut dirs = BTreeMap::from([("/".to_owned(), root)]);
        for it in spec.mounts.iter().filter(|it| it.is_bind()) {
            let Some(place) = directory(it)? else { continue };
            let (path, write) = (self.binds.join(self.bound.to_string()), !it.has("ro"));
            let failed = || Refusal::failed(format!("mount {} at {place}", it.source.display()));
            fs::create_dir_all(&path).map_err(failed())?;
            show(&it.source, &path, !write).map_err(failed())?;
            self.bound += 1;
            dirs.insert(place, WasiDir { path, write });
        }
        Ok(dirs)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        for bind in 0..self.bound {
            let path = self.binds.join(bind.to_string());
            // Never what is in it, should it still be mounted.
            if let Err(error) = unmount(&path).and_then(|()| fs::remove_dir(&path)) {
                tracing::warn!(path = %path.display(), %error, "can't unmount a directory");
            }
        }
        let _ = fs::remove_dir(&self.binds);
        for _ in 0..self.mounted {
            if let Err(error) = unmount(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "can't unmount a root file system");
            }
        }
    }
}

/// Options of mount(8), as flags and as text for the file system.
struct Options {
    flags: MountFlags,
    data: String,
}

impl Options {
    fn of(options: &[String]) -> Self {
        let (mut flags, mut data) = (MountFlags::default(), Vec::new());
        for option in options {
            let flag = match option.as_str() {
                "ro" => MountFlags::READ_ONLY,
                "bind" => MountFlags::BIND,
                "rbind" => MountFlags::BIND.and(MountFlags::RECURSIVE),
                "nosuid" => MountFlags::NO_SUID,
                "nodev" => MountFlags::NO_DEVICES,
                "noexec" => MountFlags::NO_EXEC,
                "noatime" => MountFlags::NO_ACCESS_TIME,
                "rw" | "suid" | "dev" | "exec" | "atime" | "defaults" => continue,
                other => {
                    data.push(other);
                    continue;
                }
            };
            flags = flags.and(flag);
        }
        Self { flags, data: data.join(",") }
    }
}

/// Shows a directory of the host at a path, without its devices. Guests act with this process's rights, which has those
/// of root to devices.
fn show(source: &Path, path: &Path, read_only: bool) -> io::Result<()> {
    let flags = MountFlags::BIND.and(MountFlags::RECURSIVE);
    mount(Some(source), path, None, flags, None)?;
    restrict_mount(path, read_only).inspect_err(|_| {
        let _ = unmount(path);
    })
}

/// Where the guest sees a directory of the host; `None` for what guests have no use for.
fn directory(it: &Mount) -> Result<Option<String>, Refusal> {
    let (place, source) = (it.destination.display().to_string(), it.source.display());
    if PASSED_OVER.contains(&place.as_str()) {
        return Ok(None);
    }
    let invalid =
        |why: String| Err(Refusal::Invalid(format!("can't mount {source} at {place}: {why}")));
    match fs::metadata(&it.source) {
        Ok(meta) if meta.is_dir() => Ok(Some(place)),
        Ok(_) => invalid("it is no directory; mount the one that it is in".into()),
        Err(error) if error.kind() == ErrorKind::NotFound => invalid("it is not there".into()),
        Err(error) => invalid(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        Options::of(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_told_from_flags() {
        let overlay = options(&["index=off", "ro", "lowerdir=/a:/b", "nodev"]);
        assert_eq!(overlay.flags, MountFlags::READ_ONLY.and(MountFlags::NO_DEVICES));
        assert_eq!(overlay.data, "index=off,lowerdir=/a:/b");
        let bind = options(&["rbind", "rw"]);
        assert_eq!(bind.flags, MountFlags::BIND.and(MountFlags::RECURSIVE));
        assert_eq!(bind.data, "");
    }

    fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
        let options = ["rbind"].iter().chain(options).map(ToString::to_string).collect();
        let (source, destination) = (source.to_owned(), destination.into());
        Mount { destination, kind: "bind".into(), source, options }
    }

    /// Of the calling thread alone; `false` without the right to.
    fn has_own_mounts() -> bool {
        roadrunner_sys::own_mounts()
            .inspect_err(|error| println!("skipped: this thread can't have mounts: {error}"))
            .is_ok()
    }

    #[test]
    fn guests_see_their_root_and_mounted_directories() {
        if !has_own_mounts() {
            return;
        }
        let (host, bundle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = bundle.path().join("rootfs");
        fs::create_dir(&root).unwrap();
        let file = host.path().join("file");
        fs::write(&file, "seen").unwrap();
        let mut spec = Spec::default();
        spec.root.readonly = true;
        spec.mounts = vec![
            bind(host.path(), "/data", &["ro"]),
            bind(host.path(), "/scratch", &[]),
            bind(&file, "/etc/hosts", &[]),
            Mount { destination: "/proc".into(), kind: "proc".into(), ..Mount::default() },
        ];
        let mut rootfs = Rootfs::mount(bundle.path(), &spec, &[]).unwrap();
        let dirs = rootfs.directories(&spec).unwrap();
        let seen: Vec<_> = dirs.iter().map(|(place, dir)| (place.as_str(), dir.write)).collect();
        assert_eq!(seen, [("/", false), ("/data", false), ("/scratch", true)]);
        assert_eq!(fs::read_to_string(dirs["/data"].path.join("file")).unwrap(), "seen");
        assert!(fs::write(dirs["/data"].path.join("new"), "").is_err(), "read-only");
        assert!(fs::write(root.join("new"), "").is_err(), "read-only");

        for (source, expected) in [(file, "no directory"), (host.path().join("x"), "not there")] {
            spec.mounts = vec![bind(&source, "/one", &[])];
            let refused = rootfs.directories(&spec).unwrap_err().to_string();
            assert!(refused.contains(expected) && refused.contains("/one"), "{refused}");
        }
        drop(rootfs);
        let left: Vec<_> = fs::read_dir(bundle.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(left.len(), 1, "only the root is left: {left:?}");
        assert!(host.path().join("file").exists());
    }

    #[test]
    fn device_files_of_the_host_are_no_devices() {
        if !has_own_mounts() {
            return;
        }
        let (host, bundle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let device = host.path().join("null");
        let made = std::process::Command::new("mknod").arg(&device).args(["c", "1", "3"]).status();
        if !made.is_ok_and(|status| status.success()) || fs::read(&device).is_err() {
            println!("skipped: no device files can be made here");
            return;
        }
        let root = bundle.path().join("rootfs");
        fs::create_dir(&root).unwrap();
        let spec = Spec { mounts: vec![bind(host.path(), "/data", &[])], ..Spec::default() };
        let mut rootfs = Rootfs::mount(bundle.path(), &spec, &[]).unwrap();
        let dirs = rootfs.directories(&spec).unwrap();
        let refused = fs::read(dirs["/data"].path.join("null")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    }
}
