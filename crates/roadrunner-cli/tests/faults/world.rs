//! What faults are made to: nodes in this process over each way, with functions that count who entered.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use roadrunner_buffer::{
    Backing, BreakEven, BufferError, Contents, Descriptor, Domain, Extent, Home, Pool, PoolLimits,
    Sealed, Window, round_to_pages,
};
use roadrunner_transport::conformance::{ECHO, EchoInbox};
use roadrunner_transport::{
    Call, Caller, Fault, Identity, Inbox, Node, Payload, Protection, Reply, Tcp, TcpServer, Terms,
    Trace, Transport, Trust, Undelivered, Unix, UnixServer,
};

use crate::dice::Dice;
use crate::program::Sandbox;

/// How long after its deadline a call may end: what two loaded cores may need to notice. Whatever hangs,
/// hangs longer.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);

/// A deadline for calls that are to succeed, or to fail at once.
pub(crate) const PLENTY: Duration = Duration::from_secs(20);

/// A deadline for calls that nobody answers.
pub(crate) const LITTLE: Duration = Duration::from_millis(60);

/// Longest payload that nodes take, in bytes.
pub(crate) const LIMIT: u64 = 4 << 20;

/// A function that takes a moment and gives its payload back.
pub(crate) const SLOW: &str = "slow";

/// The moment: longer than a peer takes to go away.
const MOMENT: Duration = Duration::from_millis(3);

/// How pages wait in tests: few, so that they are as many as there can be after a few dozen calls.
pub(crate) const POOL: PoolLimits = PoolLimits { bytes: 8 << 20, ranges: 8, empty_ranges: 4 };

/// A way between two processes or hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A UNIX socket to anybody: sealed memfds.
    Unix,
    /// A UNIX socket between processes of a run: segments.
    Run,
    Tcp,
    /// The same with certificates.
    Tls,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Unix, Self::Run, Self::Tcp, Self::Tls];

    pub(crate) fn draw(dice: &mut Dice) -> Self {
        dice.pick(&Self::ALL)
    }

    /// One whose frames anybody can make.
    pub(crate) fn draw_plain(dice: &mut Dice) -> Self {
        dice.pick(&[Self::Unix, Self::Run, Self::Tcp])
    }

    pub(crate) fn passes_descriptors(self) -> bool {
        matches!(self, Self::Unix | Self::Run)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(SocketAddr),
    Tcp(String),
}

/// A socket that listens at a name which nobody else has.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) fn new(way: Way) -> (Self, Address) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !way.passes_descriptors() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            return (Self::Tcp(listener), Address::Tcp(address));
        }
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("roadrunner-faults-{process}-{next}");
        let address = SocketAddr::from_abstract_name(name).unwrap();
        (Self::Unix(UnixListener::bind_addr(&address).unwrap()), Address::Unix(address))
    }
}

/// How often the payload with a tag may have entered a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entries {
    Never,
    Once,
    AtMostOnce,
}

impl Entries {
    fn allow(self, found: u32) -> bool {
        match self {
            Self::Never => found == 0,
            Self::Once => found == 1,
            Self::AtMostOnce => found <= 1,
        }
    }
}

/// An echo that counts its calls by the tags of their payloads.
pub(crate) struct Counting {
    echo: EchoInbox,
    entries: Mutex<HashMap<u64, u32>>,
}

impl Inbox for Counting {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let tag = match &call.payload {
            Payload::One(sealed) => sealed.bytes().ok().and_then(tag_of),
            _ => None,
        };
        let Some(tag) = tag else {
            let fault = Fault::Exhausted { function: call.target.into(), reason: "no tag".into() };
            return Err(Undelivered::before(fault, call.payload));
        };
        *self.entries.lock().unwrap().entry(tag).or_default() += 1;
        if call.target == SLOW {
            thread::sleep(MOMENT);
        }
        let target = if call.target == SLOW { ECHO } else { call.target };
        self.echo.accept(Call { target, ..call })
    }
}

fn tag_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|tag| u64::from_le_bytes(*tag))
}

pub(crate) fn home() -> Home {
    let pool = Arc::new(Pool::new(POOL));
    Home { pool, domain: Domain(1), break_even: BreakEven::fixed(16 << 10) }
}

/// A name in a certificate, and the certificate, as a user gets it.
const NAME: &str = "node";

fn identity() -> Identity {
    let sandbox = Sandbox::new();
    let made = sandbox.run(&["certify", NAME]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    Identity::load(&sandbox.path("tls").join(NAME)).unwrap()
}

/// What serves calls while this lives.
#[allow(dead_code, reason = "held for what it does")]
enum Server {
    Unix(UnixServer),
    Tcp(TcpServer),
}

pub(crate) struct World {
    inbox: Arc<Counting>,
    /// Whose pages the nodes' payloads are, and the callers'.
    pub(crate) nodes: Home,
    pub(crate) callers: Home,
    /// All callers of a process are one to the processes of its run.
    run: Trust,
    served: Vec<(Address, Server)>,
    good: Vec<Client>,
    /// Of nodes and callers both, with the name [`NAME`].
    identity: Identity,
    tags: AtomicU64,
    expected: Mutex<HashMap<u64, Entries>>,
}

/// A payload that is like no other.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) tag: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Who calls.
pub(crate) type Client = Box<dyn Transport + Send + Sync>;

/// How a call ended that broke no promise.
pub(crate) type Outcome = String;

impl World {
    pub(crate) fn new() -> Self {
        let nodes = home();
        let (echo, entries) = (EchoInbox::at(nodes.clone()), Mutex::default());
        let inbox = Arc::new(Counting { echo, entries });
        let mut world = Self {
            inbox,
            nodes,
            callers: home(),
            run: Trust::domain(std::process::id()),
            served: Vec::new(),
            good: Vec::new(),
            identity: identity(),
            tags: AtomicU64::new(1),
            expected: Mutex::default(),
        };
        for way in Way::ALL {
            let (listener, address) = Listener::new(way);
            let trust = if way == Way::Run { world.run.clone() } else { Trust::None };
            let terms = Terms { home: world.nodes.clone(), payload_limit: LIMIT, trust };
            let inbox = world.inbox.clone();
            let server = match listener {
                Listener::Unix(it) => Server::Unix(UnixServer::on(it, inbox, terms).unwrap()),
                Listener::Tcp(it) => {
                    Server::Tcp(TcpServer::on(it, world.protection(way), inbox, terms).unwrap())
                }
            };
            world.good.push(world.client(way, &address));
            world.served.push((address, server));
        }
        world
    }

    /// Segments that are kept, each of them a descriptor.
    pub(crate) fn segments(&self) -> usize {
        let kept = [&self.nodes, &self.callers].map(|home| home.pool.usage());
        kept.iter().map(|kept| kept.segments + kept.foreign).sum()
    }

    pub(crate) fn address(&self, way: Way) -> &Address {
        &self.served[way as usize].0
    }

    /// A caller that knows nobody yet, of a node of the world's.
    pub(crate) fn client(&self, way: Way, address: &Address) -> Client {
        self.client_in(&self.run, way, address)
    }

    /// One of a process that is none of the world's nodes. What that has, it has as long as the caller lives.
    pub(crate) fn client_of_another(&self, way: Way, address: &Address) -> Client {
        self.client_in(&Trust::domain(std::process::id()), way, address)
    }

    fn client_in(&self, run: &Trust, way: Way, address: &Address) -> Client {
        let trust = if way == Way::Run { run.clone() } else { Trust::None };
        let terms = Terms { home: self.callers.clone(), payload_limit: LIMIT, trust };
        match address {
            Address::Unix(address) => Box::new(Unix::new(address.clone(), terms)),
            Address::Tcp(address) => {
                let (name, protection) = (Some(NAME.to_owned()), self.protection(way));
                let address = address.clone();
                Box::new(Tcp::new(Node { address, name, workflow: None, protection }, terms))
            }
        }
    }

    fn protection(&self, way: Way) -> Protection {
        match way {
            Way::Tls => Protection::Tls(self.identity.clone()),
            _ => Protection::Loopback,
        }
    }

    /// Closes the connections of the good callers, who open new ones when they call again.
    pub(crate) fn hang_up(&mut self) {
        self.good = Way::ALL.map(|way| self.client(way, self.address(way))).into();
    }

    pub(crate) fn tagged(&self, dice: &mut Dice) -> Tagged {
        // Below the break-even, in a descriptor where there are any, and now and then of huge pages.
        let len = match dice.below(16) {
            0..7 => 8 + dice.below(100),
            7..9 => 4096 + dice.below(2),
            9..15 => (17 << 10) + dice.below(300_000),
            _ => 2 << 20,
        };
        self.of_len(len, dice)
    }

    /// A payload that goes in a descriptor, where there are any.
    pub(crate) fn large(&self, dice: &mut Dice) -> Tagged {
        self.of_len((17 << 10) + dice.below(300_000), dice)
    }

    pub(crate) fn of_len(&self, len: usize, dice: &mut Dice) -> Tagged {
        let tag = self.tags.fetch_add(1, Ordering::Relaxed);
        let bytes = [&tag.to_le_bytes()[..], &dice.bytes(len - 8)].concat();
        Tagged { tag, bytes }
    }

    /// A payload in the pages that go this way.
    pub(crate) fn payload(&self, way: Way, tagged: &Tagged) -> Sealed<'static> {
        let (home, bytes) = (&self.callers, &tagged.bytes);
        let write = |place: &mut [u8]| {
            place.copy_from_slice(bytes);
            Ok(())
        };
        if way == Way::Run && home.break_even.moves(bytes.len()) {
            return self.in_segment(bytes);
        }
        match way {
            Way::Tcp | Way::Tls => Sealed::write(bytes.len(), home, write).unwrap(),
            _ => Sealed::write_shared(bytes.len(), home, write).unwrap(),
        }
    }

    /// A payload in a segment: written by way of its memfd, as no guest is here to write to a window.
    fn in_segment(&self, bytes: &[u8]) -> Sealed<'static> {
        let home = &self.callers;
        let extent = Extent::reserve(round_to_pages(bytes.len()).unwrap()).unwrap();
        let window = Window::fresh(extent, Backing::Segment, Contents::Unspecified, home);
        let sealed = window.unwrap().lend(bytes.len()).unwrap().detach(home).unwrap().0;
        let (named, _) = sealed.published(home, true).unwrap();
        let Some(Descriptor::Segment(lease)) = named.descriptor() else {
            panic!("there are too many segments: {:?}", home.pool.usage());
        };
        let file = File::from(lease.descriptor().try_clone_to_owned().unwrap());
        file.write_all_at(bytes, 0).unwrap();
        sealed
    }

    /// A call by somebody: how it ended, if that was in time and no promise was broken.
    pub(crate) fn call(
        &self,
        client: &(dyn Transport + Send + Sync),
        (way, target): (Way, &'static str),
        tagged: &Tagged,
        time: Duration,
    ) -> Result<Outcome, String> {
        let payload = self.payload(way, tagged);
        let (outcome, entries, _back) = attempt(client, target, payload, tagged, time)?;
        self.expect(tagged.tag, entries)?;
        Ok(outcome)
    }

    /// The same, of a peer that is none of the world's nodes; what was not delivered then goes to one.
    pub(crate) fn call_until_taken(
        &self,
        client: &(dyn Transport + Send + Sync),
        way: Way,
        tagged: &Tagged,
        time: Duration,
    ) -> Result<Outcome, String> {
        let payload = self.payload(way, tagged);
        let (outcome, _, back) = attempt(client, ECHO, payload, tagged, time)?;
        self.verify(tagged.tag, Entries::Never)?;
        let Some(back) = back else {
            self.expect(tagged.tag, Entries::Never)?;
            return Ok(outcome);
        };
        let (again, ..) = attempt(&*self.good[way as usize], ECHO, back, tagged, PLENTY)?;
        if again != RIGHT {
            return Err(format!("what came back with {outcome} ended in {again}"));
        }
        self.expect(tagged.tag, Entries::Once)?;
        Ok(outcome)
    }

    /// Notes how often a payload may have entered, and checks it now. Whoever is still under way is found
    /// at the end of the run.
    pub(crate) fn expect(&self, tag: u64, entries: Entries) -> Result<(), String> {
        let narrowed = match self.expected.lock().unwrap().entry(tag) {
            std::collections::hash_map::Entry::Occupied(it) if *it.get() != Entries::AtMostOnce => {
                *it.get()
            }
            entry => *entry.insert_entry(entries).get(),
        };
        self.verify(tag, narrowed)
    }

    fn verify(&self, tag: u64, entries: Entries) -> Result<(), String> {
        let found = self.inbox.entries.lock().unwrap().get(&tag).copied().unwrap_or(0);
        if entries.allow(found) {
            return Ok(());
        }
        Err(format!("payload {tag} entered {found} times, which should be {entries:?}"))
    }

    /// Checks all payloads of the run.
    pub(crate) fn verify_all(&self) -> Result<(), String> {
        let expected = self.expected.lock().unwrap();
        expected.iter().try_for_each(|(tag, entries)| self.verify(*tag, *entries))
    }

    /// A call that nobody harms.
    pub(crate) fn serves(&self, way: Way, dice: &mut Dice) -> Result<(), String> {
        let tagged = self.tagged(dice);
        let client = &*self.good[way as usize];
        let outcome = self.call(client, (way, ECHO), &tagged, PLENTY)?;
        if outcome == RIGHT {
            return self.expect(tagged.tag, Entries::Once);
        }
        Err(format!("a good call over {way:?} ended in {outcome}"))
    }
}

/// The outcome of a call that was answered rightly.
pub(crate) const RIGHT: &str = "right";

/// How an end is called, how often the payload may have entered then, and the payload if it came back.
pub(crate) type Judged = (Outcome, Entries, Option<Sealed<'static>>);

/// Makes a call, and judges its end.
pub(crate) fn attempt(
    client: &(dyn Transport + Send + Sync),
    target: &'static str,
    payload: Sealed<'static>,
    tagged: &Tagged,
    time: Duration,
) -> Result<Judged, String> {
    let (since, payload) = (Instant::now(), Payload::One(payload));
    let (deadline, caller, trace) = (since + time, Caller::Unnamed, Trace::default());
    let ended = client.send(Call { target, payload, since, deadline, depth: 0, caller, trace });
    let took = since.elapsed();
    if took > time + MARGIN {
        return Err(format!("it took {took:?} and had {time:?}"));
    }
    match ended {
        Ok(mut reply) => {
            let payload = reply.payload().map_err(unreadable)?;
            if payload.bytes().map_err(unreadable)? != tagged.bytes {
                return Err("it answered other bytes".into());
            }
            Ok((RIGHT.into(), Entries::Once, None))
        }
        Err(Undelivered { fault, payload: None, .. }) => {
            Ok((name(&fault).into(), Entries::AtMostOnce, None))
        }
        Err(Undelivered { fault, payload: Some(Payload::One(back)), .. }) => {
            if back.bytes().map_err(unreadable)? != tagged.bytes {
                return Err(format!("other bytes came back with: {fault}"));
            }
            Ok((format!("{}, payload back", name(&fault)), Entries::Never, Some(back)))
        }
        Err(Undelivered { fault, .. }) => Err(format!("another payload came back with: {fault}")),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn unreadable(error: BufferError) -> String {
    format!("a payload can't be read: could not {error}")
}

fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::TimedOut { .. } => "TimedOut",
        Fault::Unknown { .. } => "Unknown",
        Fault::TooLarge { .. } => "TooLarge",
        Fault::NoMemory { .. } => "NoMemory",
        Fault::Exhausted { .. } => "Exhausted",
        Fault::HandOver { .. } => "HandOver",
        Fault::Unreachable { .. } => "Unreachable",
        Fault::Lost { .. } => "Lost",
        Fault::Failed { .. } => "Failed",
        _ => "another fault",
    }
}
