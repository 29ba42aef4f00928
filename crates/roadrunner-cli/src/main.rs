//! The command line of Roadrunner.
//!
//! ```text
//! args/       what was typed                 -> a command's options, validated once
//! commands/   one file per command           -> Ok, or a Failure: one sentence and an exit code
//! input.rs, output.rs, report.rs, progress.rs   what the commands share
//! crew.rs     the other processes of a run
//! node.rs, watch.rs   where a node listens, and whether its files changed
//! security.rs   how calls between hosts are protected
//! images.rs   modules that manifests name in registries
//! exit.rs     the exit codes, which scripts depend on
//! ```
//!
//! Results go to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod crew;
mod exit;
mod images;
mod input;
mod logging;
mod node;
mod output;
mod progress;
mod report;
mod security;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    logging::start(cli.verbose);
    match commands::run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit.into()
        }
    }
}
