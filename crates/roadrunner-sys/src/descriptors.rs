//! What tests ask of this process's descriptors.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// How many descriptors of this process refer to the same file as this one. Other than their number
/// altogether this doesn't depend on what other tests do meanwhile.
pub(crate) fn of_same_file(fd: BorrowedFd<'_>) -> usize {
    let file = fs::File::from(fd.try_clone_to_owned().unwrap());
    let wanted = file.metadata().unwrap();
    let wanted = (wanted.dev(), wanted.ino());
    drop(file);
    of_file(wanted)
}

/// How many refer to the file with this device and inode number.
pub(crate) fn of_file(wanted: (u64, u64)) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    // One that another thread closed meanwhile has no metadata.
    let found = all.filter_map(|entry| fs::metadata(entry.path()).ok());
    found.filter(|found| (found.dev(), found.ino()) == wanted).count()
}

/// A socket whose `close` takes a minute, or until its peer, which comes with it, goes: what was sent
/// to the peer must be read before.
pub(crate) fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let linger = libc::linger { l_onoff: 1, l_linger: 60 };
    let len = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: R3.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const linger).cast(), len)
    };
    assert_eq!(set, 0);
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 1 << 16]).is_ok() {}
    (socket.into(), peer)
}

/// Waits until something is so.
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "it never came to be");
        thread::sleep(Duration::from_millis(1));
    }
}
