//! The closed lists of words that a row of `runs.csv` may name, and how people read them.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;

/// What was asked of the systems.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Experiment {
    MotivationStart,
    MotivationTransfer,
    Transfer,
    Fanout,
    Breakdown,
    #[serde(rename = "coldstart")]
    ColdStart,
    Compute,
    Footprint,
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MotivationStart => "start and run",
            Self::MotivationTransfer => "transfer with its parts",
            Self::Transfer => "one transfer",
            Self::Fanout => "fan-out of 10 MB",
            Self::Breakdown => "latency break-down",
            Self::ColdStart => "cold start",
            Self::Compute => "compute",
            Self::Footprint => "footprint",
        })
    }
}

/// Where the two functions of a transfer were.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    SameHost,
    #[serde(rename = "two-hosts-100mbit")]
    TwoHosts100Mbit,
    #[serde(rename = "two-hosts-1gbit")]
    TwoHosts1Gbit,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::SameHost, Self::TwoHosts1Gbit, Self::TwoHosts100Mbit];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SameHost => "one host",
            Self::TwoHosts100Mbit => "two hosts, 100 Mbit/s",
            Self::TwoHosts1Gbit => "two hosts, 1 Gbit/s",
        })
    }
}

/// What was measured: Roadrunner in one of its ways, or a peer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    RoadrunnerUser,
    RoadrunnerKernel,
    RoadrunnerNetwork,
    RoadrunnerSandbox,
    RoadrunnerProcess,
    Roadrunner,
    WasmtimeHttpJson,
    NativeHttpJson,
    NativeHttpRaw,
    Redis,
    UnixSocket,
    Tcp,
    Iceoryx2,
    PaperCopy,
    PaperHose,
    Runc,
    ProcessPerFunction,
    NodeWasi,
    NativeGcc,
    NativeClang,
}

impl System {
    /// In the order of tables and legends: ours, then the peers of the paper, then the others.
    pub(crate) const ALL: [Self; 20] = [
        Self::RoadrunnerUser,
        Self::RoadrunnerKernel,
        Self::RoadrunnerNetwork,
        Self::RoadrunnerSandbox,
        Self::RoadrunnerProcess,
        Self::Roadrunner,
        Self::WasmtimeHttpJson,
        Self::NativeHttpJson,
        Self::NativeHttpRaw,
        Self::Redis,
        Self::UnixSocket,
        Self::Tcp,
        Self::Iceoryx2,
        Self::PaperCopy,
        Self::PaperHose,
        Self::Runc,
        Self::ProcessPerFunction,
        Self::NodeWasi,
        Self::NativeGcc,
        Self::NativeClang,
    ];

    /// Whether this is Roadrunner, and not somebody to compare it with.
    pub(crate) fn is_ours(self) -> bool {
        self <= Self::Roadrunner
    }

    /// The word in `runs.csv`, with underscores: a column's name in the exported tables.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::RoadrunnerUser => "roadrunner_user",
            Self::RoadrunnerKernel => "roadrunner_kernel",
            Self::RoadrunnerNetwork => "roadrunner_network",
            Self::RoadrunnerSandbox => "roadrunner_sandbox",
            Self::RoadrunnerProcess => "roadrunner_process",
            Self::Roadrunner => "roadrunner",
            Self::WasmtimeHttpJson => "wasmtime_http_json",
            Self::NativeHttpJson => "native_http_json",
            Self::NativeHttpRaw => "native_http_raw",
            Self::Redis => "redis",
            Self::UnixSocket => "unix_socket",
            Self::Tcp => "tcp",
            Self::Iceoryx2 => "iceoryx2",
            Self::PaperCopy => "paper_copy",
            Self::PaperHose => "paper_hose",
            Self::Runc => "runc",
            Self::ProcessPerFunction => "process_per_function",
            Self::NodeWasi => "node_wasi",
            Self::NativeGcc => "native_gcc",
            Self::NativeClang => "native_clang",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RoadrunnerUser => "Roadrunner, user space",
            Self::RoadrunnerKernel => "Roadrunner, kernel space",
            Self::RoadrunnerNetwork => "Roadrunner, network",
            Self::RoadrunnerSandbox => "Roadrunner, fresh sandbox",
            Self::RoadrunnerProcess => "Roadrunner, fresh process",
            Self::Roadrunner => "Roadrunner",
            Self::WasmtimeHttpJson => "Wasm, HTTP + JSON",
            Self::NativeHttpJson => "container, HTTP + JSON",
            Self::NativeHttpRaw => "container, HTTP, raw bytes",
            Self::Redis => "Redis",
            Self::UnixSocket => "bare UNIX socket",
            Self::Tcp => "bare TCP",
            Self::Iceoryx2 => "iceoryx2",
            Self::PaperCopy => "the paper's copying",
            Self::PaperHose => "the paper's vmsplice hose",
            Self::Runc => "runc",
            Self::ProcessPerFunction => "a process per function",
            Self::NodeWasi => "node's WASI",
            Self::NativeGcc => "native, gcc -O3",
            Self::NativeClang => "native, clang -O3",
        }
    }

    /// Its name where everybody knows whose it is: a way of ours without `Roadrunner`.
    pub(crate) fn way(self) -> &'static str {
        let name = self.name();
        name.strip_prefix("Roadrunner, ").unwrap_or(name)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The column `x`: MB, a fan-out's degree, or the name of a workload.
#[derive(Clone, Debug)]
pub(crate) enum X {
    Number(f64),
    Name(String),
}

impl X {
    /// A number where it reads as one.
    pub(crate) fn parse(text: &str) -> Self {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Self::Number(number),
            _ => Self::Name(text.to_owned()),
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for X {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.pad(name),
        }
    }
}

/// Numbers in their order, then names: never NaN, see [`X::parse`].
impl Ord for X {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => one.total_cmp(two),
            (Self::Name(one), Self::Name(two)) => one.cmp(two),
            (Self::Number(_), Self::Name(_)) => Ordering::Less,
            (Self::Name(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for X {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for X {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for X {}

/// A quantity that runs have, or that follows from what they have.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Seconds per transfer: the paper divides a fan-out's time by its degree as well.
    Latency,
    /// Transfers per second.
    Throughput,
    /// Seconds of serialization and parsing per transfer.
    Serialization,
    /// Transfers per second if serialization were all there is.
    SerializationThroughput,
    /// Seconds of processor time per run, user and kernel.
    Cpu,
    CpuUser,
    CpuKernel,
    /// Most bytes of memory that were held at once; in footprints the value itself.
    Memory,
    /// Seconds on the way, per run, without serialization and Wasm's input and output.
    Transfer,
    /// Seconds of copying in and out of linear memory, per run.
    WasmIo,
    /// Seconds of a run, however many transfers it makes.
    Whole,
    /// Seconds until the consumer's function began, and of the way of its answer from elsewhere, per run.
    HandOver,
    /// Seconds in the consumer's function, per run.
    Consumer,
    /// Page faults per run.
    PageFaults,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Serialization => "serialization",
            Self::SerializationThroughput => "serialization throughput",
            Self::Cpu => "processor time",
            Self::CpuUser => "processor time, user",
            Self::CpuKernel => "processor time, kernel",
            Self::Memory => "memory",
            Self::Transfer => "transfer",
            Self::WasmIo => "Wasm I/O",
            Self::Whole => "the whole run",
            Self::HandOver => "hand-over",
            Self::Consumer => "the consumer",
            Self::PageFaults => "page faults",
        })
    }
}
