//! The least that a transfer over a socket can cost: `send` out of the producer's memory and `recv` into a buffer
//! that is kept warm, which a native function reads. For small payloads that is a ping-pong.
//!
//! The producer is the same as everywhere, so that the partner waits for as long before each payload: how deep
//! its processor sleeps by then decides how long a small one takes.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::{Answer, ReadWrite, broken};
use crate::{BenchError, PAYLOAD_BYTES};

/// Takes payloads in from a stream until it ends. All have the length that is its first number.
///
/// # Errors
/// When the stream breaks.
pub fn bare_in(mut stream: impl Read + Write) -> Result<(), BenchError> {
    let mut len = [0; size_of::<u64>()];
    stream.read_exact(&mut len).map_err(broken)?;
    let len = u64::from_le_bytes(len);
    if len > PAYLOAD_BYTES {
        return Err(broken("payloads over the limit"));
    }
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    loop {
        match stream.read_exact(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(broken)?,
        }
        let entered = Instant::now();
        let sum = pattern::sum(&buffer);
        let busy_ns = u64::try_from(entered.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut answer = [0; 2 * size_of::<u64>()];
        answer[..size_of::<u64>()].copy_from_slice(&busy_ns.to_le_bytes());
        answer[size_of::<u64>()..].copy_from_slice(&sum.to_le_bytes());
        stream.write_all(&answer).map_err(broken)?;
    }
}

/// The producer's end of [`bare_in`].
pub(super) struct Bare<'s>(&'s mut dyn ReadWrite);

impl<'s> Bare<'s> {
    /// For payloads of this size.
    pub(super) fn new(stream: &'s mut dyn ReadWrite, size: u64) -> Result<Self, BenchError> {
        stream.write_all(&size.to_le_bytes()).map_err(broken)?;
        Ok(Self(stream))
    }

    /// Sends a payload and waits for the answer.
    pub(super) fn send(&mut self, payload: &[u8]) -> Result<Answer, BenchError> {
        self.0.write_all(payload).map_err(broken)?;
        let mut answer = [0; 2 * size_of::<u64>()];
        self.0.read_exact(&mut answer).map_err(broken)?;
        let (numbers, _) = answer.as_chunks();
        let [busy_ns, sum] = [numbers[0], numbers[1]].map(u64::from_le_bytes);
        Ok(Answer { busy: Duration::from_nanos(busy_ns), sum, copied: 0 })
    }
}
