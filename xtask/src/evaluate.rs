//! `cargo xtask evaluate`: the papers' experiments against real peers. What the experiments are and how they are
//! measured is `roadrunner-evaluation`'s; this installs the peers, builds, and starts it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::shell::Workspace;
use crate::tools::{self, CONTAINERD, Install, LINK, Probe, Tool};

/// The experiments, by the names that `roadrunner-evaluation` gives them: a name that is none should not cost a build.
const EXPERIMENTS: [&str; 8] = [
    "motivation-start",
    "motivation-transfer",
    "transfer",
    "fanout",
    "breakdown",
    "coldstart",
    "compute",
    "footprint",
];

/// Optimized as a release is, but for what makes a release of Wasmtime take a quarter of an hour on two cores.
const PROFILE: &str = "evaluation";

/// What is built: the harness with the native peers, those with a sandbox, Roadrunner, and what makes a report.
const PROGRAMS: [&str; 4] =
    ["roadrunner-evaluation", "roadrunner-sides", "roadrunner-cli", "roadrunner-report"];

/// Functions of the guests' workspace that also run natively.
const NATIVE_GUESTS: [&str; 4] = ["hello", "shrink", "nop", "cat"];

/// What the peers need beside what the suite has. What can't be installed is missing in the results, with the reason.
const PEERS: [Tool; 6] = [
    CONTAINERD,
    // Debian's redis-server is a link to this program, and a service that would be started.
    Tool {
        name: "redis-server",
        probe: Probe::Runs(&["redis-server", "--version"]),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends redis-tools && \
            mkdir -p target/tools/bin && ln -sf /usr/bin/redis-check-rdb target/tools/bin/redis-server",
        ]),
        required: false,
    },
    Tool {
        name: "gcc",
        probe: Probe::Runs(&["gcc", "--version"]),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends gcc libc6-dev",
        ]),
        required: false,
    },
    Tool {
        name: "clang, with a C library for WebAssembly",
        probe: Probe::Runs(&[
            "sh",
            "-c",
            "clang-19 --version && wasm-ld-19 --version && ls /usr/lib/wasm32-wasi/libc.a",
        ]),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends clang-19 lld-19 wasi-libc \
            libclang-rt-19-dev-wasm32",
        ]),
        required: false,
    },
    Tool {
        name: "node",
        probe: Probe::Runs(&["node", "--version"]),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends nodejs",
        ]),
        required: false,
    },
    LINK,
];

/// Where the project's own results are.
const RESULTS: &str = "evaluation/results";

#[derive(Args)]
pub(crate) struct Evaluate {
    /// Some of the sizes, in under 20 minutes on 2 cores; this is what runs unless told otherwise.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The papers' sizes, in hours.
    #[arg(long)]
    full: bool,
    /// Run this experiment alone.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(EXPERIMENTS))]
    only: Option<String>,
    /// Where results go; runs that are there already stay and are not made again.
    #[arg(long, value_name = "DIR", default_value = RESULTS)]
    results: PathBuf,
    /// The profile of cargo to build with; `dev` is what the tests leave, and makes no figures to show.
    #[arg(long, value_name = "NAME", default_value = PROFILE, hide = true)]
    profile: String,
}

pub(crate) fn run(workspace: &Workspace, options: &Evaluate) -> Result<()> {
    tools::provide(workspace, &PEERS)?;
    let build = ["build", "--locked", "--profile", &options.profile];
    // The development profile is shared with the tests, and so is its choice of features.
    let programs: Vec<&str> = if options.profile == PROFILE {
        PROGRAMS.iter().flat_map(|name| ["--package", name]).collect()
    } else {
        vec!["--workspace", "--bins", "--features", "roadrunner-cli/peers"]
    };
    workspace.cargo(&build).args(programs).run()?;
    let native = workspace.target.join("guest-build/host");
    let guests = ["build", "--release", "--locked"];
    let guests = workspace.cargo(&guests).dir(&workspace.root.join("guests"));
    let names = NATIVE_GUESTS.iter().flat_map(|name| ["--package", name]);
    guests.args(names).env("CARGO_TARGET_DIR", native).run()?;

    let folder = if options.profile == "dev" { "debug" } else { &options.profile };
    let harness = workspace.target.join(folder).join("roadrunner-evaluation");
    let results = workspace.root.join(&options.results);
    let harness = workspace.command(harness).args(["run", "--mode"]);
    let harness = harness.args([if options.full { "full" } else { "quick" }]);
    let only = options.only.iter().flat_map(|name| ["--only", name]);
    let harness = harness.args(only).args(["--profile", &options.profile]);
    let harness = harness.args([
        "--results".into(),
        results.clone(),
        "--work".into(),
        workspace.target.clone(),
    ]);
    let harness = harness.args(["--repository".into(), workspace.root.clone()]);
    let harness = harness.args(["--target".into(), workspace.target.clone()]);
    harness.run().context(
        "the evaluation is not complete; start it again to go on after the rows that are there",
    )?;
    let report = workspace.command(workspace.target.join(folder).join("roadrunner-report"));
    let report = report.args([&results]);
    // Only the results that belong to the project are the README's.
    let is_own = results == workspace.root.join(RESULTS);
    let report = if is_own { report.args(["--readme", "README.md"]) } else { report };
    report.run()?;
    println!("the report is {}", results.join("index.html").display());
    Ok(())
}
