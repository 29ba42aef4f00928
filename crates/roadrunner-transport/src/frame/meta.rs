//! What a frame says beside its payload, one structure for each kind, in postcard's encoding.

use roadrunner_abi::limit;
use serde::{Deserialize, Serialize};

use super::{
    DESCRIPTORS, FrameError, HEADER_BYTES, Header, Kind, Landing, META_BYTES, RELEASES, Trace,
    WireAccount, WireFault, WireHop, within,
};

/// How a payload of a frame travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Number 0: in the inline bytes.
    Inline,
    /// Number 1: in a sealed memfd as long as its pages.
    Sealed,
    /// Number 2: in a segment, whose lease goes with it.
    Segment,
}

/// One payload of a frame. Parts in descriptors take the descriptors in order; the others lie one
/// behind the other in the inline bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Length in bytes.
    pub len: u64,
    /// How it travels.
    pub place: Place,
}

impl Part {
    /// Whether it takes a descriptor.
    #[must_use]
    pub fn in_descriptor(&self) -> bool {
        self.place != Place::Inline
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallMeta {
    /// Name of the function.
    pub function: String,
    /// Time until the caller gives up, when the frame was made.
    pub time_left_us: u64,
    /// How many calls wait for this one.
    pub depth: u32,
    /// Whether it is a fan-in's, with any number of payloads; else it has one.
    pub many: bool,
    /// Its payloads, for a fan-in in edge order.
    pub parts: Vec<Part>,
    /// Segments of the receiver's that the caller has the lease of no more.
    pub released: Vec<u64>,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMeta {
    /// From the function's entry until the frame was made: what of the caller's waiting was not the
    /// hand-over.
    pub busy_ns: u64,
    /// What the invocation cost.
    pub account: WireAccount,
    /// For a fan-in, what each of its payloads cost to land.
    pub landings: Vec<Landing>,
    /// The calls that the function made itself. The last ones are left out where all of them would
    /// make the meta longer than [`META_BYTES`].
    pub hops: Vec<WireHop>,
    /// Where the response is.
    pub part: Part,
    /// Bytes of the response that were copied to send it.
    pub response_copied: u64,
    /// Segments of the caller's that the receiver has the lease of no more.
    pub released: Vec<u64>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultMeta {
    /// Why.
    pub fault: WireFault,
    /// Whether the function got the payload. Where it did not, the caller still has it.
    pub delivered: bool,
    /// Segments of the caller's that the receiver has the lease of no more.
    pub released: Vec<u64>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meta {
    /// In a [`Kind::Call`].
    Call(CallMeta),
    /// In a [`Kind::Reply`].
    Reply(ReplyMeta),
    /// In a [`Kind::Fault`].
    Fault(FaultMeta),
}

impl Meta {
    /// The kind of its frame.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Call(_) => Kind::Call,
            Self::Reply(_) => Kind::Reply,
            Self::Fault(_) => Kind::Fault,
        }
    }

    /// Header and meta of its frame, to be sent in one piece; the inline bytes come next. The header's
    /// lengths are the sums of the parts.
    ///
    /// # Errors
    /// For a call or reply that [`Meta::decode`] would refuse whatever the payload limit, a call with
    /// too long a name for example.
    pub fn encode(
        &self,
        id: u64,
        trace: Trace,
        inline_checksum: bool,
    ) -> Result<Vec<u8>, FrameError> {
        let mut frame = match self {
            Self::Call(call) => after_header(call),
            Self::Reply(reply) => reply.within_limit(),
            Self::Fault(fault) => after_header(fault),
        }?;
        let (inline_len, descriptors) = sums(self.parts())?;
        within("a number of descriptors", descriptors.into(), DESCRIPTORS.into())?;
        let kind = self.kind();
        let (meta_len, checksum) = (0, 0);
        let header = Header {
            kind,
            id,
            inline_len,
            meta_len,
            descriptors,
            inline_checksum,
            trace,
            checksum,
        };
        let header = header.covering(&frame[HEADER_BYTES..])?;
        self.check(&header, u64::MAX)?;
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(frame)
    }

    /// Reads what follows a header: nothing of it can be trusted before this has succeeded, nor the
    /// header. `payload_limit` is the longest payload in bytes that the receiver takes.
    ///
    /// # Errors
    /// `Checksum` when bytes of header or meta changed on the way, `Meta` or `TooLong` when it can't be
    /// read or doesn't fit itself, the header and the limits.
    pub fn decode(header: &Header, meta: &[u8], payload_limit: u64) -> Result<Self, FrameError> {
        if meta.len() as u64 != u64::from(header.meta_len) {
            let (found, said) = (meta.len(), header.meta_len);
            return Err(FrameError::Meta(format!("it has {found} bytes, the header says {said}")));
        }
        header.verify(meta)?;
        let decoded = match header.kind {
            Kind::Call => Self::Call(read(meta)?),
            Kind::Reply => Self::Reply(read(meta)?),
            Kind::Fault => Self::Fault(read(meta)?),
        };
        decoded.check(header, payload_limit)?;
        Ok(decoded)
    }

    /// The payloads of its frame.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        match self {
            Self::Call(call) => &call.parts,
            Self::Reply(reply) => std::slice::from_ref(&reply.part),
            Self::Fault(_) => &[],
        }
    }

    /// The segments of the receiver's that the sender gives back.
    #[must_use]
    pub fn released(&self) -> &[u64] {
        match self {
            Self::Call(call) => &call.released,
            Self::Reply(reply) => &reply.released,
            Self::Fault(fault) => &fault.released,
        }
    }

    fn check(&self, header: &Header, payload_limit: u64) -> Result<(), FrameError> {
        match self {
            Self::Call(call) => call.check(header, payload_limit),
            Self::Reply(reply) => {
                within("a number of releases", reply.released.len() as u64, RELEASES as u64)?;
                let landings = reply.landings.len() as u64;
                within("a number of landings", landings, limit::INPUTS as u64)?;
                fits(self.parts(), header, payload_limit)
            }
            Self::Fault(fault) => {
                within("a number of releases", fault.released.len() as u64, RELEASES as u64)?;
                fits(self.parts(), header, payload_limit)
            }
        }
    }
}

impl CallMeta {
    /// Whether the call fits itself, the header that it came with, and the limits.
    ///
    /// # Errors
    /// `TooLong` or `Meta` with what doesn't.
    pub fn check(&self, header: &Header, payload_limit: u64) -> Result<(), FrameError> {
        if self.function.is_empty() {
            return Err(FrameError::Meta("a call of a function without a name".to_owned()));
        }
        let name = self.function.len() as u64;
        within("a function's name in bytes", name, limit::NAME_BYTES.into())?;
        within("a number of payloads", self.parts.len() as u64, limit::INPUTS as u64)?;
        within("a number of releases", self.released.len() as u64, RELEASES as u64)?;
        if !self.many && self.parts.len() != 1 {
            let what = format!("{} payloads for a function of one", self.parts.len());
            return Err(FrameError::Meta(what));
        }
        fits(&self.parts, header, payload_limit)
    }
}

impl ReplyMeta {
    /// Its encoding behind the room for a header, with as many hops as there is room for.
    fn within_limit(&self) -> Result<Vec<u8>, FrameError> {
        const MOST: usize = HEADER_BYTES + META_BYTES;
        let frame = after_header(self)?;
        if frame.len() <= MOST {
            return Ok(frame);
        }
        let sizes: Result<Vec<usize>, _> = self.hops.iter().map(encoded_len).collect();
        let sizes = sizes?;
        let mut len = frame.len() - sizes.iter().sum::<usize>();
        let fitting = sizes.iter().take_while(|size| {
            len += **size;
            len <= MOST
        });
        let hops = self.hops[..fitting.count()].to_vec();
        after_header(&Self { hops, ..self.clone() })
    }
}

/// A value's encoding behind the room for a header.
fn after_header(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    postcard::to_extend(value, vec![0; HEADER_BYTES]).map_err(unreadable)
}

fn encoded_len(value: &impl Serialize) -> Result<usize, FrameError> {
    postcard::to_allocvec(value).map(|bytes| bytes.len()).map_err(unreadable)
}

fn read<'de, T: Deserialize<'de>>(meta: &'de [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(meta) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(FrameError::Meta(format!("{} bytes behind its end", rest.len()))),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: postcard::Error) -> FrameError {
    FrameError::Meta(error.to_string())
}

/// How many bytes the parts have inline, and how many of them are in descriptors.
fn sums(parts: &[Part]) -> Result<(u64, u16), FrameError> {
    let (mut inline, mut descriptors) = (0_u64, 0_u16);
    for part in parts {
        let (bytes, one) = if part.in_descriptor() { (0, 1) } else { (part.len, 0) };
        let sum = inline.checked_add(bytes).zip(descriptors.checked_add(one));
        let Some(sum) = sum else {
            return Err(FrameError::Meta("its payloads together are out of all bounds".to_owned()));
        };
        (inline, descriptors) = sum;
    }
    Ok((inline, descriptors))
}

/// Whether parts make up just what the header says, each within the limit.
fn fits(parts: &[Part], header: &Header, payload_limit: u64) -> Result<(), FrameError> {
    for part in parts {
        within("a payload in bytes", part.len, payload_limit)?;
        if part.in_descriptor() && part.len == 0 {
            return Err(FrameError::Meta("a descriptor for an empty payload".to_owned()));
        }
    }
    let (inline, descriptors) = sums(parts)?;
    let said = (header.inline_len, header.descriptors);
    if (inline, descriptors) == said {
        return Ok(());
    }
    Err(FrameError::Meta(format!(
        "its payloads are {inline} inline bytes and {descriptors} descriptors, the header says {} and {}",
        said.0, said.1
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;
    const INLINE: Part = Part { len: 10, place: Place::Inline };
    const SEALED: Part = Part { len: 100_000, place: Place::Sealed };

    fn call(function: &str, many: bool, parts: &[Part]) -> Meta {
        let (function, parts) = (function.to_owned(), parts.to_vec());
        let released = Vec::new();
        Meta::Call(CallMeta { function, time_left_us: 1, depth: 0, many, parts, released })
    }

    fn reply(part: Part, hops: usize) -> ReplyMeta {
        let name = "n".repeat(100);
        let (from, to, account) = (name.clone(), name, WireAccount::default());
        let hop = WireHop { from, to, mode: super::super::WireMode::User, bytes: 1, account };
        let (landings, hops, released) = (Vec::new(), vec![hop; hops], Vec::new());
        ReplyMeta { busy_ns: 1, account, landings, hops, part, response_copied: 0, released }
    }

    fn split(frame: &[u8]) -> (Header, &[u8]) {
        let (head, meta) = frame.split_first_chunk().unwrap();
        (Header::decode(head, LIMIT).unwrap(), meta)
    }

    /// What is said of a meta in a frame with this header, altered to cover it.
    fn judge(header: Header, meta: &impl Serialize) -> Result<Meta, FrameError> {
        let bytes = postcard::to_allocvec(meta).unwrap();
        Meta::decode(&header.covering(&bytes).unwrap(), &bytes, LIMIT)
    }

    /// A header that fits these parts, of a call, and the call.
    fn fitting(function: &str, many: bool, parts: &[Part]) -> (Header, CallMeta) {
        let (inline_len, descriptors) = sums(parts).unwrap();
        let frame = call("f", false, &[INLINE]).encode(1, Trace::default(), false).unwrap();
        let header = Header { inline_len, descriptors, ..split(&frame).0 };
        let Meta::Call(call) = call(function, many, parts) else { unreachable!("made above") };
        (header, call)
    }

    #[test]
    fn the_headers_sums_are_those_of_the_parts() {
        let meta = call("f", true, &[INLINE, SEALED, INLINE, SEALED]);
        let frame = meta.encode(5, Trace::default(), true).unwrap();
        let (header, bytes) = split(&frame);
        assert_eq!((header.id, header.inline_len, header.descriptors), (5, 20, 2));
        assert_eq!(Meta::decode(&header, bytes, LIMIT), Ok(meta));
    }

    #[test]
    fn calls_that_contradict_themselves_are_refused() {
        let refused = |function: &str, many, parts: &[Part]| {
            let (header, call) = fitting(function, many, parts);
            assert!(Meta::Call(call.clone()).encode(1, Trace::default(), false).is_err());
            judge(header, &call).unwrap_err().to_string()
        };
        let all = |parts: &[Part]| refused("f", true, parts);
        assert!(refused("", false, &[INLINE]).contains("without a name"));
        assert!(refused(&"f".repeat(129), false, &[INLINE]).contains("name in bytes of 129"));
        assert!(refused("f", false, &[]).contains("0 payloads"));
        assert!(refused("f", false, &[INLINE; 2]).contains("2 payloads"));
        assert!(all(&[INLINE; 257]).contains("number of payloads of 257"));
        assert!(all(&[INLINE, Part { len: 0, ..SEALED }]).contains("an empty payload"));
        for part in [INLINE, SEALED] {
            let (header, call) = fitting("f", false, &[Part { len: LIMIT + 1, ..part }]);
            assert!(matches!(judge(header, &call), Err(FrameError::TooLong { .. })));
        }
    }

    #[test]
    fn calls_that_contradict_their_header_are_refused() {
        let (header, call) = fitting("f", true, &[INLINE, SEALED]);
        assert!(judge(header, &call).is_ok());
        for (inline_len, descriptors) in [(9, 1), (11, 1), (10, 0), (10, 2), (0, 0), (LIMIT, 253)] {
            let other = Header { inline_len, descriptors, ..header };
            assert!(matches!(judge(other, &call), Err(FrameError::Meta(_))));
        }
        for kind in [Kind::Reply, Kind::Fault] {
            assert!(judge(Header { kind, ..header }, &call).is_err(), "a call in a {kind}");
        }
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        let huge = [Part { len: u64::MAX, place: Place::Inline }, INLINE];
        let (header, mut call) = fitting("f", true, &[INLINE]);
        call.parts = huge.to_vec();
        let bytes = postcard::to_allocvec(&call).unwrap();
        let header = header.covering(&bytes).unwrap();
        let refused = Meta::decode(&header, &bytes, u64::MAX);
        assert!(matches!(refused, Err(FrameError::Meta(what)) if what.contains("bounds")));
        assert!(Meta::Call(call).encode(1, Trace::default(), false).is_err());
    }

    #[test]
    fn answers_carry_what_they_say_and_no_more() {
        let (header, _) = fitting("f", true, &[INLINE, INLINE]);
        let header = Header { kind: Kind::Reply, ..header };
        assert!(judge(header, &reply(Part { len: 20, place: Place::Inline }, 0)).is_ok());
        assert!(judge(header, &reply(INLINE, 0)).is_err());
        let many = Landing::default();
        let reply = ReplyMeta { landings: vec![many; 257], ..reply(INLINE, 0) };
        assert!(Meta::Reply(reply).encode(1, Trace::default(), false).is_err());
        let fault = WireFault::Unknown { function: "f".to_owned() };
        let fault = FaultMeta { fault, delivered: false, released: Vec::new() };
        let header = Header { kind: Kind::Fault, ..header };
        assert!(judge(header, &fault).is_err(), "a fault has no payload");
        assert!(judge(Header { inline_len: 0, ..header }, &fault).is_ok());
    }

    #[test]
    fn bytes_behind_the_meta_are_refused() {
        let (header, call) = fitting("f", true, &[INLINE]);
        let refused = judge(header, &(call, 7_u8)).unwrap_err();
        assert_eq!(refused, FrameError::Meta("1 bytes behind its end".to_owned()));
        let (header, call) = fitting("f", true, &[INLINE]);
        let bytes = postcard::to_allocvec(&call).unwrap();
        let header = header.covering(&bytes).unwrap();
        assert!(Meta::decode(&header, &bytes[1..], LIMIT).is_err());
    }

    #[test]
    fn hops_beyond_the_limit_are_left_out() {
        let sent = reply(INLINE, 5000);
        let frame = Meta::Reply(sent.clone()).encode(1, Trace::default(), false).unwrap();
        let (header, meta) = split(&frame);
        let Meta::Reply(got) = Meta::decode(&header, meta, LIMIT).unwrap() else {
            panic!("a reply was sent");
        };
        let each = encoded_len(&sent.hops[0]).unwrap();
        assert!(META_BYTES - meta.len() <= each + 2, "there is room for another");
        assert_eq!(got.hops, sent.hops[..got.hops.len()]);
        assert_eq!(ReplyMeta { hops: Vec::new(), ..got }, ReplyMeta { hops: Vec::new(), ..sent });
    }
}
