//! What each way to send costs on this machine's loopback, for people who want to know. What is sent
//! where is chosen by what it costs to the peer, not by these figures.

use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_buffer::{BreakEven, Domain, Home, Pool, PoolLimits, Sealed};
use roadrunner_sys::{self as sys, Pipe, Ready};

use super::{Method, Source, Way, some};

/// Bytes of each payload: of a size that the hose is for, and sent in a few milliseconds.
const PAYLOAD: usize = 4 << 20;

/// How long each way is measured, so that all of them together take less than 300 ms.
const EACH: Duration = Duration::from_millis(25);

/// Longest that one payload may take, on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(5);

/// One way to send, and what it costs.
#[derive(Debug)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Whether payloads are ever sent by it.
    pub used: bool,
    /// What it costs.
    ///
    /// # Errors
    /// Why it can't be used here.
    pub speed: io::Result<Speed>,
}

/// What sending costs: the median of several payloads.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// GiB a second.
    pub gib_per_second: f64,
    /// Nanoseconds of processor time a byte, of the sending thread.
    pub sender_ns_per_byte: f64,
    /// The same of the receiving one.
    pub receiver_ns_per_byte: f64,
    /// Whether the kernel copied although it was asked not to.
    pub copied: bool,
}

/// Makes a way to send over a connection.
type Open<'o> = &'o dyn Fn(&Arc<TcpStream>) -> io::Result<Box<dyn Way>>;

/// Measures every way in turn, in less than 300 ms altogether.
#[must_use]
pub fn measure() -> Vec<Figure> {
    measure_with(PAYLOAD, EACH)
}

fn measure_with(len: usize, each: Duration) -> Vec<Figure> {
    let payload = payload(len);
    let figure = |name, used, open: Open<'_>| {
        let payload = payload.as_ref().map_err(|error| io::Error::other(error.to_string()));
        Figure { name, used, speed: payload.and_then(|payload| speed(payload, each, open)) }
    };
    let mut figures: Vec<Figure> = Method::ALL
        .into_iter()
        .map(|method| figure(method.name(), true, &|stream| method.open(stream)))
        .collect();
    figures.push(figure("vmsplice", false, &|_| Ok(Box::new(Vmsplice(Pipe::new()?)))));
    figures
}

/// A payload in a sealed memfd, which every way takes.
fn payload(len: usize) -> io::Result<Sealed<'static>> {
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    let home = Home { pool, domain: Domain(0), break_even: BreakEven::fixed(0) };
    let sealed = Sealed::write_shared(len, &home, |place| {
        place.fill(1);
        Ok(())
    });
    sealed.map_err(io::Error::other)
}

fn speed(payload: &Sealed<'_>, each: Duration, open: Open<'_>) -> io::Result<Speed> {
    let bytes = payload.bytes().map_err(io::Error::other)?;
    let source = Source { bytes, sealed: payload.sealed_file() };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let stream = Arc::new(TcpStream::connect(listener.local_addr()?)?);
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut way = open(&stream)?;
    let (there, _) = listener.accept()?;
    let len = bytes.len();
    let receiver = roadrunner_sys::spawn("receiver", move || drain(there, len))?;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    // The first one faults pages in and opens windows.
    while samples.len() < 2 || begin.elapsed() < each {
        let (start, cpu) = (Instant::now(), sys::thread_cpu_time());
        let until = start + PATIENCE;
        let mut at = 0;
        while at < len {
            at += some(&mut *way, stream.as_fd(), &source, at, until)?;
        }
        way.settle(stream.as_fd(), until)?;
        let cpu = sys::thread_cpu_time().saturating_sub(cpu);
        // The receiver's word that it has read all of it.
        if !sys::wait_until_ready(stream.as_fd(), Ready::Read, PATIENCE)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        (&*stream).read_exact(&mut [0])?;
        samples.push((start.elapsed(), cpu));
    }
    let copied = way.has_copied();
    drop(way);
    drop(stream);
    let received = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))?;
    let sent = samples.split_off(1);
    #[allow(clippy::cast_precision_loss, reason = "lengths and times far below 2^52")]
    let per_byte = |time: Duration| time.as_nanos() as f64 / len as f64;
    let wall = per_byte(median(sent.iter().map(|sample| sample.0)));
    Ok(Speed {
        gib_per_second: 1e9 / f64::from(1 << 30) / wall,
        sender_ns_per_byte: per_byte(median(sent.iter().map(|sample| sample.1))),
        receiver_ns_per_byte: per_byte(median(received?.into_iter().skip(1))),
        copied,
    })
}

/// Receives payloads until there are no more, and answers each by a byte. What each cost of the
/// processor.
fn drain(mut stream: TcpStream, len: usize) -> io::Result<Vec<Duration>> {
    use std::io::Write as _;
    let (mut place, mut costs) = (vec![0; len], Vec::new());
    loop {
        let cpu = sys::thread_cpu_time();
        match stream.read_exact(&mut place) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(costs),
            received => received?,
        }
        costs.push(sys::thread_cpu_time().saturating_sub(cpu));
        stream.write_all(&[1])?;
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Pages of this process's memory through a pipe. Nothing is sent like this: see [`super`] on why.
struct Vmsplice(Pipe);

impl Way for Vmsplice {
    fn some(
        &mut self,
        socket: std::os::fd::BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        _until: Instant,
    ) -> io::Result<usize> {
        if self.0.held() == 0 {
            self.0.fill_with_pages(&source.bytes[at..])?;
        }
        self.0.drain(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_way_has_a_figure_or_a_reason() {
        let figures = measure();
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["send", "sendfile", "splice", "zerocopy", "uring", "vmsplice"]);
        for Figure { name, used, speed } in figures {
            assert_eq!(used, name != "vmsplice");
            match speed {
                Ok(speed) => assert!(
                    speed.gib_per_second > 0.0
                        && speed.sender_ns_per_byte > 0.0
                        && speed.receiver_ns_per_byte > 0.0,
                    "{name}: {speed:?}"
                ),
                Err(error) => eprintln!("skipped: {name} is not available here: {error}"),
            }
        }
    }

    /// The table of ARCHITECTURE.md: every way in turn, and that five times.
    #[test]
    #[ignore = "takes half a minute, and what it prints is for people"]
    fn the_table() {
        for len in [64 << 10, 256 << 10, 1 << 20, 10 << 20, 100 << 20] {
            let mut found: HashMap<&str, Vec<Speed>> = HashMap::new();
            for _ in 0..5 {
                for Figure { name, speed, .. } in measure_with(len, Duration::from_millis(200)) {
                    found.entry(name).or_default().extend(speed);
                }
            }
            for name in ["send", "sendfile", "splice", "zerocopy", "uring", "vmsplice"] {
                let Some(speeds) = found.get(name) else { continue };
                let [rate, sender, receiver] = [
                    |speed: &Speed| speed.gib_per_second,
                    |speed: &Speed| speed.sender_ns_per_byte,
                    |speed: &Speed| speed.receiver_ns_per_byte,
                ]
                .map(|of: fn(&Speed) -> f64| {
                    let mut all: Vec<f64> = speeds.iter().map(of).collect();
                    all.sort_unstable_by(f64::total_cmp);
                    format!(
                        "{:.2} ({:.2} to {:.2})",
                        all[all.len() / 2],
                        all[0],
                        all[all.len() - 1]
                    )
                });
                println!("{len:>9}  {name:<9} {rate} GiB/s  {sender} + {receiver} ns/byte");
            }
        }
    }
}
