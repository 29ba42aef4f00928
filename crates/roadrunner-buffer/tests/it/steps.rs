//! The random steps of the state machine.

use proptest::prelude::*;
use roadrunner_buffer::{Backing, Contents};

use crate::memory::{BREAK_EVEN, MIB, PAGE};

/// Places for windows, in all memories together.
pub(crate) const PLACES: usize = 8;

/// Which first part of a window is the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    All,
    Less(usize),
    Permille(usize),
}

impl Part {
    /// Its length, of a window's.
    pub(crate) fn of(self, len: usize) -> usize {
        match self {
            Self::All => len,
            Self::Less(bytes) => len - bytes,
            Self::Permille(part) => (len * part / 1000).max(1),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Fresh { at: usize, len: usize, backing: Backing, contents: Contents },
    Write { at: usize, seed: u32, part: Part },
    Hand { from: usize, to: usize, part: Part },
    Detach { from: usize, part: Part, open: bool },
    Split { from: usize, part: Part, consumers: usize, open: bool },
    Share { at: usize, part: Part, open: bool },
    Host { domain: u64, len: usize, seed: u32 },
    Land { flight: usize, to: usize },
    Drop { at: usize },
    Cancel { flight: usize },
}

fn lengths() -> impl Strategy<Value = usize> {
    const HUGE: usize = 2 * MIB;
    prop_oneof![
        6 => prop::sample::select(vec![1, PAGE, PAGE + 1, BREAK_EVEN - 1, BREAK_EVEN, 60_000]),
        6 => prop::sample::select(vec![65_536, 65_537, 70_000, 300_000, MIB]),
        3 => prop::sample::select(vec![HUGE - 1, HUGE, HUGE + 1, HUGE + 70_000, 5 * MIB + 3]),
    ]
}

fn parts() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => Just(Part::All),
        3 => (1..PAGE).prop_map(Part::Less),
        2 => (1_usize..1000).prop_map(Part::Permille),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let at = || 0..PLACES;
    let backing = prop_oneof![2 => Just(Backing::Private), 1 => Just(Backing::Memfd)];
    let contents = prop_oneof![1 => Just(Contents::Zeroed), 3 => Just(Contents::Unspecified)];
    let open = any::<bool>;
    let seed = || 1_u32..1000;
    prop_oneof![
        5 => (at(), lengths(), backing, contents)
            .prop_map(|(at, len, backing, contents)| Step::Fresh { at, len, backing, contents }),
        5 => (at(), seed(), parts()).prop_map(|(at, seed, part)| Step::Write { at, seed, part }),
        5 => (at(), at(), parts()).prop_map(|(from, to, part)| Step::Hand { from, to, part }),
        2 => (at(), parts(), open())
            .prop_map(|(from, part, open)| Step::Detach { from, part, open }),
        2 => (at(), parts(), 1_usize..4, open())
            .prop_map(|(from, part, consumers, open)| Step::Split { from, part, consumers, open }),
        3 => (at(), parts(), open()).prop_map(|(at, part, open)| Step::Share { at, part, open }),
        1 => (0_u64..2, lengths(), seed())
            .prop_map(|(domain, len, seed)| Step::Host { domain, len, seed }),
        5 => (0_usize..64, at()).prop_map(|(flight, to)| Step::Land { flight, to }),
        2 => at().prop_map(|at| Step::Drop { at }),
        1 => (0_usize..64).prop_map(|flight| Step::Cancel { flight }),
    ]
}
