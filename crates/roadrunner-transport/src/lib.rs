//! How a sealed payload reaches the function that handles it, and how the response comes back.
//!
//! ```text
//!   caller --- Call { target, payload } ---> Transport --- Call ---> Inbox (admission, sandbox, run)
//!   caller <-- Reply { lender, account } --- Transport <-- Reply --- Inbox
//! ```
//!
//! A transport moves payloads and knows nothing of what runs at either end: it never names Wasm.
//! A call that was not delivered gives its payload back ([`Undelivered`]). The response stays
//! where it was produced until the caller lands it ([`Lender`]).
#![forbid(unsafe_code)]

mod client;
pub mod conformance;
mod fault;
pub mod frame;
mod hose;
mod identity;
mod link;
mod local;
mod members;
mod resolve;
mod retry;
mod server;
mod tcp;
mod tls;
mod trace;
mod unix;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_buffer::{BufferError, Home, Lent, Releases, Sealed, Traffic};

pub use fault::Fault;
pub use hose::{Figure, Method, Speed, measure};
pub use identity::{Identity, IdentityError};
pub use local::Local;
pub use retry::Retrying;
pub use tcp::{Node, Tcp, TcpServer};
pub use trace::Trace;
pub use unix::{Unix, UnixServer};
pub use wire::Protection;

/// Where the peer of a hand-over is, which decides how its pages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the same process: pages move between linear memories.
    User,
    /// In another process of this host: pages lie in a memfd that both map.
    Kernel,
    /// On another host: bytes go over the network.
    Network,
}

impl Mode {
    /// The name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What comes in from other processes and hosts, and where it goes.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whose pages take payloads in.
    pub home: Home,
    /// Longest payload in bytes.
    pub payload_limit: u64,
    /// Whether the peer is trusted with segments.
    pub trust: Trust,
}

/// How far a peer is trusted.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// It may be hostile: payloads are sealed.
    #[default]
    None,
    /// It is a process of the same trust domain, started by the same run: payloads may go in segments.
    Domain(Arc<Domain>),
}

/// The leases of segments between this process and a peer.
#[derive(Debug)]
pub struct Domain {
    /// The process that started the run.
    run: u32,
    /// Those that the peer has.
    pub(crate) lent: Lent,
    /// Those that this process had of it.
    pub(crate) releases: Arc<Releases>,
}

impl Trust {
    /// The peer is a process of a run: `run`, which started it, or one that it started.
    #[must_use]
    pub fn domain(run: u32) -> Self {
        Self::Domain(Arc::new(Domain { run, lent: Lent::default(), releases: Arc::default() }))
    }

    /// The process that started the run.
    pub(crate) fn run(&self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Domain(domain) => Some(domain.run),
        }
    }

    pub(crate) fn is_domain(&self) -> bool {
        matches!(self, Self::Domain(_))
    }

    /// What the next frame gives back.
    pub(crate) fn releases(&self) -> Vec<u64> {
        match self {
            Self::None => Vec::new(),
            Self::Domain(domain) => domain.releases.take(frame::RELEASES),
        }
    }

    /// Whether the peer got these leases nobody knows: they are not waited for.
    pub(crate) fn abandon(&self, leases: &[u64]) {
        if let Self::Domain(domain) = self
            && !leases.is_empty()
        {
            domain.lent.abandon(leases);
        }
    }

    /// A frame was lost, and with it perhaps news of any lease: none that the peer has is waited for.
    pub(crate) fn abandon_all(&self) {
        if let Self::Domain(domain) = self {
            domain.lent.abandon_all();
        }
    }

    /// The peer is gone: what it had does not come back, and what it lent is not kept.
    pub(crate) fn end(&self, home: &Home) {
        if let Self::Domain(domain) = self {
            domain.lent.end();
            drop(domain.releases.take(usize::MAX));
            home.pool.forget(&domain.releases);
        }
    }

    /// The peer has not read a frame with these leases, which should have given those back.
    pub(crate) fn was_not_read(&self, leases: &[u64], released: Vec<u64>) {
        if let Self::Domain(domain) = self {
            domain.lent.come_back(leases);
        }
        self.put_back(released);
    }

    /// The frame that should have given these back was not sent.
    pub(crate) fn put_back(&self, released: Vec<u64>) {
        if let Self::Domain(domain) = self {
            domain.releases.put_back(released);
        }
    }
}

impl Terms {
    /// Most inline bytes of one frame: a fan-in has several payloads.
    pub(crate) fn inline_limit(&self) -> u64 {
        self.payload_limit.saturating_mul(4)
    }
}

/// Who makes a call, as far as the way that it came has proved it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Somebody of this process, of this user, or whom nobody asked.
    #[default]
    Unnamed,
    /// The owner of a certificate with these names.
    Named(Arc<[String]>),
}

/// One invocation on its way to a function.
#[derive(Debug)]
pub struct Call<'p> {
    /// Name of the function.
    pub target: &'p str,
    /// What it is to handle.
    pub payload: Payload<'p>,
    /// When the payload was ready: hand-over is counted from there.
    pub since: Instant,
    /// When the caller gives up.
    pub deadline: Instant,
    /// How many calls wait for this one on the same thread.
    pub depth: u32,
    /// Who makes it.
    pub caller: Caller,
    /// The caller's span, of which the function's is a child.
    pub trace: Trace,
}

/// What a call carries.
#[derive(Debug)]
pub enum Payload<'p> {
    /// A sealed payload.
    One(Sealed<'p>),
    /// The response of an earlier call, still in the memory of the instance that produced it. The
    /// instance goes away as soon as the payload has landed.
    Held(Reply),
    /// Several payloads in edge order, for a fan-in.
    Many(Vec<Sealed<'static>>),
}

impl Payload<'_> {
    /// Length in bytes, of all parts together.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::One(sealed) => sealed.len(),
            Self::Held(reply) => reply.len(),
            Self::Many(parts) => parts.iter().map(Sealed::len).sum(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whatever holds a response in its memory until it has landed elsewhere.
pub trait Lender: Send {
    /// Length of the response in bytes.
    fn len(&self) -> usize;

    /// Whether the response is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it keeps besides the response, until it goes.
    fn besides(&self) -> u64 {
        0
    }

    /// The response. Landing it takes its pages away, so a second time gives zeros.
    ///
    /// # Errors
    /// When the pages can't be sealed.
    fn lend(&mut self) -> Result<Sealed<'_>, BufferError>;
}

/// What one invocation cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Bytes moved and copied to bring the payload to the function, and by its own reads and writes
    /// where it has payload and response as streams.
    pub traffic: Traffic,
    /// From [`Call::since`] until the function's entry was called, its payload readable: the wait
    /// for a thread, sandbox, allocation and hand-over.
    pub handover: Duration,
    /// Time in the function.
    pub run: Duration,
    /// Largest linear memory in bytes.
    pub memory_peak: u64,
}

/// One delivery of a payload, for reports.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Who sent it.
    pub from: String,
    /// Who received it.
    pub to: String,
    /// How it travelled.
    pub mode: Mode,
    /// Length of the payload in bytes.
    pub bytes: u64,
    /// What it cost.
    pub account: Account,
}

/// A response and what it cost.
pub struct Reply {
    lender: Box<dyn Lender>,
    /// What the invocation cost.
    pub account: Account,
    /// For a fan-in, what each of its payloads cost to land, in edge order: the traffic together is
    /// the account's, the time is part of its hand-over. Empty for a single payload.
    pub parts: Vec<(Traffic, Duration)>,
    /// Bytes of the response that were copied to bring it here from another process. They are part of
    /// what the next hand-over costs.
    pub copied: u64,
    /// The calls that the function made itself, in order of their ends.
    pub hops: Vec<Hop>,
    /// When the function was done.
    pub finished: Instant,
}

impl Reply {
    /// A response held by `lender`.
    #[must_use]
    pub fn new(lender: Box<dyn Lender>, account: Account, hops: Vec<Hop>) -> Self {
        let (parts, finished) = (Vec::new(), Instant::now());
        Self { lender, account, parts, copied: 0, hops, finished }
    }

    /// Length of the response in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lender.len()
    }

    /// Whether the response is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept with the response. See [`Lender::besides`].
    #[must_use]
    pub fn besides(&self) -> u64 {
        self.lender.besides()
    }

    /// The response, where it is. See [`Lender::lend`].
    ///
    /// # Errors
    /// When the pages can't be sealed.
    pub fn payload(&mut self) -> Result<Sealed<'_>, BufferError> {
        self.lender.lend()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("len", &self.len()).field("account", &self.account).finish()
    }
}

/// A call that ended in a fault, with its payload where that was not delivered.
#[derive(Debug)]
pub struct Undelivered<'p> {
    /// Why.
    pub fault: Fault,
    /// The payload, unless the function got it.
    pub payload: Option<Payload<'p>>,
    /// The payload, where the function may have got it and it is still here as it was: for a function
    /// that may run twice.
    pub copy: Option<Payload<'p>>,
}

impl<'p> Undelivered<'p> {
    /// A fault before delivery.
    #[must_use]
    pub fn before(fault: Fault, payload: Payload<'p>) -> Self {
        Self { fault, payload: Some(payload), copy: None }
    }

    /// A fault after delivery.
    #[must_use]
    pub fn after(fault: Fault) -> Self {
        Self { fault, payload: None, copy: None }
    }

    /// A fault that leaves it open whether the payload was delivered.
    #[must_use]
    pub fn maybe(fault: Fault, copy: Option<Payload<'p>>) -> Self {
        Self { fault, payload: None, copy }
    }
}

/// Takes calls in at the receiving end.
pub trait Inbox {
    /// Admits the call, lands its payload and runs the function.
    ///
    /// # Errors
    /// With the payload where the function did not get it.
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>>;

    /// An answer of this function has been sent: there is time for what the next call would wait for.
    fn rest(&self, target: &str) {
        let _ = target;
    }
}

/// Brings a call to where its function is and the response back.
pub trait Transport {
    /// How payloads travel here.
    fn mode(&self) -> Mode;

    /// Delivers one call and waits for its end.
    ///
    /// # Errors
    /// With the payload where the function did not get it.
    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>>;
}
