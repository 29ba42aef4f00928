//! What is run: each experiment as cells, and in each cell the systems that take turns.

use std::time::Duration;

use clap::ValueEnum;

use crate::agent::Order;
use crate::names::{Experiment, Place, System};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Some of the sizes, in a few minutes.
    Quick,
    /// The papers' sizes, in hours.
    Full,
}

/// Systems that are compared at one point of one experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Of this experiment.
    pub experiment: Experiment,
    /// Where the functions are.
    pub place: Place,
    /// The column `x`.
    pub x: String,
    /// What each of them does.
    pub work: Work,
    /// Who takes turns.
    pub systems: Vec<System>,
    /// How often.
    pub runs: Runs,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Hands a payload over.
    Transfer(Order),
    /// Starts a program and waits for its end.
    Start(Program),
    /// Computes.
    Compute {
        /// The C program.
        name: &'static str,
        /// Its argument.
        size: u32,
    },
    /// Takes up room.
    Footprint(Room),
}

/// A program whose start is measured; `guests/evaluation` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Says hello.
    Hello,
    /// Makes a picture smaller, which it gets on stdin.
    Shrink,
    /// Does nothing.
    Nop,
    /// Reads a file.
    Cat,
}

/// What is measured of a footprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Bytes of the program.
    Binary,
    /// Memory that one more function takes that is loaded and waits, in bytes.
    IdleFunction,
    /// How many of these fit into a GiB.
    FunctionsPerGib,
}

/// How often a cell's systems run: as often as fits into the budget, within these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// At least, however long it takes: a median of fewer says nothing.
    pub least: u32,
    /// At most: more than this many don't make a median better than the machine is quiet.
    pub most: u32,
    /// Time for all systems together; where there is but one number of runs, what these are expected to take.
    pub budget: Duration,
}

/// Bytes of a megabyte, as in the papers.
const MB: u64 = 1_000_000;

/// The paper's sizes of a transfer in MB, and those of a quick run.
const SIZES: [u64; 14] = [1, 2, 4, 6, 8, 10, 20, 40, 60, 100, 200, 300, 400, 500];
const FEW_SIZES: [u64; 4] = [1, 10, 60, 100];

/// The paper's degrees of a fan-out.
const DEGREES: [u32; 7] = [1, 10, 20, 40, 60, 80, 100];
const FEW_DEGREES: [u32; 3] = [1, 10, 100];

/// Payload of a fan-out in MB.
const FANOUT_SIZE: u64 = 10;

/// Sizes at which the papers show what serialization takes, and how latency breaks down.
const MOTIVATION_SIZES: [u64; 3] = [1, 60, 100];
const BREAKDOWN_SIZE: u64 = 100;

/// Bytes a second over the link of each place.
const SLOW_LINK: u64 = 12_500_000;

/// Most that a quick run sends over a slow link in one run, in bytes: at 100 Mbit/s that is two seconds, and there are
/// seven systems.
const QUICK_BYTES: u64 = 2 * SLOW_LINK;

/// The same at 1 Gbit/s.
const QUICK_FAST_BYTES: u64 = 20 * SLOW_LINK;

/// All cells, or those of one experiment, in the order of the list of experiments; those over the slowest link come
/// last, which in a full run take longer than all others together.
#[must_use]
pub fn cells(mode: Mode, only: Option<Experiment>) -> Vec<Cell> {
    let all = Experiment::value_variants().iter();
    let chosen = all.filter(|experiment| only.is_none_or(|only| only == **experiment));
    let mut cells: Vec<_> = chosen.flat_map(|experiment| of(*experiment, mode)).collect();
    cells.sort_by_key(|cell| cell.place == Place::TwoHosts100Mbit);
    cells
}

impl Cell {
    /// About how long it takes: its budget, or what its link takes for the least that is run. Fast systems take less, as
    /// there is a most of runs; slow ones on one host more.
    #[must_use]
    pub fn expected(&self) -> Duration {
        let Work::Transfer(order) = self.work else { return self.runs.budget };
        let Some(rate) = rate(self.place) else { return self.runs.budget };
        // The first is the warm-up.
        let runs = u64::from(self.runs.least + 1) * self.systems.len() as u64;
        let bytes = order.size * u64::from(order.consumers) * runs;
        self.runs.budget.max(Duration::from_secs(bytes / rate))
    }
}

/// Bytes a second over the link of a place, where there is one.
fn rate(place: Place) -> Option<u64> {
    match place {
        Place::SameHost => None,
        Place::TwoHosts100Mbit => Some(SLOW_LINK),
        Place::TwoHosts1Gbit => Some(10 * SLOW_LINK),
    }
}

fn of(experiment: Experiment, mode: Mode) -> Vec<Cell> {
    use System as S;
    let starts = |programs: [(&str, Program); 2], systems: &[System]| {
        let cell = |(x, program): (&str, Program)| {
            cell(experiment, Place::SameHost, x, Work::Start(program), systems, mode)
        };
        programs.map(cell).to_vec()
    };
    match experiment {
        Experiment::MotivationStart => starts(
            [("hello", Program::Hello), ("resize", Program::Shrink)],
            &[S::RoadrunnerProcess, S::RoadrunnerSandbox, S::Runc, S::ProcessPerFunction],
        ),
        Experiment::MotivationTransfer => {
            let systems = [S::NativeHttpJson, S::WasmtimeHttpJson];
            MOTIVATION_SIZES
                .map(|size| transfer(experiment, Place::SameHost, size, &systems, mode))
                .into()
        }
        Experiment::Transfer => {
            Place::value_variants().iter().flat_map(|place| transfers(*place, mode)).collect()
        }
        Experiment::Fanout => {
            Place::value_variants().iter().flat_map(|place| fanouts(*place, mode)).collect()
        }
        Experiment::Breakdown => {
            let systems = [
                S::RoadrunnerUser,
                S::RoadrunnerKernel,
                S::RoadrunnerNetwork,
                S::NativeHttpJson,
                S::WasmtimeHttpJson,
            ];
            vec![transfer(experiment, Place::SameHost, BREAKDOWN_SIZE, &systems, mode)]
        }
        Experiment::Coldstart => starts(
            [("nop", Program::Nop), ("cat-sync", Program::Cat)],
            &[
                S::RoadrunnerProcess,
                S::RoadrunnerSandbox,
                S::Runc,
                S::ProcessPerFunction,
                S::NodeWasi,
            ],
        ),
        Experiment::Compute => computes(mode),
        Experiment::Footprint => [
            ("binary-bytes", Room::Binary),
            ("idle-function-bytes", Room::IdleFunction),
            ("functions-per-gib", Room::FunctionsPerGib),
        ]
        .map(|(x, room)| {
            cell(experiment, Place::SameHost, x, Work::Footprint(room), &[S::Roadrunner], mode)
        })
        .into(),
    }
}

fn cell(
    experiment: Experiment,
    place: Place,
    x: impl ToString,
    work: Work,
    systems: &[System],
    mode: Mode,
) -> Cell {
    // What a link bounds varies less than what processors do.
    let least = match place {
        Place::SameHost => 7,
        Place::TwoHosts1Gbit => 5,
        Place::TwoHosts100Mbit => 3,
    };
    let runs = match (work, mode) {
        // Three runs, whatever they take: on two cores of 2026 some seconds, and minutes at the papers' sizes.
        (Work::Footprint(_), _) => Runs { least: 3, most: 3, budget: Duration::from_secs(1) },
        (Work::Compute { .. }, Mode::Quick) => {
            Runs { least: 3, most: 3, budget: Duration::from_secs(5) }
        }
        (Work::Compute { .. }, Mode::Full) => {
            Runs { least: 3, most: 3, budget: Duration::from_secs(240) }
        }
        (_, Mode::Quick) => Runs { least, most: 20, budget: Duration::from_secs(6) },
        (_, Mode::Full) => Runs { least, most: 50, budget: Duration::from_secs(60) },
    };
    Cell { experiment, place, x: x.to_string(), work, systems: systems.to_vec(), runs }
}

fn transfer(
    experiment: Experiment,
    place: Place,
    size: u64,
    systems: &[System],
    mode: Mode,
) -> Cell {
    let order = Order { size: size * MB, consumers: 1 };
    cell(experiment, place, size, Work::Transfer(order), systems, mode)
}

/// Whether a quick run sends so many bytes there.
fn fits(place: Place, bytes: u64, mode: Mode) -> bool {
    match (mode, place) {
        (Mode::Full, _) | (_, Place::SameHost) => true,
        (_, Place::TwoHosts100Mbit) => bytes <= QUICK_BYTES,
        (_, Place::TwoHosts1Gbit) => bytes <= QUICK_FAST_BYTES,
    }
}

fn transfers(place: Place, mode: Mode) -> Vec<Cell> {
    use System as S;
    let systems: &[System] = match place {
        Place::SameHost => &[
            S::RoadrunnerUser,
            S::RoadrunnerKernel,
            S::RoadrunnerNetwork,
            S::NativeHttpJson,
            S::NativeHttpRaw,
            S::WasmtimeHttpJson,
            S::Redis,
            S::UnixSocket,
            S::Tcp,
            S::Iceoryx2,
            S::PaperCopy,
            S::PaperHose,
        ],
        _ => &[
            S::RoadrunnerNetwork,
            S::NativeHttpJson,
            S::NativeHttpRaw,
            S::WasmtimeHttpJson,
            S::Redis,
            S::Tcp,
            S::PaperHose,
        ],
    };
    let sizes: &[u64] = if mode == Mode::Full { &SIZES } else { &FEW_SIZES };
    let sizes = sizes.iter().filter(|size| fits(place, **size * MB, mode));
    sizes.map(|size| transfer(Experiment::Transfer, place, *size, systems, mode)).collect()
}

fn fanouts(place: Place, mode: Mode) -> Vec<Cell> {
    use System as S;
    let systems: &[System] = match place {
        Place::SameHost => &[
            S::RoadrunnerUser,
            S::RoadrunnerKernel,
            S::NativeHttpJson,
            S::NativeHttpRaw,
            S::WasmtimeHttpJson,
            S::Redis,
            S::UnixSocket,
        ],
        _ => &[S::RoadrunnerNetwork, S::NativeHttpJson, S::NativeHttpRaw, S::WasmtimeHttpJson],
    };
    let degrees: &[u32] = if mode == Mode::Full { &DEGREES } else { &FEW_DEGREES };
    let fits = |consumers: &&u32| fits(place, FANOUT_SIZE * MB * u64::from(**consumers), mode);
    let cell = |consumers: &u32| {
        let order = Order { size: FANOUT_SIZE * MB, consumers: *consumers };
        cell(Experiment::Fanout, place, consumers, Work::Transfer(order), systems, mode)
    };
    degrees.iter().filter(fits).map(cell).collect()
}

/// The programs, with the paper's arguments and those of a quick run.
const PROGRAMS: [(&str, u32, u32); 4] = [
    ("nbody", 50_000_000, 5_000_000),
    ("fannkuch-redux", 12, 10),
    ("mandelbrot", 15_000, 2_000),
    ("binary-trees", 21, 16),
];

fn computes(mode: Mode) -> Vec<Cell> {
    let systems = [System::Roadrunner, System::NativeGcc, System::NativeClang];
    let cell = |(name, full, quick)| {
        let work = Work::Compute { name, size: if mode == Mode::Full { full } else { quick } };
        cell(Experiment::Compute, Place::SameHost, name, work, &systems, mode)
    };
    PROGRAMS.map(cell).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_has_the_papers_sizes() {
        let all = cells(Mode::Full, None);
        let count = |experiment, place| {
            all.iter().filter(|cell| (cell.experiment, cell.place) == (experiment, place)).count()
        };
        for place in Place::value_variants() {
            assert_eq!(count(Experiment::Transfer, *place), 14);
            assert_eq!(count(Experiment::Fanout, *place), 7);
        }
        for experiment in Experiment::value_variants() {
            assert!(count(*experiment, Place::SameHost) > 0, "{experiment}");
        }
    }

    #[test]
    fn what_takes_longest_comes_last() {
        let all = cells(Mode::Full, None);
        let slow = |cell: &Cell| cell.place == Place::TwoHosts100Mbit;
        let first = all.iter().position(slow).unwrap();
        assert!(all[first..].iter().all(slow));
        // 500 MB at 100 Mbit/s, for seven systems and four times.
        let largest = all[first..].iter().find(|cell| cell.x == "500").unwrap();
        assert_eq!(largest.expected(), Duration::from_secs(40 * 7 * 4));
    }

    #[test]
    fn a_quick_run_keeps_slow_links_short() {
        for cell in cells(Mode::Quick, None) {
            let Work::Transfer(order) = cell.work else { continue };
            let Some(rate) = rate(cell.place) else { continue };
            assert!(order.size * u64::from(order.consumers) / rate <= 2, "{cell:?}");
        }
    }
}
