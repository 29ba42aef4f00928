//! The one framing of calls, replies and faults between processes and hosts. Pure: it reads and
//! writes bytes in memory, and what is done about them is the transports' business.
//!
//! ```text
//!   | header: 64 bytes | meta: postcard | inline payload bytes, raw | CRC32C of these, if flagged |
//!
//!   header, little-endian
//!    0      4         5      6      8     16           24         28            30         32
//!    | RDRN | version | kind | flags | id | inline_len | meta_len | descriptors | reserved |
//!   32              48                56            57         60               64
//!    | trace id, 16 | parent span id | trace flags | reserved | header checksum |
//! ```
//!
//! The contract is `docs/wire.md`; a test compares that document with the constants and the bytes
//! here. The peer that sends a frame is hostile: a [`Header`] says lengths that are within limits,
//! and a [`Meta`] is only to be had whole, checked against its header.

mod meta;
mod mirror;

use std::fmt;

pub use meta::{CallMeta, FaultMeta, Meta, Part, Place, ReplyMeta};
pub use mirror::{Landing, WireAccount, WireFault, WireHop, WireMode};

pub use crate::trace::Trace;

/// What every frame begins with, in every version.
pub const MAGIC: [u8; 4] = *b"RDRN";
/// The version that this code speaks.
pub const VERSION: u8 = 1;
/// Length of the header in bytes. No version has a shorter one.
pub const HEADER_BYTES: usize = 64;
/// Longest meta in bytes: it is read into the host's heap before anything in it can be trusted. It
/// has room for a fault's text, for the parts of the largest fan-in, and for about 4,000 hops.
pub const META_BYTES: usize = 256 << 10;
/// Most descriptors with one frame: they travel in one message with its first byte.
#[allow(clippy::cast_possible_truncation, reason = "checked right below")]
pub const DESCRIPTORS: u16 = roadrunner_sys::MAX_DESCRIPTORS as u16;
const _: () = assert!(DESCRIPTORS as usize == roadrunner_sys::MAX_DESCRIPTORS);
/// Most segments that one frame gives back: more wait for the next.
pub const RELEASES: usize = 64;
/// Longest text of a fault in bytes: four of a guest's longest messages, which is room for a trap
/// with its backtrace. What is longer is cut off.
pub const TEXT_BYTES: usize = 4 * roadrunner_abi::limit::MESSAGE_BYTES as usize;
/// The number of no call: whoever answers it has read none, so nothing was done and what the call gave back is
/// still to be told.
pub const UNREAD: u64 = 0;
/// Length in bytes of the checksum behind the inline bytes, where there is one.
pub const INLINE_CHECKSUM_BYTES: usize = 4;

/// The one flag: a CRC32C of the inline bytes follows them.
const INLINE_CHECKSUM: u16 = 1;
/// Where the header's checksum stands.
const CHECKSUM_AT: usize = 60;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A caller's call.
    Call = 1,
    /// The response to one.
    Reply = 2,
    /// Why one has no response.
    Fault = 3,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::Reply => "reply",
            Self::Fault => "fault",
        })
    }
}

/// A frame that breaks the contract. The peer can't be followed any further: the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It doesn't begin as a frame does.
    #[error("this is no Roadrunner frame: it begins with {found:02x?}, not {MAGIC:02x?}")]
    BadMagic {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// It is of another version.
    #[error(
        "the peer speaks version {theirs} of the wire format and this node version {ours}; run the same release on both"
    )]
    Version {
        /// The peer's.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// It is neither call nor reply nor fault.
    #[error("there is no frame of kind {0}")]
    Kind(u8),
    /// Bits are set that have no meaning.
    #[error("{what} of the header has the value {found:#x}, which means nothing in this version")]
    Reserved {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// Something is over its limit.
    #[error("{what} of {len} over the limit of {limit}")]
    TooLong {
        /// What, with its unit.
        what: &'static str,
        /// How much it is.
        len: u64,
        /// How much it may be.
        limit: u64,
    },
    /// A checksum is wrong: bytes changed on the way.
    #[error(
        "the checksum of {what} is {found:#010x} and not {computed:#010x}: bytes changed on the way"
    )]
    Checksum {
        /// What it is of.
        what: &'static str,
        /// The one in the frame.
        found: u32,
        /// The one that its bytes have.
        computed: u32,
    },
    /// The meta can't be read, or contradicts itself or the header.
    #[error("the meta of the frame makes no sense: {0}")]
    Meta(String),
}

fn within(what: &'static str, len: u64, limit: u64) -> Result<(), FrameError> {
    if len > limit { Err(FrameError::TooLong { what, len, limit }) } else { Ok(()) }
}

/// The head of a frame: what the transport needs to receive the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The caller's number for the call, which the answer repeats: any but [`UNREAD`].
    pub id: u64,
    /// Length of the inline payload in bytes.
    pub inline_len: u64,
    /// Length of the meta in bytes.
    pub meta_len: u32,
    /// How many descriptors come with the header's first byte.
    pub descriptors: u16,
    /// Whether a CRC32C of the inline bytes follows them.
    pub inline_checksum: bool,
    /// The caller's trace.
    pub trace: Trace,
    /// CRC32C of the header, with zeros here, and the meta.
    checksum: u32,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(4, &[VERSION, self.kind as u8]);
        put(6, &(if self.inline_checksum { INLINE_CHECKSUM } else { 0 }).to_le_bytes());
        put(8, &self.id.to_le_bytes());
        put(16, &self.inline_len.to_le_bytes());
        put(24, &self.meta_len.to_le_bytes());
        put(28, &self.descriptors.to_le_bytes());
        put(32, &self.trace.trace_id);
        put(48, &self.trace.span_id);
        put(56, &[self.trace.flags]);
        put(CHECKSUM_AT, &self.checksum.to_le_bytes());
        bytes
    }

    /// Reads a header, whose lengths are within the limits then. Its checksum also covers the meta:
    /// [`Meta::decode`] tells whether it is right.
    ///
    /// `inline_limit` is the most inline bytes that the receiver takes: its payload limit, or for
    /// calls with several parts what they may have together.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of the fields. [`FrameError::Version`] comes
    /// before anything that another version may have changed.
    pub fn decode(bytes: &[u8; HEADER_BYTES], inline_limit: u64) -> Result<Self, FrameError> {
        let found = field(bytes, 0);
        if found != MAGIC {
            return Err(FrameError::BadMagic { found });
        }
        let [theirs, kind] = field(bytes, 4);
        if theirs != VERSION {
            return Err(FrameError::Version { theirs, ours: VERSION });
        }
        let kind = match kind {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Fault,
            other => return Err(FrameError::Kind(other)),
        };
        let flags = u16::from_le_bytes(field(bytes, 6));
        let gap = u16::from_le_bytes(field(bytes, 30));
        let [a, b, c] = field(bytes, 57);
        let reserved = [
            ("the flags field", u64::from(flags & !INLINE_CHECKSUM)),
            ("the reserved field at byte 30", u64::from(gap)),
            ("the reserved field at byte 57", u64::from(u32::from_le_bytes([a, b, c, 0]))),
        ];
        if let Some((what, found)) = reserved.into_iter().find(|(_, found)| *found != 0) {
            return Err(FrameError::Reserved { what, found });
        }
        let header = Self {
            kind,
            id: u64::from_le_bytes(field(bytes, 8)),
            inline_len: u64::from_le_bytes(field(bytes, 16)),
            meta_len: u32::from_le_bytes(field(bytes, 24)),
            descriptors: u16::from_le_bytes(field(bytes, 28)),
            inline_checksum: flags & INLINE_CHECKSUM != 0,
            trace: Trace {
                trace_id: field(bytes, 32),
                span_id: field(bytes, 48),
                flags: bytes[56],
            },
            checksum: u32::from_le_bytes(field(bytes, CHECKSUM_AT)),
        };
        within("an inline payload in bytes", header.inline_len, inline_limit)?;
        within("a meta in bytes", header.meta_len.into(), META_BYTES as u64)?;
        within("a number of descriptors", header.descriptors.into(), DESCRIPTORS.into())?;
        Ok(header)
    }

    /// The same with the length and the checksum for this meta.
    ///
    /// # Errors
    /// `TooLong` for a meta over [`META_BYTES`].
    pub fn covering(mut self, meta: &[u8]) -> Result<Self, FrameError> {
        within("a meta in bytes", meta.len() as u64, META_BYTES as u64)?;
        self.meta_len = u32::try_from(meta.len()).unwrap_or(u32::MAX);
        self.checksum = self.checksum_with(meta);
        Ok(self)
    }

    fn checksum_with(&self, meta: &[u8]) -> u32 {
        let blank = Self { checksum: 0, ..*self };
        crc32c::crc32c_append(crc32c::crc32c(&blank.encode()), meta)
    }

    /// Whether header and meta are as they were sent.
    fn verify(&self, meta: &[u8]) -> Result<(), FrameError> {
        let computed = self.checksum_with(meta);
        if computed == self.checksum {
            return Ok(());
        }
        Err(FrameError::Checksum { what: "header and meta", found: self.checksum, computed })
    }
}

/// `N` bytes of a header. The offsets are constants of this file.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|nth| bytes[at + nth])
}

/// The checksum of a frame's inline bytes, taken as they come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InlineChecksum(u32);

impl InlineChecksum {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// What follows the inline bytes.
    #[must_use]
    pub fn encode(self) -> [u8; INLINE_CHECKSUM_BYTES] {
        self.0.to_le_bytes()
    }

    /// Compares it with what followed the inline bytes.
    ///
    /// # Errors
    /// `Checksum` when they differ.
    pub fn verify(self, found: [u8; INLINE_CHECKSUM_BYTES]) -> Result<(), FrameError> {
        let found = u32::from_le_bytes(found);
        if found == self.0 {
            return Ok(());
        }
        Err(FrameError::Checksum { what: "the inline payload", found, computed: self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;

    fn header() -> Header {
        let trace = Trace { trace_id: [7; 16], span_id: [8; 8], flags: 1 };
        let header = Header {
            kind: Kind::Call,
            id: 0x0102_0304_0506_0708,
            inline_len: LIMIT,
            meta_len: 0,
            descriptors: DESCRIPTORS,
            inline_checksum: true,
            trace,
            checksum: 0,
        };
        header.covering(b"meta").unwrap()
    }

    /// The header with one field overwritten.
    fn with(at: usize, field: &[u8]) -> Result<Header, FrameError> {
        let mut bytes = header().encode();
        bytes[at..at + field.len()].copy_from_slice(field);
        Header::decode(&bytes, LIMIT)
    }

    #[test]
    fn a_header_survives_its_bytes() {
        let decoded = Header::decode(&header().encode(), LIMIT).unwrap();
        assert_eq!(decoded, header());
        assert_eq!((decoded.meta_len, decoded.verify(b"meta")), (4, Ok(())));
        assert!(matches!(decoded.verify(b"mete"), Err(FrameError::Checksum { .. })));
    }

    #[test]
    fn strangers_are_told_apart() {
        assert_eq!(with(0, b"HTTP"), Err(FrameError::BadMagic { found: *b"HTTP" }));
        assert_eq!(with(4, &[2]), Err(FrameError::Version { theirs: 2, ours: 1 }));
        let other = [&MAGIC[..], &[9; 60]].concat().try_into().unwrap();
        assert_eq!(Header::decode(&other, LIMIT), Err(FrameError::Version { theirs: 9, ours: 1 }));
        for kind in [0, 4, 255] {
            assert_eq!(with(5, &[kind]), Err(FrameError::Kind(kind)));
        }
    }

    #[test]
    fn bits_without_a_meaning_are_refused() {
        for (at, byte) in [(6, 2), (6, 128), (7, 1), (30, 1), (31, 1), (57, 1), (58, 1), (59, 128)]
        {
            assert!(matches!(with(at, &[byte]), Err(FrameError::Reserved { .. })), "byte {at}");
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let too_long = |at, field: &[u8]| match with(at, field) {
            Err(FrameError::TooLong { len, limit, .. }) => (len, limit),
            other => panic!("{other:?}"),
        };
        assert_eq!(too_long(16, &u64::MAX.to_le_bytes()), (u64::MAX, LIMIT));
        assert_eq!(too_long(16, &(LIMIT + 1).to_le_bytes()), (LIMIT + 1, LIMIT));
        let most = META_BYTES as u64;
        assert_eq!(too_long(24, &u32::MAX.to_le_bytes()), (u32::MAX.into(), most));
        assert_eq!(too_long(24, &0x0004_0001_u32.to_le_bytes()), (most + 1, most));
        assert_eq!(too_long(28, &254_u16.to_le_bytes()), (254, 253));
        assert!(header().covering(&[0; META_BYTES]).is_ok());
        assert!(header().covering(&[0; META_BYTES + 1]).is_err());
    }

    #[test]
    fn inline_bytes_are_checked_in_pieces() {
        let mut checksum = InlineChecksum::default();
        for piece in [b"123".as_slice(), b"", b"456789"] {
            checksum.update(piece);
        }
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
        assert_eq!(checksum.encode(), 0xe306_9283_u32.to_le_bytes());
        assert_eq!(checksum.verify(checksum.encode()), Ok(()));
        assert!(checksum.verify([0; 4]).is_err());
    }
}
