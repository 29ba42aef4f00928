//! The paper's measurements, as its authors published them: `evaluation/paper`, part of this program.
//!
//! A table of the paper is also the shape of one of ours, see [`crate::export`], and of a figure.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::names::{Experiment, Metric, Place, System, X};

/// One of the paper's tables: a quantity over size or degree, a column for each system.
pub(crate) struct Table {
    /// Its file's name, the same for theirs and ours.
    pub(crate) file: &'static str,
    text: &'static str,
    pub(crate) experiment: Experiment,
    pub(crate) place: Place,
    pub(crate) metric: Metric,
}

macro_rules! table {
    ($file:literal, $experiment:ident, $place:ident, $metric:ident) => {
        Table {
            file: $file,
            text: include_str!(concat!("../../../evaluation/paper/", $file)),
            experiment: Experiment::$experiment,
            place: Place::$place,
            metric: Metric::$metric,
        }
    };
}

/// Those that are lines over `x`. Its hosts reached each other at about 0.75 Gbit/s, so they stand beside our 1 Gbit/s.
#[rustfmt::skip]
pub(crate) const TABLES: [Table; 32] = [
    table!("parallel__inter-node__inter-node-fanout-kernel_cpu.csv", Fanout, TwoHosts1Gbit, CpuKernel),
    table!("parallel__inter-node__inter-node-fanout-ram.csv", Fanout, TwoHosts1Gbit, Memory),
    table!("parallel__inter-node__inter-node-fanout-serialization_latency.csv", Fanout, TwoHosts1Gbit, Serialization),
    table!("parallel__inter-node__inter-node-fanout-serialization_throughput.csv", Fanout, TwoHosts1Gbit, SerializationThroughput),
    table!("parallel__inter-node__inter-node-fanout-total_cpu.csv", Fanout, TwoHosts1Gbit, Cpu),
    table!("parallel__inter-node__inter-node-fanout-total_latency.csv", Fanout, TwoHosts1Gbit, Latency),
    table!("parallel__inter-node__inter-node-fanout-total_throughput.csv", Fanout, TwoHosts1Gbit, Throughput),
    table!("parallel__inter-node__inter-node-fanout-user_cpu.csv", Fanout, TwoHosts1Gbit, CpuUser),
    table!("parallel__intra-node__intra-node-cpu-kernel.csv", Fanout, SameHost, CpuKernel),
    table!("parallel__intra-node__intra-node-cpu-total.csv", Fanout, SameHost, Cpu),
    table!("parallel__intra-node__intra-node-cpu-user.csv", Fanout, SameHost, CpuUser),
    table!("parallel__intra-node__intra-node-ram.csv", Fanout, SameHost, Memory),
    table!("parallel__intra-node__intra-node-serialization-latency.csv", Fanout, SameHost, Serialization),
    table!("parallel__intra-node__intra-node-serialization-throughput.csv", Fanout, SameHost, SerializationThroughput),
    table!("parallel__intra-node__intra-node-total-latency.csv", Fanout, SameHost, Latency),
    table!("parallel__intra-node__intra-node-total-throughput.csv", Fanout, SameHost, Throughput),
    table!("sequential__inter-node__inter-node-kernel-cpu.csv", Transfer, TwoHosts1Gbit, CpuKernel),
    table!("sequential__inter-node__inter-node-ram-mb.csv", Transfer, TwoHosts1Gbit, Memory),
    table!("sequential__inter-node__inter-node-serialization-latency.csv", Transfer, TwoHosts1Gbit, Serialization),
    table!("sequential__inter-node__inter-node-serialization-throughput.csv", Transfer, TwoHosts1Gbit, SerializationThroughput),
    table!("sequential__inter-node__inter-node-total-cpu.csv", Transfer, TwoHosts1Gbit, Cpu),
    table!("sequential__inter-node__inter-node-total-latency.csv", Transfer, TwoHosts1Gbit, Latency),
    table!("sequential__inter-node__inter-node-total-throughput.csv", Transfer, TwoHosts1Gbit, Throughput),
    table!("sequential__inter-node__inter-node-user-cpu.csv", Transfer, TwoHosts1Gbit, CpuUser),
    table!("sequential__intra-node__intra-node-kernel-cpu.csv", Transfer, SameHost, CpuKernel),
    table!("sequential__intra-node__intra-node-ram-mb.csv", Transfer, SameHost, Memory),
    table!("sequential__intra-node__intra-node-serialization-latency.csv", Transfer, SameHost, Serialization),
    table!("sequential__intra-node__intra-node-serialization-throughput.csv", Transfer, SameHost, SerializationThroughput),
    table!("sequential__intra-node__intra-node-throughput.csv", Transfer, SameHost, Throughput),
    table!("sequential__intra-node__intra-node-total-cpu.csv", Transfer, SameHost, Cpu),
    table!("sequential__intra-node__intra-node-total-latency.csv", Transfer, SameHost, Latency),
    table!("sequential__intra-node__intra-node-user-cpu.csv", Transfer, SameHost, CpuUser),
];

/// A file of the paper's whose rows are named by a system.
macro_rules! rows {
    ($file:literal) => {
        ($file, include_str!(concat!("../../../evaluation/paper/", $file)))
    };
}

const BREAKDOWN: (&str, &str) = rows!("sequential__intra-node__latency-breakdown.csv");
const STARTS: [(&str, &str); 2] =
    [rows!("motivation__motivation-container.csv"), rows!("motivation__motivation-wasmedge.csv")];
const SHARES: [(&str, &str); 2] =
    [rows!("motivation__transfer-container.csv"), rows!("motivation__transfer-wasmedge.csv")];

/// The size of the payloads that the paper takes apart. Its file says one host; the parts add up to its latency between two.
pub(crate) const BREAKDOWN_MB: f64 = 100.0;

impl Table {
    /// The name of its first column, and of the others with what they hold.
    pub(crate) fn columns(&self) -> Result<(&'static str, Vec<(&'static str, System)>)> {
        let header = self.text.lines().next().unwrap_or_default();
        let mut names = header.split(',');
        let x = names.next().unwrap_or_default();
        let systems = names.map(|name| Ok((name, self.system(name)?))).collect::<Result<_>>();
        Ok((x, systems.with_context(|| format!("evaluation/paper/{}:1", self.file))?))
    }

    /// What its columns' names end with, such as `_s`.
    pub(crate) fn suffix(&self) -> Result<&'static str> {
        let (_, columns) = self.columns()?;
        let name = columns.first().map_or("", |(name, _)| name);
        Ok(SUFFIXES.into_iter().find(|suffix| name.ends_with(suffix)).unwrap_or(""))
    }

    fn system(&self, column: &str) -> Result<System> {
        let name = column.to_ascii_lowercase();
        let bare = SUFFIXES.into_iter().find_map(|suffix| name.strip_suffix(suffix));
        Ok(match (bare.unwrap_or(&name), self.place) {
            ("rr_user" | "roadrunner_embedded", _) => System::RoadrunnerUser,
            ("rr_kernel", _) | ("roadrunner", Place::SameHost) => System::RoadrunnerKernel,
            ("roadrunner", _) => System::RoadrunnerNetwork,
            ("runc", _) => System::NativeHttpJson,
            ("wasmedge", _) => System::WasmtimeHttpJson,
            _ => bail!("no system is called {column}"),
        })
    }
}

/// The units in the columns' names.
const SUFFIXES: [&str; 4] = ["_s", "_rps", "_frac", "_mb"];

/// A quantity of one of the paper's systems.
type Key = (Experiment, Place, Metric, System);

/// All that the paper measured. Sizes in MB, times in seconds, memory in bytes; processor time as a part of the
/// largest in its table, so good for ratios only.
pub(crate) struct Paper(BTreeMap<Key, BTreeMap<X, f64>>);

impl Paper {
    /// Reads what is part of this program.
    pub(crate) fn read() -> Result<Self> {
        let mut paper = Self(BTreeMap::new());
        for table in &TABLES {
            paper.add_table(table)?;
        }
        let parts = [Metric::Transfer, Metric::Serialization, Metric::WasmIo];
        for (runtime, cells) in cells(BREAKDOWN)? {
            let system = match runtime.as_str() {
                "RR" => System::RoadrunnerNetwork,
                "RC" => System::NativeHttpJson,
                _ => System::WasmtimeHttpJson,
            };
            let x = X::Number(BREAKDOWN_MB);
            for (metric, value) in parts.into_iter().zip(cells) {
                let key = (Experiment::Breakdown, Place::SameHost, metric, system);
                paper.add(key, x.clone(), value);
            }
        }
        let runtimes = [System::NativeHttpJson, System::WasmtimeHttpJson];
        for (file, system) in SHARES.into_iter().zip(runtimes) {
            for (size, cells) in cells(file)? {
                let x = X::parse(size.trim_end_matches("MB"));
                // The runtime's name comes first.
                let parts = [Metric::Transfer, Metric::Serialization].into_iter();
                for (metric, value) in parts.zip(cells.into_iter().skip(1)) {
                    let key = (Experiment::MotivationTransfer, Place::SameHost, metric, system);
                    paper.add(key, x.clone(), value);
                }
            }
        }
        let runtimes = [System::Runc, System::ProcessPerFunction];
        for (file, system) in STARTS.into_iter().zip(runtimes) {
            for (app, cells) in cells(file)? {
                // Pulling and unpacking the image come before.
                let run = cells.get(3).copied().flatten();
                let key = (Experiment::MotivationStart, Place::SameHost, Metric::Latency, system);
                paper.add(key, X::parse(&app), run);
            }
        }
        Ok(paper)
    }

    fn add(&mut self, key: Key, x: X, value: Option<f64>) {
        if let Some(value) = value {
            self.0.entry(key).or_default().insert(x, value);
        }
    }

    fn add_table(&mut self, table: &Table) -> Result<()> {
        let (_, columns) = table.columns()?;
        for (x, cells) in cells((table.file, table.text))? {
            for ((_, system), value) in columns.iter().zip(cells) {
                let in_bytes = if table.metric == Metric::Memory { 1e6 } else { 1.0 };
                let key = (table.experiment, table.place, table.metric, *system);
                self.add(key, X::parse(&x), value.map(|value| value * in_bytes));
            }
        }
        Ok(())
    }

    /// One value, if the paper has it.
    pub(crate) fn get(&self, key: Key, x: &X) -> Option<f64> {
        self.0.get(&key)?.get(x).copied()
    }

    /// A line.
    pub(crate) fn over_x(&self, key: Key) -> impl Iterator<Item = (&X, f64)> {
        self.0.get(&key).into_iter().flatten().map(|(x, value)| (x, *value))
    }
}

/// The first cell of each row, and the others as numbers where they are some.
fn cells((file, text): (&str, &str)) -> Result<Vec<(String, Vec<Option<f64>>)>> {
    let path = Path::new("evaluation/paper").join(file);
    let rows = crate::files::rows::<Vec<String>>(&path, text)?;
    let split = |(line, row): (u64, Vec<String>)| {
        let mut cells = row.into_iter();
        let Some(first) = cells.next() else { bail!("{}:{line}: no cells", path.display()) };
        Ok((first, cells.map(|cell| cell.parse().ok()).collect()))
    };
    rows.into_iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_figures_are_where_they_belong() {
        let paper = Paper::read().expect("the paper's tables are right");
        let at = |experiment, place, metric, system, x| {
            paper.get((experiment, place, metric, system), &X::parse(x))
        };
        use {Experiment as E, Metric as M, Place as P, System as S};
        assert_eq!(
            at(E::Transfer, P::SameHost, M::Latency, S::RoadrunnerUser, "100"),
            Some(0.229_661_058)
        );
        assert_eq!(
            at(E::Transfer, P::TwoHosts1Gbit, M::Latency, S::RoadrunnerNetwork, "500"),
            Some(5.403_399_843)
        );
        assert_eq!(
            at(E::Fanout, P::SameHost, M::Latency, S::RoadrunnerKernel, "100"),
            Some(0.054_010_653_3)
        );
        assert_eq!(
            at(E::Fanout, P::SameHost, M::Memory, S::RoadrunnerUser, "100"),
            Some(195_872_611.0)
        );
        assert_eq!(at(E::Fanout, P::SameHost, M::Latency, S::RoadrunnerUser, "80"), None);
        assert_eq!(
            at(E::Breakdown, P::SameHost, M::WasmIo, S::WasmtimeHttpJson, "100"),
            Some(0.229_661_058)
        );
        assert_eq!(
            at(E::MotivationTransfer, P::SameHost, M::Serialization, S::NativeHttpJson, "60"),
            Some(0.073_222_246)
        );
        assert_eq!(
            at(E::MotivationStart, P::SameHost, M::Latency, S::ProcessPerFunction, "resize"),
            Some(4.651)
        );
    }
}
