//! Frames over a connection, whatever carries it: what the ways between processes and between
//! hosts have in common. Every read and write ends by a time.

mod send;

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roadrunner_buffer::{BufferError, Descriptor, Home, Sealed};
use roadrunner_sys::{self as sys, Ready};

use crate::frame::{
    FrameError, HEADER_BYTES, Header, INLINE_CHECKSUM_BYTES, InlineChecksum, Meta, Part, Place,
};
use crate::hose::Hose;
use crate::{Caller, Terms, Trace, Trust};

pub(crate) use send::{Got, Unsent, leases_of, parts_of, send};

/// Bytes of a payload that are received at a time: fewer cost calls, more would count long before
/// they have come.
const STEP: usize = 1 << 20;

/// Longest rest of a frame in bytes that is received in one piece and copied out of it: a page or two cost
/// less to copy than another call of the kernel.
const SHORT: usize = 8 << 10;

/// A connected stream that never blocks: bytes in order, and descriptors with them where the peer is
/// on this host.
pub(crate) trait Link: Send {
    /// Whether payloads travel as descriptors.
    fn passes_descriptors(&self) -> bool;

    /// Does what goes before the first frame.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Sends some of the bytes, the descriptors with the first of them.
    fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize>;

    /// Sends what was taken to be sent and waits here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Receives the first bytes of a frame, and descriptors that come with them.
    fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize>;

    /// Receives some bytes. Descriptors that come here are closed.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// The number of the process at the other end; 0 where that is on another host.
    fn peer(&self) -> u32;

    /// A descriptor of that process, where the kernel has one.
    fn process(&self) -> Option<OwnedFd> {
        None
    }

    /// Who the other end has shown to be, once all is settled.
    fn caller(&self) -> Caller {
        Caller::Unnamed
    }

    /// Waits until it is ready; `false` where that takes longer.
    fn wait(&mut self, ready: Ready, wait: Duration) -> io::Result<bool>;

    /// Whether the peer has neither closed nor said anything, where a write would not find that out.
    fn is_quiet(&mut self) -> bool;

    /// Whether its ends are to show again who they are, or will be within `early`.
    fn is_old(&self, _early: Duration) -> bool {
        false
    }

    /// What sends large payloads, where that is something better than `write`.
    fn hose(&mut self) -> Option<&mut Hose> {
        None
    }
}

/// Why nothing, or nothing usable, came over a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer closed where a frame would begin.
    #[error("the connection was closed")]
    Closed,
    /// The kernel's reason.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer broke the wire format.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A payload has no place here.
    #[error("could not {0}")]
    Payload(#[from] BufferError),
}

impl LinkError {
    /// Whether time ran out.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

/// A frame as it came.
pub(crate) struct Received {
    pub(crate) id: u64,
    pub(crate) trace: Trace,
    pub(crate) meta: Meta,
    pub(crate) parts: Vec<Sealed<'static>>,
    /// When its header was there.
    pub(crate) since: Instant,
}

/// Descriptors that came and that nobody has taken yet: closing one may take as long as its sender
/// likes, so nobody waits for that.
#[derive(Default)]
pub(crate) struct Descriptors(VecDeque<OwnedFd>);

impl Drop for Descriptors {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            sys::close_aside(self.0.drain(..));
        }
    }
}

/// Inline bytes that may be on their way in at a time, over all connections.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicU64,
    most: u64,
}

impl Budget {
    pub(crate) fn new(most: u64) -> Self {
        Self { taken: AtomicU64::new(0), most }
    }
}

/// A frame's part of a budget, as far as its bytes have come: what a peer only claims costs nothing.
struct Share<'b> {
    budget: &'b Budget,
    taken: u64,
}

impl Share<'_> {
    fn take(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let before = self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        self.taken += bytes;
        if before.saturating_add(bytes) <= self.budget.most {
            return Ok(());
        }
        let what = "too many payloads are on their way in; try again later";
        Err(io::Error::new(io::ErrorKind::OutOfMemory, what))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// Does what goes before the first frame, by a time.
pub(crate) fn settle(link: &mut impl Link, until: Instant) -> io::Result<()> {
    ready(link, Ready::Read, until, Link::settle)
}

/// Receives the bytes of a header. Its first byte may come as late as `idle`, the rest as late as
/// `rest` says, which is told when that was.
pub(crate) fn receive_header(
    link: &mut impl Link,
    idle: Instant,
    rest: impl FnOnce(Instant) -> Instant,
) -> Result<([u8; HEADER_BYTES], Descriptors, Instant), LinkError> {
    let mut bytes = [0; HEADER_BYTES];
    let mut fds = Vec::new();
    // Nothing is there yet, most likely: a read would say no more than that.
    if !link.wait(Ready::Read, idle.saturating_duration_since(Instant::now()))? {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    let filled = ready(link, Ready::Read, idle, |link| link.read_first(&mut bytes, &mut fds))?;
    let fds = Descriptors(fds.into());
    if filled == 0 {
        return Err(LinkError::Closed);
    }
    let since = Instant::now();
    read_all(link, &mut bytes[filled..], rest(since))?;
    Ok((bytes, fds, since))
}

/// Receives what follows a header. Nothing of it counts before all of it is there: neither the leases
/// that come with it nor those that come back.
pub(crate) fn receive_rest<L: Link>(
    link: &mut L,
    header: &Header,
    mut fds: Descriptors,
    (since, until): (Instant, Instant),
    terms: &Terms,
    budget: &Budget,
) -> Result<Received, LinkError> {
    if fds.0.len() != usize::from(header.descriptors) {
        let what = format!("{} descriptors came, not {}", fds.0.len(), header.descriptors);
        return Err(FrameError::Meta(what).into());
    }
    let checksum_len = if header.inline_checksum { INLINE_CHECKSUM_BYTES as u64 } else { 0 };
    let len = u64::from(header.meta_len) + header.inline_len.saturating_add(checksum_len);
    let mut body = Body::receive(link, len, until)?;
    let mut meta = vec![0; header.meta_len as usize];
    body.read_all(&mut meta)?;
    let meta = Meta::decode(header, &meta, terms.payload_limit)?;
    let mut share = Share { budget, taken: 0 };
    let mut checksum = header.inline_checksum.then(InlineChecksum::default);
    let mut inline = VecDeque::new();
    for part in meta.parts().iter().filter(|part| !part.in_descriptor()) {
        let len = usize::try_from(part.len).unwrap_or(usize::MAX);
        let mut seen = |bytes: &[u8]| {
            if let Some(checksum) = &mut checksum {
                checksum.update(bytes);
            }
        };
        let received = receive_inline(&mut body, len, &terms.home, &mut seen, &mut share)?;
        inline.push_back(received);
    }
    if let Some(checksum) = checksum {
        let mut found = [0; INLINE_CHECKSUM_BYTES];
        body.read_all(&mut found)?;
        checksum.verify(found)?;
    }
    let mut parts = Vec::with_capacity(meta.parts().len());
    for part in meta.parts() {
        let fd = if part.in_descriptor() { fds.0.pop_front() } else { None };
        parts.push(match fd.map(|fd| adopt(fd, *part, terms)) {
            Some(Ok(adopted)) => adopted,
            Some(Err(error)) => {
                disown(&parts);
                return Err(error);
            }
            // As many as were received.
            None => inline.pop_front().unwrap_or(Sealed::empty()),
        });
    }
    if let Trust::Domain(domain) = &terms.trust {
        domain.lent.come_back(meta.released());
    }
    Ok(Received { id: header.id, trace: header.trace, meta, parts, since })
}

/// Of a frame that does not count, no lease was passed on.
fn disown(parts: &[Sealed<'_>]) {
    for part in parts {
        if let Some(Descriptor::Segment(lease)) = part.descriptor() {
            lease.disown();
        }
    }
}

/// Takes a payload in that came as a descriptor.
fn adopt(fd: OwnedFd, part: Part, terms: &Terms) -> Result<Sealed<'static>, LinkError> {
    let len = usize::try_from(part.len).unwrap_or(usize::MAX);
    match (part.place, &terms.trust) {
        (Place::Segment, Trust::Domain(domain)) => {
            Ok(Sealed::adopt_segment(fd, len, &terms.home, &domain.releases)?)
        }
        (Place::Segment, Trust::None) => {
            sys::close_aside([fd]);
            let what = "a segment from a process of another trust domain".to_owned();
            Err(FrameError::Meta(what).into())
        }
        _ => Ok(Sealed::adopt(fd, len)?),
    }
}

/// What follows a header, until a time.
struct Body<'l, L> {
    link: &'l mut L,
    until: Instant,
    /// All of it, where it is short, and how much has been read.
    short: Option<io::Cursor<Vec<u8>>>,
}

impl<'l, L: Link> Body<'l, L> {
    fn receive(link: &'l mut L, len: u64, until: Instant) -> io::Result<Self> {
        let mut short = None;
        if let Some(len) = usize::try_from(len).ok().filter(|len| *len <= SHORT) {
            let mut bytes = vec![0; len];
            read_all(link, &mut bytes, until)?;
            short = Some(io::Cursor::new(bytes));
        }
        Ok(Self { link, until, short })
    }

    fn read_all(&mut self, into: &mut [u8]) -> io::Result<()> {
        match &mut self.short {
            Some(short) => short.read_exact(into),
            None => read_all(self.link, into, self.until),
        }
    }
}

/// Receives a payload straight into the pages that will be its consumer's.
fn receive_inline<L: Link>(
    body: &mut Body<'_, L>,
    len: usize,
    home: &Home,
    seen: &mut dyn FnMut(&[u8]),
    share: &mut Share<'_>,
) -> Result<Sealed<'static>, LinkError> {
    let mut lost = None;
    let written = Sealed::write(len, home, |place| {
        let mut receive = || {
            for step in place.chunks_mut(STEP) {
                share.take(step.len())?;
                body.read_all(step)?;
                seen(step);
            }
            Ok(())
        };
        receive().map_err(|error: io::Error| {
            let kind = error.kind();
            lost = Some(error);
            kind.into()
        })
    });
    match (written, lost) {
        (_, Some(error)) => Err(error.into()),
        (written, None) => Ok(written?),
    }
}

fn read_all(link: &mut impl Link, into: &mut [u8], until: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        let got = ready(link, Ready::Read, until, |link| link.read(&mut into[filled..]))?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += got;
    }
    Ok(())
}

/// Reads or writes as soon as the link is ready, which must be by a time.
fn ready<L: Link, T>(
    link: &mut L,
    what: Ready,
    until: Instant,
    mut act: impl FnMut(&mut L) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match act(link) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            acted => return acted,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !link.wait(what, left)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::EchoInbox;
    use crate::frame::{CallMeta, Trace};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    /// Counts the calls of the kernel that a frame takes.
    struct Counting(Arc<UnixStream>, usize);

    impl Link for Counting {
        fn passes_descriptors(&self) -> bool {
            false
        }
        fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
            self.1 += 1;
            self.0.write(parts, fds)
        }
        fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
            self.1 += 1;
            self.0.read_first(into, fds)
        }
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.read(into)
        }
        fn peer(&self) -> u32 {
            0
        }
        fn wait(&mut self, ready: Ready, wait: Duration) -> io::Result<bool> {
            self.1 += 1;
            self.0.wait(ready, wait)
        }
        fn is_quiet(&mut self) -> bool {
            true
        }
    }

    #[test]
    fn a_small_call_takes_one_write_one_wait_and_two_reads() {
        let home = EchoInbox::default().home().clone();
        let terms = Terms { home, payload_limit: 1 << 20, trust: Trust::None };
        let [mut here, mut there] =
            <[UnixStream; 2]>::from(UnixStream::pair().unwrap()).map(|end| {
                end.set_nonblocking(true).unwrap();
                Counting(Arc::new(end), 0)
            });
        let until = Instant::now() + Duration::from_secs(60);
        // The second one's rest is too long to be received in one piece.
        for (len, calls) in [(1000, 3), (SHORT, 4)] {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            let parts = [Sealed::borrowed(&payload)];
            let meta = Meta::Call(CallMeta {
                function: "resize".into(),
                time_left_us: 1,
                depth: 0,
                many: false,
                parts: parts_of(&here, &parts),
                released: Vec::new(),
            });
            let head = meta.encode(1, Trace::default(), false).unwrap();
            (here.1, there.1) = (0, 0);
            send(&mut here, &head, &parts, until, &terms).unwrap();
            let (bytes, fds, since) = receive_header(&mut there, until, |_| until).unwrap();
            let header = Header::decode(&bytes, 1 << 20).unwrap();
            let budget = Budget::new(u64::MAX);
            let times = (since, until);
            let received = receive_rest(&mut there, &header, fds, times, &terms, &budget).unwrap();
            assert_eq!((here.1, there.1), (1, calls));
            assert_eq!(received.parts[0].bytes().unwrap(), payload);
        }
    }
}
