//! One file per command.

mod bench;
mod compile;
mod demo;
mod doctor;
mod inspect;
mod run;

use crate::args::{Command, Mode};
use crate::exit::{Exit, Failure};

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Compile(options) => compile::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Doctor(options) => doctor::run(&options),
    }
}

/// Refuses the ways that this version doesn't have.
fn within_this_process(mode: Mode) -> Result<(), Failure> {
    match mode {
        Mode::Auto | Mode::User => Ok(()),
        Mode::Kernel | Mode::Network => Err(Failure::new(
            Exit::Unsupported,
            "this version hands payloads over within one process only; use `--mode user` or leave it out",
        )),
    }
}
