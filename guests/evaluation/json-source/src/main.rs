//! A WASI command: makes a payload of `SIZE` bytes and writes it to stdout as JSON. On stderr it says how long it
//! took to serialize and to write, in nanoseconds.

use std::io::{self, Write as _};
use std::time::Instant;

fn main() -> io::Result<()> {
    let size = std::env::var("SIZE").map_err(io::Error::other)?;
    let mut payload = vec![0; size.parse().map_err(io::Error::other)?];
    pattern::fill_text(&mut payload);
    let payload = String::from_utf8(payload).map_err(io::Error::other)?;
    let start = Instant::now();
    let json = message::encode(&payload)?;
    let serialized = start.elapsed();
    io::stdout().write_all(&json)?;
    io::stdout().flush()?;
    let written = start.elapsed() - serialized;
    eprint!("{} {}", serialized.as_nanos(), written.as_nanos());
    Ok(())
}
