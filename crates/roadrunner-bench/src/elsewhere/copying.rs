//! The paper's copying way to another process: out of the producer's linear memory into a socket, at the
//! other end into a buffer of the host, and from there into the consumer's linear memory.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_runtime::{App, Backing, BreakEven, Config, Payload, Ready, Reply, Sealed};

use super::{Answer, broken};
use crate::{BenchError, PAYLOAD_BYTES, guests, unreadable};

/// A consumer whose payloads lie in buffers of the host.
pub(super) struct Consumer {
    app: Arc<App>,
    ready: Option<Ready>,
    done: Option<Reply>,
}

impl Consumer {
    pub(super) fn new(config: &Config) -> Result<Self, BenchError> {
        let copies = Config { break_even: Some(BreakEven::fixed(usize::MAX)), ..config.clone() };
        Ok(Self { app: guests(copies, Backing::Private)?, ready: None, done: None })
    }

    /// Copies a payload into the consumer's linear memory and runs it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Answer, BenchError> {
        let payload = Payload::One(Sealed::borrowed(bytes));
        let consumed = self.app.call_ready(self.ready.take(), "consume", payload, Instant::now());
        let mut reply = consumed.map_err(|undelivered| undelivered.fault)?;
        let account = reply.account;
        let sealed = reply.payload().map_err(unreadable)?;
        let sum = sealed.bytes().map_err(unreadable)?;
        let sum = sum.try_into().map(u64::from_le_bytes).unwrap_or_default();
        drop(sealed);
        self.done = Some(reply);
        Ok(Answer { busy: account.run, sum, copied: account.traffic.copied })
    }

    /// What the next payload would wait for, as ours does it: after the answer, when nobody waits.
    pub(super) fn rest(&mut self) {
        self.done = None;
        self.ready = self.app.prepare("consume").ok();
    }
}

/// Takes payloads in from a stream until it ends.
///
/// # Errors
/// When the stream breaks or a guest fails.
pub fn stream_in(mut stream: impl Read + Write, config: &Config) -> Result<(), BenchError> {
    let mut consumer = Consumer::new(config)?;
    let mut buffer = Vec::new();
    loop {
        let mut len = [0; size_of::<u64>()];
        match stream.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(broken)?,
        }
        let len = u64::from_le_bytes(len);
        if len > PAYLOAD_BYTES {
            return Err(broken("a payload over the limit"));
        }
        // Kept warm.
        buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        stream.read_exact(&mut buffer).map_err(broken)?;
        let Answer { busy, sum, copied } = consumer.take(&buffer)?;
        let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        let answer = [busy_ns.to_le_bytes(), sum.to_le_bytes(), copied.to_le_bytes()].concat();
        stream.write_all(&answer).map_err(broken)?;
        consumer.rest();
    }
}

/// Sends one payload to [`stream_in`].
pub(super) fn stream_out(
    stream: &mut (impl Read + Write),
    bytes: &[u8],
) -> Result<Answer, BenchError> {
    stream.write_all(&(bytes.len() as u64).to_le_bytes()).map_err(broken)?;
    stream.write_all(bytes).map_err(broken)?;
    let mut numbers = [0; 3];
    for number in &mut numbers {
        let mut bytes = [0; size_of::<u64>()];
        stream.read_exact(&mut bytes).map_err(broken)?;
        *number = u64::from_le_bytes(bytes);
    }
    let [busy_ns, sum, copied] = numbers;
    Ok(Answer { busy: Duration::from_nanos(busy_ns), sum, copied })
}
