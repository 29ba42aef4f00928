//! Roadrunner: a payload goes from the producer's linear memory to those of its consumers, in this process, in another
//! one, or over TCP.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr as Internet, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use roadrunner_evaluation::agent::{self, Measured, Order, nanos};
use roadrunner_evaluation::names::System;
use roadrunner_runtime::{
    Account, App, Backing, Config, FunctionSpec, ModuleSource, Payload, Remote, Reply, Runtime,
    Sealed, Terms, Trust,
};
use roadrunner_transport::{Node, Protection, Tcp, TcpServer, Unix, UnixServer};

/// The consumer's name.
pub(crate) const CONSUMER: &str = "glance";

const PRODUCE: &[u8] = include_bytes!("../../../guests/dist/produce.wasm");
const GLANCE: &[u8] = include_bytes!("../../../guests/dist/glance.wasm");

/// The flag that has `produce` write text.
const TEXT: u8 = 8;

/// Largest payload in bytes.
pub(crate) const PAYLOAD_BYTES: u64 = 1 << 30;

pub(crate) fn failed(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

/// The producer, and the consumer unless there is a way to one elsewhere.
pub(crate) fn load(
    config: Config,
    backing: Backing,
    elsewhere: Option<&dyn Fn(&Terms) -> Remote>,
) -> io::Result<Arc<App>> {
    let runtime =
        Runtime::new(Config { payload_bytes: PAYLOAD_BYTES, ..config }).map_err(failed)?;
    let spec = |name: &str, bytes: &'static [u8]| {
        let module = ModuleSource::Bytes { name: name.into(), bytes: Cow::Borrowed(bytes) };
        FunctionSpec { backing, memory_bytes: 4 << 30, ..FunctionSpec::new(name, module) }
    };
    let mut specs = vec![spec("produce", PRODUCE)];
    let loaded = match elsewhere {
        Some(way) => runtime.load_beside(specs, |terms| [(CONSUMER.to_owned(), way(terms))].into()),
        None => {
            specs.push(spec(CONSUMER, GLANCE));
            runtime.load(specs)
        }
    };
    loaded.map_err(|(name, error)| failed(format!("{name}: {error}")))
}

/// Has the producer write a text.
pub(crate) fn produce(app: &Arc<App>, size: u64) -> io::Result<Reply> {
    let order = [&size.to_le_bytes()[..], &[TEXT]].concat();
    let payload = Payload::One(Sealed::borrowed(&order));
    app.call("produce", payload, Instant::now()).map_err(|undelivered| failed(undelivered.fault))
}

/// Checks what a consumer saw.
pub(crate) fn check(mut reply: Reply, size: u64) -> io::Result<()> {
    let sealed = reply.payload().map_err(failed)?;
    let seen = sealed.bytes().map_err(failed)?;
    let seen = seen.try_into().map(u64::from_le_bytes);
    agent::check(seen.map_err(|_| failed("a consumer answered in another length"))?, size)
}

/// Both functions in this process.
pub(crate) fn user(consumers: u32) -> io::Result<()> {
    let backing = if consumers == 1 { Backing::Private } else { Backing::Memfd };
    let app = load(Config::default(), backing, None)?;
    agent::take_orders(|order| {
        if order.consumers > 1 {
            return fan_out(&app, order);
        }
        // As in a workflow, where it is made while the producer runs.
        let ready = app.prepare(CONSUMER).map_err(failed)?;
        let produced = produce(&app, order.size)?;
        let since = produced.finished;
        let consumed = app.call_ready(Some(ready), CONSUMER, Payload::Held(produced), since);
        finish(consumed.map_err(|undelivered| failed(undelivered.fault))?, since, order)
    })
}

fn finish(consumed: Reply, since: Instant, order: Order) -> io::Result<Measured> {
    let total_ns = nanos(since.elapsed());
    let Account { traffic, handover, run, .. } = consumed.account;
    check(consumed, order.size)?;
    Ok(Measured {
        total_ns,
        hand_over_ns: Some(nanos(handover)),
        consumer_ns: Some(nanos(run)),
        copied_bytes: Some(traffic.copied),
        ..Measured::default()
    })
}

/// One payload for several, here or elsewhere, all at once.
fn fan_out(app: &Arc<App>, order: Order) -> io::Result<Measured> {
    let mut produced = produce(app, order.size)?;
    let since = produced.finished;
    let sealed = produced.payload().map_err(failed)?;
    let (parts, copied) = sealed.split(order.consumers as usize, app.home()).map_err(failed)?;
    let (sender, receiver) = channel();
    let tickets: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let sender = sender.clone();
            app.spawn(CONSUMER.into(), Payload::One(part), move |ended| {
                let _ = sender.send(ended);
            })
        })
        .collect();
    drop(sender);
    tickets.iter().rev().for_each(roadrunner_runtime::Ticket::help);
    let replies = receiver.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let total_ns = nanos(since.elapsed());
    let landed: u64 = replies.iter().map(|reply| reply.account.traffic.copied).sum();
    replies.into_iter().try_for_each(|reply| check(reply, order.size))?;
    Ok(Measured { total_ns, copied_bytes: Some(copied.copied + landed), ..Measured::default() })
}

/// The producer, of a consumer elsewhere.
fn source(backing: Backing, way: &dyn Fn(&Terms) -> Remote) -> io::Result<()> {
    let app = load(Config::default(), backing, Some(way))?;
    agent::take_orders(|order| {
        if order.consumers > 1 {
            return fan_out(&app, order);
        }
        let mut produced = produce(&app, order.size)?;
        let since = produced.finished;
        let sealed = produced.payload().map_err(failed)?;
        let consumed = app.call(CONSUMER, Payload::One(sealed), since);
        finish(consumed.map_err(|undelivered| failed(undelivered.fault))?, since, order)
    })
}

/// Starts the consumer's process as well: only processes of one run lend each other memory, and the one that started
/// the run is this.
pub(crate) fn kernel_source(consumers: u32) -> io::Result<()> {
    let run = std::process::id();
    let name = format!("roadrunner-evaluation-{run}");
    let address = SocketAddr::from_abstract_name(&name)?;
    let listener = UnixListener::bind_addr(&address)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["sink", &System::RoadrunnerKernel.to_string(), &name]);
    let mut sink = Sink(command.stdin(OwnedFd::from(listener)).stdout(Stdio::piped()).spawn()?);
    let mut said = String::new();
    if let Some(stdout) = &mut sink.0.stdout {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if !said.starts_with("ready") {
        return Err(failed("the process of the consumers ended before it was ready"));
    }
    let backing = if consumers == 1 { Backing::Segment } else { Backing::Memfd };
    source(backing, &|terms| {
        let terms = Terms { trust: Trust::domain(run), ..terms.clone() };
        Arc::new(Unix::new(address.clone(), terms))
    })
}

/// A process that ends with this value.
struct Sink(Child);

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket is stdin.
pub(crate) fn kernel_sink(name: &str) -> io::Result<()> {
    let run = std::os::unix::process::parent_id();
    if !roadrunner_sys::end_with_parent(run) {
        return Ok(());
    }
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let app = load(Config::default(), Backing::Private, None)?;
    let terms = Terms { trust: Trust::domain(run), ..app.terms() };
    let _server = UnixServer::on(listener, app.door(), terms)?;
    agent::say_ready(name)?;
    loop {
        thread::park();
    }
}

/// Between hosts it is not encrypted, as the peers are not.
fn protection(address: &str) -> io::Result<Protection> {
    let address: Internet = address.parse().map_err(failed)?;
    Ok(if address.ip().is_loopback() { Protection::Loopback } else { Protection::Insecure })
}

pub(crate) fn network_source(address: &str, consumers: u32) -> io::Result<()> {
    let protection = protection(address)?;
    let backing = if consumers == 1 { Backing::Private } else { Backing::Memfd };
    source(backing, &|terms| {
        let node = Node {
            address: address.to_owned(),
            name: None,
            workflow: None,
            protection: protection.clone(),
        };
        Arc::new(Tcp::new(node, terms.clone()))
    })
}

pub(crate) fn network_sink(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?.to_string();
    let app = load(Config::default(), Backing::Private, None)?;
    let _server = TcpServer::on(listener, protection(&bound)?, app.door(), app.terms())?;
    agent::say_ready(&bound)?;
    agent::wait_for_end()
}
