//! A WASI command that opens the file that the variable `FILE` names, reads it and writes it to stdout.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let path = std::env::var("FILE").map_err(io::Error::other)?;
    io::stdout().write_all(&std::fs::read(path)?)
}
