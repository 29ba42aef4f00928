//! What may be typed. Each command's options are a struct that its module takes as it is: every
//! value is checked while it is parsed, so nothing is validated twice.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit;
use crate::input::Source;
use crate::output::Destination;

/// Runs WebAssembly functions that hand their payloads over by moving pages, not bytes.
#[derive(Debug, Parser)]
#[command(name = "roadrunner", version, max_term_width = 100)]
#[command(after_help = format!("{TOP_EXAMPLES}\n\n{}", exit::table()))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say on stderr what is being done; RUST_LOG=TARGET=LEVEL chooses more finely.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

const TOP_EXAMPLES: &str = "\
Examples:
  roadrunner demo
  roadrunner run roadrunner.toml --input photo.jpg --output sheet.png
  roadrunner COMMAND --help";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Run(Run),
    Inspect(Inspect),
    Compile(Compile),
    Doctor(Doctor),
}

/// Run a built-in workflow on a built-in photograph; nothing has to be set up.
///
/// The photograph is decoded, resized, turned grey, into edges and blurred at the same time, joined into a
/// contact sheet and encoded as PNG. A table shows every hand-over of a payload, and a last line
/// compares with the same workflow when payloads are copied.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner demo
  roadrunner demo --output sheet.png
  roadrunner demo --report json | jq .comparison")]
pub(crate) struct Demo {
    /// Where the picture goes; `-` is stdout.
    #[arg(long, short, value_name = "FILE", default_value = "roadrunner-demo.png")]
    pub(crate) output: Destination,
    /// Print one JSON object instead of the table; on stderr if the picture goes to stdout.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) report: Option<ReportFormat>,
}

/// Run a workflow once on one payload.
///
/// WORKFLOW is a manifest, `roadrunner.toml`; docs/manifest.md describes it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner run roadrunner.toml --input photo.jpg --output sheet.png
  cat app.log | roadrunner run roadrunner.toml > summary.txt
  roadrunner run roadrunner.toml -i photo.jpg -o sheet.png --report json | jq .hops")]
pub(crate) struct Run {
    /// The workflow's manifest.
    pub(crate) workflow: PathBuf,
    /// Where the payload comes from; `-` is stdin. Without it: stdin, or nothing if that is a terminal.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<Source>,
    /// Where the result goes; `-` is stdout, as is no option.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<Destination>,
    /// How payloads travel between functions.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(crate) mode: Mode,
    /// Print one JSON object about the run on stdout; on stderr if the result goes to stdout.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) report: Option<ReportFormat>,
}

/// Show what a module offers and what it asks of its host.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner inspect resize.wasm
  roadrunner inspect --json resize.wasm | jq .imports")]
pub(crate) struct Inspect {
    /// A .wasm, .wat or .cwasm file.
    pub(crate) module: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compile a module ahead of time, so that loading it takes no compiler.
///
/// The result runs on this version of Roadrunner and this kind of processor only. It is machine code: load only
/// what you made yourself or trust like any program.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner compile resize.wasm
  roadrunner compile resize.wasm -o build/resize.cwasm")]
pub(crate) struct Compile {
    /// A .wasm or .wat file.
    pub(crate) module: PathBuf,
    /// Where the compiled module goes; `-` is stdout. Without it: beside the module, as .cwasm.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<Destination>,
}

/// Check what this machine offers, and say what to change.
///
/// Every line is ok, warn (it works, but slower or less of it) or fail (it does not work); a fail ends in exit code 1.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner doctor
  roadrunner doctor --json | jq '.checks[] | select(.status != \"ok\")'")]
pub(crate) struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How payloads travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The best way for each hop.
    Auto,
    /// Within this process: pages move between linear memories.
    User,
    /// Between processes of this host (not in this version).
    Kernel,
    /// Between hosts (not in this version).
    Network,
}

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// One JSON object.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
