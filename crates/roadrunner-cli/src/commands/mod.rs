//! One file per command.

mod bench;
mod certify;
mod compile;
mod demo;
mod doctor;
mod image;
mod inspect;
mod invoke;
mod run;
mod serve;
mod worker;

use crate::args::Command;
use crate::exit::{Exit, Failure};

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Serve(options) => serve::run(&options),
        Command::Invoke(options) => invoke::run(&options),
        Command::Certify(options) => certify::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Compile(options) => compile::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Worker(options) => worker::run(&options),
    }
}
