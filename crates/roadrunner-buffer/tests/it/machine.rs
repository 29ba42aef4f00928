//! Random hand-overs between a few linear memories, each step held against a model.
//!
//! Memories 0 and 1 belong to trust domain 0, memories 2 and 3 to domain 1. Guests write bytes that
//! are secret of their domain; before a payload goes to the other domain it's overwritten with
//! bytes that anybody may see. So a secret byte in the wrong memory is always a leak.

use std::sync::Arc;

use proptest::prelude::*;
use roadrunner_buffer::{Backing, Contents, Extent, Home, Pool, Sealed, Traffic, Window};

use crate::memory::{BREAK_EVEN, MIB, Memory, PAGE, Secret, home, is_zero, may_see, pattern, pool};

use crate::steps::{PLACES, Part, Step, steps};

const MEMORIES: usize = 4;
const PLACES_EACH: usize = PLACES / MEMORIES;
const PLACES_PER_DOMAIN: usize = PLACES / 2;
const STRIDE: usize = 8 * MIB;
const POOL_MIB: usize = 12;
/// What a dropped window's pages are recycled from, in bytes.
const RECYCLED_FROM: usize = 64 << 10;

/// What lies in a window, as far as its price and its end depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Anonymous pages of the memory itself.
    Own,
    /// Anonymous pages that came from elsewhere.
    Foreign,
    Writable,
    /// A view of this many bytes of shared pages.
    View {
        pages: usize,
        changed: bool,
    },
}

struct Held {
    window: Window,
    kind: Kind,
    shows: Vec<u8>,
}

struct Flight {
    sealed: Sealed<'static>,
    bytes: Vec<u8>,
    domain: u64,
    open: bool,
    /// What the window will be where it lands.
    kind: Kind,
}

struct Machine {
    // Windows go before the memories they lie in.
    held: Vec<Option<Held>>,
    flights: Vec<Flight>,
    memories: Vec<Memory>,
    homes: [Home; 2],
    pool: Arc<Pool>,
    seed: u32,
}

fn domain_of(at: usize) -> u64 {
    u64::from(at >= PLACES_PER_DOMAIN)
}

fn traffic(copied: bool, len: usize) -> Traffic {
    let len = len as u64;
    if copied { Traffic { copied: len, moved: 0 } } else { Traffic { copied: 0, moved: len } }
}

impl Machine {
    fn new() -> Self {
        let pool = pool(POOL_MIB);
        Self {
            held: (0..PLACES).map(|_| None).collect(),
            flights: Vec::new(),
            memories: (0..MEMORIES).map(|_| Memory::new(PLACES_EACH * STRIDE)).collect(),
            homes: [home(&pool, 0), home(&pool, 1)],
            pool,
            seed: 0,
        }
    }

    fn home(&self, at: usize) -> Home {
        self.homes[usize::from(at >= PLACES_PER_DOMAIN)].clone()
    }

    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let start = at % PLACES_EACH * STRIDE;
        self.memories[at / PLACES_EACH].bytes(start..start + len)
    }

    fn place(&self, at: usize, len: usize) -> Extent {
        self.memories[at / PLACES_EACH].place(at % PLACES_EACH * STRIDE, len)
    }

    /// The guest writes the first bytes of a window.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let start = at % PLACES_EACH * STRIDE;
        let range = start..start + bytes.len();
        self.memories[at / PLACES_EACH].bytes_mut(range).copy_from_slice(bytes);
        let held = self.held[at].as_mut().unwrap();
        held.shows[..bytes.len()].copy_from_slice(bytes);
        if let Kind::View { changed, .. } = &mut held.kind {
            *changed = true;
        }
    }

    /// Overwrites a payload that may leave its domain.
    fn open(&mut self, at: usize, len: usize) {
        self.seed += 1;
        self.write(at, &pattern(self.seed, Secret::Nobody, len));
    }

    fn hold(&mut self, at: usize, window: Window, kind: Kind, shows: Vec<u8>) {
        assert_eq!(window.len(), shows.len());
        self.held[at] = Some(Held { window, kind, shows });
    }

    fn drop_window(&mut self, at: usize) {
        let Some(held) = self.held[at].take() else {
            return;
        };
        let len = held.shows.len();
        drop(held.window);
        if held.kind != Kind::Own || len >= RECYCLED_FROM {
            assert!(is_zero(self.bytes(at, len)), "a dropped {:?} leaves zeros", held.kind);
        }
    }

    /// After the payload left a window: nothing of it can be read there, and the window goes.
    fn ends(&mut self, from: usize, mut held: Held, len: usize) {
        let pages = len.next_multiple_of(PAGE);
        held.shows[..pages].fill(0);
        if !matches!(held.kind, Kind::Own | Kind::Foreign) {
            held.shows.fill(0);
        }
        assert!(self.bytes(from, held.shows.len()) == held.shows, "{:?} leaves zeros", held.kind);
        drop(held.window);
        assert!(is_zero(self.bytes(from, pages)));
    }

    fn fresh(&mut self, at: usize, len: usize, backing: Backing, contents: Contents) {
        self.drop_window(at);
        let window = Window::fresh(self.place(at, len), backing, contents, &self.home(at)).unwrap();
        let shows = self.bytes(at, len).to_vec();
        match contents {
            Contents::Zeroed => assert!(is_zero(&shows)),
            Contents::Unspecified => assert!(may_see(&shows, domain_of(at)), "a leak"),
        }
        let kind = match backing {
            Backing::Private if len < RECYCLED_FROM => Kind::Own,
            Backing::Private => Kind::Foreign,
            Backing::Memfd => Kind::Writable,
            Backing::Segment => unreachable!("segments have tests of their own"),
        };
        self.hold(at, window, kind, shows);
    }

    /// What a window of this kind is where it lands, and what a consumer sees of the payload.
    fn lent(&self, from: usize, len: usize) -> (Kind, Vec<u8>) {
        let held = self.held[from].as_ref().unwrap();
        let kind = match held.kind {
            Kind::Own | Kind::Foreign => Kind::Foreign,
            Kind::Writable => Kind::View { pages: held.shows.len(), changed: false },
            // The end of the last page may have to be zeroed, which is a change.
            Kind::View { pages, changed } => {
                let tail = &held.shows[len..len.next_multiple_of(PAGE)];
                Kind::View { pages, changed: changed || !is_zero(tail) }
            }
        };
        (kind, held.shows[..len].to_vec())
    }

    fn landed(&mut self, to: usize, window: Window, kind: Kind, mut bytes: Vec<u8>) {
        // Whole pages arrive: the payload, and zeros behind it.
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        self.hold(to, window, kind, bytes);
    }

    fn hand(&mut self, from: usize, to: usize, part: Part) {
        let Some(len) = self.payload(from, part, domain_of(from) != domain_of(to)) else {
            return;
        };
        if from == to {
            return;
        }
        self.drop_window(to);
        let (kind, bytes) = self.lent(from, len);
        let place = self.place(to, len.next_multiple_of(PAGE));
        let mut held = self.held[from].take().unwrap();
        let sealed = held.window.lend(len).unwrap();
        assert!(sealed.bytes().unwrap() == bytes);
        let (window, cost) = sealed.land(place, &self.home(to)).unwrap();
        assert_eq!(cost, traffic(false, len));
        self.landed(to, window, kind, bytes);
        self.ends(from, held, len);
    }

    /// The length of a payload in a window, which anybody may see if it's to be open.
    fn payload(&mut self, at: usize, part: Part, open: bool) -> Option<usize> {
        let len = part.of(self.held[at].as_ref()?.shows.len());
        if open {
            self.open(at, len);
        }
        Some(len)
    }

    fn detach(&mut self, from: usize, part: Part, open: bool) {
        let Some(len) = self.payload(from, part, open) else {
            return;
        };
        let (mut kind, bytes) = self.lent(from, len);
        let mut held = self.held[from].take().unwrap();
        let copied = len < BREAK_EVEN;
        let (sealed, cost) = held.window.lend(len).unwrap().detach(&self.home(from)).unwrap();
        if copied {
            assert_eq!(cost, traffic(true, len));
            kind = Kind::Own;
            drop(held);
        } else {
            assert_eq!(cost, Traffic::default(), "counted when it lands");
            self.ends(from, held, len);
        }
        let domain = domain_of(from);
        self.flights.push(Flight { sealed, bytes, domain, open, kind });
    }

    fn split(&mut self, from: usize, part: Part, consumers: usize, open: bool) {
        let Some(len) = self.payload(from, part, open) else {
            return;
        };
        let (lent, bytes) = self.lent(from, len);
        let mut held = self.held[from].take().unwrap();
        let (payloads, cost) =
            held.window.lend(len).unwrap().split(consumers, &self.home(from)).unwrap();
        let kind = if len < BREAK_EVEN {
            assert_eq!(cost, traffic(true, len));
            Kind::Own
        } else {
            let copy = Kind::View { pages: len.next_multiple_of(PAGE), changed: false };
            let (kind, expected) = match lent {
                Kind::View { changed: false, .. } => (lent, Traffic::default()),
                _ => (copy, traffic(true, len)),
            };
            assert_eq!(cost, expected);
            // All of the window is given up, whatever was in it.
            assert!(is_zero(self.bytes(from, held.shows.len())));
            kind
        };
        assert_eq!(payloads.len(), consumers);
        let domain = domain_of(from);
        for sealed in payloads {
            self.flights.push(Flight { sealed, bytes: bytes.clone(), domain, open, kind });
        }
    }

    fn share(&mut self, at: usize, part: Part, open: bool) {
        let Some(len) = self.payload(at, part, open) else {
            return;
        };
        let (_, bytes) = self.lent(at, len);
        let held = self.held[at].as_mut().unwrap();
        let pages = len.next_multiple_of(PAGE);
        // What lies behind the payload stays as it is, so that only zeros can be shared along.
        let tail_is_zero = is_zero(&held.shows[len..pages]);
        let whole = pages == held.shows.len() && tail_is_zero;
        let free = whole
            && match held.kind {
                Kind::Writable => true,
                Kind::View { pages: viewed, changed } => viewed == pages && !changed,
                _ => false,
            };
        let (sealed, cost) = held.window.share(len).unwrap();
        assert_eq!(
            cost,
            if free { Traffic::default() } else { traffic(true, len) },
            "{:?}",
            held.kind
        );
        let kind = Kind::View { pages, changed: false };
        if whole {
            held.kind = kind;
        }
        self.flights.push(Flight { sealed, bytes, domain: domain_of(at), open, kind });
    }

    /// The host itself writes a payload.
    fn host(&mut self, domain: u64, len: usize, seed: u32) {
        let bytes = pattern(seed, Secret::Of(domain), len);
        let home = self.homes[usize::try_from(domain).unwrap()].clone();
        let sealed = Sealed::write(len, &home, |place| {
            assert!(may_see(place, domain), "a leak");
            place.copy_from_slice(&bytes);
            Ok(())
        });
        let kind = if len < BREAK_EVEN { Kind::Own } else { Kind::Foreign };
        self.flights.push(Flight { sealed: sealed.unwrap(), bytes, domain, open: false, kind });
    }

    fn land(&mut self, flight: usize, to: usize) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(flight % self.flights.len());
        let own = usize::try_from(flight.domain).unwrap() * PLACES_PER_DOMAIN;
        let to = if flight.open { to } else { own + to % PLACES_PER_DOMAIN };
        self.drop_window(to);
        assert!(flight.sealed.bytes().unwrap() == flight.bytes);
        let len = flight.bytes.len();
        let place = self.place(to, len.next_multiple_of(PAGE));
        let (window, cost) = flight.sealed.land(place, &self.home(to)).unwrap();
        assert_eq!(cost, traffic(flight.kind == Kind::Own, len));
        self.landed(to, window, flight.kind, flight.bytes);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Fresh { at, len, backing, contents } => {
                self.fresh(at, len.next_multiple_of(PAGE), backing, contents);
            }
            Step::Write { at, seed, part } => {
                if let Some(len) = self.payload(at, part, false) {
                    self.write(at, &pattern(seed, Secret::Of(domain_of(at)), len));
                }
            }
            Step::Hand { from, to, part } => self.hand(from, to, part),
            Step::Detach { from, part, open } => self.detach(from, part, open),
            Step::Split { from, part, consumers, open } => self.split(from, part, consumers, open),
            Step::Share { at, part, open } => self.share(at, part, open),
            Step::Host { domain, len, seed } => self.host(domain, len, seed),
            Step::Land { flight, to } => self.land(flight, to),
            Step::Drop { at } => self.drop_window(at),
            Step::Cancel { flight } => {
                if !self.flights.is_empty() {
                    self.flights.swap_remove(flight % self.flights.len());
                }
            }
        }
        self.check();
    }

    /// Every window shows what its owner wrote or was given, and the pool keeps its bounds.
    fn check(&self) {
        for (at, held) in self.held.iter().enumerate() {
            if let Some(held) = held {
                assert!(
                    self.bytes(at, held.shows.len()) == held.shows,
                    "place {at}: {:?}",
                    held.kind
                );
            }
        }
        let usage = self.pool.usage();
        assert!(usage.bytes <= POOL_MIB * MIB && usage.empty_ranges <= 4, "{usage:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_show_what_their_owners_may_see(steps in prop::collection::vec(steps(), 20..60)) {
        let mut machine = Machine::new();
        for step in &steps {
            machine.step(step);
        }
    }
}
