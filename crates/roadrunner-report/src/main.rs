//! Makes the evaluation's report from what was measured.
//!
//! ```text
//! runs.rs, context.rs, files.rs   what was measured, where, what was skipped and why   (names.rs, spread.rs)
//! paper.rs                        what the paper measured
//! compare.rs, targets.rs          ours beside each peer and each target; what is worse (profile.rs)
//! headline.rs, figures.rs         what is shown first, and drawn (plot.rs)
//! report.rs                       all of it, worked out once
//! page.rs, readme.rs, export.rs   ways to write it down (units.rs)
//! output.rs                       the files, written or checked
//! ```
//!
//! The same runs give the same bytes, so that a check can compare.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what was written or found is this program's result")]

mod compare;
mod context;
mod export;
mod figures;
mod files;
mod headline;
mod names;
mod output;
mod page;
mod paper;
mod plot;
mod profile;
mod readme;
mod report;
mod runs;
mod spread;
mod targets;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use output::Files;
use report::Report;

/// Make the evaluation's report: a page, figures and tables beside the runs, and the README's numbers.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  roadrunner-report evaluation/results --readme README.md\n  \
        roadrunner-report evaluation/results --readme README.md --check"
)]
struct Args {
    /// The folder with runs.csv, machine.json and skipped.csv; the report goes there. Reasons are read from notes.toml
    /// in the folder that it lies in.
    #[arg(value_name = "DIR")]
    results: PathBuf,
    /// Put the numbers into this file too, between its comments `evaluation:begin` and `evaluation:end`.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// Change nothing; fail if the report or the numbers are not what the runs give.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let report = Report::read(&args.results)?;
    let shown = args.results.display();
    if report.is_none() && !args.check {
        bail!("there is no runs.csv in {shown}; `cargo xtask evaluate` measures and writes it");
    }
    let files = Files::of(report.as_ref(), &args.results)?;
    let readme = match &args.readme {
        Some(readme) => Some((readme, of_readme(readme, report.as_ref(), &args.results)?)),
        None => None,
    };
    if args.check {
        let repeat = || "write them anew: the same command without --check";
        files.check(&args.results).with_context(repeat)?;
        if let Some((path, (old, new))) = readme
            && old != new
        {
            let differs = "its numbers are not what the runs give";
            return Err(anyhow::anyhow!("{}: {differs}", path.display())).with_context(repeat);
        }
    } else {
        files.write(&args.results)?;
        if let Some((path, (old, new))) = readme
            && old != new
        {
            output::replace(path, &new)?;
        }
    }
    match report {
        None => {
            println!("no results in {shown}, and no report or numbers of any: nothing to check");
        }
        Some(_) if args.check => println!("the report in {shown} is what its runs give"),
        Some(report) => summarize(&report, &args.results),
    }
    Ok(())
}

/// The README as it is, and as it should be.
fn of_readme(path: &Path, report: Option<&Report>, results: &Path) -> Result<(String, String)> {
    let there = files::read(path)?;
    let old = there.with_context(|| format!("there is no {}", path.display()))?;
    let numbers = report.map(|report| readme::numbers(report, &page_from(path, results)));
    let new = readme::updated(&old, numbers.as_deref());
    let new = new.with_context(|| format!("{}", path.display()))?;
    Ok((old, new))
}

/// Where a reader of the README finds the page.
fn page_from(readme: &Path, results: &Path) -> String {
    let folder = readme.canonicalize().ok().and_then(|readme| Some(readme.parent()?.to_owned()));
    let below = folder.zip(results.canonicalize().ok());
    let below =
        below.and_then(|(folder, results)| Some(results.strip_prefix(folder).ok()?.to_owned()));
    below.unwrap_or_else(|| results.to_owned()).join("index.html").display().to_string()
}

fn summarize(report: &Report, results: &Path) {
    let unexplained = report.worse.iter().filter(|worse| worse.reason.is_none()).count();
    println!("{}", results.join("index.html").display());
    println!(
        "{} runs; targets: {}; {} results worse than they should be, {unexplained} of them unexplained",
        report.count.0,
        targets::tally(&report.targets),
        report.worse.len(),
    );
}
