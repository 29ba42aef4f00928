//! Memory that has a descriptor.

use std::fmt::Display;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::{io, mem};

use crate::close_aside;

/// Times that sealing is tried: seen to fail once in some thousand payloads on a machine without a free processor, where
/// the kernel was moving or scanning pages.
const SEALING: u32 = 4;

/// The seals that a payload carries once it can no longer be changed: no write, no shrinking, no
/// growing, and no change to this set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals(libc::c_int);

impl Seals {
    /// All four.
    pub const ALL: Self =
        Self(libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL);

    /// All that keep the length as it is, and no other can be added.
    pub const LENGTH: Self = Self(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL);

    /// Whether every seal of `other` is set here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the first seal that isn't set here would be against.
    fn missing(self) -> Option<&'static str> {
        let all = [
            (libc::F_SEAL_WRITE, "writes"),
            (libc::F_SEAL_SHRINK, "shrinking"),
            (libc::F_SEAL_GROW, "growing"),
            (libc::F_SEAL_SEAL, "further seals"),
        ];
        all.into_iter().find(|(seal, _)| !self.contains(Self(*seal))).map(|(_, against)| against)
    }
}

fn refused(why: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the descriptor is refused: {why}"))
}

/// An anonymous file in memory of a fixed length.
#[derive(Debug)]
pub struct Memfd(File);

#[allow(clippy::len_without_is_empty, reason = "an empty one is of no use")]
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

    /// Takes a descriptor that somebody else sent for a sealed memfd of `len` bytes, after asking the
    /// kernel whether it is one: nothing that the sender says or does counts, then or later.
    ///
    /// * It takes seals. Asked first, because only memory files answer: calls to a file system that
    ///   the sender runs itself could hang.
    /// * It carries [`Seals::ALL`]. So it was made by `memfd_create`, as other files can't get them.
    /// * It is a regular file of tmpfs. A file of hugetlbfs takes seals as well, but mapping it covers
    ///   whole huge pages whatever length is asked for, and writing to a private view of it kills the
    ///   process when there are none left.
    /// * It has just this length, and is open for reading.
    ///
    /// # Errors
    /// `InvalidData` with a sentence on what is wrong; the descriptor is closed then, aside, as that
    /// could hang too ([`close_aside`]).
    pub fn adopt(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let memfd = Self(File::from(fd));
        match memfd.judge(len) {
            Ok(()) => Ok(memfd),
            Err(error) => {
                close_aside([memfd.0.into()]);
                Err(error)
            }
        }
    }

    /// Whether it is what [`Memfd::adopt`] takes.
    fn judge(&self, len: usize) -> io::Result<()> {
        let seals = self.seals().map_err(|_| refused("it takes no seals, so it is no memfd"))?;
        if let Some(missing) = seals.missing() {
            return Err(refused(format!("it is not sealed against {missing}")));
        }
        let metadata = self.0.metadata()?;
        if !metadata.is_file() || !self.is_in_tmpfs()? {
            return Err(refused("it is not a regular file of tmpfs"));
        }
        if metadata.len() != len as u64 {
            return Err(refused(format!("it has {} bytes, not {len}", metadata.len())));
        }
        if !self.is_readable()? {
            return Err(refused("it is not open for reading"));
        }
        Ok(())
    }

    /// As [`Memfd::adopt`], of a memfd that its sender may still write to, because both trust each other:
    /// sealed with [`Seals::LENGTH`], and at least `len` bytes long.
    ///
    /// # Errors
    /// As [`Memfd::adopt`].
    pub fn adopt_segment(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let memfd = Self(File::from(fd));
        let seals = memfd.seals().map_err(|_| refused("it takes no seals, so it is no memfd"))?;
        let unwritable = seals.0 & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0;
        if !seals.contains(Seals::LENGTH) || unwritable {
            return Err(refused("it is not sealed as a segment is"));
        }
        if !memfd.is_in_tmpfs()? {
            return Err(refused("it is not a regular file of tmpfs"));
        }
        let found = memfd.len()?;
        if found < len {
            return Err(refused(format!("it has {found} bytes, not {len}")));
        }
        Ok(memfd)
    }

    fn is_in_tmpfs(&self) -> io::Result<bool> {
        // SAFETY: a C structure of integers, for which zeros are values.
        let mut found: libc::statfs = unsafe { mem::zeroed() };
        // SAFETY: R3, the kernel writes to a local.
        let got = unsafe { libc::fstatfs(self.0.as_raw_fd(), &raw mut found) };
        if got < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(found.f_type == libc::TMPFS_MAGIC)
        }
    }

    fn is_readable(&self) -> io::Result<bool> {
        // SAFETY: R2.
        let got = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETFL) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(matches!(got & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR))
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
    /// `EBUSY` while a writable shared mapping of it exists, or where the kernel itself holds pages of it for longer than
    /// some times what it waits for that, which is 155 ms (`memfd_wait_for_pins` in its `mm/memfd.c`).
    pub fn seal(&self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            // SAFETY: R2.
            let got = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, Seals::ALL.0) };
            if got >= 0 {
                return Ok(());
            }
            tries += 1;
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::ResourceBusy || tries == SEALING {
                return Err(error);
            }
        }
    }

    /// Fixes its length for ever; its contents can still be written.
    ///
    /// # Errors
    /// When it is sealed against further seals.
    pub fn seal_length(&self) -> io::Result<()> {
        // SAFETY: R2.
        let got = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, Seals::LENGTH.0) };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The number of its file, which no other memfd of this kernel has while this one exists.
    ///
    /// # Errors
    /// None that a memfd's descriptor allows for; the kernel's answer is passed on.
    pub fn id(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// As [`Memfd::id`], and where no range of memory could be as long.
    pub fn len(&self) -> io::Result<usize> {
        usize::try_from(self.0.metadata()?.len()).map_err(|_| refused("it is too long to map"))
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
    // SAFETY: R4.
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
    use crate::descriptors::{eventually, lingering, of_file};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    const LEN: usize = 8192;

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

    /// A memfd of `len` bytes with these seals.
    fn sealed_by(len: usize, seals: libc::c_int) -> OwnedFd {
        let memfd = Memfd::new(len).unwrap();
        // SAFETY: R2.
        let got = unsafe { libc::fcntl(memfd.0.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        assert_eq!(got, 0);
        memfd.0.into()
    }

    /// Why a descriptor is refused. It must be closed in the end.
    fn refusal(fd: impl Into<OwnedFd>) -> String {
        let file = File::from(fd.into());
        let metadata = file.metadata().unwrap();
        let file_id = (metadata.dev(), metadata.ino());
        let others = of_file(file_id) - 1;
        let error = Memfd::adopt(file.into(), LEN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        eventually(|| of_file(file_id) == others);
        error.to_string()
    }

    #[test]
    fn a_sealed_memfd_is_adopted_with_its_bytes() {
        let memfd = Memfd::new(LEN).unwrap();
        memfd.file().write_all_at(b"payload", 4096).unwrap();
        memfd.seal().unwrap();
        let adopted = Memfd::adopt(memfd.0.into(), LEN).unwrap();
        let mut bytes = [0; 7];
        adopted.file().read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(&bytes, b"payload");
    }

    #[test]
    fn each_seal_is_needed() {
        assert!(refusal(Memfd::new(LEN).unwrap().0).ends_with("it is not sealed against writes"));
        let each = [
            (libc::F_SEAL_WRITE, "writes"),
            (libc::F_SEAL_SHRINK, "shrinking"),
            (libc::F_SEAL_GROW, "growing"),
            (libc::F_SEAL_SEAL, "further seals"),
        ];
        for (seal, against) in each {
            let said = refusal(sealed_by(LEN, Seals::ALL.0 & !seal));
            assert!(said.ends_with(&format!("it is not sealed against {against}")), "{said}");
        }
        // The weaker seal against writes leaves the mappings that the sender has writable.
        let weaker = Seals::ALL.0 & !libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;
        assert!(refusal(sealed_by(LEN, weaker)).ends_with("against writes"));
    }

    #[test]
    fn the_length_must_be_right() {
        for len in [0, LEN - 4096, LEN - 1, LEN + 1, LEN + 4096] {
            let said = refusal(sealed_by(len, Seals::ALL.0));
            assert!(said.ends_with(&format!("it has {len} bytes, not 8192")), "{said}");
        }
    }

    #[test]
    fn what_is_no_memfd_is_refused() {
        let no_memfd = "it takes no seals, so it is no memfd";
        let path = std::env::temp_dir().join(format!("roadrunner-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(LEN as u64).unwrap();
        let said = refusal(file);
        // A file of a mounted tmpfs answers, but never has the seals.
        assert!(said.ends_with(no_memfd) || said.contains("not sealed"), "{said}");
        let (reader, _writer) = io::pipe().unwrap();
        assert!(refusal(reader).ends_with(no_memfd));
        let (socket, _peer) = UnixStream::pair().unwrap();
        assert!(refusal(socket).ends_with(no_memfd));
        assert!(refusal(File::open("/").unwrap()).ends_with(no_memfd));
    }

    #[test]
    fn nobody_waits_until_a_refused_descriptor_is_closed() {
        let (slow, _peer) = lingering();
        let since = Instant::now();
        assert!(Memfd::adopt(slow, LEN).is_err());
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_memfd_that_can_not_be_read_is_refused() {
        let memfd = sealed_by(LEN, Seals::ALL.0);
        let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        let write_only = OpenOptions::new().write(true).open(path).unwrap();
        drop(memfd);
        assert!(refusal(write_only).ends_with("it is not open for reading"));
    }

    #[test]
    fn huge_page_files_are_refused() {
        let huge = create(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB);
        let Ok(huge) = huge else {
            return; // a kernel without hugetlbfs has none to refuse
        };
        let memfd = Memfd(File::from(huge));
        memfd.seal().unwrap();
        assert!(refusal(memfd.0).ends_with("it is not a regular file of tmpfs"));
    }
}
