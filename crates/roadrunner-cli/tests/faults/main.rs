//! The fault run: faults drawn at random from a printed seed, and what they must leave behind, which is
//! nothing.
//!
//! ```text
//!   between.rs   a relay between a right caller and a right node: cuts, half-closes, stalls, flips, swaps
//!   frames.rs    lying frames, from callers and from nodes
//!   silence.rs   peers that refuse, hang, or stop in the middle
//!   scarcity.rs  no descriptors, in this process
//!   programs.rs  `roadrunner` processes: killed, out of descriptors, memory or disk
//!   world.rs     the nodes, what a call may end in, and who counts its entries
//!   books.rs     what a process holds
//! ```
//!
//! The test is the short form. `cargo xtask faults` is the long one: the same with another count. A seed
//! repeats its faults: kinds, places and payloads, if not what the kernel's scheduler makes of them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "seed, progress and table are what it is run for")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

mod between;
mod books;
mod descriptors;
mod dice;
mod frames;
mod processes;
#[path = "../it/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line, which use more of it")]
mod program;
mod programs;
mod scarcity;
mod silence;
mod stream;
mod tally;
mod world;

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use books::{Holdings, Margins};
use dice::Dice;
use programs::Programs;
use tally::Tally;
use world::{Outcome, POOL, Way, World};

/// Faults of the short form: each kind a few times, in some seconds.
const FEW: u64 = 400;

/// Faults before the first look at what is held: pools and allocators reach their size.
const WARM_UP: u64 = 100;

/// Rounds of good calls at the end: more than the frames that can say what all segments' peers have no more.
const ROUNDS: usize = 20;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// A drawn fault.
#[derive(Debug)]
enum Plan {
    Between(between::Plan),
    Frame(frames::Plan),
    Silence(silence::Plan),
    Scarcity(scarcity::Plan),
    Program(programs::Plan),
}

impl Plan {
    fn draw(dice: &mut Dice) -> Self {
        // A process costs a hundred times what a frame does.
        match dice.below(100) {
            0..45 => Self::Between(between::Plan::draw(dice)),
            45..75 => Self::Frame(frames::Plan::draw(dice)),
            75..87 => Self::Silence(silence::Plan::draw(dice)),
            87..93 => Self::Scarcity(scarcity::Plan::draw(dice)),
            _ => Self::Program(programs::Plan::draw(dice)),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Between(plan) => plan.kind(),
            Self::Frame(plan) => plan.kind(),
            Self::Silence(plan) => plan.kind(),
            Self::Scarcity(plan) => plan.kind(),
            Self::Program(plan) => plan.kind(),
        }
    }

    fn run(&self, world: &World, programs: &Programs, dice: &mut Dice) -> Result<Outcome, String> {
        match self {
            Self::Between(plan) => between::run(*plan, world, dice),
            Self::Frame(plan) => frames::run(*plan, world, dice),
            Self::Silence(plan) => silence::run(*plan, world, dice),
            Self::Scarcity(plan) => scarcity::run(*plan, world, dice),
            Self::Program(plan) => programs.run(*plan, world, dice),
        }
    }
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

#[test]
fn every_fault_ends_in_a_result_or_one_typed_error_and_leaves_nothing() {
    let seed = asked("ROADRUNNER_FAULTS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let count = asked("ROADRUNNER_FAULTS_COUNT").unwrap_or(FEW);
    println!("{count} faults of seed {seed}");
    let (mut world, programs) = (World::new(), Programs::start());
    // The faults before the first look are others, so that the run's own are the seed's and the count's.
    let mut warm_up = Tally::default();
    run(&world, &programs, !seed, WARM_UP, &mut warm_up);
    settle(&mut world, seed);
    let before = Looked::at(&world, &programs);
    let mut tally = Tally::default();
    run(&world, &programs, seed, count, &mut tally);
    settle(&mut world, seed);
    let left = before.settles(&world, &programs).and_then(|now| {
        println!("before: {before:?}\nnow:    {now:?}");
        world.verify_all()?;
        programs.nothing_is_left()
    });
    println!("{tally}");
    left.unwrap_or_else(|what| panic!("after {count} faults of seed {seed}: {what}"));
}

fn run(world: &World, programs: &Programs, seed: u64, count: u64, tally: &mut Tally) {
    let mut said = Instant::now();
    for nth in 0..count {
        let mut dice = Dice::of(seed, nth);
        let plan = Plan::draw(&mut dice);
        let since = Instant::now();
        let outcome = plan.run(world, programs, &mut dice).unwrap_or_else(|what| {
            panic!("fault {nth} of seed {seed}, {plan:?} ({}): {what}", plan.kind())
        });
        tally.add(plan.kind(), outcome, since.elapsed());
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            let resident = Holdings::of(std::process::id(), 0).resident_kib;
            println!("{} of {count} faults, {resident} KiB resident", nth + 1);
        }
    }
}

/// Good calls, until peers have told each other what they have no more; and then no connection, as each holds what its
/// way to send needs.
fn settle(world: &mut World, seed: u64) {
    let mut dice = Dice::of(seed, u64::MAX);
    let homes = [world.nodes.clone(), world.callers.clone()];
    let leased = || homes.each_ref().map(|home| home.pool.usage().leased);
    for _ in 0..ROUNDS {
        for way in Way::ALL {
            let served = world.serves(way, &mut dice);
            served.unwrap_or_else(|what| panic!("seed {seed}, at its end: {what}"));
        }
        // The last call's is told with the next.
        if leased().iter().all(|leased| *leased <= 1) {
            world.hang_up();
            return;
        }
    }
    panic!("seed {seed}: segments are leased by nobody that is left: {:?}", leased());
}

/// What the test's own process and the long-lived node hold.
#[derive(Debug)]
struct Looked {
    here: Holdings,
    node: Holdings,
}

impl Looked {
    fn at(world: &World, programs: &Programs) -> Self {
        let here = Holdings::of(std::process::id(), world.segments());
        Self { here, node: Holdings::of(programs.node(), 0) }
    }

    fn settles(&self, world: &World, programs: &Programs) -> Result<Self, String> {
        // Two pools of pages, each with as many ranges as may wait, each of them a mapping that may cut
        // another one in two; and the allocator's arenas. Segments are kept up to the same bytes, by
        // their owner and by who had them last.
        let mappings = 2 * 2 * (POOL.ranges + POOL.empty_ranges) + 32;
        let resident_kib = (2 * 3 * POOL.bytes) / 1024 + (16 << 10);
        let margins = Margins { mappings, resident_kib };
        let here = books::settles(std::process::id(), || world.segments(), self.here, margins)?;
        // A pool of the usual size, which holds what payloads of a few lengths need, several at a time;
        // the sandboxes that these were in; and the allocator's arenas.
        let margins = Margins { mappings: 48, resident_kib: 32 << 10 };
        let node = books::settles(programs.node(), || 0, self.node, margins);
        Ok(Self { here, node: node.map_err(|what| format!("the node: {what}"))? })
    }
}
