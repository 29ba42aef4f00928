//! Ours beside each peer, and where ours is the worse.
//!
//! A comparison is of two medians at the same experiment, place and `x`. Nothing here chooses what is shown: every case
//! where a peer is faster, or where the paper's prototype did better against the same kind of peer, is a finding.

use std::collections::BTreeMap;

use crate::context::{Kind, Subject};
use crate::names::{Experiment, Metric, Place, System, X};
use crate::paper::Paper;
use crate::runs::Runs;
use crate::spread::Spread;

/// Ours and a peer's.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) experiment: Experiment,
    pub(crate) place: Place,
    pub(crate) x: X,
    pub(crate) ours: System,
    pub(crate) peer: System,
    pub(crate) metric: Metric,
    pub(crate) our: Spread,
    pub(crate) their: Spread,
    /// What the paper's prototype has, as a part of what the paper's peer has.
    paper: Option<f64>,
}

impl Comparison {
    /// `None` unless both were measured, and the peer more than nothing.
    pub(crate) fn of(
        runs: &Runs,
        paper: &Paper,
        (experiment, place): (Experiment, Place),
        x: &X,
        metric: Metric,
        (ours, peer): (System, System),
    ) -> Option<Self> {
        let measured = |system| runs.get((experiment, place, system), x, metric);
        let published =
            |system| paper.get((experiment, place, metric, system), x).filter(|value| *value > 0.0);
        let (our, their) = (measured(ours)?, measured(peer)?);
        if their.median <= 0.0 {
            return None;
        }
        let paper = published(ours).zip(published(peer)).map(|(one, other)| one / other);
        Some(Self { experiment, place, x: x.clone(), ours, peer, metric, our, their, paper })
    }

    /// Ours as a part of the peer's: below one is better.
    pub(crate) fn part(&self) -> f64 {
        self.our.median / self.their.median
    }

    /// How many times as much the peer takes.
    pub(crate) fn gain(&self) -> f64 {
        1.0 / self.part()
    }

    /// How many times as much the paper's peer took as its prototype.
    pub(crate) fn paper_gain(&self) -> Option<f64> {
        self.paper.map(|part| 1.0 / part)
    }
}

/// What has a ratio in the paper. Throughput is latency's reciprocal, and user and kernel time add up to the whole.
const METRICS: [Metric; 4] = [Metric::Latency, Metric::Serialization, Metric::Cpu, Metric::Memory];

/// Every comparison that the runs allow, in order.
pub(crate) fn all(runs: &Runs, paper: &Paper) -> Vec<Comparison> {
    let mut all = Vec::new();
    for (experiment, place) in runs.measured() {
        let systems = runs.systems(experiment, place);
        let (ours, peers): (Vec<System>, Vec<System>) =
            systems.into_iter().partition(|system| system.is_ours());
        let pairs = ours.iter().flat_map(|ours| peers.iter().map(move |peer| (*ours, *peer)));
        for pair in pairs {
            for metric in METRICS {
                for x in runs.xs(experiment, place) {
                    let at = (experiment, place);
                    all.extend(Comparison::of(runs, paper, at, &x, metric, pair));
                }
            }
        }
    }
    all
}

/// A way in which ours is the worse, over all `x` at which it is.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) subject: Subject,
    /// The cases, the worst first.
    pub(crate) cases: Vec<Comparison>,
    /// Whether in each of them the middle halves of the runs meet.
    pub(crate) within_spread: bool,
}

/// Everything that is worse.
pub(crate) fn findings(comparisons: &[Comparison]) -> Vec<Finding> {
    let mut groups: BTreeMap<Subject, Vec<Comparison>> = BTreeMap::new();
    for comparison in comparisons {
        let Comparison { experiment, place, ours, peer, metric, .. } = *comparison;
        let mut add = |kind| {
            let subject = Subject::Comparison { kind, experiment, place, ours, peer, metric };
            groups.entry(subject).or_default().push(comparison.clone());
        };
        if metric == Metric::Latency && comparison.part() > 1.0 {
            add(Kind::Slower);
        }
        if comparison.paper.is_some_and(|paper| comparison.part() > paper) {
            add(Kind::BelowPaper);
        }
    }
    let finding = |(subject, mut cases): (Subject, Vec<Comparison>)| {
        let behind = |case: &Comparison| match &subject {
            Subject::Comparison { kind: Kind::BelowPaper, .. } => {
                case.part() / case.paper.unwrap_or(1.0)
            }
            _ => case.part(),
        };
        cases.sort_by(|one, other| behind(other).total_cmp(&behind(one)));
        let within_spread = cases.iter().all(|case| case.our.overlaps(case.their));
        Finding { subject, cases, within_spread }
    };
    groups.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tests::made_up;

    fn found(rows: &str) -> Vec<Finding> {
        let paper = Paper::read().expect("the paper's tables are right");
        findings(&all(&made_up(rows), &paper))
    }

    fn kind(finding: &Finding) -> Option<(Kind, Metric)> {
        match finding.subject {
            Subject::Comparison { kind, metric, .. } => Some((kind, metric)),
            Subject::Target(_) => None,
        }
    }

    #[test]
    fn better_everywhere_is_no_finding() {
        let found = found(
            "transfer,same-host,roadrunner-user,100,0,0.0002,,0,,0.1,0.1,1e6,0,1,\n\
             transfer,same-host,wasmtime-http-json,100,0,2,,1,,2,2,3e8,,1,\n",
        );
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_faster_peer_is_found_at_every_size() {
        let found = found(
            "transfer,same-host,roadrunner-kernel,1,0,0.004,,,,,,,0,1,\n\
             transfer,same-host,roadrunner-kernel,10,0,0.009,,,,,,,0,1,\n\
             transfer,same-host,roadrunner-kernel,100,0,0.01,,,,,,,0,1,\n\
             transfer,same-host,iceoryx2,1,0,0.001,,,,,,,0,1,\n\
             transfer,same-host,iceoryx2,10,0,0.001,,,,,,,0,1,\n\
             transfer,same-host,iceoryx2,100,0,0.02,,,,,,,0,1,\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(kind(&found[0]), Some((Kind::Slower, Metric::Latency)));
        let xs: Vec<_> = found[0].cases.iter().map(|case| case.x.to_string()).collect();
        assert_eq!(xs, ["10", "1"], "the worst first, and not where ours is faster");
        assert!(!found[0].within_spread);
    }

    #[test]
    fn faster_than_the_peer_but_less_than_the_paper_is_found() {
        // The paper: 8.8 times against its Wasm peer at 100 MB, here 4 times.
        let found = found(
            "transfer,same-host,roadrunner-user,100,0,0.5,,,,,,1000,0,1,\n\
             transfer,same-host,wasmtime-http-json,100,0,2,,,,,,1000,,1,\n",
        );
        let kinds: Vec<_> = found.iter().filter_map(kind).collect();
        assert_eq!(
            kinds,
            [(Kind::BelowPaper, Metric::Latency), (Kind::BelowPaper, Metric::Memory)]
        );
        assert_eq!(format!("{:.1}", found[0].cases[0].paper_gain().unwrap_or_default()), "8.8");
        assert_eq!(found[0].cases[0].gain(), 4.0);
    }
}
