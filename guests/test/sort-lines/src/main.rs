//! A plain WASI command, which knows nothing of Roadrunner: sorts the lines of its input.

use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match sort_lines() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sort-lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sort_lines() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut output = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(output, "{line}")?;
    }
    output.flush()
}
