//! A WASI command that opens the file that its first argument names, reads it and writes it to stdout.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let path =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("a file's name is missing"))?;
    io::stdout().write_all(&std::fs::read(path)?)
}
