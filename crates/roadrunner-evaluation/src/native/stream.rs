//! Payloads over a bare socket: a length, the bytes, and the consumer's 8 bytes back. The consumer's buffer is kept.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Instant;

use crate::agent::{self, Measured, Order, nanos};

/// Longest payload that a sink takes, in bytes: the product's limit.
const PAYLOAD_BYTES: u64 = 1 << 30;

/// The name is an abstract one, which leaves no file behind.
pub(super) fn unix_source(name: &str) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(name)?;
    source(|| UnixStream::connect_addr(&address))
}

pub(super) fn tcp_source(address: &str) -> io::Result<()> {
    source(|| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

fn source<S: Read + Write + Send>(connect: impl Fn() -> io::Result<S>) -> io::Result<()> {
    let mut streams = Vec::new();
    agent::take_orders(|Order { size, consumers }| {
        while streams.len() < consumers as usize {
            streams.push(connect()?);
        }
        let payload = agent::text(size)?;
        let payload = payload.as_bytes();
        let start = Instant::now();
        let seen: Vec<u64> = match &mut streams[..] {
            [stream] => vec![exchange(stream, payload)?],
            streams => thread::scope(|scope| {
                let sends =
                    streams.iter_mut().map(|stream| scope.spawn(|| exchange(stream, payload)));
                let sends: Vec<_> = sends.collect();
                let join = |send: thread::ScopedJoinHandle<'_, io::Result<u64>>| {
                    send.join().map_err(|_| io::Error::other("a thread panicked"))?
                };
                sends.into_iter().map(join).collect::<io::Result<_>>()
            })?,
        };
        let total_ns = nanos(start.elapsed());
        seen.into_iter().try_for_each(|seen| agent::check(seen, size))?;
        Ok(Measured { total_ns, ..Measured::default() })
    })
}

fn exchange(stream: &mut (impl Read + Write), payload: &[u8]) -> io::Result<u64> {
    stream.write_all(&(payload.len() as u64).to_le_bytes())?;
    stream.write_all(payload)?;
    let mut seen = [0; size_of::<u64>()];
    stream.read_exact(&mut seen)?;
    Ok(u64::from_le_bytes(seen))
}

pub(super) fn unix_sink(name: &str) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    agent::say_ready(name)?;
    accept(move || listener.accept().map(|(stream, _)| stream))
}

pub(super) fn tcp_sink(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    agent::say_ready(&listener.local_addr()?.to_string())?;
    accept(move || {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// A thread for each connection, until stdin ends.
fn accept<S: Read + Write + Send + 'static>(
    next: impl Fn() -> io::Result<S> + Send + 'static,
) -> io::Result<()> {
    thread::spawn(move || {
        while let Ok(stream) = next() {
            // A source that goes away ends its connections.
            thread::spawn(move || consume(stream));
        }
    });
    agent::wait_for_end()
}

fn consume(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut len = [0; size_of::<u64>()];
        stream.read_exact(&mut len)?;
        let len = Some(u64::from_le_bytes(len)).filter(|len| *len <= PAYLOAD_BYTES);
        let len = len.ok_or_else(|| io::Error::other("a payload over the limit"))?;
        buffer.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        stream.read_exact(&mut buffer)?;
        stream.write_all(&pattern::glance(&buffer).to_le_bytes())?;
    }
}
