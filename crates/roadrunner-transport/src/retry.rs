//! Calls that may run twice: made again where a peer did not answer.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Call, Fault, Mode, Reply, Transport, Undelivered};

/// Wait before the first repetition; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Longest wait: a node that starts again takes seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A way whose calls are made again, a few times, until a peer answers: for functions that do no
/// harm when they run twice.
#[derive(Debug)]
pub struct Retrying<T: ?Sized> {
    retries: u32,
    way: Arc<T>,
}

impl<T: Transport + ?Sized> Retrying<T> {
    /// Makes a call over `way` up to `retries` times more.
    #[must_use]
    pub fn new(way: Arc<T>, retries: u32) -> Self {
        Self { retries, way }
    }
}

impl<T: Transport + ?Sized> Transport for Retrying<T> {
    fn mode(&self) -> Mode {
        self.way.mode()
    }

    fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let Call { target, since, deadline, depth, caller, trace, mut payload } = call;
        // What an earlier try ended in that may have been delivered.
        let mut lost = None;
        for round in 0..self.retries {
            let caller = caller.clone();
            let call = Call { target, payload, since, deadline, depth, caller, trace };
            let undelivered = match self.way.send(call) {
                Err(undelivered) if is_the_peers(&undelivered.fault) => undelivered,
                ended => return ended.map_err(|undelivered| after(lost, undelivered)),
            };
            let wait = wait(round);
            let in_time = Instant::now() + wait < deadline;
            let Undelivered { fault, payload: kept, copy } = undelivered;
            let was_sent = kept.is_none();
            payload = match (in_time, kept, copy) {
                (true, Some(kept), _) | (true, None, Some(kept)) => kept,
                (_, kept, copy) => {
                    return Err(after(lost, Undelivered { fault, payload: kept, copy }));
                }
            };
            tracing::info!(target: "roadrunner", function = target, %fault, ?wait, "calling again");
            if was_sent {
                lost = Some(fault);
            }
            thread::sleep(wait);
        }
        let ended = self.way.send(Call { target, payload, since, deadline, depth, caller, trace });
        ended.map_err(|undelivered| after(lost, undelivered))
    }
}

/// The end of all tries, the last of which ended so: it has not been delivered only where no try may have been.
fn after<'p>(lost: Option<Fault>, last: Undelivered<'p>) -> Undelivered<'p> {
    match (lost, last) {
        (Some(lost), Undelivered { payload: Some(kept), .. }) => {
            Undelivered::maybe(lost, Some(kept))
        }
        (_, last) => last,
    }
}

/// Whether another try may find what this one did not.
fn is_the_peers(fault: &Fault) -> bool {
    matches!(fault, Fault::Unreachable { .. } | Fault::Lost { .. } | Fault::Exhausted { .. })
}

/// The wait after a round: between half and all of its step, so that callers who lost the same peer
/// don't come back at the same moment.
fn wait(round: u32) -> Duration {
    let step = FIRST_WAIT.saturating_mul(1 << round.min(16)).min(LONGEST_WAIT);
    let random = RandomState::new().hash_one(round) % 1024;
    step / 2 + (step / 2).mul_f64(random as f64 / 1023.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use roadrunner_buffer::Sealed;

    use super::*;
    use crate::conformance::{ECHO, EchoInbox};
    use crate::{Caller, Inbox as _, Payload, Trace};

    /// What becomes of a call.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        /// The peer can't be reached: the payload is still here.
        Unreachable,
        /// It went away; a copy of the payload is here, or not.
        Lost(bool),
        Failed,
        Fine,
    }

    /// A peer whose calls end like this, one after the other.
    struct Peer(Mutex<Vec<End>>);

    impl Transport for Peer {
        fn mode(&self) -> Mode {
            Mode::Network
        }

        fn send<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
            let (function, peer, reason) = (ECHO.to_owned(), String::new(), String::new());
            let end = self.0.lock().unwrap().remove(0);
            match end {
                End::Unreachable => {
                    let fault = Fault::Unreachable { function, peer, reason };
                    Err(Undelivered::before(fault, call.payload))
                }
                End::Lost(here) => {
                    let fault = Fault::Lost { function, peer, reason };
                    Err(Undelivered::maybe(fault, here.then_some(call.payload)))
                }
                End::Failed => Err(Undelivered::after(Fault::Failed { function, message: reason })),
                End::Fine => EchoInbox::default().accept(call),
            }
        }
    }

    /// How a call ends that may be made again, and how often it was not made at all.
    fn ended(ends: &[End], retries: u32, time: Duration) -> (Result<Vec<u8>, Fault>, usize) {
        let peer = Arc::new(Peer(Mutex::new(ends.to_vec())));
        let way = Retrying::new(Arc::clone(&peer), retries);
        let (since, payload) = (Instant::now(), Payload::One(Sealed::borrowed(b"letter")));
        let (deadline, caller, trace) = (since + time, Caller::Unnamed, Trace::default());
        let sent =
            way.send(Call { target: ECHO, payload, since, deadline, depth: 0, caller, trace });
        let sent = sent.map(|mut reply| reply.payload().unwrap().bytes().unwrap().to_vec());
        (sent.map_err(|undelivered| undelivered.fault), peer.0.lock().unwrap().len())
    }

    const TIME: Duration = Duration::from_secs(600);

    #[test]
    fn a_call_is_made_again_until_a_peer_answers() {
        use End::{Fine, Lost, Unreachable};
        let (result, left) = ended(&[Unreachable, Lost(true), Fine, Fine], 2, TIME);
        assert_eq!((result.unwrap(), left), (b"letter".to_vec(), 1));
        let (result, left) = ended(&[Fine, Fine], 2, TIME);
        assert_eq!((result.unwrap(), left), (b"letter".to_vec(), 1));
    }

    #[test]
    fn what_stays_as_it_is_is_not_tried_again() {
        use End::{Failed, Fine, Lost, Unreachable};
        let (result, left) = ended(&[Unreachable, Unreachable, Unreachable, Fine], 2, TIME);
        assert!(matches!(result, Err(Fault::Unreachable { .. })));
        assert_eq!(left, 1, "not more often than it may");
        let (result, left) = ended(&[Failed, Fine], 2, TIME);
        assert!(matches!(result, Err(Fault::Failed { .. })));
        assert_eq!(left, 1, "the function's own failure");
        let (result, left) = ended(&[Lost(false), Fine], 2, TIME);
        assert!(matches!(result, Err(Fault::Lost { .. })));
        assert_eq!(left, 1, "nothing to send");
        let (result, left) = ended(&[Lost(true), Unreachable, Unreachable, Fine], 2, TIME);
        assert!(matches!(result, Err(Fault::Lost { .. })), "the first try may have been delivered");
        assert_eq!(left, 1);
        let (result, left) = ended(&[Unreachable, Fine], 2, FIRST_WAIT / 4);
        assert!(matches!(result, Err(Fault::Unreachable { .. })));
        assert_eq!(left, 1, "no time");
    }

    #[test]
    fn waits_grow_to_a_limit_and_differ() {
        for round in [0, 1, 3, 10, 40, u32::MAX] {
            let step = FIRST_WAIT.saturating_mul(1 << round.min(16)).min(LONGEST_WAIT);
            let waits: Vec<_> = (0..20).map(|_| wait(round)).collect();
            assert!(waits.iter().all(|wait| (step / 2..=step).contains(wait)));
            assert!(waits.iter().any(|wait| *wait != waits[0]), "all at once");
        }
    }
}
