//! A WASI command that does nothing: what it costs is its start.

fn main() {}
