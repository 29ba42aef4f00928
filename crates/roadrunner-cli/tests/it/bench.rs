//! `bench`: small figures, and what it refuses. What the figures are is no matter here.

use serde_json::Value;

use crate::program::Sandbox;

/// The objects that a benchmark printed, one a line.
fn objects(args: &[&str]) -> Vec<Value> {
    let ended = Sandbox::new().run(&[&["bench"], args].concat());
    // Progress is on stderr where it takes long.
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let text = String::from_utf8(ended.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The fields of an object with those inside them, and what is in them where that is not a measured time.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", shape(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) if number.is_f64() => "number".into(),
        other => other.to_string(),
    }
}

#[test]
fn a_transfer_is_one_object() {
    let found = objects(&["transfer", "--size", "4KiB", "--runs", "2", "--json"]);
    assert_eq!(found.len(), 1);
    let mut found = found[0].clone();
    // It depends on the machine whether so few bytes are copied or moved.
    let method = found["method"].take();
    assert!(method == "memcpy" || method == "mremap", "{method}");
    let travelled = [found["copied_bytes"].take(), found["moved_bytes"].take()];
    assert!(travelled.contains(&Value::from(0)), "{travelled:?}");
    assert!(travelled.contains(&Value::from(4096)), "{travelled:?}");
    insta::assert_snapshot!(shape(&found), @r#"{baseline: {copied_bytes: 4096, end_to_end_us: {min: number, p50: number, p99: number}, handover_us: {min: number, p50: number, p99: number}, method: "copy through a host buffer", moved_bytes: 0, teardown_us: {min: number, p50: number, p99: number}}, copied_bytes: null, end_to_end_us: {min: number, p50: number, p99: number}, handover_us: {min: number, p50: number, p99: number}, method: null, mode: "user", moved_bytes: null, native: {end_to_end_us: {min: number, p50: number, p99: number}}, runs: 2, size_bytes: 4096, teardown_us: {min: number, p50: number, p99: number}}"#);
}

#[test]
fn several_sizes_are_an_object_each() {
    let found = objects(&["transfer", "--size", "1B,4 KiB, 1MiB", "--runs", "1", "--json"]);
    let sizes: Vec<_> = found.iter().map(|found| found["size_bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1, 4096, 1 << 20]);
}

#[test]
fn large_payloads_are_not_copied() {
    let found = &objects(&["transfer", "--size", "8MiB", "--runs", "1", "--json"])[0];
    assert_eq!(
        (found["method"].as_str(), found["copied_bytes"].as_u64()),
        (Some("mremap"), Some(0))
    );
    assert_eq!(found["moved_bytes"], 8 << 20);
}

#[test]
fn large_payloads_reach_other_processes_without_a_copy() {
    let ways = [
        // The copying way's copies that are counted: into the consumer.
        ("kernel", "segment over a UNIX socket", "stream through a UNIX socket", 1),
        // Into the client's `Vec`, the server's, and the consumer.
        ("network", "send", "HTTP POST with a Vec as its body", 3),
    ];
    for (mode, method, replaced, copies) in ways {
        let args = ["transfer", "--mode", mode, "--size", "8MiB", "--runs", "2", "--json"];
        let found = &objects(&args)[0];
        assert_eq!(found["mode"], mode);
        assert_eq!(found["method"], method);
        assert_eq!(
            (found["copied_bytes"].as_u64(), found["moved_bytes"].as_u64()),
            (Some(0), Some(8 << 20))
        );
        assert_eq!(found["baseline"]["method"], replaced);
        assert_eq!(found["baseline"]["copied_bytes"], copies * (8 << 20));
    }
}

#[test]
fn three_ways_to_another_process_have_the_same_figures() {
    let args = ["transfer", "--mode", "network", "--size", "1MiB", "--runs", "11", "--json"];
    let found = &objects(&args)[0];
    for way in [found, &found["baseline"], &found["bare"]] {
        let figure = |name: &str| way[name].as_f64().unwrap_or_default();
        let p50 = way["handover_us"]["p50"].as_f64().unwrap();
        let rate = f64::from(1 << 20) / p50 * 1e6;
        assert!((figure("throughput_bytes_per_s") / rate - 1.0).abs() < 1e-3, "{way}");
        // What every way must do: write and read each byte at under 100 GB/s.
        assert!(figure("cpu_ns_per_byte") > 0.01, "{way}");
        assert!(
            way["round_trip_us"]["min"].as_f64() >= way["handover_us"]["min"].as_f64(),
            "{way}"
        );
    }
    let names = |value: &Value| {
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.join(" ")
    };
    assert_eq!(
        names(found),
        "bare baseline copied_bytes cpu_ns_per_byte end_to_end_us handover_us method mode moved_bytes \
         round_trip_us runs size_bytes teardown_us throughput_bytes_per_s"
    );
    assert_eq!(
        names(&found["bare"]),
        "cpu_ns_per_byte end_to_end_us handover_us round_trip_us throughput_bytes_per_s"
    );
}

#[test]
fn large_payloads_are_sent_by_the_method_that_is_asked_for() {
    for method in ["send", "sendfile", "splice", "zerocopy", "uring"] {
        let args = ["bench", "transfer", "--mode", "network", "--method", method];
        let args = [&args[..], &["--size", "2MiB", "--runs", "2", "--json"]].concat();
        let ended = Sandbox::new().run(&args);
        if ended.stderr.contains("is not available here") {
            eprintln!("skipped: {}", ended.stderr);
            continue;
        }
        let found: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((found["method"].as_str(), &found["copied_bytes"]), (Some(method), &0.into()));
    }
}

#[test]
fn people_get_a_table_with_a_row_for_each_size() {
    let ended = Sandbox::new().run(&["bench", "transfer", "--size", "1B,64KiB", "--runs", "1"]);
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("size"), "{text}");
    assert!(lines[1].contains(" 1 B ") && lines[2].contains(" 64 KiB "), "{text}");
    assert!(lines[3].starts_with("Times are medians, runs of each way: 1."), "{text}");
}

#[test]
fn calls_fan_outs_and_hand_overs_are_objects_too() {
    let invoke = objects(&["invoke", "--calls", "20", "--json"]);
    insta::assert_snapshot!(shape(&invoke[0]), @"{call_us: {min: number, p50: number, p99: number}, calls: 20, calls_per_second: number}");

    let mut fanout = objects(&["fanout", "--width", "3", "--size", "1MiB", "--json"]).remove(0);
    for memory in ["pss_growth_bytes", "sandbox_bytes"] {
        assert!(fanout[memory].take().is_u64(), "{fanout}");
    }
    insta::assert_snapshot!(shape(&fanout), @"{copied_bytes: 0, handover_us: {min: number, p50: number, p99: number}, pss_growth_bytes: null, sandbox_bytes: null, size_bytes: 1048576, total_us: number, width: 3}");

    let handover = objects(&["handover", "--size", "64KiB", "--count", "10", "--json"]);
    insta::assert_snapshot!(shape(&handover[0]), @"{all_threads_per_second: number, count: 10, one_thread_per_second: number, size_bytes: 65536, speed_up: number, threads: 2}");
}

#[cfg(not(feature = "peers"))]
#[test]
fn a_build_without_iceoryx2_says_how_to_get_one_with_it() {
    let complaint = Sandbox::new().run(&["bench", "peers"]).complaint();
    assert!(complaint.starts_with("10: roadrunner: this build has nothing to compare with"));
    assert!(complaint.contains("`cargo run --release --features peers -- bench peers`"));
}

/// Files in shared memory and in temporary folders that a run of `bench peers` made.
#[cfg(feature = "peers")]
fn left_by(sandbox: &Sandbox, pid: u32) -> Vec<String> {
    let names = |folder: &std::path::Path| -> Vec<_> {
        let files = std::fs::read_dir(folder).unwrap().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    };
    let mut left = names("/dev/shm".as_ref());
    left.retain(|name| name.starts_with(&format!("rr{pid}_")));
    [left, names(&sandbox.temp())].concat()
}

#[cfg(feature = "peers")]
#[test]
fn iceoryx2_does_the_same_job_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let args = ["bench", "peers", "--size", "1KiB,1MiB", "--runs", "11", "--json"];
    let going = sandbox.start(&args);
    let pid = going.process();
    let ended = going.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(left_by(&sandbox, pid), [""; 0]);
    let text = String::from_utf8(ended.stdout).unwrap();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 2);
    for way in ["roadrunner", "iceoryx2", "iceoryx2_spinning"] {
        let figure = |name: &str| found[1][way][name]["p50"].as_f64().unwrap();
        assert!(figure("end_to_end_us") > figure("handover_us"), "{}", found[1]);
        assert!(figure("handover_us") > 0.0, "{}", found[1]);
    }
}

#[cfg(feature = "peers")]
#[test]
fn an_interrupted_comparison_leaves_nothing_behind_either() {
    let sandbox = Sandbox::new();
    let mut going = sandbox.start(&["bench", "peers", "--size", "64KiB", "--runs", "1000000"]);
    going.wait_for("moving 64 KiB");
    let pid = going.process();
    assert_ne!(left_by(&sandbox, pid), [""; 0], "there are files while it runs");
    going.signal("-INT");
    assert_eq!(going.end().code, None, "it ended by the signal");
    assert_eq!(left_by(&sandbox, pid), [""; 0]);
}

#[test]
fn http_servers_are_compared_under_each_load() {
    let args = [
        "http",
        "--size",
        "1KiB,300KiB",
        "--connections",
        "1,3",
        "--rounds",
        "2",
        "--time",
        "100ms",
        "--json",
    ];
    let found = objects(&args);
    let loads = found.iter().map(|it| (it["size_bytes"].as_u64(), it["connections"].as_u64()));
    let loads: Vec<_> =
        loads.map(|(size, connections)| (size.unwrap(), connections.unwrap())).collect();
    assert_eq!(loads, [(1 << 10, 1), (1 << 10, 3), (300 << 10, 1), (300 << 10, 3)]);
    insta::assert_snapshot!(shape(&found[0]), @"{baseline: {latency_us: {min: number, p50: number, p99: number}, requests_per_second: number}, connections: 1, latency_us: {min: number, p50: number, p99: number}, ratio: {max: number, min: number, p50: number}, requests_per_second: number, reused: {latency_us: {min: number, p50: number, p99: number}, requests_per_second: number}, reused_ratio: {max: number, min: number, p50: number}, rounds: 2, size_bytes: 1024}");
    let rate = |it: &Value| it["requests_per_second"].as_f64().unwrap();
    assert!(found.iter().all(|it| rate(it) > 0.0 && rate(&it["baseline"]) > 0.0));
}

#[test]
fn what_can_not_be_measured_is_refused() {
    let complaint = |args: &[&str]| {
        let complaint = Sandbox::new().run(&[&["bench"], args].concat()).complaint();
        complaint.lines().next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(complaint(&["transfer", "--size", "12"]), @r#"2: error: invalid value '12' for '--size <SIZE>': "12" has no unit; write it like "256 MiB" (units: B, KiB, MiB, GiB)"#);
    insta::assert_snapshot!(complaint(&["transfer", "--size", "1MB"]), @r#"2: error: invalid value '1MB' for '--size <SIZE>': "1MB" has the unknown unit "MB"; write "1 MiB" (units: B, KiB, MiB, GiB)"#);
    insta::assert_snapshot!(complaint(&["transfer", "--size", "1MiB,"]), @r#"2: error: invalid value '' for '--size <SIZE>': "" is not a size; write a whole number and a unit, such as "256 MiB""#);
    insta::assert_snapshot!(complaint(&["transfer", "--size", "0B"]), @"2: error: invalid value '0B' for '--size <SIZE>': there is nothing to measure; write at least 1B");
    insta::assert_snapshot!(complaint(&["transfer", "--size", "2GiB"]), @"6: roadrunner: a payload of 2 GiB is over the limit of 1 GiB");
    insta::assert_snapshot!(complaint(&["transfer", "--runs", "0"]), @"2: error: invalid value '0' for '--runs <N>': 0 is not in 1..=1000000");
    insta::assert_snapshot!(complaint(&["transfer", "--mode", "teleport"]), @"2: error: invalid value 'teleport' for '--mode <MODE>'");
    insta::assert_snapshot!(complaint(&["invoke", "--calls", "0"]), @"2: error: invalid value '0' for '--calls <N>': 0 is not in 1..=10000000");
    insta::assert_snapshot!(complaint(&["fanout", "--width", "0"]), @"2: error: invalid value '0' for '--width <N>': 0 is not in 1..=1000");
    insta::assert_snapshot!(complaint(&["http", "--time", "0s"]), @"2: error: invalid value '0s' for '--time <TIME>': that is no time at all; write at least 1ms");
    insta::assert_snapshot!(complaint(&["http", "--connections", "0"]), @"2: error: invalid value '0' for '--connections <N>': 0 is not in 1..=512");
    insta::assert_snapshot!(complaint(&["handover", "--threads", "0"]), @"2: error: invalid value '0' for '--threads <N>': 0 is not in 1..=256");
}
