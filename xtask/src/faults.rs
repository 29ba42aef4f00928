//! The long form of the fault run, whose short form is one of the tests of `roadrunner-cli`.

use anyhow::Result;

use crate::shell::Workspace;
use crate::steps::FEATURES;

/// Faults of the long form.
pub(crate) const MANY: u64 = 10_000;

/// Runs it: `cargo test` shows its progress and its table as they come, and has no limit on its time.
pub(crate) fn run(workspace: &Workspace, count: u64, seed: Option<u64>) -> Result<()> {
    let test = ["test", "--locked", "--workspace", FEATURES, "--test", "faults"];
    let test = workspace.cargo(&test).args(["--", "--nocapture"]);
    let test = test.env("ROADRUNNER_FAULTS_COUNT", count.to_string());
    match seed {
        Some(seed) => test.env("ROADRUNNER_FAULTS_SEED", seed.to_string()),
        None => test.env_remove("ROADRUNNER_FAULTS_SEED"),
    }
    .run()
}
