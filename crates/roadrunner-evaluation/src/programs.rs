//! Programs that run once: a start, some work, an end. In a container, in a process with a WebAssembly runtime of its
//! own, or in a fresh sandbox of a process that runs already.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::agent::{Measured, Order};
use crate::cgroup::{Cgroup, Cpu};
use crate::container::{Container, Contents};
use crate::executor::{READY, RUN, Real, answers};
use crate::job::{self, Job};
use crate::names::System;
use crate::plan::{Program, Room};
use crate::process::{self, Process};
use crate::results::Outcome;
use crate::schedule::{Missing, Side};

/// Bytes of the picture that `shrink` gets: see there.
const PICTURE: u64 = 3264 * 2448 * 3;

/// The file that `cat` reads: a page of text.
const PAGE: u64 = 4096;

/// The clang that compiles: the version that `cargo xtask evaluate` installs.
pub const CLANG: &str = "clang-19";

/// Functions that are loaded to see what one more takes.
const IDLE: u32 = 200;

/// What a program works on.
pub(crate) struct Inputs {
    /// Stdin.
    stdin: PathBuf,
    /// What the variable of this name says, where there is one.
    variable: Option<(&'static str, String)>,
    /// A folder that it may read.
    folder: PathBuf,
    /// What it must print, where that is known.
    expected: Option<Vec<u8>>,
}

impl Inputs {
    fn of(work: &Path, program: Program) -> io::Result<Self> {
        let folder = work.join("input");
        fs::create_dir_all(&folder)?;
        let (stdin, page) = (folder.join("picture"), folder.join("page"));
        let len = if program == Program::Shrink { PICTURE } else { 0 };
        fs::write(&stdin, crate::agent::text(len)?)?;
        fs::write(&page, crate::agent::text(PAGE)?)?;
        let expected = match program {
            Program::Hello => Some(b"hello\n".to_vec()),
            Program::Nop => Some(Vec::new()),
            Program::Cat => Some(fs::read(&page)?),
            Program::Shrink => None,
        };
        let variable =
            (program == Program::Cat).then(|| ("FILE", page.to_string_lossy().into_owned()));
        Ok(Self { stdin, variable, folder, expected })
    }

    fn check(&self, printed: &[u8], program: Program) -> Result<(), Missing> {
        let right = match &self.expected {
            Some(expected) => printed == expected,
            None => printed.len() as u64 == PICTURE / 16,
        };
        if right { Ok(()) } else { Err(Missing(format!("{program:?} printed something else"))) }
    }
}

fn name(program: Program) -> &'static str {
    match program {
        Program::Hello => "hello",
        Program::Shrink => "shrink",
        Program::Nop => "nop",
        Program::Cat => "cat",
    }
}

impl Real {
    pub(crate) fn start_of(
        &self,
        program: Program,
        system: System,
    ) -> Result<Box<dyn Side>, Missing> {
        let inputs = Inputs::of(&self.setting.work, program)?;
        let module = self.setting.guests.join(format!("{}.wasm", name(program)));
        match system {
            System::RoadrunnerSandbox => self.sandbox(system, &module, &inputs),
            System::Runc
            | System::ProcessPerFunction
            | System::NodeWasi
            | System::RoadrunnerProcess => {
                let command = self.one_shot(program, system, &module, &inputs)?;
                let (group, stop) = (Self::group(system), Arc::clone(&self.stop));
                let one_shot = OneShot { command, inputs, group, stop };
                Ok(Box::new(Started { one_shot, program }))
            }
            _ => Err(Missing(format!("{system} starts no programs"))),
        }
    }

    /// How a program is started, again and again.
    fn one_shot(
        &self,
        program: Program,
        system: System,
        module: &Path,
        inputs: &Inputs,
    ) -> Result<Start, Missing> {
        let setting = self.setting.clone();
        let words = |program: &Path, args: Vec<String>| -> Start {
            let mut words = vec![program.to_owned().into_os_string()];
            words.extend(args.into_iter().map(OsString::from));
            Box::new(move || Ok((words.clone(), None)))
        };
        let said = |path: &Path| path.to_string_lossy().into_owned();
        Ok(match system {
            System::Runc => {
                let native = setting.native_guests.join(name(program));
                let runc = self.runc()?.to_owned();
                let folder = inputs.folder.clone();
                let variable = inputs.variable.clone();
                Box::new(move || {
                    let variables: Vec<_> =
                        variable.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    let contents = Contents {
                        host: None,
                        program: &native,
                        args: &[],
                        variables: &variables,
                        files: &[&folder],
                    };
                    let container = Container::new(&runc, &setting.work, &contents)?;
                    let mut words = vec![runc.clone().into_os_string()];
                    words.extend(container.args());
                    Ok((words, Some(container)))
                })
            }
            System::ProcessPerFunction => {
                words(&setting.wasm, vec!["command".into(), said(module), said(&inputs.folder)])
            }
            System::NodeWasi => {
                if !answers(Path::new("node"), "--version") {
                    return Err(Missing("there is no node on this machine".into()));
                }
                let script = setting.work.join("wasi.mjs");
                fs::write(&script, NODE)?;
                let args =
                    vec!["--no-warnings".into(), said(&script), said(module), said(&inputs.folder)];
                words(Path::new("node"), args)
            }
            _ => {
                let manifest = setting.work.join(format!("{}.toml", name(program)));
                fs::write(&manifest, workflow(module, inputs))?;
                words(
                    &setting.roadrunner,
                    vec!["run".into(), said(&manifest), "--input".into(), "-".into()],
                )
            }
        })
    }

    /// A process that runs, and calls a module in a fresh sandbox each time.
    fn sandbox(
        &self,
        system: System,
        module: &Path,
        inputs: &Inputs,
    ) -> Result<Box<dyn Side>, Missing> {
        let group = Self::group(system);
        let mut args =
            vec!["sandbox".into(), module.to_owned(), inputs.stdin.clone(), inputs.folder.clone()];
        let variable = inputs.variable.as_ref();
        args.extend(variable.map(|(name, value)| PathBuf::from(format!("{name}={value}"))));
        let command = process::command(group.as_ref(), None, &self.setting.wasm, args);
        let mut process = Process::start("the process with the sandboxes", command)?;
        let said = process.line(READY, &self.stop)?;
        if said != "ready" {
            return Err(Missing(said));
        }
        let begin = group.as_ref().map(Cgroup::cpu).transpose()?;
        Ok(Box::new(Sandbox { process, group, begin, stop: Arc::clone(&self.stop) }))
    }

    pub(crate) fn compute(
        &self,
        name: &str,
        size: u32,
        system: System,
    ) -> Result<Box<dyn Side>, Missing> {
        let source = self.setting.programs.join(format!("{name}.c"));
        let built = self.setting.work.join(format!("{name}-{system}"));
        let (compiler, options): (_, &[&str]) = match system {
            System::NativeGcc => ("gcc", &["-O3"]),
            System::NativeClang => (CLANG, &["-O3"]),
            // -O2: what is inlined is then Wasmtime's choice as well.
            System::Roadrunner => {
                (CLANG, &["-O2", "-msimd128", "--target=wasm32-wasi", "--sysroot=/usr"])
            }
            _ => return Err(Missing(format!("{system} computes nothing"))),
        };
        let mut compile = Command::new(compiler);
        compile.args(options).arg("-o").arg(&built).arg(&source).arg("-lm");
        let compiled =
            Job::start(&mut compile, READY).and_then(|compile| compile.finish(&self.stop));
        let compiled = compiled.map_err(|error| Missing(format!("`{compiler}`: {error}")))?;
        if !compiled.status.success() {
            let said = compiled.stderr;
            return Err(Missing(format!("`{compiler}` can't compile {name}: {said}")));
        }
        let variable = ("SIZE", size.to_string());
        let folder = self.setting.work.clone();
        let stdin = PathBuf::from("/dev/null");
        let inputs = Inputs { stdin, variable: Some(variable), folder, expected: None };
        if system == System::Roadrunner {
            return self.sandbox(system, &built, &inputs);
        }
        let command: Start = Box::new(move || Ok((vec![built.clone().into()], None)));
        let (group, stop) = (Self::group(system), Arc::clone(&self.stop));
        let one_shot = OneShot { command, inputs, group, stop };
        Ok(Box::new(Native { one_shot, expected: None }))
    }

    pub(crate) fn footprint(&self, room: Room) -> Result<Box<dyn Side>, Missing> {
        let (program, wasm) = (self.setting.roadrunner.clone(), self.setting.wasm.clone());
        let stop = Arc::clone(&self.stop);
        let idle = move || -> Result<u64, Missing> {
            let pss = |functions: u32| -> Result<u64, Missing> {
                let args = ["idle".to_owned(), functions.to_string()];
                let mut process = Process::start(
                    "the process that waits",
                    process::command(None, None, &wasm, args),
                )?;
                let said = process.line(READY, &stop)?;
                said.strip_prefix("ready ").and_then(|pss| pss.parse().ok()).ok_or(Missing(said))
            };
            // The first leaves the compiled code in the cache: nobody compiles to have a function wait.
            let one = pss(1)?;
            Ok(pss(1 + IDLE)?.saturating_sub(one) / u64::from(IDLE))
        };
        let measure: Box<dyn Fn() -> Result<u64, Missing>> = match room {
            Room::Binary => Box::new(move || Ok(fs::metadata(&program)?.len())),
            Room::IdleFunction => Box::new(idle),
            Room::FunctionsPerGib => Box::new(move || Ok((1 << 30) / idle()?.max(1))),
        };
        Ok(Box::new(Footprint { measure }))
    }
}

/// The command line of one more start, and the container that it is in.
type Start = Box<dyn Fn() -> io::Result<(Vec<OsString>, Option<Container>)>>;

/// A program that is started and ends.
struct OneShot {
    command: Start,
    inputs: Inputs,
    group: Option<Cgroup>,
    stop: Arc<AtomicBool>,
}

impl OneShot {
    /// Runs it to its end; what it printed, and what it cost from the moment on at which it is in its group.
    fn once(&self) -> Result<(Vec<u8>, Outcome), Missing> {
        let Self { command, inputs, group, stop } = self;
        let group = group.as_ref();
        let mut outcome = Outcome { transfers: 0, ..Outcome::default() };
        let (words, container) = command()?;
        let mut command = job::gated(group, &inputs.stdin, &words);
        command.envs(inputs.variable.iter().map(|(name, value)| (name, value)));
        let mut job = Job::start(&mut command, RUN)?;
        job.reach_gate(stop)?;
        let before = group.map(Cgroup::look).transpose()?;
        outcome.total_s = Some(job.time(stop)?.as_secs_f64());
        let said = job.finish(stop)?;
        drop(container);
        if !said.status.success() {
            return Err(Missing(format!("it ended with {}: {}", said.status, said.stderr)));
        }
        if let Some(before) = before {
            before.note(None, &mut outcome)?;
        }
        Ok((said.stdout, outcome))
    }
}

/// A program that must print what is known.
struct Started {
    one_shot: OneShot,
    program: Program,
}

impl Side for Started {
    fn run(&mut self) -> Result<Outcome, Missing> {
        let (printed, outcome) = self.one_shot.once()?;
        self.one_shot.inputs.check(&printed, self.program)?;
        Ok(outcome)
    }
}

/// A native program that computes. It must print the same each time.
struct Native {
    one_shot: OneShot,
    expected: Option<Vec<u8>>,
}

impl Side for Native {
    fn run(&mut self) -> Result<Outcome, Missing> {
        let (printed, outcome) = self.one_shot.once()?;
        if printed.is_empty() || self.expected.get_or_insert_with(|| printed.clone()) != &printed {
            return Err(Missing("it printed something else".into()));
        }
        Ok(outcome)
    }
}

/// A process whose sandboxes are fresh.
struct Sandbox {
    process: Process,
    group: Option<Cgroup>,
    begin: Option<Cpu>,
    stop: Arc<AtomicBool>,
}

impl Side for Sandbox {
    fn run(&mut self) -> Result<Outcome, Missing> {
        let mut outcome = Outcome { transfers: 0, ..Outcome::default() };
        let before = self.group.as_ref().map(Cgroup::look).transpose()?;
        let order = Order { size: 0, consumers: 1 };
        self.process.say(&serde_json::to_string(&order).map_err(io::Error::other)?)?;
        let answer = self.process.line(RUN, &self.stop)?;
        let answer = serde_json::from_str::<Result<Measured, String>>(&answer);
        let measured = answer.map_err(|error| Missing(error.to_string()))?.map_err(Missing)?;
        outcome.total_s = Some(Duration::from_nanos(measured.total_ns).as_secs_f64());
        if let Some(before) = before {
            before.note(self.begin, &mut outcome)?;
        }
        Ok(outcome)
    }
}

/// Something that is looked up.
struct Footprint {
    measure: Box<dyn Fn() -> Result<u64, Missing>>,
}

impl Side for Footprint {
    fn run(&mut self) -> Result<Outcome, Missing> {
        Ok(Outcome { memory_peak_bytes: Some((self.measure)()?), ..Outcome::default() })
    }
}

/// A workflow of one function.
fn workflow(module: &Path, inputs: &Inputs) -> String {
    let variables = inputs.variable.iter().map(|(name, value)| format!("{name} = {value:?}"));
    let variables = variables.collect::<Vec<_>>().join(", ");
    let folder = &inputs.folder;
    format!(
        "[workflow]\nname = \"start\"\nentry = \"program\"\n[functions.program]\nmodule = {module:?}\n\
        [functions.program.wasi]\nenv = {{ {variables} }}\ndirs = {{ {folder:?} = {{ path = {folder:?} }} }}\n"
    )
}

/// Runs a module by Node's WASI: its path, and a folder that it may read.
const NODE: &str = "\
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';
const [module, folder] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', env: process.env, preopens: { [folder]: folder } });
const compiled = await WebAssembly.compile(await readFile(module));
wasi.start(await WebAssembly.instantiate(compiled, wasi.getImportObject()));
";
