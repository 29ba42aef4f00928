//! All that the report says, worked out once; the page, the README and the files are ways of writing it down.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::compare::{self, Comparison, Finding};
use crate::context::{Kind, Machine, Notes, Skipped, Subject};
use crate::figures::{self, Figure};
use crate::headline::{self, Headline};
use crate::names::{Experiment, Metric, Place, System, X};
use crate::page;
use crate::paper::Paper;
use crate::profile::{self, Point};
use crate::runs::Runs;
use crate::targets::{self, Target, Verdict};
use crate::units;

/// Names of what `cargo xtask evaluate` writes.
const RUNS: &str = "runs.csv";
const SKIPPED: &str = "skipped.csv";
const MACHINE: &str = "machine.json";
/// Beside the folder of results: reasons outlive a measurement.
const NOTES: &str = "notes.toml";

/// The report's content.
pub(crate) struct Report {
    pub(crate) runs: Runs,
    pub(crate) machine: Machine,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) headlines: Vec<Headline>,
    pub(crate) targets: Vec<Target>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) footprint: Vec<(System, X, f64)>,
    pub(crate) worse: Vec<Worse>,
    /// How many runs, and the fewest and most of one point.
    pub(crate) count: (usize, usize, usize),
}

/// Something that is worse than it should be.
pub(crate) struct Worse {
    pub(crate) subject: Subject,
    /// What is worse, and beside what.
    pub(crate) head: String,
    /// By how much.
    pub(crate) detail: String,
    pub(crate) reason: Option<String>,
    /// Where the time goes, a line for each system.
    pub(crate) profile: Vec<String>,
}

impl Worse {
    pub(crate) fn kind(&self) -> Kind {
        match self.subject {
            Subject::Target(_) => Kind::Target,
            Subject::Comparison { kind, .. } => kind,
        }
    }
}

impl Report {
    /// Reads a folder of results; `None` if nothing was measured into it.
    pub(crate) fn read(results: &Path) -> Result<Option<Self>> {
        let Some(runs) = Runs::read(&results.join(RUNS))? else { return Ok(None) };
        let folder = results
            .canonicalize()
            .with_context(|| format!("could not find {}", results.display()))?;
        let beside = folder.parent().unwrap_or(&folder);
        let notes = Notes::read(&beside.join(NOTES))?;
        let machine = Machine::read(&results.join(MACHINE))?;
        let skipped = Skipped::read(&results.join(SKIPPED))?;
        Self::of(runs, machine, skipped, &notes).map(Some)
    }

    pub(crate) fn of(
        runs: Runs,
        machine: Machine,
        skipped: Vec<Skipped>,
        notes: &Notes,
    ) -> Result<Self> {
        let paper = Paper::read()?;
        let comparisons = compare::all(&runs, &paper);
        let findings = compare::findings(&comparisons);
        let targets = targets::all(&runs, &paper, &comparisons, &findings);
        Ok(Self {
            headlines: headline::all(&runs, &paper),
            figures: figures::all(&runs, &paper)?,
            footprint: footprint(&runs),
            worse: worse(&runs, &targets, &findings, notes),
            count: runs.count(),
            targets,
            machine,
            skipped,
            runs,
        })
    }

    /// The result in a few words: the fastest way of ours beside the paper's peer for Wasm, in the first table.
    pub(crate) fn lead(&self) -> Option<String> {
        let first = self.headlines.first()?;
        let latency = |(_, spread): &&(System, crate::spread::Spread)| spread.median;
        let by_latency = |one: &_, other: &_| latency(one).total_cmp(&latency(other));
        let index = (0..first.ours.len())
            .min_by(|one, other| by_latency(&&first.ours[*one], &&first.ours[*other]))?;
        let (ours, spread) = first.ours[index];
        let wasm = first.peers.iter().find(|peer| peer.system == System::WasmtimeHttpJson)?;
        let (gain, paper) = wasm.gains.get(index).copied().flatten()?;
        let in_paper = |gain| format!("; in the paper it was {}", units::times(gain));
        Some(format!(
            "{}: {} in Roadrunner's {}, {} with Wasm over HTTP with JSON. That is {} as long{}.",
            first.title,
            units::seconds(spread.median),
            ours.way(),
            units::seconds(wasm.latency.median),
            units::times(gain),
            paper.map_or(String::new(), in_paper),
        ))
    }

    /// Where, when and of what the runs are.
    pub(crate) fn origin(&self) -> String {
        let fact = |name| self.machine.fact(name);
        let mode = fact("mode").map(|mode| format!("cargo xtask evaluate --{mode}"));
        let cores = fact("cores").map(|cores| format!("{cores} cores"));
        let kernel = fact("kernel").map(|kernel| {
            if kernel.starts_with("Linux") { kernel.to_owned() } else { format!("Linux {kernel}") }
        });
        let commit = fact("commit").map(|commit| {
            // As short as git shows it; what is not a hash is shown as it is.
            let hash = commit.strip_suffix("-dirty").unwrap_or(commit);
            let short =
                hash.get(..10).filter(|_| hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let dirty = if hash == commit { "" } else { "-dirty" };
            format!("commit {}{dirty}", short.unwrap_or(hash))
        });
        let cpu = fact("cpu").map(str::to_owned);
        let date = fact("date").map(str::to_owned);
        let parts: Vec<_> =
            [mode, cpu, cores, kernel, date, commit].into_iter().flatten().collect();
        if parts.is_empty() {
            return "Nothing is known of the machine: machine.json is not there.".to_owned();
        }
        format!("{}.", parts.join(", "))
    }
}

fn footprint(runs: &Runs) -> Vec<(System, X, f64)> {
    let (experiment, place) = (Experiment::Footprint, Place::SameHost);
    let of_system = |system| {
        let medians = runs.over_x((experiment, place, system), Metric::Memory);
        medians.into_iter().map(move |(x, spread)| (system, x, spread.median))
    };
    runs.systems(experiment, place).into_iter().flat_map(of_system).collect()
}

/// Everything that is worse, with its reason.
fn worse(runs: &Runs, targets: &[Target], findings: &[Finding], notes: &Notes) -> Vec<Worse> {
    let with_reason = |subject: Subject, (head, detail): (String, String), about: &[Point]| {
        let reason = notes.reason(&subject).map(str::to_owned);
        let profile = about.iter().filter_map(|point| profile::of(runs, point)).collect();
        Worse { subject, head, detail, reason, profile }
    };
    let found = findings.iter().filter_map(|finding| {
        Some(with_reason(finding.subject.clone(), told(finding)?, &about(finding)))
    });
    let found: Vec<_> = found.collect();
    let below = |worse: &&Worse| worse.kind() == Kind::BelowPaper;
    let all_explained = found.iter().filter(below).all(|worse| worse.reason.is_some());
    let missed = targets.iter().filter(|target| target.verdict == Verdict::Missed);
    let missed = missed.map(|target| {
        let Target { id, what, wanted, measured, about, .. } = target;
        let detail = format!("Measured: {measured}; target: {wanted} ({id}).");
        let mut worse = with_reason(Subject::Target(id), (format!("{what}."), detail), about);
        // It is the sum of what follows.
        if *id == targets::PAPER_RATIOS && worse.reason.is_none() && all_explained {
            worse.reason = Some("Each of them is explained below.".to_owned());
        }
        worse
    });
    missed.chain(found).collect()
}

/// Both systems of a finding, where it is worst.
fn about(finding: &Finding) -> Vec<Point> {
    let worst = finding.cases.first();
    let point = |case: &Comparison, system| ((case.experiment, case.place, system), case.x.clone());
    worst.map_or(Vec::new(), |case| [case.ours, case.peer].map(|it| point(case, it)).into())
}

/// A finding in one or two sentences.
fn told(finding: &Finding) -> Option<(String, String)> {
    let worst = finding.cases.first()?;
    let Comparison { experiment, place, ours, peer, metric, .. } = worst;
    let mut xs: Vec<_> = finding.cases.iter().map(|case| case.x.clone()).collect();
    xs.sort_unstable();
    let unit = match experiment {
        Experiment::Fanout => " functions",
        Experiment::MotivationStart | Experiment::ColdStart | Experiment::Compute => "",
        _ => " MB",
    };
    let xs: Vec<_> = xs.iter().map(ToString::to_string).collect();
    let (our, their) =
        (page::value(*metric, worst.our.median), page::value(*metric, worst.their.median));
    let ratio = match (&finding.subject, worst.paper_gain()) {
        (Subject::Comparison { kind: Kind::BelowPaper, .. }, Some(paper)) => {
            let (ours, paper) = (units::times(worst.gain()), units::times(paper));
            format!("the peer takes {ours} as much, and in the paper {paper}")
        }
        _ => format!("{} as much", units::times(worst.part())),
    };
    let chance = " The middle halves of the runs meet, so it may be chance.";
    let chance = if finding.within_spread { chance } else { "" };
    let detail = format!(
        "{metric} of {experiment} on {place}, at {}{unit}. At worst, at {}{unit}, {our} beside {their}: {ratio}.{chance}",
        xs.join(", "),
        worst.x,
    );
    Some((format!("{ours} beside {peer}:"), detail))
}
