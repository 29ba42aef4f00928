//! Faults between a caller and a node that are both right: a relay passes on what they say, descriptors
//! too, and at one byte of it something happens.

use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use roadrunner_transport::conformance::ECHO;
use roadrunner_transport::frame::HEADER_BYTES;

use crate::descriptors::Impostor;
use crate::dice::Dice;
use crate::stream::Stream;
use crate::world::{Address, Entries, LITTLE, Listener, Outcome, PLENTY, RIGHT, SLOW, Way, World};

/// Bytes that header and meta of every frame have at least: all of them are under a checksum.
const HEAD: usize = HEADER_BYTES + 8;

/// What happens at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Both connections end.
    Cut,
    /// Both connections end in a reset.
    Slam,
    /// The receiver hears no more, and may go on talking.
    EndWriting,
    /// The sender's bytes are refused, and it may go on listening.
    EndReading,
    /// Nothing goes on any more.
    Stall,
    /// A bit of the byte is another.
    Flip(u8),
    /// The bytes come in crumbs. No harm should come of it.
    Crumble,
    /// The descriptors get lost.
    Disarm,
    /// One descriptor too many comes.
    Crowd,
    /// The first descriptor is another.
    Swap(Impostor),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toward {
    Node = 0,
    Caller = 1,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    way: Way,
    toward: Toward,
    at: usize,
    act: Act,
    /// A call went well over the connection before.
    warm: bool,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let way = Way::draw(dice);
        let toward = dice.pick(&[Toward::Node, Toward::Caller]);
        // What has no descriptor to go by is longer.
        let inline = if way.passes_descriptors() { 4 << 10 } else { 100 << 10 };
        let anywhere = if dice.one_in(4) { inline } else { HEAD + 20 };
        let (at, act) = match dice.below(if way.passes_descriptors() { 16 } else { 12 }) {
            0..3 => (dice.below(anywhere), Act::Cut),
            3 => (dice.below(anywhere), Act::Slam),
            4 | 5 => (dice.below(anywhere), Act::EndWriting),
            6 | 7 => (dice.below(anywhere), Act::EndReading),
            8 => (dice.below(anywhere), Act::Stall),
            // What TLS says of versions before its first frame it says again where it counts.
            9 | 10 if way == Way::Tls => (8 + dice.below(HEAD - 8), Act::Flip(1 << dice.below(8))),
            9 | 10 => (dice.below(HEAD), Act::Flip(1 << dice.below(8))),
            11 => (0, Act::Crumble),
            12 => (0, Act::Disarm),
            13 => (0, Act::Crowd),
            _ => (0, Act::Swap(Impostor::draw(dice))),
        };
        Self { way, toward, at, act, warm: dice.one_in(2) }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.act {
            Act::Cut | Act::Slam => "connection cut at a byte",
            Act::EndWriting | Act::EndReading => "half-closed at a byte",
            Act::Stall => "peer hangs at a byte",
            Act::Flip(_) => "bit flipped in header or meta",
            Act::Crumble => "bytes in crumbs",
            Act::Disarm | Act::Crowd => "wrong number of descriptors",
            Act::Swap(_) => "descriptor swapped",
        }
    }

    /// Whether the receiver can only notice by its deadline.
    fn may_hang(&self) -> bool {
        matches!(self.act, Act::Stall | Act::Flip(_) | Act::EndReading)
    }

    /// Whether a frame to which this happened must not count.
    fn spoils(&self) -> bool {
        match self.act {
            Act::Cut | Act::Slam | Act::EndWriting | Act::Stall => self.at < HEAD,
            Act::Flip(_) | Act::Disarm | Act::Crowd | Act::Swap(_) => true,
            Act::EndReading | Act::Crumble => false,
        }
    }
}

pub(crate) fn run(plan: Plan, world: &World, dice: &mut Dice) -> Result<Outcome, String> {
    let relay = Relay::new(plan.way, world.address(plan.way).clone());
    let client = world.client(plan.way, &relay.address);
    if plan.warm {
        let first = world.tagged(dice);
        let outcome = world.call(&*client, (plan.way, ECHO), &first, PLENTY)?;
        if outcome != RIGHT {
            return Err(format!("the call before it ended in {outcome}"));
        }
    }
    let needs_descriptor = matches!(plan.act, Act::Disarm | Act::Swap(_));
    let tagged = if needs_descriptor { world.large(dice) } else { world.tagged(dice) };
    relay.arm(plan);
    let time = if plan.may_hang() { LITTLE } else { PLENTY };
    let target = dice.pick(&[ECHO, SLOW]);
    let outcome = world.call(&*client, (plan.way, target), &tagged, time)?;
    let fired = relay.release();
    drop(client);
    drop(relay);
    if fired && plan.spoils() {
        if outcome == RIGHT {
            return Err("a frame counted that was harmed".into());
        }
        if plan.toward == Toward::Node {
            world.expect(tagged.tag, Entries::Never)?;
        }
    }
    let harmless = !fired || plan.act == Act::Crumble;
    if harmless && outcome != RIGHT && !plan.may_hang() {
        return Err(format!("nothing happened to it, and it ended in {outcome}"));
    }
    world.serves(plan.way, dice)?;
    Ok(if fired { outcome } else { "it never came to that".into() })
}

/// Passes on what a caller and a node say.
struct Relay {
    way: Way,
    address: Address,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    plan: Mutex<Armed>,
    released: Mutex<bool>,
    told: Condvar,
    closing: AtomicBool,
    /// Connections end in a reset: no farewell before it.
    slammed: AtomicBool,
}

#[derive(Default)]
struct Armed {
    plan: Option<Plan>,
    fired: bool,
    /// Bytes that went either way since it was armed.
    seen: [usize; 2],
}

impl Relay {
    fn new(way: Way, node: Address) -> Self {
        let (listener, address) = Listener::new(way);
        let shared = Arc::new(Shared {
            plan: Mutex::default(),
            released: Mutex::default(),
            told: Condvar::new(),
            closing: AtomicBool::new(false),
            slammed: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut pumps = Vec::new();
            while let Ok(caller) = Stream::accepted(&listener) {
                if theirs.closing.load(Ordering::SeqCst) {
                    break;
                }
                caller.patient(2 * PLENTY);
                let (caller, node) = (Arc::new(caller), Arc::new(Stream::to(&node)));
                node.patient(2 * PLENTY);
                let pump = |from: &Arc<Stream>, to: &Arc<Stream>, toward| {
                    let (shared, from, to) = (theirs.clone(), from.clone(), to.clone());
                    thread::spawn(move || shared.pump(&from, &to, toward))
                };
                pumps.push(pump(&caller, &node, Toward::Node));
                pumps.push(pump(&node, &caller, Toward::Caller));
            }
            pumps.into_iter().for_each(|pump| pump.join().unwrap());
        });
        Self { way, address, shared, thread: Some(thread) }
    }

    fn arm(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap() = Armed { plan: Some(plan), fired: false, seen: [0; 2] };
    }

    /// Ends what hangs, and says whether the plan came to be.
    fn release(&self) -> bool {
        *self.shared.released.lock().unwrap() = true;
        self.shared.told.notify_all();
        let mut armed = self.shared.plan.lock().unwrap();
        armed.plan = None;
        armed.fired
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
        self.shared.closing.store(true, Ordering::SeqCst);
        // Has `accept` return.
        drop(Stream::to(&self.address));
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(ended.is_none_or(|it| it.is_ok()), "a relay over {:?} panicked", self.way);
    }
}

/// What a pump does after the bytes that a plan lets through.
enum Next {
    On,
    Cut,
    Slam,
    EndWriting,
    EndReading,
    Stall,
}

impl Shared {
    fn pump(&self, from: &Stream, to: &Stream, toward: Toward) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut fds = Vec::new();
            let Ok(got @ 1..) = from.receive(&mut buffer, &mut fds) else { break };
            let (passed, crumbs, next) = self.meet(&mut buffer[..got], &mut fds, toward);
            if pass(to, &buffer[..passed], &fds, crumbs).is_err() {
                from.shut(Shutdown::Both);
                return;
            }
            match next {
                Next::On => {}
                Next::Cut => {
                    from.shut(Shutdown::Both);
                    to.shut(Shutdown::Both);
                    return;
                }
                Next::Slam => {
                    self.slammed.store(true, Ordering::SeqCst);
                    for stream in [from, to] {
                        stream.slam();
                        // Has the other pump return, and says nothing to anybody.
                        stream.shut(Shutdown::Read);
                    }
                    return;
                }
                // What comes is read and dropped, so that nobody waits for room.
                Next::EndWriting => {
                    to.shut(Shutdown::Write);
                    while matches!(from.receive(&mut buffer, &mut Vec::new()), Ok(1..)) {}
                    return;
                }
                Next::EndReading | Next::Stall => {
                    if matches!(next, Next::EndReading) {
                        from.shut(Shutdown::Read);
                    }
                    let mut released = self.released.lock().unwrap();
                    while !*released {
                        released = self.told.wait(released).unwrap();
                    }
                    drop(released);
                    from.shut(Shutdown::Both);
                    to.shut(Shutdown::Both);
                    return;
                }
            }
        }
        if !self.slammed.load(Ordering::SeqCst) {
            to.shut(Shutdown::Write);
        }
    }

    /// What comes of some bytes: how many go on, whether in crumbs, and what then.
    fn meet(
        &self,
        bytes: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        toward: Toward,
    ) -> (usize, bool, Next) {
        let mut armed = self.plan.lock().unwrap();
        let seen = armed.seen[toward as usize];
        armed.seen[toward as usize] += bytes.len();
        let all = (bytes.len(), false, Next::On);
        let Some(plan) = armed.plan.filter(|plan| plan.toward == toward) else { return all };
        let Some(at) = plan.at.checked_sub(seen).filter(|at| *at < bytes.len()) else { return all };
        if fds.is_empty() && matches!(plan.act, Act::Disarm | Act::Swap(_)) {
            return all;
        }
        (armed.plan, armed.fired) = (None, true);
        match plan.act {
            Act::Cut => (at, false, Next::Cut),
            Act::Slam => (at, false, Next::Slam),
            Act::EndWriting => (at, false, Next::EndWriting),
            Act::EndReading => (at, false, Next::EndReading),
            Act::Stall => (at, false, Next::Stall),
            Act::Flip(bit) => {
                bytes[at] ^= bit;
                all
            }
            Act::Crumble => (bytes.len(), true, Next::On),
            Act::Disarm => {
                fds.clear();
                all
            }
            Act::Crowd => {
                fds.push(Impostor::Null.make(4096));
                all
            }
            Act::Swap(impostor) => {
                let len = std::fs::File::from(fds.remove(0)).metadata().unwrap().len();
                fds.insert(0, impostor.make(len));
                all
            }
        }
    }
}

fn pass(to: &Stream, bytes: &[u8], fds: &[OwnedFd], crumbs: bool) -> std::io::Result<()> {
    let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    if !crumbs {
        return to.send(bytes, &fds);
    }
    // Single bytes where lengths are told, more where it would only take long.
    let (head, rest) = bytes.split_at(bytes.len().min(2 * HEAD));
    for (nth, byte) in head.chunks(1).enumerate() {
        to.send(byte, if nth == 0 { &fds } else { &[] })?;
    }
    rest.chunks(1021).try_for_each(|crumb| to.send(crumb, &[]))
}
