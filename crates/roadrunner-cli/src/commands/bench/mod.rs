//! `roadrunner bench`: what hand-overs, calls and fan-outs cost on this machine.

mod peers;

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::io;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_bench as scenarios;
use roadrunner_bench::{Baseline, Client, Endpoint, PAYLOAD_BYTES, Partners, ReadWrite, Stats};
use roadrunner_runtime::{Backing, Config, Mode as HandedOver, Remote, Terms};
use roadrunner_transport::{Node, Tcp};
use serde::Serialize;

use crate::args::{Bench, EmptyCalls, FanOut, HandOver, Http, Method, Mode, Scenario, Transfer};
use crate::crew::{Address, Hosts, Load, Partner};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::{output, report};

pub(crate) fn run(options: &Bench) -> Result<Exit, Failure> {
    match &options.scenario {
        Scenario::Transfer(options) => transfer(options)?,
        Scenario::Invoke(options) => invoke(options)?,
        Scenario::Fanout(options) => fanout(options)?,
        Scenario::Handover(options) => handover(options)?,
        Scenario::Http(options) => http(options)?,
        Scenario::Peers(options) => return peers::run(options),
    }
    Ok(Exit::Success)
}

/// Each size is printed as soon as it is measured: a list of large ones takes long.
fn transfer(options: &Transfer) -> Result<(), Failure> {
    options.size.iter().try_for_each(|size| within_limit(*size))?;
    if let (Some(method), true) = (options.method.fixed(), options.mode == Mode::Network) {
        method.is_available().map_err(|error| {
            Failure::new(Exit::Host, format!("{method} is not available here: {error}"))
        })?;
    }
    let here = matches!(options.mode, Mode::Auto | Mode::User);
    let (title, note, to_row): (&[_], _, fn(&scenarios::Transfer) -> String) = if here {
        (&HERE, HERE_NOTE, row_here)
    } else {
        (&ELSEWHERE, ELSEWHERE_NOTE, row_elsewhere)
    };
    if !options.json {
        output::print(&row(title))?;
    }
    for &size in &options.size {
        let what = format!("moving {}", report::bytes(size));
        let found = if here {
            measure(what, |progress| {
                scenarios::transfer(&Config::default(), size, options.runs, progress)
            })?
        } else {
            elsewhere(what, size, options)?
        };
        print(&found, options.json, to_row)?;
    }
    if !options.json {
        let runs = options.runs;
        output::print(&format!("Times are medians, runs of each way: {runs}. {note}\n"))?;
    }
    Ok(())
}

/// Measures transfers to another process.
fn elsewhere(what: String, size: u64, options: &Transfer) -> Result<scenarios::Transfer, Failure> {
    let start = |load| Partner::start(&load, options.mode);
    let partners = [start(Load::Bench)?, start(Load::Baseline)?, start(Load::Bare)?];
    let pids = partners.each_ref().map(Partner::pid);
    let [ours, replaced, bare] = partners.each_ref().map(|partner| &partner.address);
    let refused =
        |error| Failure::new(Exit::Host, format!("can't connect to another process: {error}"));
    let (mode, methods, baseline) = match replaced {
        Address::Process(name) => (
            HandedOver::Kernel,
            ["segment over a UNIX socket", "bytes over a UNIX socket"],
            Baseline::Stream(Box::new(connect_here(name).map_err(refused)?)),
        ),
        Address::Loopback(address) | Address::Node(_, address) => {
            let client = Client::new(connect_by_tcp(address).map_err(refused)?);
            (HandedOver::Network, ["send"; 2], Baseline::Http(client))
        }
    };
    let mut bare: Box<dyn ReadWrite> = match bare {
        Address::Process(name) => Box::new(connect_here(name).map_err(refused)?),
        Address::Loopback(address) | Address::Node(_, address) => {
            Box::new(connect_by_tcp(address).map_err(refused)?)
        }
    };
    let tcp = OnceCell::new();
    let way = |terms: &Terms| match (ours, options.method.fixed()) {
        (Address::Loopback(address), method) => {
            let way = match method {
                Some(method) => Tcp::with_method(Node::on_loopback(address), terms.clone(), method),
                None => Tcp::new(Node::on_loopback(address), terms.clone()),
            };
            Arc::clone(tcp.get_or_init(|| Arc::new(way))) as Remote
        }
        (address, _) => {
            let way = address.way(std::process::id(), terms, &Hosts::none());
            way.unwrap_or_else(|_| unreachable!("the partner listens under this name"))
        }
    };
    let from_file = matches!(options.method, Method::Sendfile | Method::Splice);
    let backing = match mode {
        HandedOver::Kernel => Backing::Segment,
        _ if from_file => Backing::Memfd,
        _ => Backing::Private,
    };
    let partners = Partners { way: &way, backing, methods, baseline, bare: &mut *bare, pids };
    let mut found = measure(what, |progress| {
        let config = Config::default();
        scenarios::transfer_elsewhere(&config, size, options.runs, mode, partners, progress)
    })?;
    if let Some(method) = tcp.get().and_then(|tcp| tcp.method()) {
        found.ours.method = method.name();
    }
    Ok(found)
}

fn connect_here(name: &str) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

fn connect_by_tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const HERE: [&str; 9] = [
    "size",
    "hand-over",
    "copying",
    "faster",
    "end to end",
    "copying",
    "native",
    "to native",
    "copied",
];
const HERE_NOTE: &str = "\"copying\" is out of one linear memory into a buffer of the host and from there into \
    the next;\n\"native\" is two native functions that pass a pointer.";

fn row_here(found: &scenarios::Transfer) -> String {
    let scenarios::Transfer { ours, baseline, native, .. } = found;
    row([
        report::bytes(found.size_bytes),
        time(ours.handover_us.p50),
        time(baseline.handover_us.p50),
        ratio(baseline.handover_us.p50, ours.handover_us.p50),
        time(ours.end_to_end_us.p50),
        time(baseline.end_to_end_us.p50),
        native.as_ref().map_or_else(String::new, |native| time(native.end_to_end_us.p50)),
        native.as_ref().map_or_else(String::new, |native| {
            ratio(ours.end_to_end_us.p50, native.end_to_end_us.p50)
        }),
        report::bytes(ours.copied_bytes),
    ])
}

const ELSEWHERE: [&str; 11] = [
    "size",
    "hand-over",
    "copying",
    "faster",
    "bare",
    "to bare",
    "end to end",
    "copying",
    "CPU ns/B",
    "copying",
    "copied",
];
const ELSEWHERE_NOTE: &str = "\"copying\" is out of one linear memory through a UNIX socket or an HTTP POST into \
    a buffer of the host\nand from there into the next; \"bare\" is a send and recv loop over a socket, to a native function.";

fn row_elsewhere(found: &scenarios::Transfer) -> String {
    let scenarios::Transfer { ours, baseline, bare, .. } = found;
    let bare = bare.as_ref().map_or(0.0, |bare| bare.handover_us.p50);
    let per_byte = |ns: Option<f64>| format!("{:.3}", ns.unwrap_or_default());
    row([
        report::bytes(found.size_bytes),
        time(ours.handover_us.p50),
        time(baseline.handover_us.p50),
        ratio(baseline.handover_us.p50, ours.handover_us.p50),
        time(bare),
        ratio(ours.handover_us.p50, bare),
        time(ours.end_to_end_us.p50),
        time(baseline.end_to_end_us.p50),
        per_byte(ours.cpu_ns_per_byte),
        per_byte(baseline.cpu_ns_per_byte),
        report::bytes(ours.copied_bytes),
    ])
}

fn invoke(options: &EmptyCalls) -> Result<(), Failure> {
    let found = measure("calling".into(), |progress| {
        scenarios::invoke(&Config::default(), options.calls, progress)
    })?;
    print(&found, options.json, |found| {
        lines([
            ("calls", found.calls.to_string()),
            ("each", stats(&found.call_us)),
            ("a second", format!("{:.0}", found.calls_per_second)),
        ])
    })
}

fn fanout(options: &FanOut) -> Result<(), Failure> {
    within_limit(options.size)?;
    let what = format!("handing {} to {} functions", report::bytes(options.size), options.width);
    let found = measure(what, |progress| {
        scenarios::fanout(&Config::default(), options.width, options.size, progress)
    })?;
    print(&found, options.json, |found| {
        lines([
            ("payload", report::bytes(found.size_bytes)),
            ("functions", found.width.to_string()),
            ("copied", report::bytes(found.copied_bytes)),
            ("hand-over", stats(&found.handover_us)),
            ("all have read", time(found.total_us)),
            ("memory", memory(found)),
        ])
    })
}

fn memory(found: &scenarios::FanOut) -> String {
    format!(
        "{} more while all hold the payload, of which {} for sandboxes; a copy each would be {}",
        report::bytes(found.pss_growth_bytes),
        report::bytes(found.sandbox_bytes),
        report::bytes(found.size_bytes * u64::from(found.width)),
    )
}

fn handover(options: &HandOver) -> Result<(), Failure> {
    within_limit(options.size)?;
    let what = format!("handing {} over", report::bytes(options.size));
    let HandOver { size, count, threads, .. } = *options;
    let found = measure(what, |progress| {
        scenarios::handover(&Config::default(), size, count, threads, progress)
    })?;
    print(&found, options.json, |found| {
        let rate = |rate: f64| format!("{rate:.0} hand-overs a second");
        lines([
            ("payload", report::bytes(found.size_bytes)),
            ("1 thread", rate(found.one_thread_per_second)),
            (&format!("{} threads", found.threads), rate(found.all_threads_per_second)),
            ("speed-up", format!("{:.2}x", found.speed_up)),
        ])
    })
}

/// Each load is printed as soon as it is measured.
fn http(options: &Http) -> Result<(), Failure> {
    options.size.iter().try_for_each(|size| within_limit(*size))?;
    let gateway = Partner::start(&Load::Gateway, Mode::Network)?;
    let plain = Partner::start(&Load::Plain, Mode::Network)?;
    let at = |partner: &Partner, path| {
        let Address::Loopback(address) = &partner.address else { return None };
        Some(Endpoint { address: address.parse().ok()?, path })
    };
    let nowhere = || Failure::new(Exit::Host, "a server listens nowhere");
    let ours = at(&gateway, "/workflows/fresh").ok_or_else(nowhere)?;
    let reused = at(&gateway, "/workflows/reused").ok_or_else(nowhere)?;
    let baseline = at(&plain, "/").ok_or_else(nowhere)?;
    if !options.json {
        let title = [
            "size", "clients", "a second", "reused", "plain", "ratio", "reused", "p50", "reused",
            "plain",
        ];
        output::print(&row(title))?;
    }
    for &size_bytes in &options.size {
        for &connections in &options.connections {
            let Http { rounds, time: round, .. } = *options;
            let load = scenarios::Load { size_bytes, connections, rounds, round };
            let what =
                format!("posting {} over {connections} connections", report::bytes(size_bytes));
            let found =
                measure(what, |progress| scenarios::http(ours, reused, baseline, &load, progress))?;
            print(&found, options.json, http_row)?;
        }
    }
    Ok(())
}

fn http_row(found: &scenarios::Http) -> String {
    let scenarios::Http { ours, reused, baseline, ratio, reused_ratio, .. } = found;
    row([
        report::bytes(found.size_bytes),
        found.connections.to_string(),
        format!("{:.0}", ours.requests_per_second),
        format!("{:.0}", reused.requests_per_second),
        format!("{:.0}", baseline.requests_per_second),
        format!("{:.2}", ratio.p50),
        format!("{:.2}", reused_ratio.p50),
        time(ours.latency_us.p50),
        time(reused.latency_us.p50),
        time(baseline.latency_us.p50),
    ])
}

fn within_limit(size: u64) -> Result<(), Failure> {
    if size <= PAYLOAD_BYTES {
        return Ok(());
    }
    let (size, limit) = (report::bytes(size), report::bytes(PAYLOAD_BYTES));
    let message = format!("a payload of {size} is over the limit of {limit}");
    Err(Failure::new(Exit::TooLarge, message))
}

/// How often a scenario's progress is passed on: telling wakes a thread, and while that runs on another
/// processor every change of a mapping waits for it (a 30-us round took 11 us more).
const NEWS: Duration = Duration::from_millis(100);

/// Runs a scenario and shows how far it is.
fn measure<T>(
    what: String,
    scenario: impl FnOnce(scenarios::Progress<'_>) -> Result<T, scenarios::BenchError>,
) -> Result<T, Failure> {
    let progress = Progress::start(what.clone());
    let mut last = Instant::now();
    Ok(scenario(&mut |done, all| {
        if done == all || last.elapsed() >= NEWS {
            last = Instant::now();
            progress.say(format!("{what}: {done} of {all}"));
        }
    })?)
}

fn print<T: Serialize>(
    found: &T,
    json: bool,
    for_people: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    output::print(&if json { report::line(found) } else { for_people(found) })
}

/// A row of the table, whose columns have a fixed width because rows come one by one.
fn row(cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::new();
    for cell in cells {
        // Writing to a string can't fail.
        let _ = write!(text, "{:>11}", cell.as_ref());
    }
    text.push('\n');
    text
}

fn lines<'a>(lines: impl IntoIterator<Item = (&'a str, String)>) -> String {
    lines.into_iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}

fn stats(stats: &Stats) -> String {
    let Stats { p50, p99, min } = *stats;
    format!("{} (99th percentile {}, fastest {})", time(p50), time(p99), time(min))
}

fn time(us: f64) -> String {
    report::time(Duration::from_secs_f64(us / 1e6))
}

/// How many times `large` is `small`.
fn ratio(large: f64, small: f64) -> String {
    let ratio = large / small.max(1e-3);
    if ratio < 10.0 { format!("{ratio:.2}x") } else { format!("{ratio:.0}x") }
}
