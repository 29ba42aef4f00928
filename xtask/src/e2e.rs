//! Two hosts, as far as one machine can be two: nodes in network namespaces of their own, and between them a link
//! whose rate is known.
//!
//! ```text
//!   namespace `here`                                namespace `there`
//!   roadrunner invoke -> roadrunner serve           roadrunner serve --as there
//!                          produce ----- 100 MiB -----> consume
//!                      10.77.0.1 ==== veth, tbf ==== 10.77.0.2
//! ```
//!
//! The namespaces have no names: each lives as long as a process in it. That is `cat`, which ends when this program
//! does, however it ends; so nothing has to be removed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::Workspace;
use crate::steps::FEATURES;
use crate::test::Outcome;
use crate::tools;

/// Bytes of a payload: what a large image or a second of raw video has.
const PAYLOAD: usize = 100 << 20;

/// Transfers of each kind on each link. A second each where the link's rate is limited.
const RUNS: usize = 5;

/// The rate of the slow link in bytes a second: 1 Gbit/s.
const RATE: f64 = 125e6;

/// A frame on the link and what it carries of a payload, in bytes: the headers of Ethernet, IP and TCP with
/// time stamps take 66 of 1514.
const FRAME: f64 = 1514.0;
const SEGMENT: f64 = 1448.0;

/// Least of what a bare socket reaches on the slow link, which leaves a processor idle for most of the time. The
/// nodes reach 0.99; what else a machine does must not fail this.
const LEAST_OF_BARE: f64 = 0.8;

/// Until a node that was started takes calls: it compiles two small modules.
const READY: Duration = Duration::from_secs(120);

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const NODE_PORT: u16 = 7400;
const BARE_PORT: u16 = 7401;

/// Runs it, where this machine lets us; says why not where it doesn't.
pub(crate) fn network(workspace: &Workspace) -> Result<Outcome> {
    if let Some(reason) = missing(workspace) {
        return Ok(Outcome::Skipped(reason));
    }
    // As the tests are built, so that the suite builds nothing twice.
    workspace.cargo(&["build", "--workspace", "--tests", "--locked", FEATURES]).run()?;
    let folder = workspace.target.join("e2e-network");
    // Of an earlier run.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let hosts = Hosts::new(workspace, folder)?;
    let mut rows =
        vec!["link        way        100 MiB in  of the link  of bare  CPU ns/B".to_owned()];
    for limited in [false, true] {
        if limited {
            hosts.limit()?;
        }
        let bare = hosts.bare()?;
        let plain = hosts.calls(&["--insecure"; 2].map(|option| vec![option.to_owned()]))?;
        let tls = hosts.calls(&["here", "there"].map(|name| {
            vec!["--tls".to_owned(), hosts.folder.join("tls").join(name).display().to_string()]
        }))?;
        let link = if limited { "1 Gbit/s" } else { "unlimited" };
        for (way, cost) in [("bare", bare), ("Roadrunner", plain), ("with TLS", tls)] {
            rows.push(cost.row(link, way, limited, bare));
            let of_bare = bare.time.as_secs_f64() / cost.time.as_secs_f64();
            ensure!(
                !limited || of_bare >= LEAST_OF_BARE,
                "{way}: {of_bare:.2} of what a bare socket reaches on the same link"
            );
        }
    }
    rows.iter().for_each(|row| println!("{row}"));
    println!(
        "Medians of {RUNS}, not optimized. The link carries frames, so their headers are part of what is used of it. CPU is \
        the\nprocessor time of both ends, of nodes with their functions."
    );
    Ok(Outcome::Passed)
}

/// Why it can't run here.
fn missing(workspace: &Workspace) -> Option<String> {
    for tool in
        [["ip", "-V"], ["tc", "-V"], ["unshare", "-V"], ["nsenter", "-V"], ["setpriv", "-V"]]
    {
        if !tools::works(workspace, &tool) {
            return Some(format!("this machine has no `{}`", tool[0]));
        }
    }
    let probe = "ip link set lo up && ip link add rr0 type veth peer name rr1 && \
        tc qdisc add dev rr0 root tbf rate 1gbit burst 256kb latency 50ms";
    if tools::works(workspace, &["unshare", "--net", "sh", "-c", probe]) {
        return None;
    }
    let what = "it takes root, and a kernel with network namespaces, veth and tbf; not all of that is here";
    Some(what.to_owned())
}

/// What 100 MiB cost from one host to the other.
#[derive(Clone, Copy)]
struct Cost {
    /// Median.
    time: Duration,
    /// Processor time of both ends, of one payload.
    cpu: Duration,
}

impl Cost {
    fn row(self, link: &str, way: &str, limited: bool, bare: Self) -> String {
        let seconds = self.time.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        let payload = PAYLOAD as f64;
        let of_link = if limited {
            format!("{:.3}", payload * FRAME / SEGMENT / seconds / RATE)
        } else {
            "-".to_owned()
        };
        format!(
            "{link:<11} {way:<10} {:>7.1} ms {of_link:>12} {:>8.3} {:>9.2}",
            seconds * 1e3,
            bare.time.as_secs_f64() / seconds,
            self.cpu.as_secs_f64() * 1e9 / payload
        )
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace, as long as this value or this program lives.
struct Host {
    process: Running,
    _stdin: ChildStdin,
}

impl Host {
    fn new() -> Result<Self> {
        let mut cat = Command::new("unshare");
        cat.args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
        let mut process = Running(cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let stdin = process.0.stdin.take().context("it was asked for")?;
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().context("it was asked for")?)
            .read_line(&mut line)?;
        ensure!(line == "up\n", "a network namespace can't be made");
        Ok(Self { process, _stdin: stdin })
    }

    /// The process whose namespace it is.
    fn pid(&self) -> String {
        self.process.0.id().to_string()
    }

    /// A program in it, which ends with this one.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid(), "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program).stdin(Stdio::null());
        command
    }
}

/// Two of them with a link, and what runs there.
struct Hosts {
    hosts: [Host; 2],
    roadrunner: PathBuf,
    folder: PathBuf,
}

impl Hosts {
    fn new(workspace: &Workspace, folder: PathBuf) -> Result<Self> {
        let hosts = [Host::new()?, Host::new()?];
        let roadrunner = workspace.target.join("debug/roadrunner");
        let this = Self { hosts, roadrunner, folder };
        let [here, there] = this.hosts.each_ref().map(Host::pid);
        let link = ["link", "add", "rr0", "netns", &here, "type", "veth"];
        workspace.command("ip").args(link).args(["peer", "name", "rr1", "netns", &there]).run()?;
        for ((host, device), address) in this.hosts.iter().zip(["rr0", "rr1"]).zip(ADDRESSES) {
            let address = format!("{address}/24");
            run(host.command("ip".as_ref()).args(["addr", "add", &address, "dev", device]))?;
            run(host.command("ip".as_ref()).args(["link", "set", device, "up"]))?;
        }
        let guest = |name: &str| workspace.root.join(format!("guests/dist/{name}.wasm"));
        let manifest = format!(
            "[workflow]\nname = \"far\"\nentry = \"produce\"\ncallers = [\"here\"]\n\
            [functions.produce]\nmodule = {:?}\nnext = [\"consume\"]\nmemory = \"1 GiB\"\n\
            [functions.consume]\nmodule = {:?}\nplacement = \"node:there\"\nmemory = \"1 GiB\"\n\
            [nodes.there]\naddress = \"{}:{NODE_PORT}\"\n",
            guest("produce"),
            guest("consume"),
            ADDRESSES[1],
        );
        fs::write(this.folder.join("far.toml"), manifest)?;
        fs::write(this.folder.join("size"), (PAYLOAD as u64).to_le_bytes())?;
        let mut certify = Command::new(&this.roadrunner);
        run(certify.args(["certify", "here", "there", "--dir"]).arg(this.folder.join("tls")))?;
        Ok(this)
    }

    /// Makes the link as fast as [`RATE`], both ways.
    fn limit(&self) -> Result<()> {
        for (host, device) in self.hosts.iter().zip(["rr0", "rr1"]) {
            let tbf = ["root", "tbf", "rate", "1gbit", "burst", "256kb", "latency", "50ms"];
            run(host.command("tc".as_ref()).args(["qdisc", "add", "dev", device]).args(tbf))?;
        }
        Ok(())
    }

    fn start(&self, host: &Host, part: &[&str], security: &[String]) -> Result<Running> {
        let mut serve = host.command(&self.roadrunner);
        serve.arg("serve").arg(self.folder.join("far.toml")).args(part).args(security);
        let mut node = Running(serve.stderr(Stdio::piped()).spawn()?);
        let stderr = node.0.stderr.take().context("it was asked for")?;
        let (to, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| {
                // Nobody listens any more once it is ready.
                let _ = to.send(line);
            });
        });
        let mut said = String::new();
        loop {
            let Ok(line) = lines.recv_timeout(READY) else { bail!("a node is not ready: {said}") };
            if line.contains(" serves ") {
                return Ok(node);
            }
            said += &line;
        }
    }

    /// What a workflow's hop from one node to the other costs.
    fn calls(&self, [here, there]: &[Vec<String>; 2]) -> Result<Cost> {
        let socket = self.folder.join("node.sock").display().to_string();
        let nodes = [
            self.start(&self.hosts[1], &["--as", "there"], there)?,
            self.start(&self.hosts[0], &["--socket", &socket], here)?,
        ];
        // Not counted: it makes the connection, and compiled code and pages are warm afterwards.
        self.call(&socket)?;
        let before = cpu_times(&nodes)?;
        let times = (0..RUNS).map(|_| self.call(&socket)).collect::<Result<Vec<_>>>()?;
        let cpu = cpu_times(&nodes)?.saturating_sub(before) / u32::try_from(RUNS)?;
        Ok(Cost { time: median(times), cpu })
    }

    /// Runs the workflow once and takes its hop over the link out of the report.
    fn call(&self, socket: &str) -> Result<Duration> {
        let mut invoke = Command::new(&self.roadrunner);
        invoke.args(["invoke", "far", "--socket", socket, "--report", "json", "--input"]);
        invoke.arg(self.folder.join("size")).arg("--output").arg(self.folder.join("sum"));
        let output = invoke.output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the call failed: {complaint}");
        let sum = fs::read(self.folder.join("sum"))?;
        ensure!(sum == expected_sum().to_le_bytes(), "the payload was damaged on its way");
        let report = String::from_utf8_lossy(&output.stdout);
        let hop = report.split("{\"from\":\"produce\"").nth(1).unwrap_or_default();
        let hop = hop.split('}').next().unwrap_or_default();
        let field = |name: &str| {
            let value = hop.split(&format!("\"{name}\":")).nth(1)?;
            Some(value.split(',').next()?.trim_matches('"').to_owned())
        };
        let found = (field("to"), field("mode"), field("bytes"));
        let (to, mode, bytes) = ("consume".into(), "network".into(), PAYLOAD.to_string());
        ensure!(
            found == (Some(to), Some(mode), Some(bytes)),
            "no such hop in the report: {report}"
        );
        let us: f64 =
            field("handover_us").unwrap_or_default().parse().context(report.into_owned())?;
        Ok(Duration::from_secs_f64(us / 1e6))
    }

    /// What the same bytes cost over a bare socket, between processes of this program.
    fn bare(&self) -> Result<Cost> {
        let this = std::env::current_exe()?;
        let mut receiver = self.hosts[1].command(&this);
        let mut receiver =
            Running(receiver.args(["bare", "receive"]).stdout(Stdio::piped()).spawn()?);
        let mut said = BufReader::new(receiver.0.stdout.take().context("it was asked for")?);
        said.read_line(&mut String::new())?;
        let sent = self.hosts[0].command(&this).args(["bare", "send"]).output()?;
        ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let text = String::from_utf8(sent.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || -> Result<u64> { Ok(numbers.next().context("too few numbers")??) };
        let mut cpu = Duration::from_nanos(next()?);
        let times = (0..RUNS).map(|_| Ok(Duration::from_nanos(next()?)));
        let time = median(times.collect::<Result<_>>()?);
        let mut theirs = String::new();
        said.read_to_string(&mut theirs)?;
        cpu += Duration::from_nanos(theirs.trim().parse()?);
        Ok(Cost { time, cpu: cpu / u32::try_from(RUNS)? })
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// The sum that the benchmarks' consumer answers: of 64-bit words, of which each is `STEP` more than the one before
/// (`guests/pattern`).
fn expected_sum() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = (PAYLOAD / size_of::<u64>()) as u64;
    (words * (words - 1) / 2).wrapping_mul(STEP)
}

/// Processor time of some processes, in the kernel's ticks of 10 ms.
fn cpu_times(nodes: &[Running]) -> Result<Duration> {
    let ticks = nodes.iter().map(|node| own_cpu_time(&node.0.id().to_string()));
    ticks.sum::<Result<Duration>>()
}

fn own_cpu_time(pid: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("a name in parentheses")?.1.split_whitespace();
    // User's and system's are the 14th and 15th field of proc(5), two of which are gone.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// The receiving end of [`Hosts::bare`]: a buffer that is kept warm, and a byte back for each payload.
pub(crate) fn receive_bare() -> Result<()> {
    let listener = TcpListener::bind((ADDRESSES[1], BARE_PORT))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; PAYLOAD];
    let mut before = Duration::ZERO;
    for round in 0..=RUNS {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&[1])?;
        if round == 0 {
            before = own_cpu_time("self")?;
        }
    }
    println!("{}", (own_cpu_time("self")? - before).as_nanos());
    Ok(())
}

/// The sending end: prints its processor time and how long each payload took, in nanoseconds.
pub(crate) fn send_bare() -> Result<()> {
    let mut stream = TcpStream::connect((ADDRESSES[1], BARE_PORT))?;
    stream.set_nodelay(true)?;
    let buffer = vec![1; PAYLOAD];
    let (mut before, mut times) = (Duration::ZERO, Vec::new());
    for round in 0..=RUNS {
        let start = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut [0])?;
        if round == 0 {
            before = own_cpu_time("self")?;
        } else {
            times.push(start.elapsed().as_nanos().to_string());
        }
    }
    println!("{} {}", (own_cpu_time("self")? - before).as_nanos(), times.join(" "));
    Ok(())
}
