//! Which way the next large payload to a peer goes: tried on the first ones, then the best, with a
//! second look at the others now and then. What is pure of it stands in [`Course`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{FROM, Method};

/// Payloads that each way is tried with: the first one pays for setting it up, and may be disturbed.
const TRIES: u32 = 2;

/// One payload in so many is a second look at another way: it costs at most a few percent where that
/// is twice as slow, and notices within minutes that a path has changed.
const SECOND_LOOK: u32 = 64;

/// What part of the present way's cost another must be under to take its place: less is noise.
const BETTER: f64 = 0.9;

/// How much a new sample counts against those before it.
const WEIGHT: f64 = 0.25;

/// Size classes, each four times the one before: what is best differs with the length. The last one
/// is open, from 64 MiB.
const CLASSES: usize = 5;

/// Peers whose calls come in that are remembered at a time; of others each connection finds out anew.
const PEERS: usize = 256;

/// What one payload cost to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes of the payload.
    pub(super) len: usize,
    /// Bytes that the peer's kernel had confirmed when the send was done.
    pub(super) arrived: usize,
    /// Until the send was done.
    pub(super) wall: Duration,
    /// Processor time of the sending thread.
    pub(super) cpu: Duration,
}

impl Sample {
    /// Nanoseconds a byte: the time until it has arrived, and the processor's, which somebody else
    /// could have had. A send that returns early had not taken the bytes that were still queued
    /// anywhere, so its time counts for the others; at most four times, where nearly all were.
    #[allow(clippy::cast_precision_loss, reason = "lengths and times far below 2^52")]
    fn cost(&self) -> f64 {
        let arrived = self.arrived.max(self.len / 4).max(1) as f64;
        let nanoseconds = |time: Duration| time.as_nanos() as f64;
        nanoseconds(self.wall) / arrived + nanoseconds(self.cpu) / self.len.max(1) as f64
    }
}

/// What was learned of one size class.
#[derive(Debug, Default)]
struct Course {
    costs: [Option<f64>; Method::ALL.len()],
    tries: [u32; Method::ALL.len()],
    payloads: u32,
    best: Option<Method>,
}

impl Course {
    /// Which of some ways, of which the plain one is the first, the next payload goes.
    fn next(&mut self, fit: &[Method]) -> Method {
        // One after the other, as a connection keeps only what its last method needs.
        if let Some(method) = fit.iter().find(|method| self.tries[**method as usize] < TRIES) {
            self.tries[*method as usize] += 1;
            return *method;
        }
        let best = self.best.filter(|best| fit.contains(best)).unwrap_or(Method::Send);
        self.payloads = self.payloads.wrapping_add(1);
        if !self.payloads.is_multiple_of(SECOND_LOOK) {
            return best;
        }
        let others: Vec<Method> = fit.iter().copied().filter(|method| *method != best).collect();
        let turn = (self.payloads / SECOND_LOOK) as usize;
        if others.is_empty() { best } else { others[turn % others.len()] }
    }

    fn learn(&mut self, method: Method, cost: f64) {
        let known = &mut self.costs[method as usize];
        *known = Some(match *known {
            None => cost,
            // The first ones pay for setting up, so the better one counts.
            Some(before) if self.tries[method as usize] < TRIES => before.min(cost),
            Some(before) => before + (cost - before) * WEIGHT,
        });
        let costs = Method::ALL.into_iter().zip(self.costs);
        let known = costs.filter_map(|(method, cost)| Some((method, cost?)));
        let Some((cheapest, least)) = known.min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let present = self.best.unwrap_or(Method::Send);
        if self.costs[present as usize].is_none_or(|cost| least < cost * BETTER) {
            self.best = Some(cheapest);
        }
    }

    fn forget(&mut self, method: Method) {
        self.costs[method as usize] = None;
        self.best = self.best.filter(|best| *best != method);
    }
}

/// What was learned of one peer.
#[derive(Debug, Default)]
struct Book {
    /// By size class, for payloads in private pages and in a sealed memfd.
    courses: [[Course; 2]; CLASSES],
    /// Ways that don't work, or that the kernel itself says save nothing.
    unfit: [bool; Method::ALL.len()],
    used: [u64; Method::ALL.len()],
}

/// The way that large payloads to one peer go, which all connections to it share.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    fixed: Option<Method>,
    book: Mutex<Book>,
}

impl Choice {
    /// Always the same one, for payloads that it takes.
    pub(crate) fn fixed(method: Method) -> Self {
        Self { fixed: Some(method), ..Self::default() }
    }

    /// The way for a payload of this length, in a sealed memfd or not.
    pub(super) fn next(&self, len: usize, sealed: bool) -> Method {
        let mut book = self.book();
        let unfit = book.unfit;
        let fits = |method: &Method| method.takes(sealed) && !unfit[*method as usize];
        let method = match self.fixed {
            Some(method) => Some(method).filter(fits).unwrap_or(Method::Send),
            None => {
                let fit: Vec<Method> = Method::ALL.into_iter().filter(fits).collect();
                book.courses[class(len)][usize::from(sealed)].next(&fit)
            }
        };
        book.used[method as usize] += 1;
        method
    }

    pub(super) fn learn(&self, method: Method, sealed: bool, sample: Sample, copied: bool) {
        if self.fixed.is_some() {
            return;
        }
        let mut book = self.book();
        if copied {
            // It took the pages and then copied them after all, as on loopback.
            book.give_up(method);
        } else {
            book.courses[class(sample.len)][usize::from(sealed)].learn(method, sample.cost());
        }
    }

    /// The way doesn't work to this peer.
    pub(super) fn refuse(&self, method: Method) {
        self.book().give_up(method);
    }

    /// How many payloads went this way.
    #[cfg(test)]
    pub(crate) fn went_by(&self, method: Method) -> u64 {
        self.book().used[method as usize]
    }

    /// The way that most payloads went, if any did.
    pub(crate) fn mostly(&self) -> Option<Method> {
        let used = self.book().used;
        let most = Method::ALL.into_iter().max_by_key(|method| used[*method as usize]);
        most.filter(|method| used[*method as usize] > 0)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn give_up(&mut self, method: Method) {
        // The plain way always works.
        if method != Method::Send {
            self.unfit[method as usize] = true;
            self.courses.iter_mut().flatten().for_each(|course| course.forget(method));
        }
    }
}

/// The size class of a payload.
fn class(len: usize) -> usize {
    let steps = (len / FROM).max(1).ilog(4) as usize;
    steps.min(CLASSES - 1)
}

/// What was learned of those who call, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Choices(Mutex<HashMap<IpAddr, Arc<Choice>>>);

impl Choices {
    /// Always the same way, for callers on loopback.
    #[cfg(test)]
    pub(crate) fn fixed(method: Method) -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        Self(Mutex::new([(loopback, Arc::new(Choice::fixed(method)))].into()))
    }

    pub(crate) fn of(&self, peer: IpAddr) -> Arc<Choice> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PEERS && !known.contains_key(&peer) {
            // Of those without a connection nothing else is lost.
            known.retain(|_, choice| Arc::strong_count(choice) > 1);
            if known.len() >= PEERS {
                return Arc::default();
            }
        }
        Arc::clone(known.entry(peer).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn sample(len: usize, nanoseconds_per_kib: u64) -> Sample {
        let time = Duration::from_nanos(nanoseconds_per_kib * (len as u64 / 1024));
        Sample { len, arrived: len, wall: time, cpu: time }
    }

    /// Sends payloads that cost what `cost` says, and counts the ways they went.
    fn send(
        choice: &Choice,
        len: usize,
        sealed: bool,
        times: u32,
        cost: impl Fn(Method) -> u64,
    ) -> [u32; 5] {
        let mut went = [0; 5];
        for _ in 0..times {
            let method = choice.next(len, sealed);
            went[method as usize] += 1;
            choice.learn(method, sealed, sample(len, cost(method)), false);
        }
        went
    }

    #[test]
    fn every_way_is_tried_and_the_cheapest_kept() {
        let choice = Choice::default();
        let cost = |method| if method == Method::Sendfile { 50 } else { 100 };
        assert_eq!(send(&choice, MIB, true, 10, cost), [2; 5], "the tries");
        assert_eq!(send(&choice, MIB, true, 63, cost), [0, 63, 0, 0, 0]);
        assert_eq!(choice.mostly(), Some(Method::Sendfile));
        let looks = send(&choice, MIB, true, 64 * 8, cost);
        assert_eq!(looks, [2, 64 * 8 - 8, 2, 2, 2], "second looks in turn");
    }

    #[test]
    fn a_way_that_became_better_is_found_and_noise_is_not() {
        let choice = Choice::default();
        send(&choice, MIB, false, 6, |_| 100);
        let noise = |method| if method == Method::Uring { 95 } else { 100 };
        assert_eq!(send(&choice, MIB, false, 64 * 6, noise)[Method::Uring as usize], 3);
        let better = |method| if method == Method::Uring { 20 } else { 100 };
        send(&choice, MIB, false, 64 * 6, better);
        assert_eq!(send(&choice, MIB, false, 63, better)[Method::Uring as usize], 63);
    }

    #[test]
    fn sizes_and_kinds_of_pages_are_learned_apart() {
        let choice = Choice::default();
        let cost = |method| if method == Method::Zerocopy { 10 } else { 100 };
        send(&choice, 100 * MIB, false, 6, cost);
        assert_eq!(send(&choice, 100 * MIB, false, 5, cost)[Method::Zerocopy as usize], 5);
        assert_eq!(choice.next(MIB, false), Method::Send, "nothing is known of this size");
        assert_eq!(choice.next(100 * MIB, true), Method::Send, "nor of these pages");
        let classes = [FROM, MIB - 1, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 1024 * MIB].map(class);
        assert_eq!(classes, [0, 0, 1, 2, 3, 4, 4]);
    }

    #[test]
    fn private_pages_never_go_as_a_file() {
        for choice in
            [Choice::default(), Choice::fixed(Method::Sendfile), Choice::fixed(Method::Splice)]
        {
            let went = send(&choice, MIB, false, 200, |_| 100);
            assert_eq!((went[Method::Sendfile as usize], went[Method::Splice as usize]), (0, 0));
        }
    }

    #[test]
    fn what_the_kernel_refuses_or_copies_is_left_alone() {
        let choice = Choice::default();
        choice.refuse(Method::Uring);
        let method = Method::Zerocopy;
        choice.learn(method, false, sample(MIB, 1), true);
        assert_eq!(send(&choice, MIB, false, 200, |_| 100), [200, 0, 0, 0, 0]);
        choice.refuse(Method::Send);
        assert_eq!(choice.next(MIB, false), Method::Send, "the plain way always works");
        let fixed = Choice::fixed(method);
        fixed.refuse(method);
        assert_eq!(fixed.next(MIB, false), Method::Send);
    }

    #[test]
    fn bytes_that_are_still_queued_are_not_sent_for_nothing() {
        let all = sample(MIB, 100);
        let half = Sample { arrived: MIB / 2, ..all };
        let none = Sample { arrived: 0, ..all };
        assert!((half.cost() / all.cost() - 1.5).abs() < 1e-6);
        assert!((none.cost() / all.cost() - 2.5).abs() < 1e-6);
    }

    #[test]
    fn callers_are_remembered_up_to_a_number() {
        let choices = Choices::default();
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        let held: Vec<_> = (0..PEERS).map(|n| choices.of(address(n))).collect();
        assert!(Arc::ptr_eq(&held[0], &choices.of(address(0))));
        assert!(!Arc::ptr_eq(&choices.of(address(PEERS)), &choices.of(address(PEERS))));
        drop(held);
        assert!(Arc::ptr_eq(&choices.of(address(PEERS)), &choices.of(address(PEERS))));
    }
}
