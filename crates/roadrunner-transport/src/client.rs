//! The calling end: a pool of links to one peer, with one call at a time on each.
//!
//! Several calls to a peer take a link each, so no payload waits behind another. A call is sent once;
//! only where the peer can't have got all of it, because the link was already closed, is it sent
//! again over a new one.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roadrunner_buffer::{BufferError, Sealed, Traffic};

use crate::frame::{CallMeta, FaultMeta, Header, Meta, ReplyMeta, Trace, UNREAD, WireFault};
use crate::link::{self, Budget, Got, Link, LinkError, Received, Unsent};
use crate::{Account, Call, Fault, Hop, Lender, Payload, Reply, Terms, Undelivered};

/// Links that wait for the next call: as many as a few workflows use at a time. Each is a descriptor
/// here and a thread at the peer.
const IDLE_LINKS: usize = 16;

/// After which a waiting link is not used any more: before the peer closes it.
const IDLE: Duration = Duration::from_secs(50);

/// How much earlier than its peer a link is given up for its age: longer than between a look and a call.
const OLD: Duration = Duration::from_secs(60);

/// Calls of one peer at a time: what the peer takes, and a process with 1024 descriptors can hold.
const CALLS: usize = 256;

/// How long a peer that ended a link is listened to, for its reason.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Makes links to one peer.
pub(crate) trait Dial: Send + Sync {
    /// What it makes.
    type Link: Link;

    /// A new link.
    fn dial(&self, until: Instant) -> io::Result<Self::Link>;

    /// Whether payloads travel as descriptors.
    fn passes_descriptors(&self) -> bool;

    /// Where the peer is, for messages.
    fn peer(&self) -> String;

    /// What the peer calls a function.
    fn full_name<'t>(&self, target: &'t str) -> Cow<'t, str> {
        target.into()
    }
}

/// A process or host that calls go to.
pub(crate) struct Client<D: Dial> {
    dial: D,
    terms: Terms,
    idle: Mutex<Vec<(D::Link, Instant)>>,
    calls: AtomicUsize,
    ids: AtomicU64,
    /// Of answers; as many as there are calls.
    budget: Budget,
}

/// A call that the peer has.
struct Sent<L> {
    link: L,
    id: u64,
    /// Segments that went with it.
    leases: Vec<u64>,
    /// Those of the peer that it gave back.
    released: Vec<u64>,
}

/// Why a peer did not take a call. Of one that it did not read it has no name.
fn refusal(fault: WireFault, target: &str) -> Fault {
    let mut fault = Fault::from(fault);
    if let Fault::Exhausted { function, .. } = &mut fault
        && function.is_empty()
    {
        target.clone_into(function);
    }
    fault
}

/// A call that the peer has not, or perhaps has.
struct NotSent {
    fault: Fault,
    maybe: bool,
}

impl From<Fault> for NotSent {
    fn from(fault: Fault) -> Self {
        Self { fault, maybe: false }
    }
}

/// A call that the peer has not.
enum Unsendable<L> {
    /// There is no link to send it over.
    Fault(Fault),
    /// The link broke while it was sent.
    Cut(L, Unsent),
}

impl<D: Dial> Client<D> {
    pub(crate) fn new(dial: D, terms: Terms) -> Self {
        let (calls, ids) = (AtomicUsize::new(0), AtomicU64::new(1));
        let budget = Budget::new(u64::MAX);
        Self { dial, terms, idle: Mutex::new(Vec::new()), calls, ids, budget }
    }

    /// Where calls go, for messages.
    pub(crate) fn peer(&self) -> String {
        self.dial.peer()
    }

    /// Sends a call and waits for its answer.
    pub(crate) fn call<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let _counted = match self.count(call.target) {
            Ok(counted) => counted,
            Err(fault) => return Err(Undelivered::before(fault, call.payload)),
        };
        let Call { target, mut payload, since, deadline, depth, trace, .. } = call;
        let packed = match self.pack(&mut payload) {
            Ok(packed) => packed,
            Err(source) => {
                let fault = Fault::HandOver { function: target.into(), source };
                return Err(Undelivered::before(fault, payload));
            }
        };
        let copied = packed.as_ref().map_or(Traffic::default(), |(_, copied)| *copied);
        let many = matches!(payload, Payload::Many(_));
        let sent = match &packed {
            Some((parts, _)) => self.send(target, parts, many, (since, deadline), depth, trace),
            None => with_parts(&mut payload, |parts| {
                self.send(target, parts, many, (since, deadline), depth, trace)
            })
            .unwrap_or_else(|source| {
                Err(Fault::HandOver { function: target.into(), source }.into())
            }),
        };
        drop(packed);
        let mut sent = match sent {
            Ok(sent) => sent,
            Err(NotSent { fault, maybe: false }) => {
                return Err(Undelivered::before(fault, payload));
            }
            // No descriptors went: those need no more than that they are sent.
            Err(NotSent { fault, maybe: true }) => {
                return Err(Undelivered::maybe(fault, Some(payload)));
            }
        };
        match self.answer(&mut sent, deadline) {
            Ok(Received { meta: Meta::Reply(meta), parts, since: arrived, .. }) => {
                self.keep(sent.link);
                Ok(reply(meta, parts, copied, since, arrived))
            }
            Ok(Received {
                meta: Meta::Fault(FaultMeta { fault, delivered: true, .. }), ..
            }) => {
                self.keep(sent.link);
                Err(Undelivered::after(fault.into()))
            }
            // A peer that takes no call may be about to close.
            Ok(Received { id, meta: Meta::Fault(FaultMeta { fault, .. }), .. }) => {
                if id == UNREAD {
                    self.terms.trust.was_not_read(&sent.leases, sent.released);
                } else {
                    self.terms.trust.abandon(&sent.leases);
                }
                Err(Undelivered::before(refusal(fault, target), payload))
            }
            Ok(Received { meta: Meta::Call(_), .. }) => {
                let what = io::Error::new(io::ErrorKind::InvalidData, "it answered with a call");
                let fault = self.unanswered(sent.link, target, (since, deadline), &what.into());
                Err(Undelivered::after(fault))
            }
            Err(error) => {
                let fault = self.unanswered(sent.link, target, (since, deadline), &error);
                // Whoever borrowed it may have written to it.
                let copy = sent.leases.is_empty().then_some(payload);
                Err(Undelivered::maybe(fault, copy))
            }
        }
    }

    /// No answer came that can be read, to a call with this time.
    fn unanswered(
        &self,
        link: D::Link,
        target: &str,
        (since, deadline): (Instant, Instant),
        error: &LinkError,
    ) -> Fault {
        // Closed first: what the peer sends after it fails to, and is not lost.
        drop(link);
        self.terms.trust.abandon_all();
        // The kernel has time-outs of its own, for peers that are gone.
        if error.is_timeout() && deadline <= Instant::now() {
            let timeout = deadline.saturating_duration_since(since);
            return Fault::TimedOut { function: target.into(), timeout };
        }
        self.lost(target, error)
    }

    fn count(&self, target: &str) -> Result<Counted<'_>, Fault> {
        let counted = Counted(&self.calls);
        if self.calls.fetch_add(1, Ordering::Relaxed) < CALLS {
            return Ok(counted);
        }
        let reason = format!("{CALLS} calls are on their way to {}", self.dial.peer());
        Err(Fault::Exhausted { function: target.into(), reason })
    }

    fn lost(&self, target: &str, reason: impl ToString) -> Fault {
        let (function, peer) = (target.into(), self.dial.peer());
        Fault::Lost { function, peer, reason: reason.to_string() }
    }

    fn unreachable(&self, target: &str, reason: impl ToString) -> Fault {
        let (function, peer) = (target.into(), self.dial.peer());
        Fault::Unreachable { function, peer, reason: reason.to_string() }
    }

    /// The payloads in sealed memfds or segments, where descriptors travel here. What is packed stays
    /// where it is until the peer has it.
    fn pack(
        &self,
        payload: &mut Payload<'_>,
    ) -> Result<Option<(Vec<Sealed<'static>>, Traffic)>, BufferError> {
        if !self.dial.passes_descriptors() {
            return Ok(None);
        }
        with_parts(payload, |parts| {
            let (mut packed, mut copied) = (Vec::with_capacity(parts.len()), Traffic::default());
            for part in parts {
                let (part, cost) =
                    part.published(&self.terms.home, self.terms.trust.is_domain())?;
                packed.push(part);
                copied += cost;
            }
            Ok(Some((packed, copied)))
        })?
    }

    /// Sends a call over a link that waits, or a new one.
    fn send(
        &self,
        target: &str,
        parts: &[Sealed<'_>],
        many: bool,
        (since, deadline): (Instant, Instant),
        depth: u32,
        trace: Trace,
    ) -> Result<Sent<D::Link>, NotSent> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let released = self.terms.trust.releases();
        let send = |link: &mut D::Link| {
            let time_left = deadline.saturating_duration_since(Instant::now());
            let meta = Meta::Call(CallMeta {
                function: self.dial.full_name(target).into(),
                time_left_us: u64::try_from(time_left.as_micros()).unwrap_or(u64::MAX),
                depth,
                many,
                parts: link::parts_of(link, parts),
                released: released.clone(),
            });
            let head = meta.encode(id, trace, false);
            let head = head.map_err(|error| Unsent { error: error.into(), got: Got::Nothing })?;
            link::send(link, &head, parts, deadline, &self.terms)
        };
        let ended = self.send_over_some(target, deadline, send);
        let (mut link, unsent) = match ended {
            Ok(link) => {
                let leases = link::leases_of(&link, parts);
                return Ok(Sent { link, id, leases, released });
            }
            Err(Unsendable::Fault(fault)) => {
                self.terms.trust.put_back(released);
                return Err(fault.into());
            }
            Err(Unsendable::Cut(link, unsent)) => (link, unsent),
        };
        if unsent.got == Got::All {
            let fault = self.unanswered(link, target, (since, deadline), &unsent.error);
            return Err(NotSent { fault, maybe: true });
        }
        self.terms.trust.put_back(released);
        // The peer may have said why before it closed.
        let until = deadline.min(Instant::now() + LAST_WORDS);
        match self.receive(&mut link, until) {
            Ok(Received {
                meta: Meta::Fault(FaultMeta { fault, delivered: false, .. }), ..
            }) => Err(refusal(fault, target).into()),
            _ => Err(self.not_sent(target, deadline, &unsent.error).into()),
        }
    }

    /// Sends over a link that waits or, where those turn out to be closed, over a new one.
    fn send_over_some(
        &self,
        target: &str,
        deadline: Instant,
        mut send: impl FnMut(&mut D::Link) -> Result<(), Unsent>,
    ) -> Result<D::Link, Unsendable<D::Link>> {
        while let Some(mut link) = self.waiting() {
            match send(&mut link) {
                Ok(()) => return Ok(link),
                // It was closed meanwhile.
                Err(Unsent { error: LinkError::Io(error), got: Got::Nothing })
                    if is_closed(&error) => {}
                Err(unsent) => return Err(Unsendable::Cut(link, unsent)),
            }
        }
        let dialled = self.dial.dial(deadline);
        let mut link = dialled.map_err(|error| {
            // Nobody has the socket any more, which a process of a run has as long as it is there.
            if error.kind() == io::ErrorKind::ConnectionRefused {
                self.terms.trust.end(&self.terms.home);
            }
            Unsendable::Fault(self.not_sent(target, deadline, &error.into()))
        })?;
        match send(&mut link) {
            Ok(()) => Ok(link),
            Err(unsent) => Err(Unsendable::Cut(link, unsent)),
        }
    }

    fn not_sent(&self, target: &str, deadline: Instant, error: &LinkError) -> Fault {
        if error.is_timeout() && deadline <= Instant::now() {
            return self.unreachable(target, "it did not take the call before its deadline");
        }
        self.unreachable(target, error)
    }

    /// Waits for the answer to a call.
    fn answer(&self, sent: &mut Sent<D::Link>, deadline: Instant) -> Result<Received, LinkError> {
        let received = self.receive(&mut sent.link, deadline)?;
        let unread = received.id == UNREAD
            && matches!(received.meta, Meta::Fault(FaultMeta { delivered: false, .. }));
        if received.id == sent.id || unread {
            return Ok(received);
        }
        let error = io::Error::new(io::ErrorKind::InvalidData, "it answered another call");
        Err(error.into())
    }

    fn receive(&self, link: &mut D::Link, until: Instant) -> Result<Received, LinkError> {
        let (bytes, fds, since) = link::receive_header(link, until, |_| until)?;
        let header = Header::decode(&bytes, self.terms.inline_limit())?;
        link::receive_rest(link, &header, fds, (since, until), &self.terms, &self.budget)
    }

    /// A link that waits for a call and is still open.
    fn waiting(&self) -> Option<D::Link> {
        loop {
            let (mut link, since) = self.idle().pop()?;
            if since.elapsed() < IDLE && !link.is_old(OLD) && link.is_quiet() {
                return Some(link);
            }
        }
    }

    /// Keeps a link for the next call.
    fn keep(&self, link: D::Link) {
        let mut idle = self.idle();
        if idle.len() < IDLE_LINKS {
            idle.push((link, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(D::Link, Instant)>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
struct Counted<'c>(&'c AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

fn with_parts<T>(
    payload: &mut Payload<'_>,
    with: impl FnOnce(&[Sealed<'_>]) -> T,
) -> Result<T, BufferError> {
    Ok(match payload {
        Payload::One(sealed) => with(std::slice::from_ref(sealed)),
        Payload::Held(reply) => with(&[reply.payload()?]),
        Payload::Many(parts) => with(parts),
    })
}

/// The response that a peer sent.
fn reply(
    meta: ReplyMeta,
    mut parts: Vec<Sealed<'static>>,
    copied: Traffic,
    since: Instant,
    arrived: Instant,
) -> Reply {
    let mut account = Account::from(&meta.account);
    let busy = Duration::from_nanos(meta.busy_ns);
    // What was neither the function nor its response is the hand-over, both ways of the call's
    // messages: the clocks of two hosts can't be compared.
    account.handover = arrived.saturating_duration_since(since).saturating_sub(busy);
    account.traffic += copied;
    let payload = parts.pop().unwrap_or(Sealed::empty());
    let hops = meta.hops.into_iter().map(Hop::from).collect();
    let mut reply = Reply::new(Box::new(Arrived(payload)), account, hops);
    reply.copied = meta.response_copied;
    reply.parts = meta.landings.into_iter().map(Into::into).collect();
    // What its sealing took is part of the next hand-over.
    let sealing = busy.saturating_sub(account.run).min(arrived.saturating_duration_since(since));
    reply.finished = arrived.checked_sub(sealing).unwrap_or(arrived);
    reply
}

/// A response that came from a peer.
struct Arrived(Sealed<'static>);

impl Lender for Arrived {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn lend(&mut self) -> Result<Sealed<'_>, BufferError> {
        Ok(self.0.reborrow())
    }
}
