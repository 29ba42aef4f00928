//! What may be typed. Each command's options are a struct that its module takes as it is: every
//! value is checked while it is parsed, so nothing is validated twice.

mod bench;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use roadrunner_abi::limit;
use roadrunner_image::Reference;
use roadrunner_workflow::units;

use crate::crew::Address;
use crate::exit;
use crate::images::Pin;
use crate::input::Source;
use crate::output::Destination;
use crate::security::Security;

pub(crate) use bench::{
    Bench, EmptyCalls, FanOut, HandOver, Http, Method, Peers, Scenario, Transfer,
};

/// Runs WebAssembly functions that hand their payloads over by moving pages, not bytes.
#[derive(Debug, Parser)]
#[command(name = "roadrunner", version, max_term_width = 100)]
#[command(after_help = format!("{TOP_EXAMPLES}\n\n{}", exit::table()))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say on stderr what is being done; RUST_LOG=TARGET=LEVEL chooses more finely.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

const TOP_EXAMPLES: &str = "\
Examples:
  roadrunner demo
  roadrunner run roadrunner.toml --input photo.jpg --output sheet.png
  roadrunner COMMAND --help";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Run(Run),
    Serve(Serve),
    Invoke(Invoke),
    Certify(Certify),
    Inspect(Inspect),
    Compile(Compile),
    #[command(subcommand)]
    Image(Image),
    Bench(Bench),
    Doctor(Doctor),
    Worker(Worker),
}

/// Run a built-in workflow on a built-in photograph; nothing has to be set up.
///
/// The photograph is decoded, resized, turned grey, into edges and blurred at the same time, joined into a
/// contact sheet and encoded as PNG. A table shows every hand-over of a payload, and a last line
/// compares with the same workflow when payloads are copied.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner demo
  roadrunner demo --output sheet.png
  roadrunner demo --mode kernel
  roadrunner demo --report json | jq .comparison")]
pub(crate) struct Demo {
    /// Where the picture goes; `-` is stdout.
    #[arg(long, short, value_name = "FILE", default_value = "roadrunner-demo.png")]
    pub(crate) output: Destination,
    /// How payloads travel between functions.
    #[arg(long, value_enum, default_value_t = Mode::User)]
    pub(crate) mode: Mode,
    /// Print one JSON object instead of the table; on stderr if the picture goes to stdout.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) report: Option<ReportFormat>,
}

/// Run a workflow once on one payload.
///
/// WORKFLOW is a manifest, `roadrunner.toml`; docs/manifest.md describes it. A W3C `traceparent` in the
/// environment, as TRACEPARENT, is passed on to the functions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner run roadrunner.toml --input photo.jpg --output sheet.png
  cat app.log | roadrunner run roadrunner.toml > summary.txt
  roadrunner run roadrunner.toml -i photo.jpg -o sheet.png --report json | jq .hops")]
pub(crate) struct Run {
    /// The workflow's manifest.
    pub(crate) workflow: PathBuf,
    /// Where the payload comes from; `-` is stdin. Without it: stdin, or nothing if that is a terminal.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<Source>,
    /// Where the result goes; `-` is stdout, as is no option.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<Destination>,
    /// How payloads travel between functions.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) security: Security,
    /// Print one JSON object about the run on stdout; on stderr if the result goes to stdout.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) report: Option<ReportFormat>,
}

/// Keep workflows ready and take calls of them, until it is told to end.
///
/// NAME of `roadrunner invoke NAME` is a WORKFLOW, a WORKFLOW.FUNCTION, or a FUNCTION that only one workflow has.
/// Changed manifests and modules are loaded again, at once on SIGHUP; calls under way end on what they began with.
/// SIGTERM or Ctrl-C ends the node when its calls have ended, a second one at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner serve roadrunner.toml
  roadrunner serve thumbnail.toml logs.toml --socket /run/roadrunner/node.sock
  roadrunner serve roadrunner.toml --node 127.0.0.1:7400 --grace 1m
  roadrunner serve roadrunner.toml --as edge-1 --tls tls/edge-1    # its functions with placement node:edge-1
  roadrunner serve roadrunner.toml --http 127.0.0.1:8080    # curl --data-binary @F localhost:8080/workflows/NAME
  systemd-run --user roadrunner serve /srv/thumbnail/roadrunner.toml")]
pub(crate) struct Serve {
    /// The workflows' manifests.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub(crate) workflows: Vec<PathBuf>,
    /// The socket for calls of this user's programs. Without it: roadrunner.sock in $XDG_RUNTIME_DIR, or in
    /// /tmp/roadrunner-UID; none if there is --node or --http.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// A TCP address for calls, HOST:PORT; port 0 is any free one. Other hosts' calls take --tls; without it every
    /// user of this host can call there.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) node: Option<String>,
    /// Serve this node's part of the workflows: the functions that the manifests place on it. Calls come in at its
    /// address in the manifest, unless --node names another.
    #[arg(long = "as", value_name = "NODE")]
    pub(crate) part: Option<String>,
    #[command(flatten)]
    pub(crate) security: Security,
    /// A TCP address for HTTP requests, IP:PORT; port 0 is any free one. Whoever reaches it can call: there is
    /// no TLS and no authentication yet.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Time that calls under way have to end.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) grace: Duration,
}

/// Call a workflow or function of a node that `roadrunner serve` started.
///
/// NAME is a WORKFLOW, a WORKFLOW.FUNCTION, or a FUNCTION that only one workflow of the node has. A W3C
/// `traceparent` in the environment, as TRACEPARENT, goes with the call.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner invoke thumbnail --input photo.jpg --output sheet.png
  roadrunner invoke thumbnail.resize < frame.raw > small.raw
  roadrunner invoke thumbnail --node 127.0.0.1:7400 -i photo.jpg -o sheet.png
  roadrunner invoke thumbnail.resize --node edge-1@10.0.0.7:7400 --tls tls/laptop < frame.raw > small.raw
  roadrunner invoke thumbnail -i photo.jpg -o sheet.png --report json | jq .hops")]
pub(crate) struct Invoke {
    /// What is called.
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// The node's socket. Without it: where `roadrunner serve` listens when nothing is said.
    #[arg(long, value_name = "PATH", conflicts_with = "node")]
    pub(crate) socket: Option<PathBuf>,
    /// The node's TCP address, HOST:PORT, or NAME@HOST:PORT where its certificate is for another name.
    #[arg(long, value_name = "ADDR", value_parser = named_address)]
    pub(crate) node: Option<NamedAddress>,
    #[command(flatten)]
    pub(crate) security: Security,
    /// Where the payload comes from; `-` is stdin. Without it: stdin, or nothing if that is a terminal.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<Source>,
    /// Where the result goes; `-` is stdout, as is no option.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<Destination>,
    /// Time for the whole call, at most 1h.
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Print one JSON object about the call on stdout; on stderr if the result goes to stdout.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) report: Option<ReportFormat>,
}

/// Make certificates for nodes and their callers.
///
/// In DIR, a folder for each NAME, as --tls takes it. They are signed by the authority in DIR/ca.pem and DIR/ca.key, which is made at
/// the first time; whoever has ca.key can be any node. A manifest lets the nodes in that it names, and its `callers`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner certify edge-1 edge-2 laptop
  roadrunner serve roadrunner.toml --as edge-1 --tls tls/edge-1
  roadrunner invoke resize --node edge-1@10.0.0.7:7400 --tls tls/laptop < frame.raw > small.raw")]
pub(crate) struct Certify {
    /// The names of nodes and callers.
    #[arg(required = true, value_name = "NAME", value_parser = certified)]
    pub(crate) names: Vec<String>,
    /// The folder.
    #[arg(long, value_name = "DIR", default_value = "tls")]
    pub(crate) dir: PathBuf,
}

/// Show what a module offers and what it asks of its host.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner inspect resize.wasm
  roadrunner inspect --json resize.wasm | jq .imports")]
pub(crate) struct Inspect {
    /// A .wasm, .wat or .cwasm file.
    pub(crate) module: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compile a module ahead of time, so that loading it takes no compiler.
///
/// The result runs on this version of Roadrunner and this kind of processor only. It is machine code: load only
/// what you made yourself or trust like any program.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner compile resize.wasm
  roadrunner compile resize.wasm -o build/resize.cwasm")]
pub(crate) struct Compile {
    /// A .wasm or .wat file.
    pub(crate) module: PathBuf,
    /// Where the compiled module goes; `-` is stdout. Without it: beside the module, as .cwasm.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<Destination>,
}

/// Make OCI images of modules and workflows, and push them to registries.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  roadrunner image build roadrunner.toml --output thumbnail.tar
  roadrunner image push thumbnail.tar registry.example/thumbnail:1")]
pub(crate) enum Image {
    Build(ImageBuild),
    Push(ImagePush),
}

/// Make an OCI image of a workflow or of one module; nothing is asked of the network.
///
/// The image of a module is a Wasm artifact that other runtimes take too. That of a workflow holds its manifest and the
/// modules that are files; `oci://` modules stay where they are. The same input has the same digest, which is printed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner image build roadrunner.toml --output thumbnail.tar
  roadrunner image build resize.wasm --output resize.tar
  roadrunner image build tool.wasm --container --name registry.example/tool:1 --output tool.tar    # ctr image import tool.tar")]
pub(crate) struct ImageBuild {
    /// A manifest, `roadrunner.toml`, or a .wasm or .wat file.
    #[arg(value_name = "WORKFLOW")]
    pub(crate) source: PathBuf,
    /// Where the archive goes, an OCI image layout in a tar file; `-` is stdout.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Destination,
    /// What containerd calls the image that it imports, REGISTRY/NAME:TAG.
    #[arg(long, value_name = "REF")]
    pub(crate) name: Option<Reference>,
    /// Make a container image, with an entry point, which `ctr run` takes; it takes no artifacts.
    #[arg(long)]
    pub(crate) container: bool,
}

/// Push an image to a registry.
///
/// Registries on this host are spoken to over HTTP, others over HTTPS. Credentials are those of `docker login`. The image's
/// digest is printed, as part of a name by which it stays the same.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner image push thumbnail.tar registry.example/thumbnail:1
  roadrunner image push roadrunner.toml localhost:5000/thumbnail:1")]
pub(crate) struct ImagePush {
    /// An archive that ends in .tar, or what `image build` takes.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// Where it goes, REGISTRY/NAME:TAG.
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
}

/// Check what this machine offers, and say what to change.
///
/// Every line is ok, warn (it works, but slower or less of it) or fail (it does not work); a fail ends in exit code 1.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner doctor
  roadrunner doctor --json | jq '.checks[] | select(.status != \"ok\")'")]
pub(crate) struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How payloads travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The best way for each hop.
    Auto,
    /// Within this process: pages move between linear memories.
    User,
    /// Between processes of this host: each function gets one, and payloads go as descriptors.
    Kernel,
    /// Between hosts: each function gets a process, and payloads go over TCP on this host's loopback.
    Network,
}

impl Mode {
    /// As it is typed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Network => "network",
        }
    }
}

/// A process of a run. Not for people: `roadrunner run` starts it.
#[derive(Args, Debug)]
#[command(hide = true)]
pub(crate) struct Worker {
    /// The placement of the functions to load, as a manifest says it.
    #[arg(long)]
    pub(crate) here: String,
    /// What to load.
    #[arg(long, value_enum)]
    pub(crate) load: WorkerLoad,
    /// The manifest.
    #[arg(long, required_if_eq("load", "manifest"))]
    pub(crate) workflow: Option<PathBuf>,
    /// Which image a module of the manifest is in.
    #[arg(long, value_name = "IMAGE=DIGEST")]
    pub(crate) image: Vec<Pin>,
    /// How functions are placed.
    #[arg(long, value_enum)]
    pub(crate) mode: Mode,
    /// Another placement, and where it listens.
    #[arg(long, value_name = "PLACEMENT=ADDRESS", value_parser = peer)]
    pub(crate) peer: Vec<(String, Address)>,
    #[command(flatten)]
    pub(crate) security: Security,
    /// The process that started this one.
    #[arg(long)]
    pub(crate) parent: u32,
}

/// What a process of a run loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkerLoad {
    /// The workflow of a manifest.
    Manifest,
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

fn peer(text: &str) -> Result<(String, Address), String> {
    let (placement, address) = text.split_once('=').ok_or("write PLACEMENT=ADDRESS")?;
    Ok((placement.into(), address.parse()?))
}

/// Format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// One JSON object.
    Json,
}

/// Longest that a caller may wait: a node gives no call more time.
const LONGEST_CALL: Duration = Duration::from_hours(1);

/// A name of up to as many bytes as a call can carry.
fn name(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("write the name of a workflow or function".into()),
        len if len > limit::NAME_BYTES as usize => {
            Err(format!("a name has at most {} bytes, and this has {len}", limit::NAME_BYTES))
        }
        _ => Ok(text.into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text.trim()).map_err(|error| error.to_string())
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("that is no time at all; write at least 1ms".into()),
        long if long > LONGEST_CALL => Err("a node gives no call more than 1h".into()),
        timeout => Ok(timeout),
    }
}

/// Where a node is, and the name in its certificate where that is another.
#[derive(Clone, Debug)]
pub(crate) struct NamedAddress {
    pub(crate) name: Option<String>,
    pub(crate) address: String,
}

fn named_address(text: &str) -> Result<NamedAddress, String> {
    let (name, rest) = match text.split_once('@') {
        Some((name, rest)) => (Some(certified(name)?), rest),
        None => (None, text),
    };
    Ok(NamedAddress { name, address: address(rest)? })
}

/// What may be `HOST:PORT`; the host is looked up when it is needed.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("write HOST:PORT, such as 127.0.0.1:7400".into()),
    }
}

/// A name that a certificate can be for.
fn certified(text: &str) -> Result<String, String> {
    let plain =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let ends = |c: char| !matches!(c, '-' | '.');
    if text.starts_with(ends) && text.ends_with(ends) && text.chars().all(plain) {
        return name(text);
    }
    Err("write a name of a-z, 0-9, \"-\", \"_\" and \".\", such as edge-1".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
