//! What may be typed behind `roadrunner bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, value_parser};
use roadrunner_workflow::units;

use super::{Mode, duration};

/// Longest round of a benchmark: every request's time is kept until its end.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// Measure what Roadrunner costs on this machine.
///
/// Every scenario checks the bytes that it moves. What else uses the processor meanwhile disturbs the figures.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench transfer
  roadrunner bench transfer --size 1KiB,1MiB,100MiB --json | jq .handover_us.p50
  roadrunner bench invoke --json
  roadrunner bench fanout --width 100 --size 10MiB")]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    Transfer(Transfer),
    Invoke(EmptyCalls),
    Fanout(FanOut),
    Handover(HandOver),
    Http(Http),
    Peers(Peers),
}

/// One payload from a function to the next, beside copying it and beside native code.
///
/// The producer writes every byte and the consumer reads every byte, three ways in turn: Roadrunner's; copying
/// out of the producer's memory into a buffer of the host and from there into the consumer's; and two native
/// functions that pass a pointer.
///
/// With --mode kernel and network the consumer is in another process. Copying goes through a UNIX socket there, or
/// by an HTTP POST. A third way, "bare", is a send and recv loop over a socket to a native function. Each way has a
/// process of its own, and CPU is the processor time of both ends, functions included.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench transfer
  roadrunner bench transfer --size 1MiB --runs 100
  roadrunner bench transfer --size 1B,4KiB,1MiB,100MiB
  roadrunner bench transfer --mode network --method sendfile --size 10MiB
  roadrunner bench transfer --mode user --size 100MiB --runs 30 --json | jq .handover_us.p50
  roadrunner bench transfer --mode network --size 100MiB --json | jq '.cpu_ns_per_byte, .bare.throughput_bytes_per_s'")]
pub(crate) struct Transfer {
    /// How the payload travels.
    #[arg(long, value_enum, default_value_t = Mode::User)]
    pub(crate) mode: Mode,
    /// Length of the payload, such as 100MiB, or several with commas.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size, default_value = "100MiB")]
    pub(crate) size: Vec<u64>,
    /// How large payloads are sent with --mode network.
    #[arg(long, value_enum, default_value_t = Method::Auto)]
    pub(crate) method: Method,
    /// Runs of each way that count.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000), default_value_t = 30)]
    pub(crate) runs: u32,
    /// Print one JSON object for each size, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Empty calls, each in a fresh sandbox, on one thread.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench invoke
  roadrunner bench invoke --calls 1000000 --json | jq .calls_per_second")]
pub(crate) struct EmptyCalls {
    /// Calls that count.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=10_000_000), default_value_t = 200_000)]
    pub(crate) calls: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// One payload for many functions, which read every byte and all hold it at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench fanout
  roadrunner bench fanout --width 100 --size 10MiB --json | jq .copied_bytes")]
pub(crate) struct FanOut {
    /// Functions that get the payload.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000), default_value_t = 100)]
    pub(crate) width: u32,
    /// Length of the payload, such as 10MiB.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "10MiB")]
    pub(crate) size: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Hand-overs a second, of one thread and of several at the same time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench handover
  roadrunner bench handover --size 1MiB --count 10000 --threads 4 --json | jq .speed_up")]
pub(crate) struct HandOver {
    /// Length of the payload, such as 1MiB.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1MiB")]
    pub(crate) size: u64,
    /// Hand-overs of each thread in each of five rounds.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=10_000_000), default_value_t = 2000)]
    pub(crate) count: u64,
    /// Threads of the second figure.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=256), default_value_t = 2)]
    pub(crate) threads: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Requests a second of the HTTP gateway, beside a plain HTTP server.
///
/// Both run in a process of their own and answer what they are sent, the gateway by a function, once in a fresh sandbox
/// for each request and once in reused ones, the plain one (axum) by itself. This process sends the requests, to
/// each in turns, and shares the processors with them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench http
  roadrunner bench http --size 1KiB,1MiB --connections 1,64 --json | jq '[.size_bytes, .connections, .ratio.p50]'")]
pub(crate) struct Http {
    /// Length of the bodies, such as 1KiB, or several with commas.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size, default_value = "1KiB,10KiB,1MiB")]
    pub(crate) size: Vec<u64>,
    /// Connections, each with one request at a time, or several numbers with commas.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = value_parser!(u32).range(1..=512), default_value = "1,16,64")]
    pub(crate) connections: Vec<u32>,
    /// Turns of each server that count.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000), default_value_t = 5)]
    pub(crate) rounds: u32,
    /// How long each of these turns takes.
    #[arg(long, value_name = "TIME", value_parser = round, default_value = "500ms")]
    pub(crate) time: Duration,
    /// Print one JSON object for each size and number of connections, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// One payload from process to process, beside iceoryx2, whoever wins.
///
/// Both do the same job, in turns: the producer writes every byte, the payload is handed over, the consumer reads
/// every byte. Roadrunner's functions are in sandboxes; iceoryx2's are native and share memory, once with events to wake the
/// other end and once spinning. Only builds with the feature `peers` have iceoryx2.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  roadrunner bench peers    # of a build with `cargo build --release --features peers`
  roadrunner bench peers --size 1KiB,1MiB --runs 300 --json | jq '.roadrunner.handover_us.p50, .iceoryx2.handover_us.p50'")]
#[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "checked all the same"))]
pub(crate) struct Peers {
    /// Length of the payload, such as 100MiB, or several with commas; rounded up to whole words of 8 bytes for iceoryx2.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size, default_value = "1KiB,64KiB,1MiB,10MiB,100MiB")]
    pub(crate) size: Vec<u64>,
    /// Runs of each way that count.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000), default_value_t = 30)]
    pub(crate) runs: u32,
    /// Print one JSON object for each size, on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How large payloads go over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// By what turns out to be the best to the peer.
    Auto,
    /// By plain writes.
    Send,
    /// By sendfile, from sealed memory files.
    Sendfile,
    /// By splice, from sealed memory files.
    Splice,
    /// By MSG_ZEROCOPY.
    Zerocopy,
    /// By io_uring's SEND_ZC.
    Uring,
}

impl Method {
    /// The same for a transport, unless that finds it out.
    pub(crate) const fn fixed(self) -> Option<roadrunner_transport::Method> {
        use roadrunner_transport::Method as Fixed;
        Some(match self {
            Self::Auto => return None,
            Self::Send => Fixed::Send,
            Self::Sendfile => Fixed::Sendfile,
            Self::Splice => Fixed::Splice,
            Self::Zerocopy => Fixed::Zerocopy,
            Self::Uring => Fixed::Uring,
        })
    }
}

/// Time of a benchmark's round.
fn round(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("that is no time at all; write at least 1ms".into()),
        long if long > LONGEST_ROUND => Err("a round is at most 1m".into()),
        round => Ok(round),
    }
}

/// Bytes of a size that is not zero.
fn size(text: &str) -> Result<u64, String> {
    match units::parse_size(text.trim()) {
        Ok(0) => Err("there is nothing to measure; write at least 1B".into()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_may_have_spaces_and_are_not_zero() {
        for text in ["1B", "1 B", " 1 B"] {
            assert_eq!(size(text), Ok(1));
        }
        assert_eq!(size("100 MiB"), size("100MiB"));
        for text in ["0B", "0 GiB", "", "12", "1MB", "-1B", "1.5MiB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
