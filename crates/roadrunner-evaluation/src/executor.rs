//! The systems as they are: which processes each one is, and where they are.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::agent::{Measured, Order};
use crate::cgroup::{Cgroup, Cpu};
use crate::container::{Container, Contents};
use crate::hosts::{self, Host, two_hosts};
use crate::leftovers::{SHARED, SHARED_MEMORY};
use crate::names::{Place, System};
use crate::plan::{Cell, Work};
use crate::process::{self, Process};
use crate::results::Outcome;
use crate::schedule::{Executor, Missing, Side};

/// Until a process that was started takes orders: the slowest compiles a few modules without optimizations.
pub(crate) const READY: Duration = Duration::from_secs(120);

/// Longest that a run may take: a fan-out of a GB over 100 Mbit/s is 80 s, and that is done twice by way of Redis.
pub(crate) const RUN: Duration = Duration::from_secs(600);

/// Pause of a link before each run, in which its bucket fills: 256 KB at 100 Mbit/s take 21 ms. Without it a producer
/// that is quick would find less of it than a slow one, and lose as much as 20 ms.
const REST: Duration = Duration::from_millis(50);

/// Port of the Redis server, on a network of its own or on loopback, where the default one may be somebody else's.
const REDIS_PORT: &str = "6399";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Setting {
    /// This program, which has the native peers.
    pub native: PathBuf,
    /// The program with the systems that run WebAssembly.
    pub wasm: PathBuf,
    /// The program `roadrunner`.
    pub roadrunner: PathBuf,
    /// The functions: `guests/dist`.
    pub guests: PathBuf,
    /// The same, built natively.
    pub native_guests: PathBuf,
    /// The C programs: `evaluation/compute`.
    pub programs: PathBuf,
    /// For files of a run; removed when it ends.
    pub work: PathBuf,
    /// A runc that was unpacked for the project.
    pub runc: Option<PathBuf>,
}

/// The hosts of a place, or why there are none.
type TwoHosts = Result<[Host; 2], String>;

/// Starts the real systems.
pub struct Real {
    pub(crate) setting: Setting,
    pub(crate) stop: Arc<AtomicBool>,
    hosts: RefCell<HashMap<Place, Rc<TwoHosts>>>,
    runc: OnceCell<Option<PathBuf>>,
}

impl Real {
    /// With this setting, until told to stop.
    #[must_use]
    pub fn new(setting: Setting, stop: Arc<AtomicBool>) -> Self {
        Self { setting, stop, hosts: RefCell::default(), runc: OnceCell::new() }
    }

    /// The hosts of a place; none where both functions are on this one.
    fn hosts(&self, place: Place) -> Result<Option<Rc<TwoHosts>>, Missing> {
        let mbit = match place {
            Place::SameHost => return Ok(None),
            Place::TwoHosts100Mbit => 100,
            Place::TwoHosts1Gbit => 1000,
        };
        let mut all = self.hosts.borrow_mut();
        let hosts = all.entry(place).or_insert_with(|| {
            Rc::new(
                two_hosts(mbit).map_err(|error| format!("there can be no two hosts here: {error}")),
            )
        });
        match &**hosts {
            Ok(_) => Ok(Some(Rc::clone(hosts))),
            Err(reason) => Err(Missing(reason.clone())),
        }
    }

    pub(crate) fn runc(&self) -> Result<&Path, Missing> {
        let user = roadrunner_sys::user();
        if user != 0 {
            return Err(Missing(format!("containers take root, and this is user {user}")));
        }
        let found = self.runc.get_or_init(|| {
            let own = self.setting.runc.clone().into_iter();
            own.chain(["runc".into()]).find(|program| answers(program, "--version"))
        });
        found.as_deref().ok_or_else(|| Missing("there is no runc on this machine".into()))
    }

    /// Of what processor time and memory can't be measured here, and why.
    #[must_use]
    pub fn unmeasured(&self) -> Option<String> {
        match Cgroup::new() {
            Err(error) => Some(format!(
                "processor time and memory are not measured: no control group can be made ({error}); it takes root"
            )),
            Ok(group) if !group.counts(true) => Some(
                "processor time and memory of containers are not measured: with version 2 of control groups runc \
                puts them elsewhere"
                    .into(),
            ),
            Ok(_) => None,
        }
    }

    /// A group that the processes of a system are in; none where there can't be one or it would not count them, and
    /// then a run has a latency only.
    pub(crate) fn group(system: System) -> Option<Cgroup> {
        Cgroup::new().ok().filter(|group| group.counts(system.is_in_container()))
    }

    fn transfer(&self, order: Order, place: Place, system: System) -> Result<Transfer, Missing> {
        let hosts = self.hosts(place)?;
        let hosts = hosts.as_deref().and_then(|hosts| hosts.as_ref().ok());
        let (near, far) = (hosts.map(|hosts| &hosts[0]), hosts.map(|hosts| &hosts[1]));
        let mut side = Transfer::new(order, Self::group(system), Arc::clone(&self.stop));
        side.rest = hosts.map_or(Duration::ZERO, |_| REST);
        let sink_ip = if hosts.is_some() { hosts::ADDRESSES[1] } else { "127.0.0.1" };
        let mut listen = format!("{sink_ip}:0");
        let (program, name) = self.agent(system)?;
        if matches!(system, System::UnixSocket | System::Iceoryx2) {
            // iceoryx2 goes on with numbers of its own.
            listen = format!("{SHARED}{}-", std::process::id());
            side.shared = Some(SharedFiles(listen.clone()));
        }
        if system == System::Redis {
            side.serve_redis(&self.setting.work, far, sink_ip)?;
            listen = format!("{sink_ip}:{REDIS_PORT}");
        }
        let start = |side: &mut Transfer,
                     host: Option<&Host>,
                     args: [&str; 5]|
         -> Result<Process, Missing> {
            let command = if system.is_in_container() {
                let contents = Contents { host, program, args: &args, variables: &[], files: &[] };
                let runc = self.runc()?;
                let container = Container::new(runc, &self.setting.work, &contents)?;
                let command = process::command(side.group.as_ref(), None, runc, container.args());
                side.containers.push(container);
                command
            } else {
                process::command(side.group.as_ref(), host, program, args)
            };
            Ok(Process::start(&format!("the process of {system}"), command)?)
        };
        let consumers = order.consumers.to_string();
        let mut address = listen.clone();
        // The others have none, or start it themselves.
        let has_sink = !matches!(
            system,
            System::RoadrunnerUser | System::RoadrunnerKernel | System::PaperCopy
        );
        if has_sink {
            let mut sink =
                start(&mut side, far, ["sink", &name, &listen, "--consumers", &consumers])?;
            let said = sink.line(READY, &self.stop)?;
            let said = said.strip_prefix("ready ").ok_or_else(|| Missing(said.clone()))?;
            address = said.to_owned();
            side.sink = Some(sink);
        }
        let mut source =
            start(&mut side, near, ["source", &name, &address, "--consumers", &consumers])?;
        let said = source.line(READY, &self.stop)?;
        if said != "ready" {
            return Err(Missing(said));
        }
        side.source = Some(source);
        side.begin = side.group.as_ref().map(Cgroup::cpu).transpose()?;
        Ok(side)
    }

    /// The program that has a system's functions, and its name there.
    fn agent(&self, system: System) -> Result<(&Path, String), Missing> {
        let Setting { native, wasm, .. } = &self.setting;
        use System as S;
        Ok(match system {
            S::NativeHttpJson => (native, "http-json".into()),
            S::NativeHttpRaw => (native, "http-raw".into()),
            S::Redis | S::UnixSocket | S::Tcp => (native, system.to_string()),
            S::RoadrunnerUser
            | S::RoadrunnerKernel
            | S::RoadrunnerNetwork
            | S::WasmtimeHttpJson
            | S::Iceoryx2
            | S::PaperCopy
            | S::PaperHose => (wasm, system.to_string()),
            _ => return Err(Missing(format!("{system} hands no payloads over"))),
        })
    }
}

/// Whether a program is there and runs.
pub(crate) fn answers(program: &Path, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

impl Executor for Real {
    fn start(&self, cell: &Cell, system: System) -> Result<Box<dyn Side>, Missing> {
        match cell.work {
            Work::Transfer(order) => Ok(Box::new(self.transfer(order, cell.place, system)?)),
            Work::Start(program) => self.start_of(program, system),
            Work::Compute { name, size } => self.compute(name, size, system),
            Work::Footprint(room) => self.footprint(room),
        }
    }
}

/// The processes of a system that hands payloads over. They end in the order of the fields.
struct Transfer {
    source: Option<Process>,
    sink: Option<Process>,
    server: Option<Process>,
    containers: Vec<Container>,
    shared: Option<SharedFiles>,
    group: Option<Cgroup>,
    order: Order,
    /// Before each run.
    rest: Duration,
    begin: Option<Cpu>,
    stop: Arc<AtomicBool>,
}

/// What iceoryx2 leaves in shared memory under a name, and when its processes are ended leaves in its folder too.
struct SharedFiles(String);

impl Drop for SharedFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&self.0));
        for file in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(&self.0) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

impl Transfer {
    fn new(order: Order, group: Option<Cgroup>, stop: Arc<AtomicBool>) -> Self {
        Self {
            source: None,
            sink: None,
            server: None,
            containers: Vec::new(),
            shared: None,
            group,
            order,
            rest: Duration::ZERO,
            begin: None,
            stop,
        }
    }

    /// Starts a Redis server and waits until it is ready.
    fn serve_redis(&mut self, work: &Path, host: Option<&Host>, ip: &str) -> Result<(), Missing> {
        if !answers(Path::new("redis-server"), "--version") {
            return Err(Missing("there is no redis-server on this machine".into()));
        }
        let dir = work.as_os_str().to_string_lossy();
        let mut args = vec!["--bind", ip, "--port", REDIS_PORT, "--dir", &dir];
        // It keeps nothing on disk, and listens on loopback or on a link between two namespaces.
        args.extend(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        let command = process::command(self.group.as_ref(), host, "redis-server", args);
        let mut server = Process::start("redis-server", command)?;
        while !server.line(READY, &self.stop)?.contains("Ready to accept connections") {}
        self.server = Some(server);
        Ok(())
    }
}

impl Side for Transfer {
    fn run(&mut self) -> Result<Outcome, Missing> {
        let mut outcome = Outcome { transfers: self.order.consumers, ..Outcome::default() };
        std::thread::sleep(self.rest);
        let before = self.group.as_ref().map(Cgroup::look).transpose()?;
        let source = self.source.as_mut().ok_or_else(|| Missing("it was not started".into()))?;
        source.say(&serde_json::to_string(&self.order).map_err(io::Error::other)?)?;
        let answer = source.line(RUN, &self.stop)?;
        let answer = serde_json::from_str::<Result<Measured, String>>(&answer);
        let measured = answer.map_err(|error| Missing(error.to_string()))?.map_err(Missing)?;
        if let Some(before) = before {
            before.note(self.begin, &mut outcome)?;
        }
        let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
        outcome.total_s = Some(seconds(measured.total_ns));
        outcome.serialization_s = Some(seconds(measured.serialization_ns));
        outcome.wasm_io_s = Some(seconds(measured.wasm_io_ns));
        outcome.hand_over_s = measured.hand_over_ns.map(seconds);
        outcome.consumer_s = measured.consumer_ns.map(seconds);
        outcome.copied_bytes = measured.copied_bytes;
        // Of several consumers, which work at the same time, the parts add up to more than the whole.
        if self.order.consumers == 1 {
            let parts = measured.serialization_ns + measured.wasm_io_ns;
            outcome.transfer_s = Some(seconds(measured.total_ns.saturating_sub(parts)));
        }
        Ok(outcome)
    }
}
