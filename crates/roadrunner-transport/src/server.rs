//! The receiving end: a thread that takes connections in, and a thread for each of them.
//!
//! Whoever connects is hostile: what a peer may hold here is bounded in number, bytes and time.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_buffer::{BufferError, Sealed, Traffic};
use roadrunner_sys as sys;

use crate::frame::{CallMeta, FaultMeta, FrameError, Header, Meta, ReplyMeta, Trace, UNREAD};
use crate::link::{self, Budget, Link, LinkError, Received};
use crate::members::Members;
use crate::{Call, Caller, Fault, Inbox, Payload, Reply, Terms, Trust, Undelivered};

/// Connections at a time, each a thread and a descriptor: a peer uses one for each of its calls
/// under way, and a process with 1024 descriptors can hold these and their payloads.
pub(crate) const CONNECTIONS: usize = 256;

/// How long a connection may be silent between two calls.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Time that a connection has to say who it is, before it has shown any right to be here.
const SETTLING: Duration = Duration::from_secs(10);

/// Time that the rest of a header has after its first byte: it is sent in one piece.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// Time that a call's payload has to come: 1 GiB at 150 Mbit/s.
const PAYLOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Time that a peer has to take an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Inline payload bytes that may be on their way in at a time, over all connections: four of the
/// largest payloads.
const INLINE_BYTES: u64 = 4 << 30;

/// Wait after the kernel had no descriptor or memory for a connection: until others have closed.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Time that a peer which is turned away has to take the reason.
const TURNING_AWAY: Duration = Duration::from_millis(500);

/// How long a process of the run whose last connection has ended is watched for its own end: its
/// descriptors are closed before it has ended, and nothing is to do in between but free its memory.
const ENDING: Duration = Duration::from_secs(1);

/// Longest that a call may take, whatever its caller says.
const LONGEST_CALL: Duration = Duration::from_secs(3600);

/// Takes connections in.
pub(crate) trait Listen: Send + Sync + 'static {
    /// A connection.
    type Link: Link + 'static;

    /// The next connection, from whoever may connect at all.
    fn accept(&self) -> io::Result<Self::Link>;

    /// What ends a connection, from another thread.
    fn hang_up(link: &Self::Link) -> Box<dyn Fn() + Send>;

    /// Has `accept` return.
    fn stop(&self);
}

/// A listening socket whose calls are served until it is stopped or dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    inbox: Arc<dyn Inbox + Send + Sync>,
    terms: Terms,
    stopping: AtomicBool,
    inline: Budget,
    connections: Mutex<Connections>,
    gone: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    /// The processes of the trust domain.
    members: Members,
    open: HashMap<u64, Connection>,
}

struct Connection {
    hang_up: Box<dyn Fn() + Send>,
    busy: bool,
}

impl Server {
    pub(crate) fn start<L: Listen>(
        listener: L,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox,
            terms,
            stopping: AtomicBool::new(false),
            inline: Budget::new(INLINE_BYTES),
            connections: Mutex::default(),
            gone: Condvar::new(),
        });
        let listener = Arc::new(listener);
        let (own, taken) = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = sys::spawn("connections", move || take_in(&own, &*taken))?;
        let stop = Box::new(move || listener.stop());
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Takes no more calls, and waits for those under way, as long as `grace`. What runs then is cut off
    /// from its caller.
    pub(crate) fn stop(&mut self, grace: Duration) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        (self.stop)();
        let _ = thread.join();
        let until = Instant::now() + grace;
        let mut connections = self.shared.connections();
        connections.open.values().filter(|it| !it.busy).for_each(|it| (it.hang_up)());
        while !connections.open.is_empty() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            let woken = self.shared.gone.wait_timeout(connections, left);
            connections = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        connections.open.values().for_each(|it| (it.hang_up)());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; `None` where there are too many.
    fn enter(self: &Arc<Self>, link: &impl Link, hang_up: Box<dyn Fn() + Send>) -> Option<Entered> {
        let mut gone = Vec::new();
        let mut connections = self.connections();
        if connections.open.len() >= CONNECTIONS {
            return None;
        }
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, Connection { hang_up, busy: false });
        let (mut terms, mut member) = (self.terms.clone(), None);
        if let Some(run) = terms.trust.run() {
            let peer = link.peer();
            terms.trust = connections.members.enter(run, peer, link.process(), &mut gone);
            member = Some(peer);
        }
        drop(connections);
        self.give_up(&gone);
        let unconfirmed = Mutex::default();
        Some(Entered { shared: Arc::clone(self), number, terms, member, unconfirmed })
    }

    /// Gives up what processes had that are gone.
    fn give_up(&self, gone: &[Trust]) {
        gone.iter().for_each(|trust| trust.end(&self.terms.home));
    }
}

/// A connection that is noted while this lives.
struct Entered {
    shared: Arc<Shared>,
    number: u64,
    terms: Terms,
    /// The process at the other end, where it is one of the trust domain.
    member: Option<u32>,
    /// Segments that went with the last answer. Nobody knows whether the peer has it before the next
    /// call comes over the connection.
    unconfirmed: Mutex<Vec<u64>>,
}

impl Entered {
    fn unconfirmed(&self) -> MutexGuard<'_, Vec<u64>> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it. The end of the process at the other end, where that is why, is waited for.
    fn end(mut self) {
        let (shared, process) = (Arc::clone(&self.shared), self.leave());
        drop(self);
        if process.is_some_and(|process| sys::has_ended(process.as_fd(), ENDING)) {
            let mut gone = Vec::new();
            shared.connections().members.prune(&mut gone);
            shared.give_up(&gone);
        }
    }

    /// Takes it off the list. A descriptor of the process at the other end, where it was the last one of that.
    fn leave(&mut self) -> Option<Arc<OwnedFd>> {
        self.terms.trust.abandon(&std::mem::take(&mut *self.unconfirmed()));
        let mut connections = self.shared.connections();
        connections.open.remove(&self.number);
        let process = self.member.take().and_then(|number| connections.members.leave(number));
        drop(connections);
        self.shared.gone.notify_all();
        process
    }

    /// Notes whether a call is under way. `false` when no more may begin.
    fn busy(&self, busy: bool) -> bool {
        let mut connections = self.shared.connections();
        if let Some(connection) = connections.open.get_mut(&self.number) {
            connection.busy = busy;
        }
        !self.shared.stopping.load(Ordering::SeqCst)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.leave();
    }
}

fn take_in<L: Listen>(shared: &Arc<Shared>, listener: &L) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let link = match listener.accept() {
            Ok(link) => link,
            Err(error) => {
                if !shared.stopping.load(Ordering::SeqCst) {
                    tracing::warn!(%error, "a connection could not be taken in");
                    thread::sleep(BACK_OFF);
                }
                continue;
            }
        };
        if let Err((reason, mut link)) = begin::<L>(shared, link) {
            tracing::warn!(reason, "a connection was turned away");
            let fault = Fault::Exhausted { function: String::new(), reason };
            let until = Instant::now() + TURNING_AWAY;
            // With TLS it hears nothing: a handshake here would have everybody wait for who only connects.
            let _ = refuse(&mut link, fault, until, &shared.terms);
        }
    }
}

/// Starts a connection's thread. Where there can be none the link comes back with the reason.
fn begin<L: Listen>(shared: &Arc<Shared>, link: L::Link) -> Result<(), (String, L::Link)> {
    let peer = link.peer();
    if shared.terms.trust.run().is_some_and(|run| peer != run && sys::parent_of(peer) != Some(run))
    {
        return Err((format!("process {peer} is none of this run's"), link));
    }
    let Some(entered) = shared.enter(&link, L::hang_up(&link)) else {
        return Err((format!("{CONNECTIONS} connections are open, which is the limit"), link));
    };
    // The thread takes the link out; where no thread starts it is still here.
    let link = Arc::new(Mutex::new(Some(link)));
    let theirs = Arc::clone(&link);
    let take =
        |link: &Mutex<Option<L::Link>>| link.lock().unwrap_or_else(PoisonError::into_inner).take();
    let spawned = sys::spawn("connection", move || {
        if let Some(mut link) = take(&theirs) {
            serve(&entered, &mut link);
            drop(link);
        }
        entered.end();
    });
    match spawned {
        Ok(_) => Ok(()),
        Err(error) => match take(&link) {
            Some(link) => {
                Err((format!("no thread can be started for the connection: {error}"), link))
            }
            None => Ok(()),
        },
    }
}

/// Serves one call after the other until either side has enough.
fn serve(entered: &Entered, link: &mut impl Link) {
    if let Err(error) = link::settle(link, Instant::now() + SETTLING) {
        tracing::warn!(%error, "a connection was not accepted");
        return;
    }
    loop {
        match serve_one(entered, link) {
            Ok(true) => {}
            Ok(false) | Err(LinkError::Closed) => return,
            Err(error) => {
                tracing::debug!(%error, "a connection ended");
                return;
            }
        }
    }
}

/// Serves one call. `false` when it was the last one.
fn serve_one(entered: &Entered, link: &mut impl Link) -> Result<bool, LinkError> {
    let (shared, terms) = (&*entered.shared, &entered.terms);
    let idle = Instant::now() + IDLE;
    let (bytes, fds, since) = link::receive_header(link, idle, |since| since + HEADER_PATIENCE)?;
    // Who calls again has the last answer: those of a run send no call before.
    entered.unconfirmed().clear();
    if !entered.busy(true) {
        // Not taken any more: the caller may ask elsewhere.
        let reason = "the node is ending".into();
        let fault = Fault::Exhausted { function: String::new(), reason };
        refuse(link, fault, Instant::now() + TURNING_AWAY, terms)?;
        return Ok(false);
    }
    let until = since + PAYLOAD_PATIENCE;
    let received = Header::decode(&bytes, terms.inline_limit()).map_err(LinkError::from);
    let received = received.and_then(|header| {
        link::receive_rest(link, &header, fds, (since, until), terms, &shared.inline)
    });
    let Received { id, trace, meta, parts, since } = match received {
        Ok(received) => received,
        Err(error) => {
            terms.trust.abandon_all();
            // What follows on this connection can't be told from payload any more.
            let reason = error.to_string();
            let fault = Fault::Exhausted { function: String::new(), reason };
            refuse(link, fault, Instant::now() + TURNING_AWAY, terms)?;
            return Err(error);
        }
    };
    let Meta::Call(call) = meta else {
        let what = "an answer came where a call should".to_owned();
        return Err(FrameError::Meta(what).into());
    };
    let ended = run(shared, &call, trace, parts, since, link.caller());
    answer(entered, link, id, &call.function, ended)?;
    shared.inbox.rest(&call.function);
    Ok(entered.busy(false) && !link.is_old(Duration::ZERO))
}

/// Has the inbox run a call.
fn run<'c>(
    shared: &Shared,
    call: &'c CallMeta,
    trace: Trace,
    mut parts: Vec<Sealed<'static>>,
    since: Instant,
    caller: Caller,
) -> Result<(Reply, Instant), Undelivered<'c>> {
    let time_left = Duration::from_micros(call.time_left_us).min(LONGEST_CALL);
    let payload = match (call.many, parts.len()) {
        (false, 1) => Payload::One(parts.pop().unwrap_or(Sealed::empty())),
        _ => Payload::Many(parts),
    };
    let target = call.function.as_str();
    let (deadline, depth) = (since + time_left, call.depth);
    let call = Call { target, payload, since, deadline, depth, caller, trace };
    let ended = catch_unwind(AssertUnwindSafe(|| shared.inbox.accept(call)));
    let panicked = |_| {
        let reason = "the host panicked; its log says where".into();
        Err(Undelivered::after(Fault::Exhausted { function: target.into(), reason }))
    };
    let reply = ended.unwrap_or_else(panicked)?;
    // The entry was that long before the end.
    let entered = reply.finished.checked_sub(reply.account.run).unwrap_or(since);
    Ok((reply, entered))
}

/// Sends how a call ended.
fn answer(
    entered: &Entered,
    link: &mut impl Link,
    id: u64,
    target: &str,
    ended: Result<(Reply, Instant), Undelivered<'_>>,
) -> Result<(), LinkError> {
    let (terms, until) = (&entered.terms, Instant::now() + ANSWER_PATIENCE);
    let (fault, delivered) = match ended {
        Err(Undelivered { fault, payload, .. }) => (fault, payload.is_none()),
        Ok((mut reply, began)) => {
            let account = (&reply.account).into();
            let hops = reply.hops.iter().map(Into::into).collect();
            let landings = reply.parts.iter().map(|part| (*part).into()).collect();
            match sealed(terms, link, &mut reply) {
                Ok((sealed, copied)) => {
                    let busy_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let part = link::parts_of(link, std::slice::from_ref(&sealed))[0];
                    let (response_copied, released) = (copied.copied, terms.trust.releases());
                    let meta = ReplyMeta {
                        busy_ns,
                        account,
                        landings,
                        hops,
                        part,
                        response_copied,
                        released: released.clone(),
                    };
                    let parts = std::slice::from_ref(&sealed);
                    *entered.unconfirmed() = link::leases_of(link, parts);
                    return send(link, id, &Meta::Reply(meta), parts, until, terms, released);
                }
                Err(source) => (Fault::HandOver { function: target.into(), source }, true),
            }
        }
    };
    let released = terms.trust.releases();
    let meta = FaultMeta { fault: fault.into(), delivered, released: released.clone() };
    send(link, id, &Meta::Fault(meta), &[], until, terms, released)
}

/// Sends an answer. What it should have given back and could not, the next one does.
fn send(
    link: &mut impl Link,
    id: u64,
    meta: &Meta,
    parts: &[Sealed<'_>],
    until: Instant,
    terms: &Terms,
    released: Vec<u64>,
) -> Result<(), LinkError> {
    let head = meta.encode(id, Trace::default(), false)?;
    link::send(link, &head, parts, until, terms).map_err(|unsent| {
        terms.trust.put_back(released);
        unsent.error
    })
}

/// The response in the form in which it travels here.
fn sealed<'r>(
    terms: &Terms,
    link: &impl Link,
    reply: &'r mut Reply,
) -> Result<(Sealed<'r>, Traffic), BufferError> {
    let sealed = reply.payload()?;
    if link.passes_descriptors() {
        return sealed.published(&terms.home, terms.trust.is_domain());
    }
    Ok((sealed, Traffic::default()))
}

/// Says that no call was read: nothing was done, and what a call gave back is not known.
fn refuse(
    link: &mut impl Link,
    fault: Fault,
    until: Instant,
    terms: &Terms,
) -> Result<(), LinkError> {
    let meta = FaultMeta { fault: fault.into(), delivered: false, released: Vec::new() };
    send(link, UNREAD, &Meta::Fault(meta), &[], until, terms, Vec::new())
}
