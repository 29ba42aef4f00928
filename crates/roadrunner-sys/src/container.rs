//! What makes a process a container's: namespaces, mounts, whose files a thread sees.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{io, ptr};

/// How something is mounted, in the kernel's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags(libc::c_ulong);

impl MountFlags {
    /// Nobody writes through it.
    pub const READ_ONLY: Self = Self(libc::MS_RDONLY);
    /// Programs of others get no rights by it.
    pub const NO_SUID: Self = Self(libc::MS_NOSUID);
    /// Device files in it are no devices.
    pub const NO_DEVICES: Self = Self(libc::MS_NODEV);
    /// Programs in it can't be started.
    pub const NO_EXEC: Self = Self(libc::MS_NOEXEC);
    /// Reading a file changes no time.
    pub const NO_ACCESS_TIME: Self = Self(libc::MS_NOATIME);
    /// Shows a directory or file elsewhere.
    pub const BIND: Self = Self(libc::MS_BIND);
    /// With what is mounted below it.
    pub const RECURSIVE: Self = Self(libc::MS_REC);
    /// Changes how something is mounted.
    pub const REMOUNT: Self = Self(libc::MS_REMOUNT);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Gives this process mounts of its own: it sees what the others mount and unmount from now on where they share that,
/// and they don't see what it does. They go with its last thread. Call it before any other thread starts.
///
/// # Errors
/// Without the right to (`CAP_SYS_ADMIN`).
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: R2.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let flags = MountFlags(libc::MS_SLAVE).and(MountFlags::RECURSIVE);
    mount(None, Path::new("/"), None, flags, None)
}

/// Mounts as mount(2) does.
///
/// # Errors
/// As mount(2), or when a path has a zero byte.
pub fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MountFlags,
    options: Option<&str>,
) -> io::Result<()> {
    let source = source.map(text).transpose()?;
    let target = text(target)?;
    let kind = kind.map(CString::new).transpose()?;
    let options = options.map(CString::new).transpose()?;
    let texts = [&source, &kind, &options];
    let [from, kind, data] = texts.map(|it| it.as_deref().map_or(ptr::null(), CStr::as_ptr));
    // SAFETY: R3, the strings end in zero, and `texts` borrows from what lives until the end of this function.
    check(unsafe { libc::mount(from, target.as_ptr(), kind, flags.0, data.cast()) })
}

/// Makes what is mounted there, and all below it, harmless to who opens files in it with this process's rights: device
/// files are no devices, and programs get no rights of others. With `read_only` nobody writes through it.
///
/// # Errors
/// As mount_setattr(2), or when the path has a zero byte.
pub fn restrict_mount(target: &Path, read_only: bool) -> io::Result<()> {
    /// `struct mount_attr`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let target = text(target)?;
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let set = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | read_only;
    let attributes = Attributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let (place, size) = (&raw const attributes, size_of::<Attributes>());
    let how = libc::AT_RECURSIVE | libc::AT_SYMLINK_NOFOLLOW;
    let here = libc::AT_FDCWD;
    // SAFETY: R3, the string ends in zero and the structure has the size that is named.
    let done =
        unsafe { libc::syscall(libc::SYS_mount_setattr, here, target.as_ptr(), how, place, size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes what is mounted there out of the tree; who still uses it may go on.
///
/// # Errors
/// As umount2(2), or when the path has a zero byte.
pub fn unmount(target: &Path) -> io::Result<()> {
    let target = text(target)?;
    // SAFETY: R3, the string ends in zero.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) })
}

/// Takes this thread, and those that it starts, into the network namespace that this is a descriptor of.
///
/// # Errors
/// When it is none, or without the right to.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: R2.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Opens a file below a directory as if the directory were the root of all files: neither `..` nor links lead out.
///
/// # Errors
/// As openat2(2), or when the path has a zero byte.
pub fn open_below(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    /// `struct open_how`, whose type in `libc` can't be made.
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let path = text(path)?;
    // Without waiting for a writer where it is a pipe.
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let how = How { flags: u64::from(flags.cast_unsigned()), mode: 0, resolve };
    let root = root.as_raw_fd();
    // SAFETY: R3, the string ends in zero and the structure has the size that is named.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root, path.as_ptr(), &raw const how, size_of::<How>())
    };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: R4.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Opens what there is at a path, which may be a pipe, to be read, written or both without waiting for anybody. A pipe
/// that is opened for both never lacks its other end.
///
/// # Errors
/// As open(2).
pub fn open_stream(path: &Path, read: bool, write: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(read).write(write).custom_flags(flags).open(path)
}

/// From now on this thread opens and makes files as this user and group, and has no rights over others' files.
///
/// # Errors
/// Without the right to.
pub fn see_files_as(user: u32, group: u32) -> io::Result<()> {
    // The group first: the right to change it goes with the user. Neither call reports failure, but a second one tells.
    // SAFETY: R2.
    unsafe { libc::setfsgid(group) };
    // SAFETY: R2.
    unsafe { libc::setfsuid(user) };
    // SAFETY: R2, nobody has this number, so nothing changes.
    let group_now = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: R2, as above.
    let user_now = unsafe { libc::setfsuid(u32::MAX) };
    if (user_now.cast_unsigned(), group_now.cast_unsigned()) == (user, group) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Leaves the groups of whoever started this process. Call it before any other thread starts.
///
/// # Errors
/// Without the right to.
pub fn leave_groups() -> io::Result<()> {
    // SAFETY: R3, an empty list.
    check(unsafe { libc::setgroups(0, ptr::null()) })
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::{fs, thread};

    #[test]
    fn nothing_leads_out_of_a_root() {
        let name = format!("roadrunner-root-{}", std::process::id());
        let base = std::env::temp_dir().join(name);
        let root = base.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(base.join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        symlink("/secret", root.join("etc/absolute")).unwrap();
        symlink("../../../secret", root.join("etc/upwards")).unwrap();
        let dir = File::open(&root).unwrap();
        for path in ["secret", "/secret", "../secret", "etc/absolute", "etc/upwards"] {
            let mut read = String::new();
            open_below(dir.as_fd(), Path::new(path)).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, "inside", "{path}");
        }
        let missing = open_below(dir.as_fd(), Path::new("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn files_belong_to_whom_a_thread_acts_for() {
        if crate::user() != 0 {
            println!("skipped: only root may act for others");
            return;
        }
        let base = std::env::temp_dir().join(format!("roadrunner-user-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let (open, closed) = (base.join("open"), base.join("closed"));
        fs::create_dir(&open).unwrap();
        fs::write(&closed, "root's").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(&base, 0o755);
        mode(&open, 0o777);
        mode(&closed, 0o600);
        thread::scope(|scope| {
            scope.spawn(|| {
                see_files_as(65_533, 65_532).unwrap();
                let made = File::create(open.join("made")).unwrap().metadata().unwrap();
                assert_eq!((made.uid(), made.gid()), (65_533, 65_532));
                let refused = File::open(&closed).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            });
        });
        File::open(&closed).expect("another thread keeps its rights");
        fs::remove_dir_all(base).unwrap();
    }
}
