//! The data hose: several ways to send a large payload over TCP, behind one seam.
//!
//! ```text
//!   link.rs  a frame's head, small payloads ----------------------------------> write
//!            a large payload --> choice.rs: which way, as measured on this peer
//!                                   |-> send        the kernel copies into its own pages
//!                                   |-> sendfile    the queue refers to the pages of a sealed memfd
//!                                   |-> splice      the same, through a pipe of ours
//!                                   |-> zerocopy    the network card reads our pages (MSG_ZEROCOPY)
//!                                   `-> uring       the same by io_uring (SEND_ZC)
//! ```
//!
//! **A page is never reused before the kernel is done with it.** Whoever returns from [`Hose::send`] may
//! write to the payload's pages at once, because of three rules:
//!
//! * `send` copies before it returns.
//! * `sendfile` and `splice` put references to pages into the socket's queue and, where the peer is on
//!   this host, into *its* queue: there the pages are in use until the receiver has read them, and
//!   nothing tells the sender when that is. `SIOCOUTQ == 0` says that the peer's kernel has them, which
//!   is too early. So only pages that can't change any more go this way: those of a memfd that is sealed
//!   against writes for ever. What the kernel still refers to when such a memfd goes it keeps until
//!   then. Segments, which are written again, and private pages, which would go by `vmsplice`, never do.
//! * `zerocopy` and `uring` are told when the pages are free, and wait for that. Where the peer is on this
//!   host the kernel copies what it delivers, so that nobody else ever refers to the pages. A send that fails
//!   ends the connection, so that the kernel lets go of the rest, and waits for that.

mod choice;
mod files;
mod link;
mod measure;
#[cfg(test)]
mod tests;
mod uring;
mod zerocopy;

use std::fmt;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_sys::{self as sys, Ready};

pub(crate) use choice::{Choice, Choices};
pub(crate) use link::TcpLink;
pub use measure::{Figure, Speed, measure};

/// From which length on a payload goes by the hose, in bytes. Below, there is nothing to gain: plain
/// writes of 256 KiB take some 10 us of the sender's processor on loopback, and pinning as many pages and
/// waiting for the kernel's word takes 18.
pub(crate) const FROM: usize = 256 << 10;

/// How long the kernel has to let go of pages of a connection that broke by itself, before it is ended:
/// what the peer said last can be read until then.
const LETTING_GO: Duration = Duration::from_millis(100);

/// How often a wait for pages of an ended connection is written to the log.
const STILL_WAITING: Duration = Duration::from_secs(5);

/// A way to send a large payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Plain writes: the kernel copies.
    Send,
    /// `sendfile` from a sealed memfd.
    Sendfile,
    /// `splice` from a sealed memfd through a pipe.
    Splice,
    /// `MSG_ZEROCOPY`.
    Zerocopy,
    /// `IORING_OP_SEND_ZC` of io_uring.
    Uring,
}

impl Method {
    /// All, the plain one first.
    pub const ALL: [Self; 5] =
        [Self::Send, Self::Sendfile, Self::Splice, Self::Zerocopy, Self::Uring];

    /// The name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::Zerocopy => "zerocopy",
            Self::Uring => "uring",
        }
    }

    /// Whether a payload can go this way that does, or doesn't, lie in a sealed memfd.
    const fn takes(self, sealed: bool) -> bool {
        match self {
            Self::Send | Self::Zerocopy | Self::Uring => true,
            Self::Sendfile | Self::Splice => sealed,
        }
    }

    /// Whether this kernel offers it.
    ///
    /// # Errors
    /// The kernel's, when it doesn't.
    pub fn is_available(self) -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        self.open(&Arc::new(stream)).map(drop)
    }

    /// What sends by it over a socket.
    ///
    /// # Errors
    /// When the kernel doesn't offer it.
    fn open(self, stream: &Arc<TcpStream>) -> io::Result<Box<dyn Way>> {
        Ok(match self {
            Self::Send => Box::new(Plain(Arc::clone(stream))),
            Self::Sendfile => Box::new(files::Sendfile),
            Self::Splice => Box::new(files::Splice::new()?),
            Self::Zerocopy => Box::new(zerocopy::Zerocopy::new(stream.as_fd())?),
            Self::Uring => Box::new(uring::Uring::new()?),
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes to send, and where else they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'s> {
    pub(crate) bytes: &'s [u8],
    /// A memfd that is sealed against writes and begins with them.
    pub(crate) sealed: Option<BorrowedFd<'s>>,
}

/// One way to send, over one socket that never waits.
trait Way: Send {
    /// Sends some of the bytes from `at` on, and says how many.
    fn some(
        &mut self,
        socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        until: Instant,
    ) -> io::Result<usize>;

    /// Waits until the kernel needs none of the pages that were sent.
    fn settle(&mut self, _socket: BorrowedFd<'_>, _until: Instant) -> io::Result<()> {
        Ok(())
    }

    /// Whether the kernel has copied bytes that it should not have.
    fn has_copied(&self) -> bool {
        false
    }
}

struct Plain(Arc<TcpStream>);

impl Way for Plain {
    fn some(
        &mut self,
        _socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        _until: Instant,
    ) -> io::Result<usize> {
        (&*self.0).write(&source.bytes[at..])
    }
}

/// How one connection sends. It keeps what the last method needs, which after some payloads is the chosen one: pipes
/// and rings of the others would be descriptors and memory that a connection holds for nothing.
pub(crate) struct Hose {
    stream: Arc<TcpStream>,
    choice: Arc<Choice>,
    way: Option<(Method, Box<dyn Way>)>,
}

/// A payload that may not be there.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) error: io::Error,
    /// Whether the kernel took all of it: what failed then was to hear that it needs the pages no more.
    pub(crate) whole: bool,
}

/// How far a way got.
enum Got {
    /// Everything is sent and its pages are free.
    All,
    /// It doesn't work here from this byte on; the kernel has no pages of those before it.
    To(usize, io::Error),
}

impl Hose {
    pub(crate) fn new(stream: Arc<TcpStream>, choice: Arc<Choice>) -> Self {
        Self { stream, choice, way: None }
    }

    /// Sends all bytes, and returns when the kernel needs their pages no more.
    pub(crate) fn send(&mut self, source: &Source<'_>, until: Instant) -> Result<(), Stopped> {
        let method = self.choice.next(source.bytes.len(), source.sealed.is_some());
        let meter = Meter::start(self.stream.as_fd());
        match self.send_by(method, source, 0, until)? {
            Got::All => {
                let sample = meter.stop(self.stream.as_fd(), source.bytes.len());
                let copied = self.way.as_ref().is_some_and(|(_, way)| way.has_copied());
                self.choice.learn(method, source.sealed.is_some(), sample, copied);
                Ok(())
            }
            Got::To(at, error) => {
                tracing::debug!(%method, %error, at, "a way to send doesn't work here");
                // Too many pages on their way are no reason for ever.
                if !sys::is_out_of_buffers(&error) {
                    self.choice.refuse(method);
                }
                match self.send_by(Method::Send, source, at, until)? {
                    Got::All => Ok(()),
                    Got::To(_, error) => Err(Stopped { error, whole: false }),
                }
            }
        }
    }

    fn send_by(
        &mut self,
        method: Method,
        source: &Source<'_>,
        from: usize,
        until: Instant,
    ) -> Result<Got, Stopped> {
        let way = match self.way.take_if(|(open, _)| *open == method) {
            Some((_, way)) => Ok(way),
            None => method.open(&self.stream),
        };
        let way = match way {
            Ok(way) => &mut self.way.insert((method, way)).1,
            Err(error) => return Ok(Got::To(from, error)),
        };
        let socket = self.stream.as_fd();
        let mut at = from;
        let mut sent = Ok(());
        while at < source.bytes.len() && sent.is_ok() {
            sent = some(&mut **way, socket, source, at, until).map(|more| at += more);
        }
        let settled = match &sent {
            Err(error) if !is_refusal(error) => {
                let soon = if error.kind() == io::ErrorKind::TimedOut {
                    Duration::ZERO
                } else {
                    LETTING_GO
                };
                way.settle(socket, Instant::now() + soon)
            }
            _ => way.settle(socket, until),
        };
        let whole = at == source.bytes.len();
        if let Err(error) = settled {
            let_go(&mut **way, socket);
            return Err(Stopped { error: sent.err().unwrap_or(error), whole });
        }
        match sent {
            Ok(()) => Ok(Got::All),
            Err(error) if is_refusal(&error) => {
                // What a pipe still holds is sent otherwise.
                self.way = None;
                Ok(Got::To(at, error))
            }
            Err(error) => Err(Stopped { error, whole }),
        }
    }
}

/// Sends some bytes as soon as the socket has room, which must be by a time.
fn some(
    way: &mut dyn Way,
    socket: BorrowedFd<'_>,
    source: &Source<'_>,
    at: usize,
    until: Instant,
) -> io::Result<usize> {
    loop {
        match way.some(socket, source, at, until) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            sent => return sent,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !sys::wait_until_ready(socket, Ready::Write, left)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Whether an error is about the way and not about the connection.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, OutOfMemory, PermissionDenied, Unsupported};
    let kinds = [InvalidInput, OutOfMemory, PermissionDenied, Unsupported];
    kinds.contains(&error.kind()) || sys::is_out_of_buffers(error)
}

/// Ends a connection and waits until the kernel needs no page of it. That has no end of its own: what is
/// left then are packets that a network card holds, and the kernel's watchdog resets one that
/// doesn't move. To go on earlier would show the peer what the pages are used for next.
fn let_go(way: &mut dyn Way, socket: BorrowedFd<'_>) {
    // Fails where it has ended already.
    let _ = sys::disconnect(socket);
    while let Err(error) = way.settle(socket, Instant::now() + STILL_WAITING) {
        tracing::warn!(%error, "the kernel still reads pages of a connection that has ended");
        if error.kind() != io::ErrorKind::TimedOut {
            thread::sleep(LETTING_GO);
        }
    }
}

/// Takes a sample of what a payload costs to send.
struct Meter {
    start: Instant,
    cpu: Duration,
    unsent: usize,
}

impl Meter {
    fn start(socket: BorrowedFd<'_>) -> Self {
        let unsent = sys::unsent(socket).unwrap_or(0);
        Self { start: Instant::now(), cpu: sys::thread_cpu_time(), unsent }
    }

    fn stop(self, socket: BorrowedFd<'_>, len: usize) -> choice::Sample {
        let cpu = sys::thread_cpu_time().saturating_sub(self.cpu);
        let wall = self.start.elapsed();
        let queued = sys::unsent(socket).unwrap_or(0).saturating_sub(self.unsent);
        choice::Sample { len, arrived: len.saturating_sub(queued), wall, cpu }
    }
}
