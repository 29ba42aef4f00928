//! `roadrunner run`: a workflow, once.

use std::path::Path;
use std::time::Instant;

use roadrunner_runtime::{Config, ModuleSource, Runtime, Sealed};
use roadrunner_workflow::{Executable, Finished, Workflow};

use crate::args::Run;
use crate::exit::{Exit, Failure};
use crate::input::{self, Source};
use crate::output::{self, Destination};
use crate::progress::Progress;
use crate::report::{self, Report, Usage};

pub(crate) fn run(options: &Run) -> Result<Exit, Failure> {
    super::within_this_process(options.mode)?;
    let workflow = Workflow::load(&options.workflow)?;
    let config = Config::default();
    let limit = config.payload_bytes;
    let runtime = Runtime::new(config)?;
    let exe = load(&runtime, workflow, &|path| ModuleSource::File(path.to_owned()))?;
    let source = options.input.clone().unwrap_or_else(Source::usual);
    let input = input::read(&source, exe.home(), limit)?;
    let (mut finished, usage) = execute(&exe, input)?;

    let to = options.output.clone().unwrap_or(Destination::Usual);
    deliver(&mut finished, &to, ".out")?;
    if options.report.is_some() {
        let name = exe.workflow().name();
        let report = Report::new(name, finished.total, &finished.hops, usage);
        say(&to, &report::line(&report))?;
    }
    Ok(Exit::Success)
}

/// Compiles a workflow's functions.
pub(super) fn load(
    runtime: &Runtime,
    workflow: Workflow,
    source: &dyn Fn(&Path) -> ModuleSource,
) -> Result<Executable, Failure> {
    let functions = workflow.functions().len();
    let what = format!("compiling {functions} functions, which are kept for the next time");
    let _progress = Progress::start(what);
    Ok(Executable::load(runtime, workflow, source)?)
}

/// Runs a workflow and says what it used.
pub(super) fn execute(
    exe: &Executable,
    input: Sealed<'static>,
) -> Result<(Finished, Usage), Failure> {
    let name = exe.workflow().name();
    let steps = exe.workflow().plan().steps().len();
    let progress = Progress::start(format!("running {name}"));
    let mut done = 0;
    let (cpu, wall) = (roadrunner_sys::cpu_time(), Instant::now());
    let finished = exe.run(input, &mut |function| {
        done += 1;
        progress.say(format!("running {name}: {done} of {steps} functions done ({function})"));
    });
    let wall = wall.elapsed();
    let cpu = roadrunner_sys::cpu_time().saturating_sub(cpu);
    let finished = finished.map_err(|error| error.fault)?;
    let usage = Usage::of(&finished.hops, cpu, wall);
    Ok((finished, usage))
}

/// Writes the result of a run from where it lies.
pub(super) fn deliver(
    finished: &mut Finished,
    to: &Destination,
    suffix: &str,
) -> Result<(), Failure> {
    let unmapped = |error| Failure::new(Exit::Host, format!("could not {error}"));
    let result = finished.reply.payload().map_err(unmapped)?;
    output::deliver(to, result.bytes().map_err(unmapped)?, suffix)
}

/// Prints a report: on stdout, unless that has the result.
pub(super) fn say(result: &Destination, report: &str) -> Result<(), Failure> {
    if result.is_stdout() {
        output::note(report);
        return Ok(());
    }
    output::print(report)
}
