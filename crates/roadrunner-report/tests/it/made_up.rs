//! Results that nobody measured, for tests alone: every system's latency is a start and a rate out of the table below.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const HEADER: &str = "experiment,place,system,x,run,total_s,transfer_s,serialization_s,wasm_io_s,cpu_user_s,\
    cpu_kernel_s,memory_peak_bytes,copied_bytes,transfers,note\n";

/// A system, seconds that each transfer takes at least, seconds per MB, and the part of it that is serialization.
type Made = (&'static str, f64, f64, f64);

const ONE_HOST: [Made; 11] = [
    ("roadrunner-user", 6e-5, 1e-6, 0.0),
    ("roadrunner-kernel", 1.5e-4, 2e-6, 0.0),
    ("wasmtime-http-json", 2e-3, 0.021, 0.8),
    ("native-http-json", 1e-3, 0.0035, 0.4),
    ("native-http-raw", 5e-4, 6e-4, 0.0),
    ("redis", 6e-4, 1.1e-3, 0.0),
    ("unix-socket", 4e-5, 4e-4, 0.0),
    ("tcp", 6e-5, 4.5e-4, 0.0),
    // Faster than ours at every size, so that something is worse.
    ("iceoryx2", 1e-6, 1e-8, 0.0),
    ("paper-copy", 2e-5, 6e-4, 0.0),
    // Over the loopback: in figures, not in the headline.
    ("roadrunner-network", 5e-4, 8e-4, 0.0),
];

const TWO_HOSTS: [Made; 4] = [
    // Slower than the link, so that a target is missed.
    ("roadrunner-network", 8e-4, 0.0085, 0.0),
    ("wasmtime-http-json", 3e-3, 0.03, 0.7),
    ("native-http-json", 1e-3, 0.012, 0.3),
    ("tcp", 5e-4, 0.0084, 0.0),
];

/// A folder like `evaluation/`, with `results` in it.
pub(crate) struct Evaluation {
    folder: TempDir,
}

impl Evaluation {
    /// Without any results.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        fs::create_dir(folder.path().join("results")).expect("a directory");
        Self { folder }
    }

    /// With every experiment.
    pub(crate) fn made_up() -> Self {
        let evaluation = Self::empty();
        evaluation.write("results/runs.csv", &runs());
        evaluation.write("results/skipped.csv", SKIPPED);
        evaluation.write("results/machine.json", MACHINE);
        evaluation.write("notes.toml", NOTES);
        evaluation
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Starts the program with these arguments after the folder.
    pub(crate) fn report(&self, args: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_roadrunner-report"));
        let program = program.current_dir(&self.folder).arg(Path::new("results")).args(args);
        program.output().expect("the program starts")
    }

    /// The same, and it must succeed.
    pub(crate) fn reported(&self, args: &[&str]) -> String {
        let output = self.report(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, and it must fail: with this message.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.report(args);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

const SKIPPED: &str = "experiment,place,system,reason\n\
    coldstart,same-host,node-wasi,\"made up: no <node> here, and none could be installed\"\n";
const MACHINE: &str = r#"{"kernel": "0.0-made-up", "cpu": "Made-up CPU that nobody sells", "cores": 2,
    "memory_bytes": 8000000000, "thp_enabled": "always [madvise] never", "mode": "quick", "profile": "none",
    "date": "2000-01-01T00:00:00Z", "commit": "0000000000000000000000000000000000000000",
    "peers": {"redis-server": "Redis server v=0 made up"}}"#;
const NOTES: &str = "[[note]]\nkind = 'slower'\npeer = 'iceoryx2'\nreason = 'Made up: it has no sandbox & shares its memory.'\n";

/// Rows that no machine made.
pub(crate) fn runs() -> String {
    let mut rows = HEADER.to_owned();
    let (some, degrees) = ([1.0, 10.0, 60.0, 100.0, 500.0], [1.0, 10.0, 100.0]);
    for (place, systems) in [("same-host", &ONE_HOST[..]), ("two-hosts-1gbit", &TWO_HOSTS[..])] {
        for made in systems {
            for megabytes in some {
                passed(&mut rows, ("transfer", place), made, megabytes, megabytes, 1.0);
            }
            for degree in degrees {
                passed(&mut rows, ("fanout", place), made, degree, 10.0, degree);
            }
        }
    }
    for made in &ONE_HOST[..4] {
        passed(&mut rows, ("breakdown", "same-host"), made, 100.0, 100.0, 1.0);
    }
    for made in &ONE_HOST[2..4] {
        for megabytes in [1.0, 60.0, 100.0] {
            let of = ("motivation-transfer", "same-host");
            passed(&mut rows, of, made, megabytes, megabytes, 1.0);
        }
    }
    let starts = [
        ("roadrunner-process", 0.011),
        ("roadrunner-sandbox", 2e-5),
        ("runc", 0.08),
        ("process-per-function", 0.03),
    ];
    timed(&mut rows, "motivation-start", &["hello", "resize"], &starts);
    timed(&mut rows, "coldstart", &["nop", "cat-sync"], &starts);
    let computes = [("roadrunner", 0.9), ("native-gcc", 1.37), ("native-clang", 0.86)];
    timed(&mut rows, "compute", &["nbody", "fannkuch-redux", "mandelbrot"], &computes);
    for (x, value) in
        [("binary-bytes", 21e6), ("idle-function-bytes", 9e4), ("functions-per-gib", 11_000.0)]
    {
        line(
            &mut rows,
            format_args!("footprint,same-host,roadrunner,{x},0,,,,,,,{value},,,made up"),
        );
    }
    rows
}

/// Five runs of a transfer or fan-out, each a little slower than the one before.
fn passed(
    rows: &mut String,
    of: (&str, &str),
    made: &Made,
    x: f64,
    megabytes: f64,
    transfers: f64,
) {
    let ((experiment, place), (system, least, rate, serialized)) = (of, *made);
    for run in 0..5 {
        let total = transfers * (least + rate * megabytes) * (0.98 + 0.01 * f64::from(run));
        let (serialization, moved) = (total * serialized, total * (1.0 - serialized));
        let zero_copy = system.starts_with("roadrunner");
        let memory = 2e7 + megabytes * 1e6 * if zero_copy { 1.1 } else { 3.0 } + transfers * 1e5;
        let copied = if zero_copy { 0.0 } else { megabytes * 1e6 * transfers };
        line(
            rows,
            format_args!(
                "{experiment},{place},{system},{x},{run},{total:e},{moved:e},{serialization:e},0,{:e},{:e},{memory},{copied},{transfers},made up",
                total * 0.3,
                total * 0.4,
            ),
        );
    }
}

fn timed(rows: &mut String, experiment: &str, workloads: &[&str], systems: &[(&str, f64)]) {
    for (workload, (system, seconds)) in
        workloads.iter().flat_map(|workload| systems.iter().map(move |system| (workload, system)))
    {
        for run in 0..3 {
            let total = seconds * (1.0 + 0.02 * f64::from(run));
            line(
                rows,
                format_args!(
                    "{experiment},same-host,{system},{workload},{run},{total:e},,,,,,,,,made up"
                ),
            );
        }
    }
}

fn line(rows: &mut String, row: std::fmt::Arguments<'_>) {
    writeln!(rows, "{row}").expect("strings take everything");
}
