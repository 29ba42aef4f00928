//! The workflow run both ways, several times, and what was measured.

use std::fmt;
use std::time::Duration;

use roadrunner_runtime::{Reply, Runtime, Traffic};
use roadrunner_workflow::{Executable, Finished};
use serde::Serialize;

use super::{copying, load_again, photograph};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::report;

/// Runs of each way that count; one of each goes before, which finds caches and memory cold.
const RUNS: usize = 5;

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) total: Duration,
    /// Time that functions waited for their payloads, all together.
    handover: Duration,
    copied: u64,
}

impl Cost {
    pub(super) fn add(&mut self, handover: Duration, traffic: Traffic) {
        self.handover += handover;
        self.copied += traffic.copied;
    }

    fn of(finished: &Finished) -> Self {
        let mut cost = Self { total: finished.total, ..Self::default() };
        for hop in &finished.hops {
            cost.add(hop.account.handover, hop.account.traffic);
        }
        cost
    }
}

/// Medians of both ways.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    runs: usize,
    moving: Medians,
    copying: Medians,
    /// Whether every run made the same picture, byte for byte.
    identical: bool,
}

#[derive(Debug, Serialize)]
struct Medians {
    total_us: f64,
    handover_us: f64,
    copied_bytes: u64,
}

impl Medians {
    fn of(costs: &[Cost]) -> Self {
        Self {
            total_us: report::us(median(costs, |cost| cost.total)),
            handover_us: report::us(median(costs, |cost| cost.handover)),
            copied_bytes: median(costs, |cost| cost.copied),
        }
    }
}

fn median<T: Ord>(costs: &[Cost], of: fn(&Cost) -> T) -> T {
    let mut values: Vec<T> = costs.iter().map(of).collect();
    values.sort();
    values.swap_remove(values.len() / 2)
}

/// Runs the workflow both ways in turn and compares with a picture made before.
pub(super) fn run(moving: &Executable, picture: &mut Reply) -> Result<Comparison, Failure> {
    let copying = load_again(&Runtime::new(copying::config())?)?;
    let unmapped = |error| Failure::new(Exit::Host, format!("could not {error}"));
    let picture = picture.payload().map_err(unmapped)?;
    let picture = picture.bytes().map_err(unmapped)?;
    let same = |reply: &mut Reply| -> Result<bool, Failure> {
        Ok(reply.payload().map_err(unmapped)?.bytes().map_err(unmapped)? == picture)
    };
    let progress = Progress::start("comparing with the copying way".into());
    let (mut moved, mut copied, mut identical) = (Vec::new(), Vec::new(), true);
    for round in 0..=RUNS {
        progress.say(format!("comparing with the copying way: run {round} of {RUNS}"));
        let mut finished =
            moving.run(photograph(moving)?, &mut |_| {}).map_err(|error| error.fault)?;
        identical &= same(&mut finished.reply)?;
        moved.push(Cost::of(&finished));
        drop(finished);
        let (mut reply, cost) = copying::run(&copying, photograph(&copying)?)?;
        identical &= same(&mut reply)?;
        copied.push(cost);
    }
    let (moving, copying) = (Medians::of(&moved[1..]), Medians::of(&copied[1..]));
    Ok(Comparison { runs: RUNS, moving, copying, identical })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |us: f64| report::time(Duration::from_secs_f64(us / 1e6));
        let Self { runs, moving, copying, identical } = self;
        write!(
            f,
            "Medians of {runs} further runs, against copying every payload through a buffer of the host: \
            hand-overs {} instead of {}, {} copied instead of {}, all in all {} instead of {}; {}.",
            time(moving.handover_us),
            time(copying.handover_us),
            report::bytes(moving.copied_bytes),
            report::bytes(copying.copied_bytes),
            time(moving.total_us),
            time(copying.total_us),
            if *identical { "the pictures are identical" } else { "THE PICTURES DIFFER" },
        )
    }
}
