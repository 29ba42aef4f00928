//! Results reach their place complete or not at all, and are never lost.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{Ended, Sandbox, noise};

const LEN: usize = 300_000;

/// Runs the echo workflow with this output; the result must be kept, and stderr say where.
fn kept(output: &str) -> String {
    let input = noise(LEN);
    let sandbox = Sandbox::with_echo(&input);
    let complaint =
        sandbox.run(&["run", "w.toml", "--input", "input", "--output", output]).complaint();
    assert_eq!(sandbox.kept(), input);
    without_name(&sandbox, &complaint)
}

/// A complaint without the random name of the kept file.
fn without_name(sandbox: &Sandbox, complaint: &str) -> String {
    let temp = format!("{}/roadrunner-result-", sandbox.temp().display());
    let (before, rest) = complaint.split_once(&temp).expect("it says where the result is");
    format!("{before}TEMP/NAME{}", &rest[6..])
}

#[test]
fn a_result_that_can_not_be_written_is_kept() {
    insta::assert_snapshot!(kept("nowhere/out"), @"9: roadrunner: can't write the result to nowhere/out: No such file or directory (os error 2); the result is in TEMP/NAME.out");
    insta::assert_snapshot!(kept("."), @"9: roadrunner: can't write the result to .: Is a directory (os error 21); the result is in TEMP/NAME.out");
    insta::assert_snapshot!(kept("/dev/full"), @"9: roadrunner: can't write the result to /dev/full: No space left on device (os error 28); the result is in TEMP/NAME.out");
}

#[test]
fn a_result_for_a_full_or_closed_stdout_is_kept() {
    let input = noise(LEN);
    let sandbox = Sandbox::with_echo(&input);
    let mut full = sandbox.command(&["run", "w.toml", "--input", "input"]);
    full.stdout(File::options().write(true).open("/dev/full").unwrap());
    let complaint = Ended::of(&full.output().unwrap()).complaint();
    insta::assert_snapshot!(without_name(&sandbox, &complaint), @"9: roadrunner: can't write the result to stdout: No space left on device (os error 28); the result is in TEMP/NAME.out");
    assert_eq!(sandbox.kept(), input);

    let sandbox = Sandbox::with_echo(&input);
    let mut closed = sandbox.command(&["run", "w.toml", "--input", "input"]);
    let mut child = closed.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let complaint = Ended::of(&child.wait_with_output().unwrap()).complaint();
    insta::assert_snapshot!(without_name(&sandbox, &complaint), @"9: roadrunner: can't write the result to stdout: Broken pipe (os error 32); the result is in TEMP/NAME.out");
    assert_eq!(sandbox.kept(), input);
}

#[test]
fn a_result_that_can_not_be_kept_either_is_said_to_be_lost() {
    let sandbox = Sandbox::with_echo(b"payload");
    let mut command = sandbox.command(&["run", "w.toml", "--input", "input", "--output", "no/out"]);
    let ended = Ended::of(&command.env("TMPDIR", "/nowhere").output().unwrap());
    insta::assert_snapshot!(ended.complaint(), @"9: roadrunner: can't write the result to no/out: No such file or directory (os error 2); it could not be kept in /nowhere either: No such file or directory (os error 2)");
}

#[test]
fn existing_files_keep_their_mode_and_links_stay_links() {
    let sandbox = Sandbox::with_echo(b"payload");
    sandbox.write("target", "what was there, which is longer");
    fs::set_permissions(sandbox.path("target"), Permissions::from_mode(0o666)).unwrap();
    symlink("target", sandbox.path("link")).unwrap();
    sandbox.run(&["run", "w.toml", "--input", "input", "--output", "link"]).fine();
    assert_eq!(sandbox.read("target"), b"payload");
    let mode = fs::metadata(sandbox.path("target")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o666);
    assert!(fs::symlink_metadata(sandbox.path("link")).unwrap().is_symlink());
}

#[test]
fn new_files_have_the_usual_mode() {
    let sandbox = Sandbox::with_echo(b"payload");
    let run = "umask 027 && exec \"$0\" run w.toml --input input --output out";
    let ours = sandbox.command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", run, env!("CARGO_BIN_EXE_roadrunner")]).current_dir(sandbox.0.path());
    shell.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ended::of(&shell.output().unwrap()).fine();
    let mode = fs::metadata(sandbox.path("out")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn devices_and_descriptors_are_written_to() {
    let sandbox = Sandbox::with_echo(b"payload");
    let run = |output| sandbox.run(&["run", "w.toml", "--input", "input", "--output", output]);
    for output in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(run(output).fine(), b"payload", "{output}");
    }
    assert_eq!(run("/dev/null").fine(), b"");
    assert!(fs::metadata("/dev/null").unwrap().permissions().mode() & 0o222 != 0);
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let sandbox = Sandbox::with_function("(loop (br 0))");
    sandbox.write(
        "w.toml",
        fs::read_to_string(sandbox.path("w.toml")).unwrap().replace("300ms", "1m"),
    );
    let mut command = sandbox.command(&["run", "w.toml", "--output", "out"]);
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), None, "ended by the signal");
    let mut left: Vec<_> =
        fs::read_dir(sandbox.0.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["f.wat", "tmp", "w.toml"]);
    assert_eq!(fs::read_dir(sandbox.temp()).unwrap().count(), 0);
}
