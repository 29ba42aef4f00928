//! A WASI command: reads JSON of `CONTENT_LENGTH` bytes from stdin and looks at its payload. On stdout it says what it
//! saw, and how long it took to read and to deserialize, in nanoseconds.

use std::io::{self, Read as _};
use std::time::Instant;

fn main() -> io::Result<()> {
    let len = std::env::var("CONTENT_LENGTH").map_err(io::Error::other)?;
    let start = Instant::now();
    let mut json = vec![0; len.parse().map_err(io::Error::other)?];
    io::stdin().read_exact(&mut json)?;
    let read = start.elapsed();
    let message = message::decode(&json)?;
    let deserialized = start.elapsed() - read;
    let seen = pattern::glance(message.payload.as_bytes());
    print!("{seen} {} {}", read.as_nanos(), deserialized.as_nanos());
    Ok(())
}
