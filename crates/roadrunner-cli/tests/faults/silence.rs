//! Peers that refuse, say nothing, or stop in the middle.

use std::net::Shutdown;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use roadrunner_transport::conformance::ECHO;
use roadrunner_transport::frame::{
    FaultMeta, Meta, Part, Place, ReplyMeta, Trace, WireAccount, WireFault,
};
use rustix::net::listen;

use crate::dice::Dice;
use crate::frames::{read_call, read_exact};
use crate::stream::Stream;
use crate::world::{Address, LITTLE, Listener, Outcome, PLENTY, RIGHT, Tagged, Way, World};

/// What a peer does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Nobody listens.
    Gone,
    /// Its queue is full, and it takes nobody in.
    Full,
    /// It takes the connection in and ends it.
    Closes,
    /// It takes the connection in and does nothing more.
    Silent,
    /// It reads so many bytes and no more.
    Reads(usize),
    /// It takes the call and says nothing.
    Keeps,
    /// It takes the call and then a byte at a time comes, which never is an answer.
    Drips,
    /// It says that it has not taken the call, which comes back.
    Refuses,
    /// It answers another call.
    AnswersAnother,
    /// It answers, and answers again.
    AnswersTwice,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    way: Way,
    manner: Manner,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let manner = match dice.below(12) {
            0 | 1 => Manner::Gone,
            2 => Manner::Full,
            3 => Manner::Closes,
            4 => Manner::Silent,
            5 => Manner::Reads(dice.below(300_000)),
            6 => Manner::Keeps,
            7 => Manner::Drips,
            8 | 9 => Manner::Refuses,
            10 => Manner::AnswersAnother,
            _ => Manner::AnswersTwice,
        };
        Self { way: Way::draw_plain(dice), manner }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.manner {
            Manner::Gone => "nobody listens",
            Manner::Full => "peer accepts nobody",
            Manner::Closes => "peer closes early",
            Manner::Silent | Manner::Keeps | Manner::Drips => "peer never answers",
            Manner::Reads(_) => "peer takes part of a call",
            Manner::Refuses => "peer refuses the call",
            Manner::AnswersAnother | Manner::AnswersTwice => "peer answers wrongly",
        }
    }

    /// What its caller must learn, as far as only one thing can be.
    fn is_right(&self, outcome: &str) -> bool {
        match self.manner {
            Manner::Gone | Manner::Full => outcome == "Unreachable, payload back",
            Manner::Closes | Manner::Reads(_) => outcome != RIGHT,
            Manner::Silent | Manner::Keeps | Manner::Drips => {
                outcome == "TimedOut" || outcome == "Unreachable, payload back"
            }
            Manner::Refuses => outcome == "Exhausted, payload back",
            Manner::AnswersAnother => outcome == "Lost",
            Manner::AnswersTwice => outcome == RIGHT,
        }
    }
}

pub(crate) fn run(plan: Plan, world: &World, dice: &mut Dice) -> Result<Outcome, String> {
    let tagged = world.tagged(dice);
    let (listener, address) = Listener::new(plan.way);
    let hangs = matches!(
        plan.manner,
        Manner::Full | Manner::Silent | Manner::Reads(_) | Manner::Keeps | Manner::Drips
    );
    let time = if hangs { LITTLE } else { PLENTY };
    let client = world.client_of_another(plan.way, &address);
    let call = |time| world.call_until_taken(&*client, plan.way, &tagged, time);
    let outcome = match plan.manner {
        Manner::Gone => {
            drop(listener);
            call(time)
        }
        Manner::Full => {
            let _waiting = fill(&listener, &address);
            call(time)
        }
        _ => {
            let (end, ended) = channel();
            let theirs = tagged.clone();
            let peer = thread::spawn(move || act(plan.manner, &listener, &theirs, &ended));
            let outcome = call(time);
            drop(end);
            drop(client);
            peer.join().map_err(|_| "the peer panicked".to_owned())?;
            outcome
        }
    }?;
    if !plan.is_right(&outcome) {
        return Err(format!("it ended in {outcome}"));
    }
    world.serves(plan.way, dice)?;
    Ok(outcome)
}

/// Makes a socket's queue as short as can be, and fills it.
fn fill(listener: &Listener, address: &Address) -> Vec<Stream> {
    match listener {
        Listener::Unix(listener) => listen(listener, 0).unwrap(),
        Listener::Tcp(listener) => listen(listener, 0).unwrap(),
    }
    // One more than a queue of no length takes would wait for ever.
    vec![Stream::to(address)]
}

fn act(manner: Manner, listener: &Listener, tagged: &Tagged, ended: &Receiver<()>) {
    let stream = Stream::accepted(listener).unwrap();
    stream.patient(PLENTY);
    // Until the caller's call has ended.
    let wait = || {
        let _ = ended.recv();
    };
    match manner {
        Manner::Closes => return,
        Manner::Silent => return wait(),
        Manner::Reads(bytes) => {
            stream.patient(LITTLE);
            let _ = read_exact(&stream, &mut vec![0; bytes], &mut Vec::new());
            return wait();
        }
        _ => {}
    }
    let Some(id) = read_call(&stream, tagged.bytes.len()) else { return };
    match manner {
        Manner::Drips => {
            // A caller that has gone ends it.
            while ended.recv_timeout(Duration::from_millis(5))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                && stream.send(b"R", &[]).is_ok()
            {}
        }
        Manner::Refuses => {
            let fault = WireFault::Exhausted { function: ECHO.into(), reason: "no room".into() };
            let meta = Meta::Fault(FaultMeta { fault, delivered: false, released: Vec::new() });
            let frame = meta.encode(id, Trace::default(), false).unwrap();
            let _ = stream.send(&frame, &[]);
        }
        Manner::AnswersAnother => drop(stream.send(&answer(id + 1, tagged), &[])),
        Manner::AnswersTwice => {
            let answer = answer(id, tagged);
            let _ = stream.send(&[&answer[..], &answer].concat(), &[]);
        }
        _ => wait(),
    }
    stream.shut(Shutdown::Write);
}

/// A right answer, inline.
fn answer(id: u64, tagged: &Tagged) -> Vec<u8> {
    let meta = Meta::Reply(ReplyMeta {
        busy_ns: 1,
        account: WireAccount::default(),
        landings: Vec::new(),
        hops: Vec::new(),
        part: Part { len: tagged.bytes.len() as u64, place: Place::Inline },
        response_copied: 0,
        released: Vec::new(),
    });
    [meta.encode(id, Trace::default(), false).unwrap(), tagged.bytes.clone()].concat()
}
