//! `roadrunner demo`: the picture, the table and the comparison.

use std::fs;

use serde_json::Value;

use crate::program::{Sandbox, repository};

/// Width and height in a PNG's header.
fn size_of_png(png: &[u8]) -> (u32, u32) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn the_demo_makes_a_picture_and_says_what_it_cost() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["demo"]);
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let picture = sandbox.read("roadrunner-demo.png");
    // Three cells of 1280 x 1280 and four margins of 32 pixels.
    assert_eq!(size_of_png(&picture), (3968, 1344));
    let hops: Vec<Vec<&str>> =
        text.lines().take(10).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(hops[0], ["from", "to", "mode", "bytes", "copied", "hand-over", "run"]);
    assert_eq!(hops[1][..2], ["input", "decode"]);
    assert_eq!(hops[9][..2], ["sheet", "encode"]);
    assert!(hops[1..].iter().all(|hop| hop[2] == "user" && hop[4] == "0"), "{text}");
    assert!(text.contains("the pictures are identical."), "{text}");
    assert!(text.ends_with("The picture is in roadrunner-demo.png.\n"), "{text}");

    // The same workflow from its files makes the same picture.
    let manifest = repository("examples/demo/roadrunner.toml");
    let photograph = repository("assets/astronaut.png");
    let again = sandbox.run(&["run", &manifest, "--input", &photograph]);
    assert!(again.stdout == picture, "{}", again.stderr);
}

#[test]
fn the_picture_is_the_same_in_every_mode() {
    let sandbox = Sandbox::new();
    let mut pictures = Vec::new();
    for mode in ["user", "kernel", "network"] {
        let ended = sandbox.run(&["demo", "--mode", mode, "--report", "json"]);
        assert_eq!(ended.code, Some(0), "{mode}: {}", ended.stderr);
        let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let hops = report["hops"].as_array().unwrap();
        assert_eq!(hops.len(), 9);
        assert!(hops.iter().all(|hop| hop["mode"] == mode), "{report}");
        pictures.push(sandbox.read("roadrunner-demo.png"));
    }
    assert!(pictures[0] == pictures[1] && pictures[0] == pictures[2], "other pictures");
}

#[test]
fn the_demo_reports_as_json_what_both_ways_copied() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["demo", "--output", "sheet.png", "--report", "json"]);
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let hops = report["hops"].as_array().unwrap();
    let comparison = &report["comparison"];
    assert_eq!(comparison["identical"], true);
    assert_eq!(comparison["moving"]["copied_bytes"], 0);
    // Everything is written to its consumer, and read from its producer: the input has none, and
    // what three functions share was read once.
    let all: u64 = hops.iter().map(|hop| hop["bytes"].as_u64().unwrap()).sum();
    let bytes = |from: &str| {
        hops.iter().find(|hop| hop["from"] == from).unwrap()["bytes"].as_u64().unwrap()
    };
    let twice = 2 * all - bytes("input") - 2 * bytes("resize");
    assert_eq!(comparison["copying"]["copied_bytes"], twice);
    assert!(
        comparison["copying"]["handover_us"].as_f64()
            > comparison["moving"]["handover_us"].as_f64()
    );
    assert_eq!(size_of_png(&sandbox.read("sheet.png")), (3968, 1344));
}

#[test]
fn a_picture_that_can_not_be_written_is_kept() {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["demo", "--output", "nowhere/sheet.png"]);
    assert_eq!(ended.code, Some(9));
    assert_eq!(size_of_png(&sandbox.kept()), (3968, 1344));
    let kept = fs::read_dir(sandbox.temp()).unwrap().next().unwrap().unwrap().path();
    assert!(
        ended.stderr.contains(&format!("the result is in {}", kept.display())),
        "{}",
        ended.stderr
    );
}
