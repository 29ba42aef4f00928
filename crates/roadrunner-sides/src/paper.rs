//! The paper's user-space path: out of the producer's linear memory into a buffer of the host, which is kept warm, and
//! from there into the consumer's.

use std::io;

use roadrunner_evaluation::agent::{self, Measured, nanos};
use roadrunner_runtime::{Backing, BreakEven, Config, Payload, Sealed};

use crate::ours::{CONSUMER, check, failed, load, produce};

/// A runtime that copies every payload.
pub(crate) fn copying() -> Config {
    Config { break_even: Some(BreakEven::fixed(usize::MAX)), ..Config::default() }
}

pub(crate) fn copy() -> io::Result<()> {
    let app = load(copying(), Backing::Private, None)?;
    let mut buffer = Vec::new();
    agent::take_orders(|order| {
        let ready = app.prepare(CONSUMER).map_err(failed)?;
        let mut produced = produce(&app, order.size)?;
        let since = produced.finished;
        let sealed = produced.payload().map_err(failed)?;
        buffer.clear();
        buffer.extend_from_slice(sealed.bytes().map_err(failed)?);
        drop(sealed);
        let payload = Payload::One(Sealed::borrowed(&buffer));
        let consumed = app.call_ready(Some(ready), CONSUMER, payload, since);
        let consumed = consumed.map_err(|undelivered| failed(undelivered.fault))?;
        let total_ns = nanos(since.elapsed());
        // Landing counts the second of the two.
        let copied = consumed.account.traffic.copied + order.size;
        check(consumed, order.size)?;
        Ok(Measured { total_ns, copied_bytes: Some(copied), ..Measured::default() })
    })
}
