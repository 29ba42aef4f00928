//! Memory that has a descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The seals that a payload carries once it can no longer be changed: no write, no shrinking, no
/// growing, and no change to this set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals(libc::c_int);

impl Seals {
    /// All four.
    pub const ALL: Self =
        Self(libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL);

    /// Whether every seal of `other` is set here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An anonymous file in memory of a fixed length.
#[derive(Debug)]
pub struct Memfd(File);

impl Memfd {
    /// A new one of `len` bytes, all zero, that takes seals and closes on `exec`.
    ///
    /// # Errors
    /// When the process has no descriptor left or the length is beyond what the kernel takes.
    pub fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // A host with `vm.memfd_noexec = 2` refuses files that could be run; a kernel before
        // Linux 6.3 doesn't know the flag.
        let fd = match create(flags | libc::MFD_NOEXEC_SEAL) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(flags)?,
            made => made?,
        };
        let file = File::from(fd);
        file.set_len(len as u64)?;
        Ok(Self(file))
    }

    /// Makes everything from `offset` (a multiple of the page size) on zero and gives its memory back.
    ///
    /// # Errors
    /// When it is sealed.
    pub fn discard_from(&self, offset: usize) -> io::Result<()> {
        let len = self.0.metadata()?.len().saturating_sub(offset as u64);
        let (Ok(start), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if len == 0 {
            return Ok(());
        }
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: R2; whoever maps the file sees its bytes change as by a write, and this crate's
        // users have no slice into it then.
        let got = unsafe { libc::fallocate(self.0.as_raw_fd(), how, start, len) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Seals it for ever ([`Seals::ALL`]).
    ///
    /// # Errors
    /// `EBUSY` while a writable shared mapping of it exists.
    pub fn seal(&self) -> io::Result<()> {
        // SAFETY: R2.
        let got = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, Seals::ALL.0) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The seals it carries now.
    ///
    /// # Errors
    /// When the descriptor is not one that takes seals.
    pub fn seals(&self) -> io::Result<Seals> {
        // SAFETY: R2.
        let got = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GET_SEALS) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(Seals(got)) }
    }

    /// The file, for reading and writing by position.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

fn create(flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: R3, the name is a C string literal.
    let fd = unsafe { libc::memfd_create(c"roadrunner-payload".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_sealed_file_refuses_writes_and_new_lengths() {
        let memfd = Memfd::new(8192).unwrap();
        memfd.file().write_all_at(b"payload", 0).unwrap();
        assert!(!memfd.seals().unwrap().contains(Seals::ALL));
        memfd.seal().unwrap();
        assert!(memfd.seals().unwrap().contains(Seals::ALL));
        assert!(memfd.file().write_all_at(b"x", 0).is_err());
        assert!(memfd.file().set_len(4096).is_err());
        assert!(memfd.file().set_len(16384).is_err());
    }
}
