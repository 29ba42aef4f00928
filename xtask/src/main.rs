//! What developers and CI run, as `cargo xtask COMMAND`.
//!
//! `test` is the whole suite in the order of [`test::STEPS`]; `faults` is the long form of one test in it, and `e2e` runs
//! one step alone; `guests` builds the WebAssembly modules of `guests/`;
//! `evaluate` runs the experiments. Everything here starts other programs and judges what they left behind; nothing of the product is linked in, so that
//! it builds in seconds.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "headings and verdicts are this program's results")]

mod containerd;
mod deploy;
mod e2e;
mod evaluate;
mod faults;
mod guests;
mod shell;
mod steps;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use shell::Workspace;
use test::Outcome;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
/// Builds and checks of the Roadrunner workspace.
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole test suite; it installs what it needs and says so. CI runs exactly this.
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only clippy,tests")]
    Test {
        /// Run only these steps, in the suite's order.
        #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = test::step_names())]
        only: Vec<String>,
    },
    /// Draw faults at random, and see that each ends in a result or one typed error and leaves nothing behind.
    #[command(
        after_help = "Examples:\n  cargo xtask faults\n  cargo xtask faults --count 1000 --seed 7"
    )]
    Faults {
        /// How many.
        #[arg(long, default_value_t = faults::MANY)]
        count: u64,
        /// Draw those of an earlier run again; without it they are others each time.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Build all guest modules into target/guests, and the ones that `demo` needs into guests/dist.
    #[command(after_help = "Examples:\n  cargo xtask guests\n  cargo xtask guests --check")]
    Guests {
        /// Change nothing in guests/dist; fail unless its modules were built from the sources as they are now.
        #[arg(long)]
        check: bool,
    },
    /// Measure and check Roadrunner between hosts, or in containerd.
    #[command(
        after_help = "Examples:\n  cargo xtask e2e network\n  cargo xtask e2e containerd\n  cargo xtask e2e containerd --only CRI\n  cargo xtask e2e pods"
    )]
    E2e {
        #[command(subcommand)]
        what: EndToEnd,
    },
    /// Run the papers' experiments against real peers, and write the results down.
    #[command(after_help = "\
Examples:
  cargo xtask evaluate --quick
  cargo xtask evaluate --full
  cargo xtask evaluate --only transfer --results /tmp/results

It installs the peers (runc, Redis, compilers) where they are missing. As root, each system is in a control group of its own
and hosts can be two; without, a run has a latency only. What can't be run is in skipped.csv with the reason.")]
    Evaluate(evaluate::Evaluate),
    /// One end of a connection to compare with, in a namespace.
    #[command(hide = true)]
    Bare {
        #[arg(value_enum)]
        end: End,
    },
}

#[derive(Subcommand)]
enum EndToEnd {
    /// Two nodes in network namespaces, with a link of 1 Gbit/s between them; takes root.
    Network,
    /// The containerd shim in a private containerd; takes root.
    Containerd {
        /// Run only the scenarios in whose names this occurs.
        #[arg(long, value_name = "WORD", default_value = "")]
        only: String,
    },
    /// Many pods with a function each in a private containerd, through CRI: what they cost and leave; takes root.
    Pods {
        #[arg(long, default_value_t = 200)]
        count: usize,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum End {
    Send,
    Receive,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = Workspace::locate().and_then(|workspace| match args.command {
        Command::Test { only } => test::run(&workspace, &only),
        Command::Faults { count, seed } => faults::run(&workspace, count, seed),
        Command::Evaluate(options) => evaluate::run(&workspace, &options),
        Command::Guests { check: true } => guests::check(&workspace),
        Command::Guests { check: false } => guests::build_and_record(&workspace),
        Command::E2e { what } => {
            let done = match what {
                EndToEnd::Network => e2e::network(&workspace),
                EndToEnd::Containerd { only } => containerd::run_some(&workspace, &only),
                EndToEnd::Pods { count, rounds } => containerd::run_pods(&workspace, count, rounds),
            };
            done.map(|outcome| {
                if let Outcome::Skipped(reason) = outcome {
                    println!("skipped: {reason}");
                }
            })
        }
        Command::Bare { end: End::Send } => e2e::send_bare(),
        Command::Bare { end: End::Receive } => e2e::receive_bare(),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
