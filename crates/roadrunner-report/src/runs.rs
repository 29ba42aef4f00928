//! `runs.csv`: a row per run, and what the runs of one thing come to.
//!
//! The file may come from anywhere: an unknown word, a number that can't be, or a row twice is an error with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::files;
use crate::names::{Experiment, Metric, Place, System, X};
use crate::spread::Spread;

/// What a run can take or hold, in seconds or bytes: more than any machine has, and far from where figures overflow.
const MOST: f64 = 1e15;
/// The least that is more than nothing: a thousandth of what a clock tells apart.
const LEAST: f64 = 1e-12;
/// Most MB or functions; as text, most letters of a workload's name, which must fit into a figure.
const MOST_X: f64 = 1e9;
const MOST_X_LETTERS: usize = 40;

/// A row. Empty cells were not measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    experiment: Experiment,
    place: Place,
    system: System,
    x: String,
    run: u32,
    total_s: Option<f64>,
    transfer_s: Option<f64>,
    serialization_s: Option<f64>,
    wasm_io_s: Option<f64>,
    hand_over_s: Option<f64>,
    consumer_s: Option<f64>,
    cpu_user_s: Option<f64>,
    cpu_kernel_s: Option<f64>,
    memory_peak_bytes: Option<f64>,
    page_faults: Option<f64>,
    copied_bytes: Option<f64>,
    transfers: Option<u32>,
    #[serde(rename = "note")]
    _note: String,
}

impl Run {
    /// A quantity of this run, if it was measured.
    fn value(&self, metric: Metric) -> Option<f64> {
        let transfers = f64::from(self.transfers.unwrap_or(1).max(1));
        let rate = |seconds: Option<f64>| {
            seconds.filter(|seconds| *seconds > 0.0).map(|seconds| transfers / seconds)
        };
        match metric {
            Metric::Latency => self.total_s.map(|seconds| seconds / transfers),
            Metric::Throughput => rate(self.total_s),
            Metric::Serialization => self.serialization_s.map(|seconds| seconds / transfers),
            Metric::SerializationThroughput => rate(self.serialization_s),
            Metric::Cpu => Some(self.cpu_user_s? + self.cpu_kernel_s?),
            Metric::CpuUser => self.cpu_user_s,
            Metric::CpuKernel => self.cpu_kernel_s,
            Metric::Memory => self.memory_peak_bytes,
            Metric::Transfer => self.transfer_s,
            Metric::WasmIo => self.wasm_io_s,
            Metric::Whole => self.total_s,
            Metric::HandOver => self.hand_over_s,
            Metric::Consumer => self.consumer_s,
            Metric::PageFaults => self.page_faults,
        }
    }

    /// Says which number can't be.
    fn check(&self) -> Result<()> {
        let numbers = [
            ("total_s", self.total_s),
            ("transfer_s", self.transfer_s),
            ("serialization_s", self.serialization_s),
            ("wasm_io_s", self.wasm_io_s),
            ("hand_over_s", self.hand_over_s),
            ("consumer_s", self.consumer_s),
            ("cpu_user_s", self.cpu_user_s),
            ("cpu_kernel_s", self.cpu_kernel_s),
            ("memory_peak_bytes", self.memory_peak_bytes),
            ("page_faults", self.page_faults),
            ("copied_bytes", self.copied_bytes),
        ];
        for (name, value) in numbers {
            if let Some(value) = value
                && value != 0.0
                && !(LEAST..=MOST).contains(&value)
            {
                bail!(
                    "{name} is {value:e}; write 0, a number from {LEAST:e} to {MOST:e}, or nothing if not measured"
                );
            }
        }
        if self.x.trim().is_empty() || self.x.chars().count() > MOST_X_LETTERS {
            let most = MOST_X_LETTERS;
            bail!(
                "x is empty or long; write a size in MB, a degree or a workload of up to {most} letters"
            );
        }
        if X::parse(&self.x).number().is_some_and(|number| !(LEAST..=MOST_X).contains(&number)) {
            bail!("x is {}; write a size in MB or a degree of up to {MOST_X:e}", self.x);
        }
        Ok(())
    }
}

/// What the runs of a series have in common: all but `x`.
type Series = (Experiment, Place, System);

/// All runs, by what they measured.
#[derive(Debug)]
pub(crate) struct Runs(BTreeMap<Series, BTreeMap<X, Vec<Run>>>);

impl Runs {
    /// Reads the file; `None` if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        files::read(path)?.map(|text| Self::parse(path, &text)).transpose()
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut series: BTreeMap<Series, BTreeMap<X, Vec<Run>>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (line, run) in files::rows::<Run>(path, text)? {
            let x = X::parse(&run.x);
            let refused = || format!("{}:{line}: not a run that can be reported", path.display());
            run.check().with_context(refused)?;
            let key = (run.experiment, run.place, run.system);
            if !seen.insert((key, x.clone(), run.run)) {
                let twice =
                    "run is there twice; keep one row of each experiment, place, system, x and run";
                bail!("{}:{line}: this {twice}", path.display());
            }
            series.entry(key).or_default().entry(x).or_default().push(run);
        }
        if series.is_empty() {
            bail!("{}: no run in it; `cargo xtask evaluate` measures some", path.display());
        }
        Ok(Self(series))
    }

    /// The median and spread of a quantity, if any run has it.
    pub(crate) fn get(&self, series: Series, x: &X, metric: Metric) -> Option<Spread> {
        let runs = self.0.get(&series)?.get(x)?;
        Spread::of(runs.iter().filter_map(|run| run.value(metric)).collect())
    }

    /// A quantity over `x`, in order of `x`.
    pub(crate) fn over_x(&self, series: Series, metric: Metric) -> Vec<(X, Spread)> {
        let points = self.0.get(&series).into_iter().flatten();
        points.filter_map(|(x, _)| Some((x.clone(), self.get(series, x, metric)?))).collect()
    }

    /// The systems that were measured, in the order of [`System::ALL`].
    pub(crate) fn systems(&self, experiment: Experiment, place: Place) -> Vec<System> {
        let measured = |system: &System| self.0.contains_key(&(experiment, place, *system));
        System::ALL.into_iter().filter(measured).collect()
    }

    /// Every `x` that any system was measured at.
    pub(crate) fn xs(&self, experiment: Experiment, place: Place) -> BTreeSet<X> {
        let of_both = |((e, p, _), _): &(&Series, _)| (*e, *p) == (experiment, place);
        self.0.iter().filter(of_both).flat_map(|(_, points)| points.keys().cloned()).collect()
    }

    /// The experiments and places that were measured.
    pub(crate) fn measured(&self) -> BTreeSet<(Experiment, Place)> {
        self.0.keys().map(|(experiment, place, _)| (*experiment, *place)).collect()
    }

    /// How wide the middle half of a point's latencies is, as a part of their median: in the middle case and at worst, with
    /// the point where that is.
    pub(crate) fn noise(&self) -> Option<(f64, f64, (Series, X))> {
        let mut widths = Vec::new();
        for (series, points) in &self.0 {
            for x in points.keys() {
                let spread = self.get(*series, x, Metric::Latency);
                if let Some(spread) = spread.filter(|spread| spread.median > 0.0) {
                    let width = (spread.high - spread.low) / spread.median;
                    widths.push((width, (*series, x.clone())));
                }
            }
        }
        let middle = Spread::of(widths.iter().map(|(width, _)| *width).collect())?.median;
        let worst = widths.into_iter().max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        Some((middle, worst.0, worst.1))
    }

    /// How many runs, and the fewest and most at one point, of what takes time.
    pub(crate) fn count(&self) -> (usize, usize, usize) {
        let timed =
            self.0.iter().filter(|((experiment, ..), _)| *experiment != Experiment::Footprint);
        let points: Vec<_> = timed.flat_map(|(_, points)| points.values()).map(Vec::len).collect();
        let bounds = (points.iter().min(), points.iter().max());
        (points.iter().sum(), *bounds.0.unwrap_or(&0), *bounds.1.unwrap_or(&0))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HEADER: &str = "experiment,place,system,x,run,total_s,transfer_s,\
        serialization_s,wasm_io_s,cpu_user_s,cpu_kernel_s,memory_peak_bytes,copied_bytes,transfers,note\n";

    /// Made-up runs: rows without their header.
    pub(crate) fn made_up(rows: &str) -> Runs {
        made_up_of(HEADER, rows)
    }

    /// The same with other columns.
    pub(crate) fn made_up_of(header: &str, rows: &str) -> Runs {
        Runs::parse(Path::new("runs.csv"), &format!("{header}{rows}")).expect("the rows are right")
    }

    fn refusal(rows: &str) -> String {
        let refused = Runs::parse(Path::new("runs.csv"), &format!("{HEADER}{rows}"));
        format!("{:#}", refused.expect_err("the rows are wrong"))
    }

    const USER: Series = (Experiment::Transfer, Place::SameHost, System::RoadrunnerUser);

    #[test]
    fn a_point_is_the_median_of_its_runs() {
        let runs = made_up(
            "transfer,same-host,roadrunner-user,100,0,0.3,,,,1,2,,,1,\n\
             transfer,same-host,roadrunner-user,100,1,0.1,,,,1,,,,1,\n\
             transfer,same-host,roadrunner-user,100,2,0.2,,,,,,,,1,\n\
             transfer,same-host,roadrunner-user,9,0,7,,,,,,,,1,\n",
        );
        let at = |metric| runs.get(USER, &X::Number(100.0), metric).map(|spread| spread.median);
        assert_eq!(at(Metric::Latency), Some(0.2));
        assert_eq!(at(Metric::Cpu), Some(3.0), "only where both were measured");
        assert_eq!(at(Metric::Memory), None);
        let xs: Vec<_> = runs.over_x(USER, Metric::Latency).into_iter().map(|(x, _)| x).collect();
        assert_eq!(xs, [X::Number(9.0), X::Number(100.0)], "numbers in their order");
    }

    #[test]
    fn the_latency_of_a_fanout_is_that_of_one_transfer() {
        let runs = made_up("fanout,same-host,roadrunner-user,100,0,0.5,,0,,,,,,100,\n");
        let key = (Experiment::Fanout, Place::SameHost, System::RoadrunnerUser);
        let at = |metric| runs.get(key, &X::Number(100.0), metric).map(|spread| spread.median);
        assert_eq!(at(Metric::Latency), Some(0.005));
        assert_eq!(at(Metric::Throughput), Some(200.0));
        assert_eq!(at(Metric::SerializationThroughput), None, "nothing divided by nothing");
    }

    #[test]
    fn the_noisiest_point_is_named() {
        let row =
            |x, run, seconds| format!("transfer,same-host,redis,{x},{run},{seconds},,,,,,,,1,\n");
        let runs =
            made_up(&[row(1, 0, 1.0), row(1, 1, 1.0), row(9, 0, 1.0), row(9, 1, 3.0)].concat());
        let (middle, worst, (series, x)) = runs.noise().expect("there are latencies");
        assert_eq!((middle, worst, series.2, x), (0.25, 0.5, System::Redis, X::Number(9.0)));
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        let good = "transfer,same-host,redis,1,0,0.3,,,,,,,,1,\n";
        let cases = [
            ("transfer,same-host,radish,1,0,0.3,,,,,,,,1,\n", "unknown variant `radish`"),
            ("transfer,same-host,redis,1,1,-3,,,,,,,,1,\n", "total_s is -3e0"),
            ("transfer,same-host,redis,1,1,NaN,,,,,,,,1,\n", "total_s is NaN"),
            ("transfer,same-host,redis,1,1,inf,,,,,,,,1,\n", "total_s is inf"),
            ("transfer,same-host,redis,1,1,0.3,,,\n", "9 cells where the header has 15"),
            ("transfer,same-host,redis,,1,0.3,,,,,,,,1,\n", "x is empty"),
            ("transfer,same-host,redis,1e99,1,0.3,,,,,,,,1,\n", "x is 1e99"),
            ("transfer,same-host,redis,1,1,1e300,,,,,,,,1,\n", "total_s is 1e300"),
            ("transfer,same-host,redis,1,1,1e-300,,,,,,,,1,\n", "total_s is 1e-300"),
            ("transfer,same-host,redis,1,0,0.3,,,,,,,,1,\n", "is there twice"),
            ("transfer,same-host,redis,1,-1,0.3,,,,,,,,1,\n", "invalid digit"),
        ];
        for (bad, reason) in cases {
            let said = refusal(&format!("{good}{bad}"));
            assert!(said.starts_with("runs.csv:3:"), "{said}");
            assert!(said.contains(reason), "{said}");
        }
        assert!(refusal("").contains("no run in it"));
        let other = Runs::parse(Path::new("runs.csv"), "a,b\n1,2\n").expect_err("other columns");
        assert!(format!("{other:#}").contains("runs.csv:"), "{other:#}");
    }
}
