//! The test suite: its steps in order, one heading and one time each, a table at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::containerd;
use crate::deploy;
use crate::e2e;
use crate::shell::Workspace;
use crate::steps;

/// How a step that did not fail ended.
pub(crate) enum Outcome {
    /// It ran and found nothing wrong.
    Passed,
    /// It could not run here, for this reason.
    Skipped(String),
}

/// One step of the suite.
pub(crate) struct Step {
    name: &'static str,
    heading: &'static str,
    run: fn(&Workspace) -> Result<Outcome>,
}

const fn step(
    name: &'static str,
    heading: &'static str,
    run: fn(&Workspace) -> Result<Outcome>,
) -> Step {
    Step { name, heading, run }
}

/// The suite, cheapest verdicts first; `guests` builds modules that `tests` loads.
pub(crate) const STEPS: [Step; 16] = [
    step("setup", "install what the suite needs", steps::set_up),
    step("fmt", "the code is formatted", steps::fmt),
    step("clippy", "no compiler or linter warning", steps::clippy),
    step("deny", "licences, sources and advisories of the dependencies", steps::deny),
    step("guests", "the committed guest modules come from their sources", steps::guests),
    step("tests", "unit and integration tests", steps::tests),
    step("evaluation", "the report and the README's numbers come from the runs", steps::evaluation),
    step("network", "two nodes on a link of 1 Gbit/s", e2e::network),
    step("containerd", "containers in a private containerd", containerd::run),
    step("deploy", "objects for Kubernetes, and the installer", deploy::check),
    step("doctests", "the examples in the documentation run", steps::doc_tests),
    step("docs", "the documentation builds without a warning", steps::docs),
    step("miri", "no undefined behaviour in the pure code", steps::miri),
    step("loom", "the buffer pool under every interleaving", steps::loom),
    step("fuzz", "every parser survives a short fuzzing run", steps::fuzz),
    step("aarch64", "the code compiles for 64-bit ARM", steps::aarch64),
];

/// The names that `--only` takes.
pub(crate) fn step_names() -> PossibleValuesParser {
    PossibleValuesParser::new(STEPS.iter().map(|step| step.name))
}

/// Runs the suite, or the named steps of it, up to the first failure.
pub(crate) fn run(workspace: &Workspace, only: &[String]) -> Result<()> {
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let steps: Vec<&Step> = STEPS.iter().filter(chosen).collect();
    let mut summary = Summary::new(steps.len());
    for (index, step) in steps.iter().enumerate() {
        println!("\n=== {}/{} {}: {} ===", index + 1, steps.len(), step.name, step.heading);
        let start = Instant::now();
        let result = (step.run)(workspace);
        let failed = result.is_err();
        summary.add(step.name, result, start.elapsed());
        if failed {
            break;
        }
    }
    summary.finish()
}

/// What became of the steps so far.
struct Summary {
    steps: usize,
    rows: Vec<String>,
    passed: usize,
    skipped: usize,
    failure: Option<String>,
    took: Duration,
}

impl Summary {
    fn new(steps: usize) -> Self {
        let rows = Vec::with_capacity(steps);
        Self { steps, rows, passed: 0, skipped: 0, failure: None, took: Duration::ZERO }
    }

    fn add(&mut self, name: &str, result: Result<Outcome>, took: Duration) {
        let verdict = match result {
            Ok(Outcome::Passed) => {
                self.passed += 1;
                "passed".to_owned()
            }
            Ok(Outcome::Skipped(reason)) => {
                self.skipped += 1;
                println!("skipped: {reason}");
                format!("skipped: {reason}")
            }
            Err(error) => {
                self.failure = Some(format!(
                    "step `{name}` failed: {error:#}; repeat it alone with `cargo xtask test --only {name}`"
                ));
                "FAILED".to_owned()
            }
        };
        self.took += took;
        self.rows.push(format!("{name:<10} {:>7.1} s  {verdict}", took.as_secs_f64()));
    }

    /// Prints the table and a closing line of counts.
    fn finish(self) -> Result<()> {
        println!("\n=== summary ===");
        for row in &self.rows {
            println!("{row}");
        }
        println!("{:<10} {:>7.1} s", "total", self.took.as_secs_f64());
        if self.rows.len() < self.steps {
            println!("{} later steps did not run", self.steps - self.rows.len());
        }
        let failed = usize::from(self.failure.is_some());
        println!("steps: {} passed, {failed} failed, {} skipped", self.passed, self.skipped);
        match self.failure {
            Some(sentence) => bail!(sentence),
            None => Ok(()),
        }
    }
}
