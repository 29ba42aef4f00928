//! `roadrunner run`: a workflow, once.

use std::path::Path;
use std::time::Instant;

use roadrunner_runtime::{Bounds, Config, ModuleSource, Payload, Reply, Runtime, Sealed, Trace};
use roadrunner_transport::UnixServer;
use roadrunner_workflow::{Executable, Finished, Workflow};

use crate::args::{Mode, Run};
use crate::crew::{self, Crew, Load};
use crate::exit::{Exit, Failure};
use crate::images;
use crate::input::{self, Source};
use crate::output::{self, Destination};
use crate::progress::Progress;
use crate::report::{self, Report, Usage};

pub(crate) fn run(options: &Run) -> Result<Exit, Failure> {
    let mut workflow = Workflow::load(&options.workflow)?;
    crew::place(&mut workflow, options.mode);
    let pins = images::pull(&mut workflow, options.mode)?;
    let config = Config::default();
    let limit = config.payload_bytes;
    let runtime = Runtime::new(config)?;
    options.security.warn();
    let manifest = Load::Manifest(options.workflow.clone(), options.security.clone(), pins);
    let file = |path: &Path| ModuleSource::File(path.to_owned());
    let loaded = load(&runtime, workflow, options.mode, &manifest, &file)?;
    let exe = &loaded.exe;
    let source = options.input.clone().unwrap_or_else(Source::usual);
    let input = input::read(&source, &|len, write| exe.input(len, write), limit)?;
    let (mut finished, usage) = execute(exe, input)?;

    let to = options.output.clone().unwrap_or(Destination::Usual);
    deliver(&mut finished.reply, &to, ".out")?;
    if options.report.is_some() {
        let name = exe.workflow().name();
        let report = Report::new(name, finished.total, &finished.hops, usage);
        say(&to, &report::line(&report))?;
    }
    Ok(Exit::Success)
}

/// A workflow that can run, and the processes that it needs.
pub(super) struct Loaded {
    pub(super) exe: Executable,
    /// Ends before the processes do: nobody calls in any more.
    _server: Option<UnixServer>,
    crew: Crew,
}

impl Loaded {
    /// The placement of a process that has ended, though nobody told it to.
    pub(super) fn ended_process(&self) -> Option<String> {
        self.crew.ended()
    }
}

impl AsRef<Executable> for Loaded {
    fn as_ref(&self) -> &Executable {
        &self.exe
    }
}

/// Compiles a workflow's functions, here and in the processes that it needs.
pub(super) fn load(
    runtime: &Runtime,
    workflow: Workflow,
    mode: Mode,
    manifest: &Load,
    source: &dyn Fn(&Path) -> ModuleSource,
) -> Result<Loaded, Failure> {
    let functions = workflow.functions().len();
    let what = format!("compiling {functions} functions, which are kept for the next time");
    let _progress = Progress::start(what);
    let (protection, here) = (manifest.protection()?, workflow.here().clone());
    let mut crew = Crew::start(&workflow, mode, manifest)?;
    let exe = crew.addresses.load(
        std::process::id(),
        here,
        protection,
        workflow,
        |workflow, place| Ok(Executable::load(runtime, workflow, source, place)?),
    )?;
    let server = crew.serve(&exe)?;
    Ok(Loaded { exe, _server: server, crew })
}

/// The span of whoever started this program, which its calls are children of: `$TRACEPARENT`, if that
/// is there and valid.
pub(super) fn trace() -> Trace {
    let said = std::env::var_os("TRACEPARENT");
    said.and_then(|text| Trace::parse(text.as_encoded_bytes())).unwrap_or_default()
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
    let bounds = Bounds { trace: trace(), ..Executable::bounds() };
    let finished = exe.run_within(bounds, Payload::One(input), &mut |function| {
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
pub(super) fn deliver(reply: &mut Reply, to: &Destination, suffix: &str) -> Result<(), Failure> {
    let unmapped = |error| Failure::new(Exit::Host, format!("could not {error}"));
    let result = reply.payload().map_err(unmapped)?;
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
