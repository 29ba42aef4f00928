//! What each step of the suite runs. A step that can't run on this machine says why and is skipped; nothing else is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::guests;
use crate::shell::{Shell, Workspace};
use crate::test::Outcome;
use crate::tools;

/// Manifests of the workspaces that are not members of the main one: they are built for other targets or with other flags.
const OTHER_WORKSPACES: [&str; 2] = ["guests/Cargo.toml", "fuzz/Cargo.toml"];

/// The optional parts are checked and tested with everything else: one set of features is one build of the dependencies.
pub(crate) const FEATURES: &str = "--features=peers";

/// What Miri interprets: the code that makes no system call, so of the workflows what does not run them, and of the
/// buffers the modules that only compute. `cargo test` arguments, one row per run.
const MIRI_RUNS: [&[&str]; 3] = [
    &["-p", "roadrunner-abi", "--lib"],
    &["-p", "roadrunner-workflow", "--no-default-features", "--lib"],
    &["-p", "roadrunner-buffer", "--lib", "--", "page::", "shelf::"],
];

/// Checked for 64-bit ARM when a C compiler for it is missing: what needs no C code, so not the compiler of guests.
const NO_C_CRATES: [&str; 4] =
    ["roadrunner-abi", "roadrunner-sys", "roadrunner-buffer", "roadrunner-workflow"];

/// Fuzz targets of `fuzz/fuzz_targets`, each run for [`FUZZ_SMOKE_S`] seconds or [`FUZZ_RUNS`] inputs.
const FUZZ_TARGETS: [&str; 2] = ["frame", "manifest"];
const FUZZ_SMOKE_S: u32 = 20;
const FUZZ_RUNS: u32 = 1_000_000;

/// What `cargo fuzz` passes to the compiler, but for the address sanitizer: the parsers are safe Rust, so coverage and
/// libFuzzer are enough, and both work with the stable compiler.
const FUZZ_RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

pub(crate) fn set_up(workspace: &Workspace) -> Result<Outcome> {
    tools::set_up(workspace)?;
    Ok(Outcome::Passed)
}

pub(crate) fn fmt(workspace: &Workspace) -> Result<Outcome> {
    workspace.cargo(&["fmt", "--all", "--check"]).run()?;
    for manifest in OTHER_WORKSPACES {
        let check = ["fmt", "--all", "--check", "--manifest-path", manifest];
        workspace.cargo(&check).run()?;
    }
    Ok(Outcome::Passed)
}

pub(crate) fn clippy(workspace: &Workspace) -> Result<Outcome> {
    let lint = ["clippy", "--workspace", "--all-targets", "--locked"];
    let deny_warnings = ["--", "-D", "warnings"];
    workspace.cargo(&lint).args([FEATURES]).args(deny_warnings).run()?;
    in_guests(workspace, &lint).args(deny_warnings).run()?;
    Ok(Outcome::Passed)
}

/// Licences, bans and sources need no network and always run; advisories live in a git repository of their own.
pub(crate) fn deny(workspace: &Workspace) -> Result<Outcome> {
    for manifest in ["Cargo.toml", "guests/Cargo.toml"] {
        let deny = workspace.cargo(&[
            "deny",
            "--locked",
            "--config",
            "deny.toml",
            "--manifest-path",
            manifest,
        ]);
        deny.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]).run()?;
    }
    let database = "https://github.com/rustsec/advisory-db";
    let reachable = tools::download(workspace, &["git", "ls-remote", "--quiet", database, "HEAD"]);
    if reachable.env("GIT_TERMINAL_PROMPT", "0").succeeds() {
        workspace.cargo(&["deny", "--locked", "check", "advisories"]).run()?;
    } else {
        println!("not checked: advisories, because {database} can't be reached from this machine");
    }
    Ok(Outcome::Passed)
}

pub(crate) fn guests(workspace: &Workspace) -> Result<Outcome> {
    guests::check(workspace)?;
    Ok(Outcome::Passed)
}

pub(crate) fn tests(workspace: &Workspace) -> Result<Outcome> {
    let test = ["nextest", "run", "--workspace", "--locked"];
    in_guests(workspace, &test).run()?;
    workspace.cargo(&test).args([FEATURES]).run()?;
    Ok(Outcome::Passed)
}

/// Without results there must be no report and no numbers either: then nothing is compared, and that is said.
pub(crate) fn evaluation(workspace: &Workspace) -> Result<Outcome> {
    let report = workspace.cargo(&["run", "--quiet", "--locked", "--package", "roadrunner-report"]);
    report.args(["--", "evaluation/results", "--readme", "README.md", "--check"]).run()?;
    Ok(Outcome::Passed)
}

/// `cargo` in the guests' workspace, compiling for this machine: what a guest computes is tested without a sandbox.
fn in_guests(workspace: &Workspace, args: &[&str]) -> Shell {
    let target_dir = workspace.target.join("guest-build/host");
    let cargo = workspace.cargo(args).dir(&workspace.root.join("guests"));
    cargo.env("CARGO_TARGET_DIR", target_dir)
}

pub(crate) fn doc_tests(workspace: &Workspace) -> Result<Outcome> {
    workspace.cargo(&["test", "--doc", "--workspace", "--locked", FEATURES]).run()?;
    Ok(Outcome::Passed)
}

pub(crate) fn docs(workspace: &Workspace) -> Result<Outcome> {
    let doc = workspace.cargo(&["doc", "--no-deps", "--workspace", "--locked", FEATURES]);
    doc.env("RUSTDOCFLAGS", "-D warnings").run()?;
    Ok(Outcome::Passed)
}

pub(crate) fn miri(workspace: &Workspace) -> Result<Outcome> {
    if !tools::works(workspace, tools::MIRI_SETUP) {
        let reason = "this machine has no nightly toolchain with Miri and none could be installed";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    for run in MIRI_RUNS {
        let miri = workspace.cargo(&["+nightly", "miri", "test", "--locked"]);
        // Tests may read the clock and files; proptest runs a few cases only, each step is interpreted.
        let miri = miri.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
        miri.args(run).run()?;
    }
    Ok(Outcome::Passed)
}

pub(crate) fn loom(workspace: &Workspace) -> Result<Outcome> {
    let loom = workspace.cargo(&["test", "-p", "roadrunner-buffer", "--release", "--locked"]);
    // A target directory of its own: the flag is part of every crate's fingerprint.
    loom.args(["--test", "loom"])
        .env("RUSTFLAGS", "--cfg loom")
        // Switches of threads at other than blocking points; three find every mistake planted so far.
        .env("LOOM_MAX_PREEMPTIONS", "3")
        .env("CARGO_TARGET_DIR", workspace.target.join("loom"))
        .run()?;
    Ok(Outcome::Passed)
}

pub(crate) fn fuzz(workspace: &Workspace) -> Result<Outcome> {
    if !tools::works(workspace, &["c++", "--version"]) {
        let reason = "libFuzzer is C++ and this machine has no C++ compiler; `apt-get install g++` brings one";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    let host = workspace.command("rustc").args(["--print", "host-tuple"]).output()?;
    let target_dir = workspace.target.join("fuzz");
    // Naming the target keeps the coverage flags away from build scripts and procedural macros.
    let build =
        workspace.cargo(&["build", "--manifest-path", "fuzz/Cargo.toml", "--release", "--locked"]);
    build
        .args(["--target", host.trim()])
        .env("RUSTFLAGS", FUZZ_RUSTFLAGS)
        .env("CARGO_TARGET_DIR", &target_dir)
        .run()?;
    for name in FUZZ_TARGETS {
        let binary = target_dir.join(host.trim()).join("release").join(name);
        fuzz_smoke(workspace, name, &binary)?;
    }
    Ok(Outcome::Passed)
}

/// Runs one fuzz target from its committed seeds; what it finds beyond them stays under the target directory.
fn fuzz_smoke(workspace: &Workspace, name: &str, binary: &Path) -> Result<()> {
    let found = workspace.target.join("fuzz/corpus").join(name);
    fs::create_dir_all(&found).with_context(|| format!("could not create {}", found.display()))?;
    let artifacts = format!("-artifact_prefix={}/fuzz/{name}-", workspace.target.display());
    let limits = [format!("-max_total_time={FUZZ_SMOKE_S}"), format!("-runs={FUZZ_RUNS}")];
    let fuzz = workspace.command(binary).args(limits);
    let fuzz =
        fuzz.args(["-timeout=5", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]);
    fuzz.args([artifacts]).args([found, Path::new("fuzz/seeds").join(name)]).run()
}

pub(crate) fn aarch64(workspace: &Workspace) -> Result<Outcome> {
    if !tools::has_std(workspace, tools::AARCH64) {
        let reason = "the standard library for 64-bit ARM is not here and `rustup target add` could not fetch it";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    let check = workspace.cargo(&["check", "--locked", "--target", tools::AARCH64]);
    if tools::works(workspace, &["aarch64-linux-gnu-gcc", "--version"]) {
        check.args(["--workspace"]).run()?;
    } else {
        println!("only the crates without C code: this machine has no aarch64-linux-gnu-gcc");
        let check = check.args(["--no-default-features"]);
        check.args(NO_C_CRATES.iter().flat_map(|name| ["-p", name])).run()?;
    }
    Ok(Outcome::Passed)
}
