//! The functions that a pod serves: takes calls of them, and hands payloads on to where others are.
//!
//! | name | what is called |
//! |---|---|
//! | `NAME` | the function alone |
//! | `NAME+` | the function and all that its `next` leads to, here and in other pods |
//! | `+.NAME` | the same, as pods of other nodes ask for it |
//!
//! Where a function is decides how its payload travels, and nothing else: in the same pod pages move, to another one goes a
//! sealed memfd, and to another node go bytes. A function that no pod of this host serves is where the annotations of the called
//! function say; from there its own node goes on with what follows it. What was made of the registry's entries is made again when they have changed.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadrunner_runtime::{
    Call, Fault, Inbox, Meter, ModuleSource, Remote, Reply, Terms, Undelivered,
};
use roadrunner_transport::{Node, Protection, Tcp, TcpServer, Unix, UnixServer};
use roadrunner_workflow::{Executable, Place, Placement, Workflow, answer};

use crate::away;
use crate::error::Refusal;
use crate::function::{MODULE, Served, parse};
use crate::reach::{Reached, Way};
use crate::registry::{self, Entry, Published, Registry};
use crate::serve::Lazy;

/// Behind the name of a function whose successors are meant too.
const ONWARD: char = '+';

/// A pod's functions, and what takes calls of them.
pub(crate) struct Functions {
    served: Arc<Exchange>,
    _server: UnixServer,
}

/// The same for calls.
struct Exchange {
    name: String,
    socket: PathBuf,
    registry: Registry,
    runtime: Lazy,
    /// Of payloads on their way in, which belong to none of the functions.
    terms: Terms,
    /// This pod's functions.
    own: Mutex<BTreeMap<String, Own>>,
    /// What was made of them and of the registry.
    made: Mutex<Made>,
}

/// A function of this pod.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) served: Served,
    module: ModuleSource,
    pub(crate) env: BTreeMap<String, String>,
    /// Where its container's errors go.
    stderr: Option<Arc<File>>,
    /// What calls of other nodes are protected by.
    pub(crate) protection: Protection,
    /// Counts what it uses.
    meter: Arc<Meter>,
}

/// Workflows by the functions that they begin with, of one state of the registry.
#[derive(Default)]
struct Made {
    version: u64,
    /// Counts the changes of this pod's own functions.
    epoch: u64,
    workflows: HashMap<(String, Extent), Arc<Executable>>,
}

/// How much is called by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Extent {
    Alone,
    Onward,
}

/// A function that is served until this is dropped.
pub(crate) struct Serving {
    pod: Arc<Exchange>,
    name: String,
    _published: Published,
    _front: Option<TcpServer>,
}

/// What takes calls of one function from other nodes: of no other one.
struct Front {
    pod: Arc<Exchange>,
    function: String,
}

impl Inbox for Front {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        if asked(call.target).0 == self.function {
            return self.pod.accept(call);
        }
        let fault = Fault::Unknown { function: call.target.into() };
        Err(Undelivered::before(fault, call.payload))
    }
}

/// Which function a call names, and how much.
fn asked(target: &str) -> (&str, Extent) {
    let between_nodes = target.strip_prefix(away::ONWARD).and_then(|rest| rest.strip_prefix('.'));
    match between_nodes.or_else(|| target.strip_suffix(ONWARD)) {
        Some(name) => (name, Extent::Onward),
        None => (target, Extent::Alone),
    }
}

impl Functions {
    /// Takes calls in for a pod, none of whose functions is there yet.
    pub(crate) fn open(dir: &Path, pod: &str, runtime: Lazy) -> Result<Self, Refusal> {
        let registry =
            Registry::open(dir).map_err(Refusal::failed("open the registry of functions"))?;
        let socket = registry::socket(dir, pod);
        let made = socket.parent().map_or(Ok(()), registry::make_dir);
        made.map_err(Refusal::failed("make the directory for sockets"))?;
        let nobody = runtime.get()?.load(Vec::new());
        let nobody = nobody.map_err(|(_, error)| Refusal::Failed(error.to_string()))?;
        let served = Arc::new(Exchange {
            name: pod.to_owned(),
            socket: socket.clone(),
            registry,
            runtime,
            terms: nobody.terms(),
            own: Mutex::default(),
            made: Mutex::default(),
        });
        let server = UnixServer::bind(&socket, served.clone(), nobody.terms());
        let server = server.map_err(Refusal::failed(format!("listen at {}", socket.display())))?;
        Ok(Self { served, _server: server })
    }

    /// Serves a function from now on.
    pub(crate) fn add(
        &self,
        served: Served,
        module: ModuleSource,
        env: BTreeMap<String, String>,
        stderr: Option<File>,
        meter: Arc<Meter>,
    ) -> Result<Serving, Refusal> {
        let (pod, name) = (Arc::clone(&self.served), served.name.clone());
        let entry = Entry {
            function: name.clone(),
            pod: pod.name.clone(),
            socket: pod.socket.clone(),
            next: served.next.clone(),
            calls: served.calls.clone(),
        };
        let (away, protection) = (served.away.clone(), served.away.protection()?);
        let stderr = stderr.map(Arc::new);
        let own = Own { served, module, env, stderr, protection: protection.clone(), meter };
        // A module that is none is found out now, and not by the first call.
        pod.runtime
            .get()?
            .inspect(&own.module)
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        // Its calls can come as soon as it is published.
        match lock(&pod.own).entry(name.clone()) {
            Slot::Occupied(_) => {
                let why =
                    format!("another container of the pod serves the function {name} already");
                return Err(Refusal::WrongState(why));
            }
            Slot::Vacant(slot) => drop(slot.insert(own)),
        }
        // What was made of a module before this one is not its own.
        pod.forget();
        if let Some(warning) = away.warning() {
            pod.say(&name, warning.to_owned());
        }
        let front = Arc::new(Front { pod: Arc::clone(&pod), function: name.clone() });
        let opened = away.listen(&name, protection, front, pod.terms.clone());
        match opened.and_then(|front| Ok((front, pod.registry.publish(&entry)?))) {
            Ok((front, published)) => {
                Ok(Serving { pod, name, _published: published, _front: front })
            }
            Err(refusal) => {
                lock(&pod.own).remove(&name);
                Err(refusal)
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        lock(&self.pod.own).remove(&self.name);
        self.pod.forget();
    }
}

impl Exchange {
    /// Makes everything again, when it is called next.
    fn forget(&self) {
        let mut made = lock(&self.made);
        let next = Made { version: made.version, epoch: made.epoch + 1, workflows: HashMap::new() };
        let before = mem::replace(&mut *made, next);
        drop(made);
        drop(before);
    }

    /// The workflow that begins with a function of this pod, as it is now, or has it alone.
    fn workflow(&self, entry: &str, extent: Extent) -> Result<Arc<Executable>, Fault> {
        let key = (entry.to_owned(), extent);
        let version = self.registry.version();
        let epoch = {
            let mut made = lock(&self.made);
            if made.version != version {
                *made = Made { version, epoch: made.epoch, workflows: HashMap::new() };
            }
            if let Some(exe) = made.workflows.get(&key) {
                return Ok(Arc::clone(exe));
            }
            made.epoch
        };
        // Others may call what is made already meanwhile.
        let (entries, mut version) = self.registry.now();
        let mut made = self.make(entry, extent, &entries);
        if made.is_err() && self.registry.version_of_all() != version {
            let (entries, later) = self.registry.now();
            version = later;
            made = self.make(entry, extent, &entries);
        }
        let exe = Arc::new(made?);
        let mut made = lock(&self.made);
        if (made.version, made.epoch) == (version, epoch) {
            made.workflows.insert(key, Arc::clone(&exe));
        }
        Ok(exe)
    }

    fn make(
        &self,
        entry: &str,
        extent: Extent,
        entries: &BTreeMap<String, Entry>,
    ) -> Result<Executable, Fault> {
        let own = lock(&self.own).clone();
        let found = Reached::from(entry, extent, (&self.name, &own), entries).and_then(|reached| {
            let mut workflow = parse(&reached.manifest)?;
            workflow.hand_result_out();
            let runtime = self.runtime.get().map_err(|refusal| refusal.to_string())?;
            self.load(runtime, workflow, &reached.ways, &own)
        });
        found.map_err(|what| {
            tracing::warn!(function = entry, "its workflow can't run: {what}");
            Fault::Exhausted { function: entry.to_owned(), reason: what }
        })
    }

    fn load(
        &self,
        runtime: &roadrunner_runtime::Runtime,
        workflow: Workflow,
        ways: &HashMap<String, Way>,
        own: &BTreeMap<String, Own>,
    ) -> Result<Executable, String> {
        let found = |placement: &Placement| match placement {
            Placement::Process(name) => ways.get(name),
            _ => None,
        };
        let can_reach = |placement: &Placement| found(placement).is_some();
        let way = |placement: &Placement, terms: &Terms| -> Remote {
            match found(placement) {
                Some(Way::Pod(address)) => Arc::new(Unix::new(address.clone(), terms.clone())),
                Some(Way::Node(node)) => Arc::new(Tcp::new(node.clone(), terms.clone())),
                // Only asked where it can be reached.
                None => Arc::new(Tcp::new(Node::on_loopback(""), terms.clone())),
            }
        };
        let none = ModuleSource::Bytes { name: String::new(), bytes: [].as_slice().into() };
        let source = |path: &Path| {
            let own = path.to_str().and_then(|path| own.get(path.strip_suffix(MODULE)?));
            own.map_or_else(|| none.clone(), |own| own.module.clone())
        };
        let meter = |name: &str| own.get(name).map(|own| Arc::clone(&own.meter));
        let place = Place {
            meter: &meter,
            here: Placement::Local,
            can_reach: &can_reach,
            way: &way,
            // Other pods may be another tenant's.
            trusted: false,
        };
        Executable::load(runtime, workflow, &source, &place).map_err(|error| error.to_string())
    }

    /// Says how the payloads of a call travelled.
    fn log(&self, entry: &str, reply: &Reply) {
        for hop in &reply.hops {
            let traffic = hop.account.traffic;
            let line = format!(
                "hop {} -> {}: {}, {} bytes, copied {}, moved {}",
                hop.from, hop.to, hop.mode, hop.bytes, traffic.copied, traffic.moved
            );
            self.say(entry, line);
        }
    }

    /// Says something in a function's log, and in containerd's.
    fn say(&self, function: &str, line: String) {
        tracing::info!("{line}");
        let stderr = lock(&self.own).get(function).and_then(|own| own.stderr.clone());
        if let Some(mut stderr) = stderr.as_deref() {
            // Who reads may be slow or gone; a call doesn't wait for that.
            let _ = stderr.write_all((line + "\n").as_bytes());
        }
    }
}

impl Inbox for Exchange {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        let (name, extent) = asked(call.target);
        if !lock(&self.own).contains_key(name) {
            let fault = Fault::Unknown { function: call.target.into() };
            return Err(Undelivered::before(fault, call.payload));
        }
        let failed = |fault: &Fault| self.say(name, format!("a call of {name} failed: {fault}"));
        let exe = match self.workflow(name, extent) {
            Ok(exe) => exe,
            Err(fault) => {
                failed(&fault);
                return Err(Undelivered::before(fault, call.payload));
            }
        };
        let doubt = |fault: &Fault| {
            failed(fault);
            if let Fault::Unreachable { function, .. } | Fault::Lost { function, .. } = fault {
                self.registry.doubt(function);
            }
        };
        if extent == Extent::Alone {
            let ended = exe.app().deliver(None, call);
            return ended.inspect_err(|undelivered| doubt(&undelivered.fault));
        }
        let reply = answer(&exe, call).inspect_err(doubt).map_err(Undelivered::after)?;
        self.log(name, &reply);
        Ok(reply)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one is still in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
