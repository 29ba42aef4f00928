//! The paper's virtual data hose: `vmsplice` puts pages of the producer's linear memory into a pipe in chunks of 64 KiB,
//! and `splice` moves them into a TCP connection. At the other end they are received into a buffer of the host, which is
//! kept warm, and copied from there into the consumer's linear memory.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Instant;

use roadrunner_evaluation::agent::{self, Measured, nanos};
use roadrunner_runtime::{Backing, Config, Payload, Sealed};
use roadrunner_sys::Pipe;

use crate::ours::{CONSUMER, PAYLOAD_BYTES, failed, load, produce};
use crate::paper::copying;

/// Bytes of a chunk: as much as a pipe holds unless it is asked to hold more.
const CHUNK: usize = 64 << 10;

pub(crate) fn source(address: &str) -> io::Result<()> {
    let app = load(Config::default(), Backing::Private, None)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut pipe = Pipe::new()?;
    agent::take_orders(|order| {
        let mut produced = produce(&app, order.size)?;
        let since = produced.finished;
        let sealed = produced.payload().map_err(failed)?;
        let bytes = sealed.bytes().map_err(failed)?;
        stream.write_all(&order.size.to_le_bytes())?;
        for chunk in bytes.chunks(CHUNK) {
            let mut put = 0;
            while put < chunk.len() {
                put += pipe.fill_with_pages(&chunk[put..])?;
                while pipe.held() > 0 {
                    pipe.drain(stream.as_fd())?;
                }
            }
        }
        // Until the answer is here the kernel reads these pages, which stay as they are so long.
        let mut numbers = [0; 2 * size_of::<u64>()];
        stream.read_exact(&mut numbers)?;
        let total_ns = nanos(since.elapsed());
        let (numbers, _) = numbers.as_chunks();
        let [seen, copied] = [numbers[0], numbers[1]].map(u64::from_le_bytes);
        agent::check(seen, order.size)?;
        Ok(Measured { total_ns, copied_bytes: Some(copied), ..Measured::default() })
    })
}

pub(crate) fn sink(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?.to_string();
    thread::spawn(move || {
        let ended = listener.accept().and_then(|(stream, _)| consume(stream));
        // The harness hears of it when the source does.
        ended.inspect_err(|error| eprintln!("the sink ended: {error}"))
    });
    agent::say_ready(&bound)?;
    agent::wait_for_end()
}

fn consume(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let app = load(copying(), Backing::Private, None)?;
    let mut buffer = Vec::new();
    loop {
        // As with ours, while the producer runs.
        let ready = app.prepare(CONSUMER).map_err(failed)?;
        let mut len = [0; size_of::<u64>()];
        if stream.read(&mut len[..1])? == 0 {
            return Ok(());
        }
        stream.read_exact(&mut len[1..])?;
        let len = Some(u64::from_le_bytes(len)).filter(|len| *len <= PAYLOAD_BYTES);
        let len = len.ok_or_else(|| failed("a payload over the limit"))?;
        buffer.resize(usize::try_from(len).map_err(failed)?, 0);
        stream.read_exact(&mut buffer)?;
        let payload = Payload::One(Sealed::borrowed(&buffer));
        let consumed = app.call_ready(Some(ready), CONSUMER, payload, Instant::now());
        let mut consumed = consumed.map_err(|undelivered| failed(undelivered.fault))?;
        let copied = consumed.account.traffic.copied + len;
        let sealed = consumed.payload().map_err(failed)?;
        let seen = sealed.bytes().map_err(failed)?;
        stream.write_all(&[seen, &copied.to_le_bytes()].concat())?;
    }
}
