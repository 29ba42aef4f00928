//! Which figures there are: the paper's with its lines and ours, and those for what the paper does not have.

use anyhow::Result;

use crate::names::{Experiment, Metric, Place, System, X};
use crate::paper::{Paper, TABLES, Table};
use crate::plot::{self, Axes, Bar, Line, LineKind, Tone};
use crate::runs::Runs;
use crate::units;

/// A figure of the report.
pub(crate) struct Figure {
    /// The name of its file without `.svg`.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) svg: String,
    /// The file with our medians, if it has one.
    pub(crate) table: Option<&'static str>,
    /// Whether it is shown at once, or on request.
    pub(crate) first: bool,
}

/// The quantities that the first figures show, in order.
const FIRST: [(Experiment, Place, Metric); 4] = [
    (Experiment::Transfer, Place::SameHost, Metric::Latency),
    (Experiment::Transfer, Place::TwoHosts1Gbit, Metric::Latency),
    (Experiment::Fanout, Place::SameHost, Metric::Latency),
    (Experiment::Fanout, Place::SameHost, Metric::Memory),
];

/// All figures that have something of ours to show; the first ones first.
pub(crate) fn all(runs: &Runs, paper: &Paper) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut tables: Vec<_> = TABLES.iter().collect();
    tables.sort_by_key(|table| (table.experiment, table.place, table.metric));
    for table in tables {
        figures.extend(of_table(runs, paper, table)?);
    }
    let rank = |figure: &Figure| FIRST.iter().position(|first| figure.id == id(*first));
    figures.sort_by_key(|figure| rank(figure).unwrap_or(FIRST.len()));
    for place in Place::ALL {
        figures.extend(all_ways(runs, Experiment::Transfer, place)?);
        figures.extend(all_ways(runs, Experiment::Fanout, place)?);
    }
    for place in Place::ALL {
        figures.extend(parts(runs, paper, Experiment::Breakdown, place)?);
        figures.extend(parts(runs, paper, Experiment::MotivationTransfer, place)?);
    }
    for experiment in [Experiment::MotivationStart, Experiment::ColdStart, Experiment::Compute] {
        figures.extend(times(runs, paper, experiment)?);
    }
    Ok(figures)
}

/// The name of a figure's file.
fn id((experiment, place, metric): (Experiment, Place, Metric)) -> String {
    let words = format!("{experiment:?} {place:?} {metric:?}");
    let mut id = String::new();
    let mut before = ' ';
    for letter in words.chars() {
        let begins =
            letter.is_ascii_uppercase() || (letter.is_ascii_digit() && !before.is_ascii_digit());
        if letter == ' ' || (begins && before != ' ') {
            id.push('-');
        }
        if letter != ' ' {
            id.push(letter.to_ascii_lowercase());
        }
        before = letter;
    }
    id
}

/// What an axis says, and how its numbers read.
fn axis(metric: Metric) -> (&'static str, fn(f64) -> String) {
    match metric {
        Metric::Latency
        | Metric::Serialization
        | Metric::Transfer
        | Metric::WasmIo
        | Metric::Whole
        | Metric::HandOver
        | Metric::Consumer => ("", |value| units::tick(&units::seconds(value))),
        Metric::PageFaults => ("", |value| units::tick(&units::plain(value))),
        Metric::Throughput | Metric::SerializationThroughput => {
            ("per second", |value| units::tick(&units::plain(value)))
        }
        Metric::Cpu | Metric::CpuUser | Metric::CpuKernel => {
            ("part of the largest", |value| units::tick(&units::plain(value)))
        }
        Metric::Memory => ("", |value| units::tick(&units::bytes(value))),
    }
}

/// One of the paper's figures, if any of our lines can be in it.
fn of_table(runs: &Runs, paper: &Paper, table: &Table) -> Result<Option<Figure>> {
    let (experiment, place, metric) = (table.experiment, table.place, table.metric);
    let (_, columns) = table.columns()?;
    let mut systems: Vec<System> = columns.into_iter().map(|(_, system)| system).collect();
    // The paper's table of throughputs on one host has no column for user space.
    let others = runs.systems(experiment, place).into_iter().filter(|system| system.is_ours());
    systems.extend(others);
    systems.sort_unstable();
    systems.dedup();
    let mut lines = Vec::new();
    for system in &systems {
        lines.extend(line(runs, (experiment, place, *system), metric));
    }
    if lines.is_empty() {
        return Ok(None);
    }
    relative(metric, &mut lines);
    for system in systems {
        let key = (experiment, place, metric, system);
        let points: Vec<_> =
            paper.over_x(key).filter_map(|(x, value)| Some((x.number()?, value))).collect();
        if !points.is_empty() {
            let label = format!("paper: {}", system.way());
            lines.push(Line { label, tone: Tone::of(system), kind: LineKind::Paper, points });
        }
    }
    let title = format!("{}, {place}: {metric}", sentence(experiment));
    let figure = curves((experiment, place, metric), title, lines, Some(table.file))?;
    Ok(Some(figure))
}

/// Processor time is shown as the paper gives it: as a part of the largest.
fn relative(metric: Metric, lines: &mut [Line]) {
    if !matches!(metric, Metric::Cpu | Metric::CpuUser | Metric::CpuKernel) {
        return;
    }
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let most = values.fold(0.0, f64::max);
    if most > 0.0 {
        let points = lines.iter_mut().flat_map(|line| &mut line.points);
        points.for_each(|(_, value)| *value /= most);
    }
}

fn line(runs: &Runs, series: (Experiment, Place, System), metric: Metric) -> Option<Line> {
    let system = series.2;
    let medians = runs.over_x(series, metric).into_iter();
    let points: Vec<_> =
        medians.filter_map(|(x, spread)| Some((x.number()?, spread.median))).collect();
    let kind = if system.is_ours() { LineKind::Ours } else { LineKind::Peer };
    // A logarithmic axis has no place for it.
    let nothing = points.iter().all(|(_, value)| *value <= 0.0);
    let label = if nothing { format!("{system}: zero") } else { system.to_string() };
    (!points.is_empty()).then_some(Line { label, tone: Tone::of(system), kind, points })
}

fn curves(
    shown: (Experiment, Place, Metric),
    title: String,
    lines: Vec<Line>,
    table: Option<&'static str>,
) -> Result<Figure> {
    let (experiment, _, metric) = shown;
    let fanout = experiment == Experiment::Fanout;
    let (y, tick) = axis(metric);
    let x = if fanout { "functions that get 10 MB each" } else { "payload, MB" };
    let axes = Axes { x, x_log: !fanout, y, tick };
    let ends = lines.iter().filter_map(|line| {
        let (x, value) = line.points.last()?;
        Some(format!("{}: {} at {x}", line.label, tick(*value)))
    });
    let alt = format!("{title}. {}", ends.collect::<Vec<_>>().join("; "));
    let svg = plot::lines(&alt, &axes, &lines)?;
    let first = FIRST.contains(&shown);
    Ok(Figure { id: id(shown), title, svg, table, first })
}

/// Every system that passed payloads at one place, without the paper's lines.
fn all_ways(runs: &Runs, experiment: Experiment, place: Place) -> Result<Option<Figure>> {
    let systems = runs.systems(experiment, place);
    let series = |system| (experiment, place, system);
    let lines: Vec<_> = systems
        .into_iter()
        .filter_map(|system| line(runs, series(system), Metric::Latency))
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let title = format!("{}, {place}: latency beside every peer", sentence(experiment));
    let shown = (experiment, place, Metric::Latency);
    let figure = curves(shown, title, lines, None)?;
    Ok(Some(Figure { id: format!("{}-all", figure.id), first: false, ..figure }))
}

/// A latency's parts as bars: ours, the peers, and the paper's.
fn parts(
    runs: &Runs,
    paper: &Paper,
    experiment: Experiment,
    place: Place,
) -> Result<Option<Figure>> {
    let legend = [
        ("transfer", Tone::TRANSFER, Metric::Transfer),
        ("serialization", Tone::SERIALIZATION, Metric::Serialization),
        ("Wasm input and output", Tone::WASM_IO, Metric::WasmIo),
    ];
    let mut bars = Vec::new();
    let mut add = |name: String, x: &X, value: &dyn Fn(Metric) -> Option<f64>| {
        let parts: Vec<_> =
            legend.iter().filter_map(|(_, tone, metric)| Some((*tone, value(*metric)?))).collect();
        if !parts.is_empty() {
            let sum = parts.iter().map(|(_, value)| value).sum();
            bars.push(Bar { label: format!("{name}, {x} MB: {}", units::seconds(sum)), parts });
        }
    };
    for x in runs.xs(experiment, place) {
        for system in runs.systems(experiment, place) {
            let series = (experiment, place, system);
            let value = |metric| runs.get(series, &x, metric).map(|spread| spread.median);
            add(system.to_string(), &x, &value);
        }
        for system in System::ALL {
            let value = |metric| paper.get((experiment, place, metric, system), &x);
            add(format!("paper: {}", system.way()), &x, &value);
        }
    }
    if bars.is_empty() {
        return Ok(None);
    }
    let title = format!("{}, {place}", sentence(experiment));
    let legend = legend.map(|(label, tone, _)| (label, tone));
    let tick = |value| units::tick(&units::seconds(value));
    let svg = plot::bars(&alt(&title, &bars), tick, &bars, &legend)?;
    let id = id((experiment, place, Metric::Latency));
    Ok(Some(Figure { id, title, svg, table: None, first: false }))
}

/// Total times of workloads with names.
fn times(runs: &Runs, paper: &Paper, experiment: Experiment) -> Result<Option<Figure>> {
    let place = Place::SameHost;
    let mut bars = Vec::new();
    for x in runs.xs(experiment, place) {
        let mut add = |name: String, system, seconds: f64| {
            let label = format!("{x}, {name}: {}", units::seconds(seconds));
            bars.push(Bar { label, parts: vec![(Tone::of(system), seconds)] });
        };
        for system in runs.systems(experiment, place) {
            if let Some(spread) = runs.get((experiment, place, system), &x, Metric::Latency) {
                add(system.to_string(), system, spread.median);
            }
        }
        for system in System::ALL {
            if let Some(seconds) = paper.get((experiment, place, Metric::Latency, system), &x) {
                add(format!("paper: {}", system.way()), system, seconds);
            }
        }
    }
    if bars.is_empty() {
        return Ok(None);
    }
    let title = sentence(experiment);
    let svg =
        plot::bars(&alt(&title, &bars), |value| units::tick(&units::seconds(value)), &bars, &[])?;
    let id = id((experiment, place, Metric::Latency));
    let first = experiment != Experiment::MotivationStart;
    Ok(Some(Figure { id, title, svg, table: None, first }))
}

/// What a reader who sees no figure is told instead.
fn alt(title: &str, bars: &[Bar]) -> String {
    let labels: Vec<_> = bars.iter().map(|bar| bar.label.as_str()).collect();
    format!("{title}. {}", labels.join("; "))
}

fn sentence(experiment: Experiment) -> String {
    let words = experiment.to_string();
    let mut letters = words.chars();
    letters
        .next()
        .map_or(String::new(), |first| first.to_uppercase().to_string() + letters.as_str())
}
