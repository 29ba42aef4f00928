//! Descriptors that are no payload.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::dice::Dice;

/// A descriptor in a payload's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impostor {
    Null,
    Directory,
    Pipe,
    Socket,
    /// A file of the temporary folder.
    File,
    Unsealed,
    /// A memfd with some of the seals, by their bits: never all, and never those of a segment.
    Partly(u32),
    /// Shrunken by a page after its length was told.
    Shrunken,
    /// Longer or shorter by a page, and well sealed.
    TooLong,
    TooShort,
    WriteOnly,
}

/// The seals of a payload, bit by bit.
const SEALS: [SealFlags; 4] =
    [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL];
const ALL: u32 = 0b1111;
/// Those of a segment: all but the one against writes.
const LENGTH: u32 = 0b1110;

impl Impostor {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        match dice.below(14) {
            0 => Self::Null,
            1 => Self::Directory,
            2 => Self::Pipe,
            3 => Self::Socket,
            4 => Self::File,
            5 => Self::Unsealed,
            6..9 => {
                let bits = u32::try_from(dice.below(ALL as usize)).unwrap();
                Self::Partly(if bits == LENGTH { bits & !0b10 } else { bits })
            }
            9 => Self::Shrunken,
            10 => Self::TooShort,
            11 => Self::WriteOnly,
            _ => Self::TooLong,
        }
    }

    /// A memfd with just these seals.
    pub(crate) fn sealed(len: u64, seals: u32) -> OwnedFd {
        memfd(len, seals)
    }

    /// One in the place of a memfd of `len` bytes.
    pub(crate) fn make(self, len: u64) -> OwnedFd {
        const PAGE: u64 = 4096;
        match self {
            Self::Null => File::open("/dev/null").unwrap().into(),
            Self::Directory => File::open("/").unwrap().into(),
            Self::Pipe => std::io::pipe().unwrap().0.into(),
            Self::Socket => UnixStream::pair().unwrap().0.into(),
            Self::File => {
                let file = tempfile::tempfile().unwrap();
                file.set_len(len).unwrap();
                file.into()
            }
            Self::Unsealed => memfd(len, 0),
            Self::Partly(bits) => memfd(len, bits),
            Self::Shrunken => {
                let file = File::from(memfd(len, 0));
                file.set_len(len - PAGE).unwrap();
                file.into()
            }
            Self::TooLong => memfd(len + PAGE, ALL),
            Self::TooShort => memfd(len - PAGE, ALL),
            Self::WriteOnly => {
                let memfd = memfd(len, ALL);
                let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
                OpenOptions::new().write(true).open(path).unwrap().into()
            }
        }
    }
}

fn memfd(len: u64, seals: u32) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("impostor", flags).unwrap());
    file.set_len(len).unwrap();
    let chosen = SEALS.into_iter().enumerate().filter(|(nth, _)| seals >> nth & 1 == 1);
    let seals = chosen.fold(SealFlags::empty(), |seals, (_, seal)| seals | seal);
    // Without any there is nothing to add.
    if !seals.is_empty() {
        fcntl_add_seals(&file, seals).unwrap();
    }
    file.into()
}
