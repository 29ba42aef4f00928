//! Two hosts, as far as one machine can be two: network namespaces with a link of a known rate between them.
//!
//! A namespace has no name: it lives as long as a process in it. That is `cat`, which ends when this program does,
//! however it ends; so nothing has to be removed.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The addresses of the two, of which the second has the consumers.
pub(crate) const ADDRESSES: [&str; 2] = ["10.78.0.1", "10.78.0.2"];

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Host {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Host {
    fn new() -> io::Result<Self> {
        let mut cat = Command::new("unshare");
        cat.args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
        let mut process =
            cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let this = Self { process, stdin };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line == "up\n" {
            Ok(this)
        } else {
            Err(io::Error::other("it takes root, and `ip` (iproute2)"))
        }
    }

    /// A process in it.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn run(&self, program: &str, args: &[&str]) -> io::Result<()> {
        let pid = self.pid().to_string();
        run("nsenter", &[&["--net", "--target", &pid, "--", program], args].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two of them, linked at so many Mbit/s each way.
///
/// # Errors
/// When it takes rights or tools that are not here.
pub(crate) fn two_hosts(mbit: u32) -> io::Result<[Host; 2]> {
    let hosts = [Host::new()?, Host::new()?];
    let [here, there] = hosts.each_ref().map(|host| host.pid().to_string());
    let link = [
        "link", "add", "rr0", "netns", &here, "type", "veth", "peer", "name", "rr1", "netns",
        &there,
    ];
    run("ip", &link)?;
    let rate = format!("{mbit}mbit");
    for ((host, device), address) in hosts.iter().zip(["rr0", "rr1"]).zip(ADDRESSES) {
        host.run("ip", &["addr", "add", &format!("{address}/24"), "dev", device])?;
        host.run("ip", &["link", "set", device, "up"])?;
        // A burst of what the rate gives in a few clock ticks (`executor::REST` lets it fill), and room for what TCP keeps under way.
        let tbf = ["root", "tbf", "rate", &rate, "burst", "256kb", "latency", "50ms"];
        host.run("tc", &[&["qdisc", "add", "dev", device][..], &tbf].concat())?;
    }
    Ok(hosts)
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::other(format!("`{program}`: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`{program} {}` failed: {}", args.join(" "), said.trim())))
}
