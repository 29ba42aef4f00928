//! One file per command.

mod compile;
mod demo;
mod doctor;
mod inspect;
mod run;

use crate::args::Command;
use crate::exit::{Exit, Failure};

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Compile(options) => compile::run(&options),
        Command::Doctor(options) => doctor::run(&options),
    }
}
