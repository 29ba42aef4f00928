//! Runs the cells: warms each system up, finds out how many runs fit, and lets the systems take turns, so that what
//! else the machine does meets all of them.
//!
//! What can be measured comes in by [`Executor`] and [`Side`]; this file knows no process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::names::System;
use crate::plan::{Cell, Runs};
use crate::results::{Outcome, Results, ResultsError};

/// Starts systems.
pub trait Executor {
    /// A system that is ready to do a cell's work.
    ///
    /// # Errors
    /// With the reason why it can't be had here.
    fn start(&self, cell: &Cell, system: System) -> Result<Box<dyn Side>, Missing>;
}

/// A system under test. It ends with this value.
pub trait Side {
    /// Does the work once.
    ///
    /// # Errors
    /// When that failed, or took too long.
    fn run(&mut self) -> Result<Outcome, Missing>;
}

/// Why there is no system, or no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

impl From<std::io::Error> for Missing {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All cells are done.
    Done,
    /// It was told to stop.
    Stopped,
}

/// Told what happens, a line at a time.
pub(crate) type Say<'s> = &'s mut dyn FnMut(&str);

/// Runs what is not there yet.
///
/// # Errors
/// When a row can't be written.
pub fn run(
    cells: &[Cell],
    executor: &dyn Executor,
    results: &mut Results,
    stop: &AtomicBool,
    say: Say<'_>,
) -> Result<End, ResultsError> {
    let open: Vec<_> = cells.iter().filter(|cell| !is_done(cell, results)).collect();
    let (count, all) = (open.len(), cells.len());
    if count < all {
        say(&format!("{} of {all} points are there already and stay", all - count));
    }
    for (index, cell) in open.iter().enumerate() {
        let left: Duration = open.iter().skip(index).map(|cell| cell.expected()).sum();
        let left = left.as_secs().div_ceil(60);
        say(&format!(
            "[{}/{count}] {} {} {}, about {left} min left",
            index + 1,
            cell.experiment,
            cell.place,
            cell.x
        ));
        if run_cell(cell, executor, results, stop, say)? == End::Stopped {
            return Ok(End::Stopped);
        }
    }
    Ok(End::Done)
}

/// Whether all systems of a cell have as many runs, and enough. One that is not there at all was skipped, and is
/// tried again only with a cell that is not done.
fn is_done(cell: &Cell, results: &Results) -> bool {
    let counts = cell.systems.iter().map(|system| results.count(&key(cell, *system)));
    let counts: Vec<_> = counts.filter(|count| *count > 0).collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    least == most && least.is_some_and(|count| *count >= cell.runs.least)
}

fn key(cell: &Cell, system: System) -> crate::results::Key {
    (cell.experiment, cell.place, system, cell.x.clone())
}

/// A system that takes turns.
struct Turn {
    system: System,
    side: Box<dyn Side>,
    totals: Vec<f64>,
}

fn run_cell(
    cell: &Cell,
    executor: &dyn Executor,
    results: &mut Results,
    stop: &AtomicBool,
    say: Say<'_>,
) -> Result<End, ResultsError> {
    let mut turns = Vec::new();
    let mut round = Duration::ZERO;
    for &system in &cell.systems {
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Stopped);
        }
        // The warm-up: connections, caches and pools, and how long a run takes.
        let warm = executor.start(cell, system).and_then(|mut side| {
            let start = Instant::now();
            side.run().map(|_| (side, start.elapsed()))
        });
        match warm {
            Ok((side, took)) => {
                round += took;
                turns.push(Turn { system, side, totals: Vec::new() });
            }
            // It failed because it was stopped.
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(End::Stopped),
            Err(Missing(reason)) => leave_out(cell, system, &reason, results, say)?,
        }
    }
    // As many as any system has already: else a cell that was interrupted when more fitted would never be done.
    let present = cell.systems.iter().map(|system| results.count(&key(cell, *system))).max();
    let runs = fitting(cell.runs, round).max(present.unwrap_or(0));
    for run in 0..runs {
        // Who begins takes turns too.
        let shift = (run as usize).checked_rem(turns.len()).unwrap_or(0);
        turns.rotate_left(shift.min(1));
        let mut at = 0;
        while let Some(turn) = turns.get_mut(at) {
            if stop.load(Ordering::Relaxed) {
                return Ok(End::Stopped);
            }
            let key = key(cell, turn.system);
            // Of an earlier start that was interrupted.
            if results.count(&key) > run {
                at += 1;
                continue;
            }
            match turn.side.run() {
                Ok(outcome) => {
                    results.append(&key, &outcome)?;
                    turn.totals.extend(outcome.total_s);
                    at += 1;
                }
                Err(_) if stop.load(Ordering::Relaxed) => return Ok(End::Stopped),
                Err(Missing(reason)) => {
                    let system = turns.remove(at).system;
                    leave_out(cell, system, &reason, results, say)?;
                }
            }
        }
    }
    for turn in &turns {
        summarize(turn, say);
    }
    Ok(End::Done)
}

fn leave_out(
    cell: &Cell,
    system: System,
    reason: &str,
    results: &mut Results,
    say: Say<'_>,
) -> Result<(), ResultsError> {
    say(&format!("  {system} is left out: {reason}"));
    results.skip(cell.experiment, cell.place, system, reason)
}

/// How many rounds fit into the budget.
fn fitting(runs: Runs, round: Duration) -> u32 {
    let fit = runs.budget.as_secs_f64() / round.as_secs_f64().max(1e-6);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let fit = fit as u32;
    fit.clamp(runs.least, runs.most)
}

fn summarize(turn: &Turn, say: Say<'_>) {
    let Some(spread) = Spread::of(&turn.totals) else { return };
    let Spread { median, least, most, outliers } = spread;
    let system = turn.system.to_string();
    let mut line =
        format!("  {system:<22} {:>12} ({} to {})", time(median), time(least), time(most));
    if outliers > 0 {
        line +=
            &format!("; {outliers} of {} are outliers, something else was busy", turn.totals.len());
    }
    say(&line);
}

fn time(seconds: f64) -> String {
    match seconds {
        under if under < 1e-3 => format!("{:.1} us", under * 1e6),
        under if under < 1.0 => format!("{:.2} ms", under * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// A median and what is around it, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
    outliers: usize,
}

/// Runs are outliers that are further from the median than this times the median distance from it. For a normal
/// distribution that is more than nine standard deviations: what is out there has a reason of its own.
const OUTLIER: f64 = 14.0;

/// Runs from which on a usual distance is more than chance.
const ENOUGH: usize = 5;

impl Spread {
    fn of(times: &[f64]) -> Option<Self> {
        let mut times = times.to_vec();
        let median = median(&mut times)?;
        let mut distances: Vec<_> = times.iter().map(|time| (time - median).abs()).collect();
        let usual = self::median(&mut distances)?;
        let outliers = distances.iter().filter(|distance| **distance > OUTLIER * usual).count();
        let (least, most) = (*times.first()?, *times.last()?);
        // Where most are the same, or there are few, there is no usual distance.
        let tell = usual > 0.0 && times.len() >= ENOUGH;
        Some(Self { median, least, most, outliers: if tell { outliers } else { 0 } })
    }
}

fn median(times: &mut [f64]) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let (low, high) = (times.get(times.len().checked_sub(1)? / 2)?, times.get(times.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Experiment;
    use crate::plan::{Mode, cells};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::rc::Rc;

    /// Systems that only count how often they ran.
    #[derive(Default)]
    struct Mock {
        ran: Rc<RefCell<Vec<System>>>,
        /// Which run fails, of those that do.
        fails: HashMap<System, u32>,
        stop_after: Option<(usize, Rc<AtomicBool>)>,
    }

    struct MockSide {
        system: System,
        runs: u32,
        ran: Rc<RefCell<Vec<System>>>,
        fails: Option<u32>,
        stop_after: Option<(usize, Rc<AtomicBool>)>,
    }

    impl Executor for Mock {
        fn start(&self, _: &Cell, system: System) -> Result<Box<dyn Side>, Missing> {
            if system == System::Redis {
                return Err(Missing("there is no Redis".into()));
            }
            let fails = self.fails.get(&system).copied();
            let (ran, stop_after) = (Rc::clone(&self.ran), self.stop_after.clone());
            Ok(Box::new(MockSide { system, runs: 0, ran, fails, stop_after }))
        }
    }

    impl Side for MockSide {
        fn run(&mut self) -> Result<Outcome, Missing> {
            let Self { ran, fails, stop_after, .. } = self;
            if *fails == Some(self.runs) {
                return Err(Missing("it broke".into()));
            }
            self.runs += 1;
            ran.borrow_mut().push(self.system);
            if let Some((after, stop)) = stop_after
                && ran.borrow().len() >= *after
            {
                stop.store(true, Ordering::Relaxed);
            }
            Ok(Outcome { total_s: Some(f64::from(self.runs)), transfers: 1, ..Outcome::default() })
        }
    }

    fn cell(systems: &[System]) -> Cell {
        let mut cell = cells(Mode::Quick, Some(Experiment::Transfer)).remove(0);
        cell.systems = systems.to_vec();
        // Mocks take no time, so this is how often they run.
        cell.runs = Runs { least: 3, most: 4, budget: Duration::from_secs(60) };
        cell
    }

    fn go(cell: &Cell, mock: &Mock, folder: &std::path::Path) -> (End, Results, String) {
        let mut results = Results::open(folder).unwrap();
        let never = AtomicBool::new(false);
        let stop = mock.stop_after.as_ref().map_or(&never, |(_, stop)| stop);
        let mut said = String::new();
        let mut say = |line: &str| said = format!("{said}{line}\n");
        let end = run(std::slice::from_ref(cell), mock, &mut results, stop, &mut say).unwrap();
        (end, results, said)
    }

    #[test]
    fn systems_take_turns_after_a_warm_up() {
        let folder = tempfile::tempdir().unwrap();
        let (mock, cell) = (Mock::default(), cell(&[System::Tcp, System::UnixSocket]));
        let (end, results, _) = go(&cell, &mock, folder.path());
        assert_eq!(end, End::Done);
        let ran = mock.ran.take();
        assert_eq!(ran.len(), 2 * (1 + 4));
        for round in ran.chunks(2) {
            assert_ne!(round[0], round[1], "{ran:?}");
        }
        assert_ne!(ran[2], ran[4], "who begins takes turns");
        assert_eq!(results.count(&key(&cell, System::Tcp)), 4);
    }

    #[test]
    fn what_is_missing_is_written_down_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mock = Mock { fails: [(System::Tcp, 2)].into(), ..Mock::default() };
        let cell = cell(&[System::Redis, System::Tcp, System::UnixSocket]);
        let (end, results, said) = go(&cell, &mock, folder.path());
        assert_eq!(end, End::Done);
        let count = |system| results.count(&key(&cell, system));
        assert_eq!([System::Redis, System::Tcp, System::UnixSocket].map(count), [0, 1, 4]);
        assert!(said.contains("redis is left out: there is no Redis"), "{said}");
        let skipped = std::fs::read_to_string(folder.path().join("skipped.csv")).unwrap();
        assert!(skipped.contains("transfer,same-host,tcp,it broke"), "{skipped}");
    }

    #[test]
    fn an_interrupted_run_goes_on_and_a_finished_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cell = cell(&[System::Tcp, System::UnixSocket]);
        // Two warm-ups and three runs: the second round is half done.
        let stop = Rc::new(AtomicBool::new(false));
        let mock = Mock { stop_after: Some((5, Rc::clone(&stop))), ..Mock::default() };
        let (end, results, _) = go(&cell, &mock, folder.path());
        let count = |results: &Results| {
            cell.systems.iter().map(|system| results.count(&key(&cell, *system))).sum::<u32>()
        };
        assert_eq!((end, count(&results)), (End::Stopped, 3));
        let mock = Mock::default();
        let (end, results, _) = go(&cell, &mock, folder.path());
        assert_eq!((end, count(&results), mock.ran.take().len()), (End::Done, 8, 2 + 5));
        let mock = Mock::default();
        let (_, results, said) = go(&cell, &mock, folder.path());
        assert_eq!((count(&results), mock.ran.take().len()), (8, 0));
        assert!(said.contains("1 of 1 points are there already"), "{said}");
    }

    #[test]
    fn all_get_as_many_runs_as_one_has() {
        let folder = tempfile::tempdir().unwrap();
        let cell = cell(&[System::Tcp, System::UnixSocket]);
        // More than fit now: as of an earlier start, when the machine was faster.
        let mut results = Results::open(folder.path()).unwrap();
        for (system, runs) in [(System::Tcp, 7), (System::UnixSocket, 6)] {
            for _ in 0..runs {
                results.append(&key(&cell, system), &Outcome::default()).unwrap();
            }
        }
        drop(results);
        let (end, results, _) = go(&cell, &Mock::default(), folder.path());
        assert_eq!(end, End::Done);
        assert_eq!(
            cell.systems.iter().map(|s| results.count(&key(&cell, *s))).collect::<Vec<_>>(),
            [7, 7]
        );
        assert!(is_done(&cell, &results));
    }

    #[test]
    fn as_many_runs_as_fit() {
        let runs = Runs { least: 3, most: 20, budget: Duration::from_secs(10) };
        let fits = |round_ms| fitting(runs, Duration::from_millis(round_ms));
        assert_eq!([0, 1000, 9000, 60_000].map(fits), [20, 10, 3, 3]);
    }

    #[test]
    fn outliers_are_far_away() {
        let spread = Spread::of(&[1.0, 1.1, 0.9, 1.05, 40.0]).unwrap();
        assert_eq!((spread.median, spread.most, spread.outliers), (1.05, 40.0, 1));
        assert_eq!(Spread::of(&[2.0, 2.0, 2.0, 2.0, 9.0]).unwrap().outliers, 0);
        assert_eq!(Spread::of(&[1.0, 1.01, 9.0]).unwrap().outliers, 0);
        assert_eq!(Spread::of(&[1.0, 3.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(&[]), None);
    }
}
