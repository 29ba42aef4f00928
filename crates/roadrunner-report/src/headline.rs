//! The report's first numbers: one size, one place, ours and every peer. The page and the README show the same.

use crate::compare::Comparison;
use crate::names::{Experiment, Metric, Place, System, X};
use crate::paper::Paper;
use crate::runs::Runs;
use crate::spread::Spread;

/// The largest `x` of a headline, MB or degree: the paper's own text is about 100 of each.
const MOST: f64 = 100.0;

/// Where the headlines come from, in order.
const PLACES: [(Experiment, Place); 3] = [
    (Experiment::Transfer, Place::SameHost),
    (Experiment::Transfer, Place::TwoHosts1Gbit),
    (Experiment::Fanout, Place::SameHost),
];

/// One table.
pub(crate) struct Headline {
    pub(crate) title: String,
    /// Roadrunner's ways, which the others are compared with.
    pub(crate) ours: Vec<(System, Spread)>,
    pub(crate) peers: Vec<Row>,
}

/// A peer.
pub(crate) struct Row {
    pub(crate) system: System,
    pub(crate) latency: Spread,
    /// How many times ours is faster, beside the paper's number; one for each of [`Headline::ours`].
    pub(crate) gains: Vec<Option<(f64, Option<f64>)>>,
}

/// All tables that the runs allow.
pub(crate) fn all(runs: &Runs, paper: &Paper) -> Vec<Headline> {
    PLACES.into_iter().filter_map(|place| of(runs, paper, place)).collect()
}

fn of(runs: &Runs, paper: &Paper, (experiment, place): (Experiment, Place)) -> Option<Headline> {
    // The way between hosts is compared between hosts; the figures have it on one host too.
    let counts = |system: &System| (*system, place) != (System::RoadrunnerNetwork, Place::SameHost);
    let systems: Vec<_> = runs.systems(experiment, place).into_iter().filter(counts).collect();
    let latency = |system, x: &X| runs.get((experiment, place, system), x, Metric::Latency);
    let has_ours = |x: &X| systems.iter().any(|own| own.is_ours() && latency(*own, x).is_some());
    let within = |x: &X| x.number().is_some_and(|number| number <= MOST) && has_ours(x);
    let x = runs.xs(experiment, place).into_iter().rfind(within)?;
    let measured: Vec<_> =
        systems.iter().filter_map(|system| Some((*system, latency(*system, &x)?))).collect();
    let (ours, peers): (Vec<_>, Vec<_>) =
        measured.into_iter().partition(|(system, _)| system.is_ours());
    let gain = |own: System, peer: System| {
        let at = (experiment, place);
        let compared = Comparison::of(runs, paper, at, &x, Metric::Latency, (own, peer))?;
        Some((compared.gain(), compared.paper_gain()))
    };
    let row = |(system, latency): (System, Spread)| {
        let gains = ours.iter().map(|(own, _)| gain(*own, system)).collect();
        Row { system, latency, gains }
    };
    let peers = peers.into_iter().map(row).collect();
    let title = match experiment {
        Experiment::Fanout => {
            format!("10 MB to each of {x} functions, {place}: latency per transfer")
        }
        _ => format!("{x} MB from one function to the next, {place}"),
    };
    Some(Headline { title, ours, peers })
}
