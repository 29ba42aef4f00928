//! Tests that count what a whole process has need one for themselves.

use std::process::Command;

/// Set in the process that a test started for itself, to the test's name.
const ALONE: &str = "ROADRUNNER_TEST_ALONE";

/// Runs `body` in a process of its own: this test binary, started for the test `name` only.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|only| only == name) {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}", output.status);
    assert!(said.contains("1 passed"), "no test has the name {name}");
}
