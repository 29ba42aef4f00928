//! The other processes of a run or a benchmark: started before it, told where the others listen, ended with it.
//!
//! Every socket listens before the first process starts and is handed to its process as stdin, so a
//! process can call any other as soon as it runs. The names of UNIX sockets are abstract: nothing is
//! left in the file system, however a run ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "peers")]
use std::time::{Duration, Instant};

use roadrunner_runtime::{Remote, Terms, Trust};
use roadrunner_transport::{Node, Protection, Tcp, Unix, UnixServer};
use roadrunner_workflow::{Executable, Place, Placement, Workflow};

use crate::args::Mode;
use crate::exit::{Exit, Failure};
use crate::images::Pin;
use crate::security::Security;

/// Where a process or host listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// The abstract name of a UNIX socket.
    Process(String),
    /// `HOST:PORT` of a process that the run started.
    Loopback(String),
    /// `NAME@HOST:PORT`: a node of the manifest.
    Node(String, String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", name)) => Ok(Self::Process(name.into())),
            Some(("tcp", address)) => Ok(match address.split_once('@') {
                Some((name, address)) => Self::Node(name.into(), address.into()),
                None => Self::Loopback(address.into()),
            }),
            _ => Err("an address is unix:NAME, tcp:HOST:PORT or tcp:NODE@HOST:PORT".into()),
        }
    }
}

impl Address {
    fn say(&self) -> String {
        match self {
            Self::Process(name) => format!("unix:{name}"),
            Self::Loopback(address) => format!("tcp:{address}"),
            Self::Node(name, address) => format!("tcp:{name}@{address}"),
        }
    }

    /// The way there. A name that is no name has none.
    pub(crate) fn way(&self, run: u32, terms: &Terms, hosts: &Hosts) -> io::Result<Remote> {
        Ok(match self {
            Self::Process(name) => {
                // Started by this run, or this one by it.
                let terms = Terms { trust: Trust::domain(run), ..terms.clone() };
                Arc::new(Unix::new(SocketAddr::from_abstract_name(name)?, terms))
            }
            Self::Loopback(address) => {
                Arc::new(Tcp::new(Node::on_loopback(address), terms.clone()))
            }
            Self::Node(name, address) => {
                let Hosts { workflow, protection } = hosts.clone();
                let (address, name) = (address.clone(), Some(name.clone()));
                Arc::new(Tcp::new(Node { address, name, workflow, protection }, terms.clone()))
            }
        })
    }
}

/// How nodes of a manifest are called.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// The workflow of the functions that are called.
    pub(crate) workflow: Option<String>,
    pub(crate) protection: Protection,
}

impl Hosts {
    /// Nobody but processes of the run.
    pub(crate) fn none() -> Self {
        Self { workflow: None, protection: Protection::Loopback }
    }
}

/// Who listens where, by placement as a manifest says it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(pub(crate) HashMap<String, Address>);

impl Addresses {
    /// Loads what is placed here, with ways to the rest. `run` is the process that started the run.
    pub(crate) fn load(
        &self,
        run: u32,
        here: Placement,
        protection: Protection,
        workflow: Workflow,
        load: impl FnOnce(Workflow, &Place<'_>) -> Result<Executable, Failure>,
    ) -> Result<Executable, Failure> {
        let placements: HashMap<Placement, Address> = workflow
            .functions()
            .iter()
            .filter_map(|function| {
                let address = self.0.get(&workflow.say(&function.placement))?;
                Some((function.placement.clone(), address.clone()))
            })
            .collect();
        let hosts = Hosts { workflow: Some(workflow.name().to_owned()), protection };
        let can_reach = |placement: &Placement| placements.contains_key(placement);
        let way = |placement: &Placement, terms: &Terms| {
            let way = placements.get(placement).map(|address| address.way(run, terms, &hosts));
            // Only asked where it can be reached; a name that is no name fails when it is called.
            way.and_then(Result::ok)
                .unwrap_or_else(|| Arc::new(Tcp::new(Node::on_loopback(""), terms.clone())))
        };
        load(workflow, &Place { here, can_reach: &can_reach, way: &way, ..Place::alone() })
    }
}

/// What a process is to load.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// A manifest's workflow, how its nodes are called, and which images its modules are in.
    Manifest(PathBuf, Security, Vec<Pin>),
    /// The demo's workflow.
    Demo,
    /// The functions of the benchmarks.
    Bench,
    /// The way that benchmarks show as the baseline.
    Baseline,
    /// A bare socket, which benchmarks compare with too.
    Bare,
    /// iceoryx2, which they also do.
    #[cfg(feature = "peers")]
    Iceoryx2,
    /// The HTTP gateway with a function that gives its payload back.
    Gateway,
    /// The plain HTTP server that benchmarks compare with.
    Plain,
}

impl Load {
    /// How nodes are called that the workflow names.
    pub(crate) fn protection(&self) -> Result<Protection, Failure> {
        match self {
            Self::Manifest(_, security, _) => security.protection(),
            _ => Ok(Protection::Loopback),
        }
    }
}

/// A process that ends with this value.
#[derive(Debug)]
struct Member {
    placement: String,
    child: Child,
}

impl Member {
    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            // A process that ends closes its stdout, so this does not wait for ever.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        if line == READY {
            return Ok(());
        }
        let ended = self.child.wait().ok().and_then(|status| status.code());
        let what = format!("the process for `{}` ended before it was ready", self.placement);
        let code = ended.and_then(|code| u8::try_from(code).ok());
        Err(Failure::new(code.and_then(Exit::of_code).unwrap_or(Exit::Host), what))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Time that a process has to put its things away.
#[cfg(feature = "peers")]
const PARTING: Duration = Duration::from_secs(5);

/// One process for a benchmark, and where it listens.
#[derive(Debug)]
pub(crate) struct Partner {
    pub(crate) address: Address,
    member: Member,
}

impl Partner {
    pub(crate) fn start(load: &Load, mode: Mode) -> Result<Self, Failure> {
        let name = "bench";
        let listening =
            if mode == Mode::Network { listen_on_loopback() } else { listen_here(name) };
        let spawned = listening.and_then(|(address, socket)| {
            Ok((address, spawn(name, socket, mode, load, &Addresses::default())?))
        });
        let (address, mut member) = spawned.map_err(|error| {
            Failure::new(Exit::Host, format!("can't start another process: {error}"))
        })?;
        member.wait_until_ready()?;
        Ok(Self { address, member })
    }

    /// Waits for its own end, for a while; then it is ended.
    #[cfg(feature = "peers")]
    pub(crate) fn end(mut self) {
        let until = Instant::now() + PARTING;
        while Instant::now() < until && !matches!(self.member.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(PARTING / 500);
        }
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.member.child.id()
    }
}

/// The processes of a run.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    members: Mutex<Vec<Member>>,
    pub(crate) addresses: Addresses,
    /// What calls of processes to functions of this one come in over.
    home: Option<UnixListener>,
}

/// Places functions as a mode says.
pub(crate) fn place(workflow: &mut Workflow, mode: Mode) {
    match mode {
        Mode::Auto => {}
        Mode::User => workflow.place_locally(),
        Mode::Kernel => workflow.place_in_processes(),
        Mode::Network => workflow.place_on_nodes(),
    }
}

impl Crew {
    /// Starts the processes that a workflow needs and waits until all are ready.
    pub(crate) fn start(workflow: &Workflow, mode: Mode, load: &Load) -> Result<Self, Failure> {
        let mut crew = Self::default();
        let mut listening = Vec::new();
        let refused =
            |error| Failure::new(Exit::Host, format!("can't listen for another process: {error}"));
        for function in workflow.functions() {
            let placement = workflow.say(&function.placement);
            if crew.addresses.0.contains_key(&placement) {
                continue;
            }
            // Of a workflow of which a node serves its part, that part alone is here.
            let part = *workflow.here() != Placement::Local;
            let (address, socket) = match &function.placement {
                Placement::Local => continue,
                Placement::Process(_) if part => continue,
                Placement::Process(name) => listen_here(name).map_err(refused)?,
                // A mode's nodes are processes of this host; a manifest's run already.
                Placement::Node(_) if mode == Mode::Network => {
                    listen_on_loopback().map_err(refused)?
                }
                Placement::Node(node) => {
                    let node = &workflow.nodes()[node.get()];
                    let address = Address::Node(node.name.clone(), node.address.clone());
                    crew.addresses.0.insert(placement, address);
                    continue;
                }
            };
            crew.addresses.0.insert(placement.clone(), address);
            listening.push((placement, socket));
        }
        if listening.is_empty() {
            return Ok(crew);
        }
        let (address, socket) = listen_here("home").map_err(refused)?;
        crew.addresses.0.insert("local".into(), address);
        crew.home = Some(socket.into());
        for (placement, socket) in listening {
            let member =
                spawn(&placement, socket, mode, load, &crew.addresses).map_err(|error| {
                    let what = format!("can't start a process for `{placement}`: {error}");
                    Failure::new(Exit::Host, what)
                })?;
            crew.members().push(member);
        }
        crew.members().iter_mut().try_for_each(Member::wait_until_ready)?;
        Ok(crew)
    }

    /// The placement of a process that has ended.
    pub(crate) fn ended(&self) -> Option<String> {
        let mut members = self.members();
        members.iter_mut().find_map(|member| match member.child.try_wait() {
            Ok(None) => None,
            _ => Some(member.placement.clone()),
        })
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes calls of the processes in, for functions of this one.
    pub(crate) fn serve(&mut self, exe: &Executable) -> Result<Option<UnixServer>, Failure> {
        let Some(listener) = self.home.take() else { return Ok(None) };
        let run = std::process::id();
        let terms = Terms { trust: Trust::domain(run), ..exe.app().terms() };
        let server = UnixServer::on(listener, exe.app().door(), terms);
        server.map(Some).map_err(|error| {
            Failure::new(Exit::Host, format!("can't take calls of other processes in: {error}"))
        })
    }
}

/// What a process says when it can take calls.
pub(crate) const READY: &str = "ready\n";

fn listen_here(name: &str) -> io::Result<(Address, OwnedFd)> {
    // Names that nobody can foresee, and so nobody has taken.
    let made = tempfile::Builder::new().prefix("roadrunner-").rand_bytes(22).make(|unique| {
        let unique = unique.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{unique}-{name}");
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Ok((name, listener))
    })?;
    let (name, listener) = made.into_parts().0;
    Ok((Address::Process(name), listener.into()))
}

fn listen_on_loopback() -> io::Result<(Address, OwnedFd)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok((Address::Loopback(listener.local_addr()?.to_string()), listener.into()))
}

fn spawn(
    placement: &str,
    socket: OwnedFd,
    mode: Mode,
    load: &Load,
    addresses: &Addresses,
) -> io::Result<Member> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", "--here", placement, "--mode", mode.name()]);
    command.args(["--parent", &std::process::id().to_string()]);
    command.arg("--load").arg(match load {
        Load::Manifest(..) => "manifest",
        Load::Demo => "demo",
        Load::Bench => "bench",
        Load::Baseline => "baseline",
        Load::Bare => "bare",
        #[cfg(feature = "peers")]
        Load::Iceoryx2 => "iceoryx2",
        Load::Gateway => "gateway",
        Load::Plain => "plain",
    });
    if let Load::Manifest(path, security, pins) = load {
        command.arg("--workflow").arg(path).args(security.options());
        command.args(pins.iter().map(Pin::option));
    }
    for (placement, address) in &addresses.0 {
        command.arg(peer_option(placement, address));
    }
    // Not in the group that a terminal's Ctrl-C is for: a node's calls may go on for a while then.
    // Whichever way this process ends, the other one ends with it.
    command.process_group(0);
    let child = command.stdin(Stdio::from(socket)).stdout(Stdio::piped()).spawn()?;
    Ok(Member { placement: placement.into(), child })
}

fn peer_option(placement: &str, address: &Address) -> OsString {
    format!("--peer={placement}={}", address.say()).into()
}
