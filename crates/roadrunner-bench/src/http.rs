//! Requests a second of an HTTP server that runs an echo function, beside a plain one that echoes itself.
//!
//! The client is one thread with a connection each for so many tasks: next to nothing of a request's cost,
//! and the same for both servers. They take turns, so that whatever else the machine does meets both.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{BenchError, Progress, Stats};

/// Longest head of an answer in bytes. Both servers' are a few lines.
const HEAD: usize = 4 << 10;

/// Part of a round whose requests don't count: connections, caches and pools warm up.
const WARM_UP: u32 = 10;

/// A server that answers what it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'e> {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path to post to.
    pub path: &'e str,
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Length of a body in bytes.
    pub size_bytes: u64,
    /// Connections, each with one request at a time.
    pub connections: u32,
    /// Turns of each server.
    pub rounds: u32,
    /// How long a turn takes.
    pub round: Duration,
}

/// How one server did.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    /// Median of the rounds.
    pub requests_per_second: f64,
    /// From a request's first byte until its answer's last, in all rounds.
    pub latency_us: Stats,
}

/// One server's rate divided by the other's, in the same round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratio {
    /// Median of the rounds.
    pub p50: f64,
    /// The worst round's.
    pub min: f64,
    /// The best round's.
    pub max: f64,
}

/// The gateway and a plain server under the same load.
#[derive(Clone, Debug, Serialize)]
pub struct Http {
    /// Length of a body in bytes, there and back.
    pub size_bytes: u64,
    /// Connections at a time.
    pub connections: u32,
    /// Turns of each server that count.
    pub rounds: u32,
    /// The gateway, with a fresh sandbox for each request.
    #[serde(flatten)]
    pub ours: Served,
    /// The gateway, with a function whose sandboxes have one call after another.
    pub reused: Served,
    /// A plain server.
    pub baseline: Served,
    /// The gateway's rate divided by the plain server's.
    pub ratio: Ratio,
    /// The same of the reused sandboxes.
    pub reused_ratio: Ratio,
}

/// Measures the gateway with fresh and with reused sandboxes, and the plain server, in turns.
///
/// # Errors
/// When a server can't be reached or answers anything else than what it was sent.
pub fn http(
    ours: Endpoint<'_>,
    reused: Endpoint<'_>,
    baseline: Endpoint<'_>,
    load: &Load,
    progress: Progress<'_>,
) -> Result<Http, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::Http)?;
    let endpoints = [ours, reused, baseline];
    let mut sides = endpoints.map(|_| (Vec::new(), Vec::new()));
    for round in 0..load.rounds {
        progress(round.into(), load.rounds.into());
        // Who begins takes turns too.
        for at in 0..endpoints.len() {
            let side = (at + round as usize) % endpoints.len();
            let turn = turn(endpoints[side], load);
            let (rate, mut times) = runtime.block_on(turn).map_err(BenchError::Http)?;
            sides[side].0.push(rate);
            sides[side].1.append(&mut times);
        }
    }
    progress(load.rounds.into(), load.rounds.into());
    let [ratio, reused_ratio] = [0, 1].map(|side| Ratio::of(&sides[side].0, &sides[2].0));
    let [ours, reused, baseline] = sides.map(|(mut rates, mut times)| {
        rates.sort_by(f64::total_cmp);
        Served { requests_per_second: median(&rates), latency_us: Stats::of(&mut times) }
    });
    let Load { size_bytes, connections, rounds, .. } = *load;
    Ok(Http { size_bytes, connections, rounds, ours, reused, baseline, ratio, reused_ratio })
}

impl Ratio {
    /// Of two servers' rates, round by round.
    fn of(rates: &[f64], baseline: &[f64]) -> Self {
        let mut ratios: Vec<_> =
            rates.iter().zip(baseline).map(|(one, other)| one / other).collect();
        ratios.sort_by(f64::total_cmp);
        Self { p50: median(&ratios), min: ratios[0], max: ratios[ratios.len() - 1] }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// One server's turn: its requests a second, and what each took.
async fn turn(to: Endpoint<'_>, load: &Load) -> io::Result<(f64, Vec<Duration>)> {
    let begin = Instant::now() + load.round / WARM_UP;
    let end = begin + load.round;
    let mut tasks = JoinSet::new();
    for _ in 0..load.connections {
        let mut client = Client::connect(to, load.size_bytes).await?;
        tasks.spawn(async move {
            client.check().await?;
            let mut times = Vec::new();
            // At least one counts, however slow the machine is.
            while times.is_empty() || Instant::now() < end {
                let sent = Instant::now();
                client.exchange().await?;
                if sent >= begin {
                    times.push(sent.elapsed());
                }
            }
            Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        let times: io::Result<Vec<_>> = times.map_err(io::Error::other)?;
        all.append(&mut times?);
    }
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
    let rate = all.len() as f64 / begin.elapsed().as_secs_f64();
    Ok((rate, all))
}

/// A connection that posts the same body again and again.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    body: usize,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(to: Endpoint<'_>, size: u64) -> io::Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let mut request =
            format!("POST {} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n", to.path)
                .into_bytes();
        let body = request.len();
        request.extend((0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)));
        let answer = vec![0; HEAD + request.len() - body];
        Ok(Self { stream, request, body, answer })
    }

    /// Posts once and looks at every byte of the answer.
    async fn check(&mut self) -> io::Result<()> {
        let answer = self.exchange().await?;
        if self.answer[answer] == self.request[self.body..] {
            Ok(())
        } else {
            Err(wrong("its bytes"))
        }
    }

    /// Posts once; where the body of the answer is, which is of the right length.
    async fn exchange(&mut self) -> io::Result<Range<usize>> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        let (head, len) = loop {
            if filled > HEAD {
                return Err(wrong("its head"));
            }
            filled += self.read(filled).await?;
            if let Some(found) = head(&self.answer[..filled])? {
                break found;
            }
        };
        if len != self.request.len() - self.body {
            return Err(wrong("its length"));
        }
        while filled < head + len {
            filled += self.read(filled).await?;
        }
        if filled > head + len { Err(wrong("its end")) } else { Ok(head..filled) }
    }

    async fn read(&mut self, at: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.answer[at..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer is not what was sent, by {what}"))
}

/// The lengths of an answer's head and body, once the head is there.
fn head(answer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&answer[..end]).map_err(|_| wrong("its head"))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, status.to_owned()));
    }
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map(|(_, value)| value.trim().parse()).next();
    match length {
        Some(Ok(length)) => Ok(Some((end + 4, length))),
        _ => Err(wrong("its head, which says no length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_lengths() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(head(answer).unwrap(), Some((38, 3)));
        assert_eq!(head(&answer[..36]).unwrap(), None);
        for bad in ["HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(head(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!((median(&[1.0, 2.0, 9.0]), median(&[1.0, 3.0])), (2.0, 2.0));
    }
}
