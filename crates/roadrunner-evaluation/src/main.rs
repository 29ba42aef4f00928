//! Runs the experiments, or one of the native peers. `cargo xtask evaluate` starts it; see `docs/evaluation.md`.
#![forbid(unsafe_code)]

mod machine;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use roadrunner_evaluation::names::Experiment;
use roadrunner_evaluation::native::{self, Way};
use roadrunner_evaluation::{End, Mode, Real, Setting, cells, own_folder, run, sweep};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Runs the papers' experiments against real peers.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run what is not in the results yet.
    Run(Run),
    /// One end of a transfer: the producer.
    #[command(hide = true)]
    Source(Peer),
    /// One end of a transfer: the consumers.
    #[command(hide = true)]
    Sink(Peer),
}

#[derive(clap::Args)]
struct Run {
    /// How much.
    #[arg(long, value_enum)]
    mode: Mode,
    /// This experiment alone.
    #[arg(long, value_enum)]
    only: Option<Experiment>,
    /// The folder of the results.
    #[arg(long)]
    results: PathBuf,
    /// The repository.
    #[arg(long)]
    repository: PathBuf,
    /// Where this run gets a folder for files of its own, which is removed when it ends.
    #[arg(long)]
    work: PathBuf,
    /// Where `cargo` puts what it builds.
    #[arg(long)]
    target: PathBuf,
    /// The profile that it was built with.
    #[arg(long)]
    profile: String,
}

#[derive(clap::Args)]
struct Peer {
    #[arg(value_enum)]
    way: Way,
    address: String,
    /// Functions that get each payload.
    #[arg(long, default_value_t = 1)]
    consumers: u32,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run(options) => evaluate(&options),
        Command::Source(Peer { way, address, .. }) => {
            native::source(way, &address).map(|()| End::Done).map_err(Into::into)
        }
        Command::Sink(Peer { way, address, consumers }) => {
            native::sink(way, &address, consumers).map(|()| End::Done).map_err(Into::into)
        }
    };
    match done {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Stopped) => {
            eprintln!(
                "stopped: the finished rows are kept, and the same command goes on after them"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn evaluate(options: &Run) -> Result<End> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let native = std::env::current_exe().context("can't find this program")?;
    let built = native.parent().context("a program is in a folder")?.to_owned();
    let runc = options.target.join("tools/containerd/bin/runc");
    let work = own_folder(&options.work);
    let setting = Setting {
        wasm: built.join("roadrunner-sides"),
        roadrunner: built.join("roadrunner"),
        native,
        guests: options.repository.join("guests/dist"),
        native_guests: options.target.join("guest-build/host/release"),
        programs: options.repository.join("evaluation/compute"),
        work: work.clone(),
        runc: runc.exists().then_some(runc),
    };
    let (mut results, aside) = machine::open(options)?;
    if let Some(aside) = aside {
        eprintln!("{aside}");
    }
    let swept = sweep(&options.work);
    if swept > 0 {
        eprintln!(
            "removed what earlier evaluations left that were killed: {swept} groups or files"
        );
    }
    std::fs::create_dir_all(&work).with_context(|| format!("can't make {}", work.display()))?;
    let cells = cells(options.mode, options.only);
    let executor = Real::new(setting, Arc::clone(&stop));
    let mut say = |line: &str| eprintln!("{line}");
    if let Some(reason) = executor.unmeasured() {
        say(&reason);
    }
    let end = run(&cells, &executor, &mut results, &stop, &mut say);
    drop(executor);
    let _ = std::fs::remove_dir_all(&work);
    eprintln!("results: {}", results.folder().display());
    Ok(end?)
}
