//! What came of the faults, by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::world::Outcome;

#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, Row>);

#[derive(Default)]
struct Row {
    outcomes: BTreeMap<Outcome, u64>,
    longest: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, kind: &'static str, outcome: Outcome, took: Duration) {
        let row = self.0.entry(kind).or_default();
        *row.outcomes.entry(outcome).or_default() += 1;
        row.longest = row.longest.max(took);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.0.values().flat_map(|row| row.outcomes.values()).sum();
        writeln!(f, "{:<36} {:>6}  {:>8}  outcomes", "fault", "times", "longest")?;
        for (kind, row) in &self.0 {
            let times: u64 = row.outcomes.values().sum();
            let outcomes: Vec<_> =
                row.outcomes.iter().map(|(outcome, times)| format!("{outcome} {times}")).collect();
            let longest = format!("{} ms", row.longest.as_millis());
            writeln!(f, "{kind:<36} {times:>6}  {longest:>8}  {}", outcomes.join("; "))?;
        }
        write!(f, "{:<36} {total:>6}", "all")
    }
}
