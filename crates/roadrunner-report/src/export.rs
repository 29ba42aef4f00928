//! Our medians in the paper's tables: the same files with the same columns, those for other systems after them.
//!
//! The paper's `runc` is the native container over HTTP with JSON here, its `wasmedge` the Wasm function over HTTP with
//! JSON, which runs on Wasmtime. Processor time is, as in the paper, a part of the largest in its file.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::names::{Experiment, Metric, Place, System, X};
use crate::paper::{TABLES, Table};
use crate::runs::Runs;

/// Our tables by their files' names; those without a single run are left out.
pub(crate) fn tables(runs: &Runs) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for table in &TABLES {
        if let Some(text) = over_x(runs, table)? {
            files.insert(table.file.to_owned(), text);
        }
    }
    let by_rows = [
        ("sequential__intra-node__latency-breakdown.csv", breakdown(runs)?),
        ("motivation__motivation.csv", starts(runs)?),
        ("motivation__transfer.csv", shares(runs)?),
    ];
    let measured = by_rows.into_iter().filter_map(|(file, text)| Some((file.to_owned(), text?)));
    files.extend(measured);
    Ok(files)
}

/// The names of all that [`tables`] can give.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let by_rows = [
        "sequential__intra-node__latency-breakdown.csv",
        "motivation__motivation.csv",
        "motivation__transfer.csv",
    ];
    TABLES.iter().map(|table| table.file).chain(by_rows)
}

fn over_x(runs: &Runs, table: &Table) -> Result<Option<String>> {
    let (x_name, theirs) = table.columns()?;
    let suffix = table.suffix()?;
    let mut columns: Vec<(String, System)> =
        theirs.iter().map(|(name, system)| ((*name).to_owned(), *system)).collect();
    for system in runs.systems(table.experiment, table.place) {
        if theirs.iter().all(|(_, known)| *known != system) {
            columns.push((format!("{}{suffix}", system.column()), system));
        }
    }
    let value = |system, x: &X| {
        let series = (table.experiment, table.place, system);
        runs.get(series, x, table.metric).map(|spread| spread.median)
    };
    let xs = runs.xs(table.experiment, table.place);
    let all = xs.iter().flat_map(|x| columns.iter().filter_map(|(_, system)| value(*system, x)));
    let Some(largest) = all.reduce(f64::max) else { return Ok(None) };
    let unit = match table.metric {
        Metric::Memory => 1e6,
        Metric::Cpu | Metric::CpuUser | Metric::CpuKernel if largest > 0.0 => largest,
        _ => 1.0,
    };
    let mut rows = vec![vec![x_name.to_owned()]];
    rows[0].extend(columns.iter().map(|(name, _)| name.clone()));
    for x in &xs {
        let cells = columns.iter().map(|(_, system)| cell(value(*system, x).map(|v| v / unit)));
        rows.push(std::iter::once(x.to_string()).chain(cells).collect());
    }
    written(&rows).map(Some)
}

/// The latency break-down at the paper's size. Roadrunner's row is its network's, as the paper's is.
fn breakdown(runs: &Runs) -> Result<Option<String>> {
    let x = X::Number(crate::paper::BREAKDOWN_MB);
    let mut rows = Vec::new();
    for system in runs.systems(Experiment::Breakdown, Place::SameHost) {
        let series = (Experiment::Breakdown, Place::SameHost, system);
        let runtime = match system {
            System::RoadrunnerNetwork => "RR",
            System::NativeHttpJson => "RC",
            System::WasmtimeHttpJson => "W",
            other => other.column(),
        };
        let mut row = vec![runtime.to_owned()];
        for metric in [Metric::Transfer, Metric::Serialization, Metric::WasmIo] {
            row.push(cell(runs.get(series, &x, metric).map(|spread| spread.median)));
        }
        rows.push(row);
    }
    with_header(&["runtime", "transfer_s", "serialization_s", "wasm_vm_io_s"], rows)
}

/// Starting and running. Nothing is pulled or unpacked here, so those columns of the paper's are empty.
fn starts(runs: &Runs) -> Result<Option<String>> {
    let mut rows = Vec::new();
    for (place, system, x) in measured(runs, Experiment::MotivationStart) {
        let series = (Experiment::MotivationStart, place, system);
        let run = runs.get(series, &x, Metric::Latency).map(|spread| spread.median);
        let empty = String::new;
        rows.push(vec![
            x.to_string(),
            system.column().to_owned(),
            empty(),
            empty(),
            cell(run),
            empty(),
        ]);
    }
    with_header(&["app", "runtime", "pull_ms", "unpack_ms", "run_s", "cold_start_s"], rows)
}

fn shares(runs: &Runs) -> Result<Option<String>> {
    let mut rows = Vec::new();
    for (place, system, x) in measured(runs, Experiment::MotivationTransfer) {
        let series = (Experiment::MotivationTransfer, place, system);
        let median = |metric| runs.get(series, &x, metric).map(|spread| spread.median);
        let (transfer, serialization) = (median(Metric::Transfer), median(Metric::Serialization));
        let share = |part: Option<f64>| Some(100.0 * part? / (transfer? + serialization?));
        let cells = [transfer, serialization, share(transfer), share(serialization)].map(cell);
        let names = [format!("{x}MB"), system.column().to_owned()];
        rows.push(names.into_iter().chain(cells).collect());
    }
    let header =
        ["size", "runtime", "transfer_s", "serialization_s", "transfer_pct", "serialization_pct"];
    with_header(&header, rows)
}

/// Every place, system and `x` of an experiment that a row names.
fn measured(runs: &Runs, experiment: Experiment) -> Vec<(Place, System, X)> {
    let mut all = Vec::new();
    for place in Place::ALL {
        for system in runs.systems(experiment, place) {
            let points = runs.over_x((experiment, place, system), Metric::Latency);
            all.extend(points.into_iter().map(|(x, _)| (place, system, x)));
        }
    }
    all
}

/// Nine digits, as in the paper's files; nothing where nothing was measured.
fn cell(value: Option<f64>) -> String {
    let rounded = |value: f64| format!("{value:.8e}").parse::<f64>().unwrap_or(value);
    value.map(|value| rounded(value).to_string()).unwrap_or_default()
}

fn with_header(header: &[&str], rows: Vec<Vec<String>>) -> Result<Option<String>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let header = header.iter().map(|&name| name.to_owned()).collect();
    written(&std::iter::once(header).chain(rows).collect::<Vec<_>>()).map(Some)
}

fn written(rows: &[Vec<String>]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    let text = writer.into_inner().context("a table in memory can't be flushed")?;
    String::from_utf8(text).context("a table is not UTF-8")
}
