//! Frames that lie, from callers to a right node and from nodes to a right caller: each well made but for
//! one thing, which its checksums don't tell.

use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use roadrunner_transport::conformance::ECHO;
use roadrunner_transport::frame::{
    CallMeta, FaultMeta, HEADER_BYTES, Header, InlineChecksum, Kind, META_BYTES, Meta, Part, Place,
    ReplyMeta, Trace, WireAccount, WireFault,
};

use crate::descriptors::Impostor;
use crate::dice::Dice;
use crate::stream::Stream;
use crate::world::{Entries, LIMIT, LITTLE, Listener, Outcome, RIGHT, Tagged, Way, World};

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// It ends early, by any number of bytes.
    Truncated,
    /// A bit of any byte is another: header, meta, inline bytes or their checksum.
    Flipped,
    /// The header's sum of the inline bytes is not that of the parts.
    InlineSum,
    /// Inline bytes are told that never come.
    InlineMissing,
    /// The meta ends early, or goes on.
    MetaLength,
    /// A payload over the limit.
    OverLimit,
    /// More or fewer descriptors than came.
    Descriptors,
    /// A payload is told to be in a descriptor of another kind.
    Place,
    /// An answer where a call should be, or the other way round.
    Kind,
    /// A kind, a version or a bit that means nothing.
    Meaningless,
    /// Bytes that are no frame at all.
    Noise,
    /// The descriptor is no payload.
    Impostor(Impostor),
    /// As many payloads as fit into a meta, none of which are there.
    Swollen,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    way: Way,
    lie: Lie,
    /// The caller lies, not the node.
    caller: bool,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let way = Way::draw_plain(dice);
        let lie = match dice.below(if way.passes_descriptors() { 20 } else { 14 }) {
            0 | 1 => Lie::Truncated,
            2..5 => Lie::Flipped,
            5 => Lie::InlineSum,
            6 => Lie::InlineMissing,
            7 | 8 => Lie::MetaLength,
            9 => Lie::OverLimit,
            10 => Lie::Kind,
            11 => Lie::Meaningless,
            12 => Lie::Noise,
            13 => Lie::Swollen,
            14 | 15 => Lie::Descriptors,
            16 => Lie::Place,
            _ => Lie::Impostor(Impostor::draw(dice)),
        };
        Self { way, lie, caller: dice.one_in(2) }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match (self.lie, self.caller) {
            (Lie::Truncated, true) => "truncated call",
            (Lie::Truncated, false) => "truncated answer",
            (Lie::Flipped, true) => "flipped bit in a call",
            (Lie::Flipped, false) => "flipped bit in an answer",
            (Lie::Impostor(_) | Lie::Descriptors | Lie::Place, true) => "call with bad descriptors",
            (Lie::Impostor(_) | Lie::Descriptors | Lie::Place, false) => {
                "answer with bad descriptors"
            }
            (_, true) => "lying call",
            (_, false) => "lying answer",
        }
    }
}

pub(crate) fn run(plan: Plan, world: &World, dice: &mut Dice) -> Result<Outcome, String> {
    let tagged = world.tagged(dice);
    let outcome = if plan.caller {
        call(plan, world, &tagged, dice)
    } else {
        answer(plan, world, &tagged, dice)
    }?;
    world.serves(plan.way, dice)?;
    Ok(outcome)
}

/// A frame before it is sent.
struct Made {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A lying caller, and a node that says so and closes.
fn call(plan: Plan, world: &World, tagged: &Tagged, dice: &mut Dice) -> Result<Outcome, String> {
    let made = lying(plan, tagged, 77, dice);
    let stream = Stream::to(world.address(plan.way));
    let fds: Vec<_> = made.fds.iter().map(OwnedFd::as_fd).collect();
    // The node may have closed before it has read all of it.
    let _ = stream.send(&made.bytes, &fds);
    drop(made.fds);
    stream.shut(Shutdown::Write);
    let answer = read_to_end(&stream)?;
    world.expect(tagged.tag, Entries::Never)?;
    let Some((head, meta)) = answer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok("closed".into());
    };
    let header = Header::decode(head, LIMIT).map_err(|error| error.to_string())?;
    match Meta::decode(&header, meta, LIMIT).map_err(|error| error.to_string())? {
        Meta::Fault(FaultMeta { delivered: false, .. }) => Ok("refused, and closed".into()),
        other => Err(format!("it answered {other:?}")),
    }
}

fn read_to_end(stream: &Stream) -> Result<Vec<u8>, String> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.receive(&mut buffer, &mut Vec::new()) {
            Ok(0) => return Ok(all),
            Ok(got) => all.extend(&buffer[..got]),
            // Where it left something unread, the end is a reset.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => return Err(format!("it neither answered nor closed: {error}")),
        }
    }
}

/// A lying node, and a caller that believes nothing.
fn answer(plan: Plan, world: &World, tagged: &Tagged, dice: &mut Dice) -> Result<Outcome, String> {
    let (listener, address) = Listener::new(plan.way);
    let (theirs, mut drawn) = (tagged.clone(), dice.clone());
    let node = thread::spawn(move || {
        let stream = Stream::accepted(&listener).unwrap();
        stream.patient(Duration::from_secs(20));
        let Some(id) = read_call(&stream, tagged_len(&theirs)) else { return };
        let made = lying(plan, &theirs, id, &mut drawn);
        let fds: Vec<_> = made.fds.iter().map(OwnedFd::as_fd).collect();
        // The caller may have given up before.
        let _ = stream.send(&made.bytes, &fds);
        stream.shut(Shutdown::Write);
        let _ = read_to_end(&stream);
    });
    let client = world.client_of_another(plan.way, &address);
    // An end that was cut off is noticed at once, what is only told by its deadline.
    let outcome = world.call(&*client, (plan.way, ECHO), tagged, 10 * LITTLE);
    drop(client);
    node.join().map_err(|_| "the lying node panicked".to_owned())?;
    match outcome? {
        outcome if outcome == RIGHT || outcome.contains("back") => {
            Err(format!("a lying node's answer counted: {outcome}"))
        }
        outcome => Ok(outcome),
    }
}

fn tagged_len(tagged: &Tagged) -> usize {
    tagged.bytes.len()
}

/// Takes a whole call in, and says its number. `None` where the caller closes first.
pub(crate) fn read_call(stream: &Stream, len: usize) -> Option<u64> {
    let (mut head, mut fds) = ([0; HEADER_BYTES], Vec::new());
    read_exact(stream, &mut head, &mut fds)?;
    let header = Header::decode(&head, LIMIT).ok()?;
    let mut rest = vec![0; header.meta_len as usize];
    read_exact(stream, &mut rest, &mut fds)?;
    let inline = usize::try_from(header.inline_len).ok()?.min(len);
    read_exact(stream, &mut vec![0; inline], &mut fds)?;
    Some(header.id)
}

pub(crate) fn read_exact(stream: &Stream, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
    let mut filled = 0;
    while filled < into.len() {
        match stream.receive(&mut into[filled..], fds) {
            Ok(got @ 1..) => filled += got,
            _ => return None,
        }
    }
    Some(())
}

/// A frame with a lie in it: a call, or the answer to call `id`.
fn lying(plan: Plan, tagged: &Tagged, id: u64, dice: &mut Dice) -> Made {
    let len = tagged.bytes.len() as u64;
    // Where a descriptor is the lie, there has to be one.
    let described = match plan.lie {
        Lie::Impostor(_) | Lie::Place => true,
        Lie::Descriptors => dice.one_in(2),
        _ => false,
    };
    let place = match (described, plan.way) {
        (false, _) => Place::Inline,
        (true, Way::Run) => Place::Segment,
        (true, _) => Place::Sealed,
    };
    let mut part = Part { len, place };
    let pages = len.next_multiple_of(4096);
    let mut fds = Vec::new();
    match plan.lie {
        Lie::Impostor(impostor) => fds.push(impostor.make(pages)),
        // Both well sealed, for the other kind of place.
        Lie::Place => {
            let swapped = if place == Place::Sealed { Place::Segment } else { Place::Sealed };
            let seals = if place == Place::Sealed { 0b1111 } else { 0b1110 };
            fds.push(Impostor::sealed(pages, seals));
            part.place = swapped;
        }
        Lie::Descriptors if described => {}
        Lie::Descriptors => fds.push(Impostor::sealed(pages, 0b1111)),
        Lie::OverLimit => part.len = LIMIT + 1 + dice.next() % (u64::MAX - LIMIT),
        _ => {}
    }
    let meta = meta(plan, part, dice);
    let checked = plan.lie == Lie::Flipped || dice.one_in(2);
    let mut frame = meta.encode(id, Trace::default(), checked).unwrap();
    bend(plan.lie, &mut frame, len, dice);
    if !part.in_descriptor() {
        frame.extend(&tagged.bytes);
        if checked {
            let mut checksum = InlineChecksum::default();
            checksum.update(&tagged.bytes);
            frame.extend(checksum.encode());
        }
    }
    match plan.lie {
        // What is behind the last byte that counts, may be missing.
        Lie::Truncated => frame.truncate(dice.below(frame.len())),
        Lie::Flipped => {
            let at = dice.below(frame.len());
            frame[at] ^= 1 << dice.below(8);
        }
        _ => {}
    }
    Made { bytes: frame, fds }
}

/// Tells the lies that are in header and meta.
fn bend(lie: Lie, frame: &mut Vec<u8>, len: u64, dice: &mut Dice) {
    match lie {
        Lie::InlineSum => rewrite(frame, &mut |header, _| {
            header.inline_len = [dice.next(), len + 1, len - 1, 0][dice.below(4)];
        }),
        Lie::MetaLength => rewrite(frame, &mut |_, meta| {
            if dice.one_in(2) {
                meta.truncate(dice.below(meta.len()));
            } else {
                meta.extend(dice.bytes(8));
            }
        }),
        Lie::Kind => rewrite(frame, &mut |header, _| {
            let others = match header.kind {
                Kind::Call => [Kind::Reply, Kind::Fault],
                Kind::Reply => [Kind::Call, Kind::Fault],
                Kind::Fault => [Kind::Call, Kind::Reply],
            };
            header.kind = dice.pick(&others);
        }),
        Lie::Meaningless => {
            let (at, bit) = dice.pick(&[(4, 8), (5, 0x40), (6, 2), (7, 0x80), (30, 1), (58, 4)]);
            frame[at] ^= bit;
        }
        Lie::Noise => *frame = dice.bytes(200),
        _ => {}
    }
}

/// Changes header and meta, and covers them again.
fn rewrite(frame: &mut Vec<u8>, change: &mut dyn FnMut(&mut Header, &mut Vec<u8>)) {
    let (head, meta) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    let mut header = Header::decode(head, u64::MAX).unwrap();
    let mut meta = meta.to_vec();
    change(&mut header, &mut meta);
    *frame = [&header.covering(&meta).unwrap().encode()[..], &meta].concat();
}

/// What a lying peer says beside its payload.
fn meta(plan: Plan, part: Part, dice: &mut Dice) -> Meta {
    // A wrong id or a wrong kind of answer are lies of a peer's, not of a frame's.
    let missing = Part { len: part.len + 1 + dice.next() % 1000, ..part };
    let part = if plan.lie == Lie::InlineMissing { missing } else { part };
    let swollen = plan.lie == Lie::Swollen;
    if plan.caller {
        let parts = if swollen { vec![Part { len: 1 << 60, ..part }; 15] } else { vec![part] };
        return Meta::Call(CallMeta {
            function: ECHO.into(),
            time_left_us: 10_000_000,
            depth: 0,
            many: swollen,
            parts,
            released: vec![dice.next()],
        });
    }
    if swollen {
        // As long a text as a meta holds, which no fault has.
        let reason = "x".repeat(META_BYTES - 100);
        let fault = WireFault::Exhausted { function: ECHO.into(), reason };
        return Meta::Fault(FaultMeta { fault, delivered: true, released: Vec::new() });
    }
    Meta::Reply(ReplyMeta {
        busy_ns: 1,
        account: WireAccount::default(),
        landings: Vec::new(),
        hops: Vec::new(),
        part,
        response_copied: 0,
        released: vec![dice.next()],
    })
}
