//! `roadrunner invoke`: a workflow or function of a node, once.

use std::net;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_abi::limit;
use roadrunner_buffer::{BreakEven, Domain, Home, Pool, PoolLimits};
use roadrunner_runtime::{Call, Fault, Hop, Payload, Remote, Reply, Sealed, Terms, Traffic, Trust};
use roadrunner_transport::{Tcp, Unix};

use crate::args::{Invoke, NamedAddress};
use crate::exit::{Exit, Failure};
use crate::input::{self, Source, Write};
use crate::node::{self, Folder};
use crate::output::Destination;
use crate::progress::Progress;
use crate::report::{self, Report, Usage};

use super::run::{self, deliver, say};

/// Who calls, in reports.
const CALLER: &str = "client";

pub(crate) fn run(options: &Invoke) -> Result<Exit, Failure> {
    let break_even = BreakEven::measure().map_err(|error| {
        Failure::new(Exit::Host, format!("could not measure page moves: {error}"))
    })?;
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    let home = Home { pool, domain: Domain(0), break_even };
    let terms =
        Terms { home: home.clone(), payload_limit: limit::PAYLOAD_BYTES, trust: Trust::None };
    let node = Node::of(options, terms)?;
    let source = options.input.clone().unwrap_or_else(Source::usual);
    // A node on this host maps what lies in a memfd.
    let make = |len, write: Write<'_>| match options.node {
        None => Sealed::write_shared(len, &home, write),
        Some(_) => Sealed::write(len, &home, write),
    };
    let input = input::read(&source, &make, limit::PAYLOAD_BYTES)?;
    let called = node.call(options, input)?;
    let Called { mut reply, hops, total, usage } = called;

    let to = options.output.clone().unwrap_or(Destination::Usual);
    deliver(&mut reply, &to, ".out")?;
    if options.report.is_some() {
        say(&to, &report::line(&Report::new(&options.name, total, &hops, usage)))?;
    }
    Ok(Exit::Success)
}

/// Where calls go.
struct Node {
    way: Remote,
    /// The transport's words for it.
    place: String,
    /// How a node would be started there, if one can be from here.
    option: Option<String>,
}

/// A call that has its response.
struct Called {
    reply: Reply,
    hops: Vec<Hop>,
    total: Duration,
    usage: Usage,
}

impl Node {
    fn of(options: &Invoke, terms: Terms) -> Result<Self, Failure> {
        options.security.warn();
        if let Some(NamedAddress { name, address }) = &options.node {
            let protection = options.security.protection()?;
            let parsed = address.parse::<net::SocketAddr>();
            let here = parsed.map_or(address.starts_with("localhost:"), |it| it.ip().is_loopback());
            let (place, option) = (address.clone(), here.then(|| format!(" --node {address}")));
            let (address, name) = (address.clone(), name.clone());
            let node = roadrunner_transport::Node { address, name, workflow: None, protection };
            return Ok(Self { way: Arc::new(Tcp::new(node, terms)), place, option });
        }
        let (path, option) = match &options.socket {
            Some(path) => (path.clone(), Some(format!(" --socket {}", path.display()))),
            None => (node::usual_socket(Folder::Find)?, Some(String::new())),
        };
        let address = address_of(&path)?;
        let place = path.display().to_string();
        Ok(Self { way: Arc::new(Unix::new(address, terms)), place, option })
    }

    fn call(&self, options: &Invoke, input: Sealed<'static>) -> Result<Called, Failure> {
        let _progress = Progress::start(format!("calling {}", options.name));
        let (cpu, bytes) = (roadrunner_sys::cpu_time(), input.len() as u64);
        let since = Instant::now();
        let deadline = since + options.timeout;
        let (target, payload) = (options.name.as_str(), Payload::One(input));
        let ended = self.way.send(Call {
            target,
            payload,
            since,
            deadline,
            depth: 0,
            caller: Default::default(),
            trace: run::trace(),
        });
        let total = since.elapsed();
        let mut reply = ended.map_err(|undelivered| {
            self.failure(undelivered.fault, options, deadline <= Instant::now())
        })?;
        let (from, to, mode) = (CALLER.into(), target.to_owned(), self.way.mode());
        let mut account = reply.account;
        // No hop follows that could count the response's way here.
        account.traffic += Traffic { copied: reply.copied, moved: 0 };
        let mut hops = vec![Hop { from, to, mode, bytes, account }];
        hops.append(&mut reply.hops);
        let cpu = roadrunner_sys::cpu_time().saturating_sub(cpu);
        let usage = Usage::of(&hops, cpu, total);
        Ok(Called { reply, hops, total, usage })
    }

    /// What a fault of the call itself means to whoever made it; others are the functions'.
    fn failure(&self, fault: Fault, options: &Invoke, late: bool) -> Failure {
        let (place, name, timeout) = (&self.place, &options.name, options.timeout);
        match fault {
            Fault::Unknown { function } if function == *name => {
                let what = format!(
                    "the node at {place} serves nothing called `{name}`, or several functions are; WORKFLOW.FUNCTION says which"
                );
                Failure::new(Exit::Usage, what)
            }
            Fault::Unreachable { peer, reason, .. } if peer == *place => {
                let what = format!("no node takes the call of `{name}` at {place}: {reason}");
                // ENOENT and ECONNREFUSED. Whoever answers is there.
                let is_nobody =
                    ["(os error 2)", "(os error 111)"].iter().any(|it| reason.ends_with(it));
                let start = self
                    .option
                    .as_ref()
                    .filter(|_| is_nobody)
                    .map(|option| format!("; `roadrunner serve WORKFLOW{option}` starts one"));
                Failure::new(Exit::Peer, what + &start.unwrap_or_default())
            }
            Fault::Lost { peer, reason, .. } if peer == *place => {
                let what = format!(
                    "the node at {place} went away with the call of `{name}`: {reason}; it may have run, or not"
                );
                Failure::new(Exit::Peer, what)
            }
            Fault::TimedOut { timeout: had, .. } if late || had == timeout => {
                let what = format!(
                    "`{name}` did not finish within {timeout:?}; raise --timeout or give it less to do"
                );
                Failure::new(Exit::TimedOut, what)
            }
            fault => fault.into(),
        }
    }
}

fn address_of(path: &Path) -> Result<SocketAddr, Failure> {
    SocketAddr::from_pathname(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{} can't be a socket: {error}", path.display()))
    })
}
