//! `docs/wire.md` says the same as the code.

use std::path::Path;

use roadrunner_abi::limit;
use roadrunner_transport::frame;

use crate::examples;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md");
    std::fs::read_to_string(path).unwrap()
}

/// The bytes of the block for an example: hexadecimal, with a remark behind `#`.
fn bytes_in(document: &str, name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let (_, block) = document.split_once(&fence).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let digits = block.lines().filter_map(|line| line.split('#').next());
    digits
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_example_frames_are_what_is_sent() {
    let document = document();
    for (name, bytes) in examples::all() {
        assert!(bytes_in(&document, name) == bytes, "the {name} is\n{}", dump(&bytes));
    }
}

/// What the fuzzer starts from is good, so that it gets behind the header.
#[test]
fn the_fuzzers_seeds_are_the_example_frames() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/frame");
    for (name, bytes) in examples::all() {
        assert!(std::fs::read(seeds.join(name)).unwrap() == bytes, "{name}");
    }
}

fn dump(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    bytes.chunks(16).map(|chunk| line(chunk) + "\n").collect()
}

#[test]
fn the_limits_are_the_documents() {
    let limits = [
        ("HEADER_BYTES", frame::HEADER_BYTES),
        ("META_BYTES", frame::META_BYTES),
        ("DESCRIPTORS", usize::from(frame::DESCRIPTORS)),
        ("INPUTS", limit::INPUTS),
        ("NAME_BYTES", limit::NAME_BYTES as usize),
        ("TEXT_BYTES", frame::TEXT_BYTES),
        ("RELEASES", frame::RELEASES),
    ];
    let document = document();
    let (_, section) = document.split_once("\n## Limits\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), limits.len(), "each limit has a row and each row a limit");
    for ((name, value), row) in limits.into_iter().zip(rows) {
        assert!(row.starts_with(&format!("| `{name}` | {value} |")), "{name} = {value}: {row}");
    }
    assert!(document.starts_with(&format!("# Wire format, version {}\n", frame::VERSION)));
}
