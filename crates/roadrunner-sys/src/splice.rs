//! Sending pages of a file without mapping or copying them: what goes into the socket's queue are
//! references to the file's own pages.
//!
//! So whoever writes the file while they are queued changes what the peer reads, and on one host they
//! are queued until the *receiver* has read them: acknowledged or not makes no difference there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use crate::socket::retried;

/// Bytes that a pipe is asked to hold: the most that Linux gives everybody (`fs.pipe-max-size`).
const PIPE_BYTES: libc::c_int = 1 << 20;

/// Sends up to `len` bytes of a file, from `offset` on, over a socket (`sendfile`). The answer is how
/// many went, which may be fewer.
///
/// # Errors
/// `WouldBlock` where the socket doesn't wait and has no room. Else as `sendfile`.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: usize,
    len: usize,
) -> io::Result<usize> {
    let mut offset = offset_of(offset)?;
    retried(|| {
        // SAFETY: R3, the kernel reads and writes a local.
        unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, len) }
    })
}

/// A pipe of this process's own, on the way from pages to a socket: `splice` needs one at one end.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty one that never waits.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
        // SAFETY: R2. A smaller pipe works as well.
        let _ = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts up to `len` bytes of a file in, from `offset` on (`splice`).
    ///
    /// # Errors
    /// `WouldBlock` where it is full. Else as `splice`.
    pub fn fill(&mut self, file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<usize> {
        let mut offset = offset_of(offset)?;
        let (from, to) = (file.as_raw_fd(), self.write.as_raw_fd());
        let put = retried(|| {
            let flags = libc::SPLICE_F_NONBLOCK;
            // SAFETY: R3, the kernel reads and writes a local.
            unsafe { libc::splice(from, &raw mut offset, to, ptr::null_mut(), len, flags) }
        })?;
        self.held += put;
        Ok(put)
    }

    /// Puts pages of this process's memory in, as they are (`vmsplice`): whatever is written to them
    /// until the last reader has them is what that reader sees.
    ///
    /// # Errors
    /// `WouldBlock` where it is full. Else as `vmsplice`.
    pub fn fill_with_pages(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let put = retried(|| {
            let flags = libc::SPLICE_F_NONBLOCK;
            // SAFETY: R3 for the reference that the call reads through; what the kernel keeps of the
            // pages it counts, so that they outlive whatever their mapping does.
            unsafe { libc::vmsplice(self.write.as_raw_fd(), &raw const part, 1, flags) }
        })?;
        self.held += put;
        Ok(put)
    }

    /// Sends what is in it over a socket (`splice`). The answer is how many bytes went.
    ///
    /// # Errors
    /// `WouldBlock` where the socket has no room. Else as `splice`.
    pub fn drain(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let (from, to) = (self.read.as_raw_fd(), socket.as_raw_fd());
        let (none, len) = (ptr::null_mut(), self.held);
        let sent = retried(|| {
            // SAFETY: R2, without offsets there is no memory to touch.
            unsafe { libc::splice(from, none, to, none, len, libc::SPLICE_F_NONBLOCK) }
        })?;
        self.held -= sent;
        Ok(sent)
    }
}

fn offset_of(offset: usize) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loopback, pattern, read_exactly};
    use crate::{Memfd, page_size, unsent};
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    fn memfd(bytes: &[u8]) -> Memfd {
        let memfd = Memfd::new(bytes.len()).unwrap();
        memfd.file().write_all_at(bytes, 0).unwrap();
        memfd
    }

    #[test]
    fn a_file_arrives_from_any_offset() {
        let (here, there) = loopback();
        let bytes = pattern(20_000);
        let file = memfd(&bytes);
        assert_eq!(send_file(here.as_fd(), file.as_fd(), 5_000, 10_000).unwrap(), 10_000);
        assert_eq!(read_exactly(&there, 10_000), bytes[5_000..15_000]);
    }

    #[test]
    fn a_pipe_passes_files_and_pages_on() {
        let (here, there) = loopback();
        let bytes = pattern(100_000);
        let file = memfd(&bytes);
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.fill(file.as_fd(), 4097, 50_000).unwrap(), 50_000);
        assert_eq!(pipe.held(), 50_000);
        assert_eq!(pipe.drain(here.as_fd()).unwrap(), 50_000);
        assert_eq!(pipe.fill_with_pages(&bytes[..70_000]).unwrap(), 70_000);
        let mut got = read_exactly(&there, 50_000);
        while pipe.held() > 0 {
            let sent = pipe.drain(here.as_fd()).unwrap();
            got.extend(read_exactly(&there, sent));
        }
        assert_eq!(got, [&bytes[4097..54_097], &bytes[..70_000]].concat());
    }

    /// Why payloads in pages that are written again never go this way, however long one waits.
    #[test]
    fn pages_that_were_spliced_show_what_is_written_later() {
        let len = 4 * page_size();
        let mut bytes = vec![1; len];
        let file = memfd(&bytes);
        let (here, there) = loopback();
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(send_file(here.as_fd(), file.as_fd(), 0, len).unwrap(), len);
        pipe.fill_with_pages(&bytes).unwrap();
        while pipe.held() > 0 {
            pipe.drain(here.as_fd()).unwrap();
        }
        crate::descriptors::eventually(|| unsent(here.as_fd()).unwrap() == 0);
        file.file().write_all_at(&vec![2; len], 0).unwrap();
        bytes.fill(3);
        // The whole pages: what lies at the vector's ends may be elsewhere by then.
        assert_eq!(read_exactly(&there, len), vec![2; len]);
        assert!(read_exactly(&there, len).contains(&3));
    }
}
