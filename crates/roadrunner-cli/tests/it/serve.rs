//! `roadrunner serve`: a node's life, from its start over new versions of what it serves to its end.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind::BrokenPipe;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use crate::program::{ECHO, Going, Sandbox};

/// A command that waits until somebody opens the FIFO `dir/is` for writing, and then for `dir/go`, and
/// says so.
const WAITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "isgo")
  (data (i32.const 32) "\28\00\00\00\06\00\00\00waited")
  (func $wait (param $name i32)
    (if (call $open (i32.const 3) (i32.const 0) (local.get $name) (i32.const 2) (i32.const 0)
      (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64)) (then unreachable))
    (if (call $close (i32.load (i32.const 64))) (then unreachable)))
  (func (export "_start")
    (call $wait (i32.const 16))
    (call $wait (i32.const 18))
    (if (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 64)) (then unreachable))))"#;

/// A command that says something.
fn says(text: &str) -> String {
    let len = text.len();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\20\00\00\00\{len:02x}\00\00\00") (data (i32.const 32) "{text}")
  (func (export "_start")
    (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 96)) (then unreachable))))"#
    )
}

/// A folder with a workflow `w.toml` of one function, `f.wat`, that waits.
fn waiting() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("dir")).unwrap();
    let fifos = [sandbox.path("dir/is"), sandbox.path("dir/go")];
    let fifo = Command::new("mkfifo").args(fifos).status().unwrap();
    assert!(fifo.success());
    sandbox.write("f.wat", WAITS);
    sandbox.write(
        "w.toml",
        "[workflow]\nname = \"w\"\nentry = \"f\"\n[functions.f]\nmodule = \"f.wat\"\n\
         timeout = \"10m\"\nwasi = { dirs = { \"/dir\" = { path = \"dir\" } } }\n",
    );
    sandbox
}

/// A call of a function that waits, and runs when this comes back.
fn call_that_waits(sandbox: &Sandbox) -> Going {
    let call = sandbox.start(&["invoke", "w", "--timeout", "10m"]);
    meet(sandbox, "dir/is");
    call
}

/// Has the function that waits go on.
fn go_on(sandbox: &Sandbox) {
    meet(sandbox, "dir/go");
}

/// Opens a FIFO when somebody opens it for reading, and comes back when that is over.
fn meet(sandbox: &Sandbox, fifo: &str) {
    const O_NONBLOCK: i32 = 0o4000;
    let mut options = File::options();
    options.write(true).custom_flags(O_NONBLOCK);
    let mut open = None;
    for _ in 0..60_000 {
        open = open.or_else(|| options.open(sandbox.path(fifo)).ok());
        let closed = |mut open: &File| open.write(b"!").is_err_and(|it| it.kind() == BrokenPipe);
        if open.as_ref().is_some_and(closed) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nobody opens {fifo}, or it stays open");
}

fn called(sandbox: &Sandbox) -> String {
    String::from_utf8(sandbox.run(&["invoke", "w"]).fine()).unwrap()
}

#[test]
fn a_call_ends_on_the_version_that_it_began_with() {
    let sandbox = waiting();
    let mut node = sandbox.serve(&["w.toml"]);
    let call = call_that_waits(&sandbox);
    sandbox.write("f.wat", says("second"));
    node.signal("-HUP");
    node.wait_for("loaded w.toml again");
    assert_eq!(called(&sandbox), "second");
    go_on(&sandbox);
    assert_eq!(call.end().fine(), b"waited");
    assert_eq!(called(&sandbox), "second");
}

#[test]
fn what_changes_is_loaded_again_without_being_told() {
    let sandbox = waiting();
    sandbox.write("f.wat", says("first"));
    let mut node = sandbox.serve(&["w.toml"]);
    assert_eq!(called(&sandbox), "first");
    sandbox.write("f.wat", says("second"));
    node.wait_for("loaded w.toml again");
    assert_eq!(called(&sandbox), "second");
    // What functions write into a folder of theirs is no change.
    sandbox.write("dir/written", "");
    sandbox.write("g.wat", says("third"));
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest.replace("f.wat", "g.wat"));
    node.wait_for("loaded w.toml again");
    assert_eq!(called(&sandbox), "third");
    sandbox.write("g.wat", says("fourth"));
    node.wait_for("loaded w.toml again");
    assert_eq!(called(&sandbox), "fourth");
}

#[test]
fn what_does_not_load_any_more_leaves_the_old_version_in_service() {
    let sandbox = waiting();
    sandbox.write("f.wat", says("first"));
    let mut node = sandbox.serve(&["w.toml"]);
    let complaint = |node: &mut Going| {
        let said = node.wait_for("stays in service");
        assert_eq!(called(&sandbox), "first");
        said
    };
    fs::remove_file(sandbox.path("f.wat")).unwrap();
    insta::assert_snapshot!(complaint(&mut node), @r#"roadrunner: w.toml:5:10: function "f" has module "f.wat", but there is no file "f.wat"; build it, or correct the path, which starts at the manifest's folder; what w.toml was before stays in service"#);
    sandbox.write("f.wat", "(module)");
    insta::assert_snapshot!(complaint(&mut node), @"roadrunner: function `f`: module f.wat is not a function: it exports no `memory`; what w.toml was before stays in service");
    let manifest = sandbox.read("w.toml");
    fs::remove_file(sandbox.path("w.toml")).unwrap();
    insta::assert_snapshot!(complaint(&mut node), @"roadrunner: w.toml: the manifest cannot be read: No such file or directory (os error 2); what w.toml was before stays in service");
    sandbox.write("f.wat", says("second"));
    sandbox.write("w.toml", manifest);
    node.wait_for("loaded w.toml again");
    assert_eq!(called(&sandbox), "second");
    assert_eq!(node.said.matches("stays in service").count(), 3, "each once: {}", node.said);
}

#[test]
fn what_does_not_load_is_said_once() {
    let sandbox = waiting();
    sandbox.write("f.wat", says("first"));
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    let other = manifest.replace("\"w\"", "\"v\"").replace("f.wat", "g.wat");
    sandbox.write("v.toml", other);
    sandbox.write("g.wat", says("1"));
    let mut node = sandbox.serve(&["w.toml", "v.toml"]);
    fs::remove_file(sandbox.path("f.wat")).unwrap();
    node.wait_for("stays in service");
    // All manifests are looked at by turns: the other one tells how often that was.
    for nth in ["2", "3"] {
        sandbox.write("g.wat", says(nth));
        node.wait_for("loaded v.toml again");
    }
    assert_eq!(node.said.matches("stays in service").count(), 1, "{}", node.said);
}

#[test]
fn a_new_name_that_is_taken_leaves_the_old_version_in_service() {
    let sandbox = waiting();
    sandbox.write("f.wat", says("first"));
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("v.toml", manifest.replace("\"w\"", "\"v\""));
    let mut node = sandbox.serve(&["w.toml", "v.toml"]);
    sandbox.write("v.toml", &manifest);
    insta::assert_snapshot!(node.wait_for("stays in service"), @r#"roadrunner: v.toml: two workflows would both be called "w"; rename one of them; what v.toml was before stays in service"#);
    assert_eq!(sandbox.run(&["invoke", "v"]).fine(), b"first");
}

#[test]
fn a_storm_of_reloads_loses_no_call() {
    let sandbox = Sandbox::with_echo(b"payload");
    let node = sandbox.serve(&["w.toml"]);
    std::thread::scope(|scope| {
        let call = || sandbox.run(&["invoke", "w", "-i", "input"]).fine();
        let calls = scope.spawn(move || (0..20).for_each(|_| assert_eq!(call(), b"payload")));
        while !calls.is_finished() {
            node.signal("-HUP");
        }
    });
    node.signal("-TERM");
    assert_eq!(node.end().code, Some(0));
}

#[test]
fn a_node_that_is_to_end_waits_for_its_calls() {
    for signal in ["-TERM", "-INT"] {
        let sandbox = waiting();
        let mut node = sandbox.serve(&["w.toml", "--grace", "10m"]);
        let call = call_that_waits(&sandbox);
        node.signal(signal);
        node.wait_for("1 call may take 600s to end; a second signal ends at once");
        assert!(!sandbox.path("roadrunner.sock").exists());
        assert_eq!(sandbox.run(&["invoke", "w"]).code, Some(11), "no new calls");
        go_on(&sandbox);
        assert_eq!(call.end().fine(), b"waited");
        let ended = node.end();
        assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b""[..]));
        assert!(!ended.stderr.contains("did not end"), "{}", ended.stderr);
    }
}

#[test]
fn an_interrupt_from_a_terminal_leaves_other_processes_their_calls() {
    let sandbox = waiting();
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest + "placement = \"process:other\"\n");
    let mut node = sandbox.serve_on_terminal(&["w.toml", "--grace", "10m"]);
    let call = call_that_waits(&sandbox);
    node.interrupt();
    node.wait_for("a second signal ends at once");
    go_on(&sandbox);
    assert_eq!(call.end().fine(), b"waited");
    assert_eq!(node.end().code, Some(0));
}

#[test]
fn a_node_that_is_told_twice_ends_at_once() {
    let sandbox = waiting();
    let mut node = sandbox.serve(&["w.toml", "--grace", "10m"]);
    let call = call_that_waits(&sandbox);
    node.signal("-INT");
    node.wait_for("a second signal ends at once");
    node.signal("-INT");
    let ended = node.end();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.ends_with("roadrunner: 1 call did not end\n"), "{}", ended.stderr);
    assert!(!sandbox.path("roadrunner.sock").exists());
    insta::assert_snapshot!(without_folder(&sandbox, &call.end().complaint()), @"11: roadrunner: the node at roadrunner.sock went away with the call of `w`: the connection was closed; it may have run, or not");
}

#[test]
fn a_grace_ends_too() {
    let sandbox = waiting();
    let node = sandbox.serve(&["w.toml", "--grace", "50ms"]);
    let call = call_that_waits(&sandbox);
    node.signal("-TERM");
    let ended = node.end();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.ends_with("roadrunner: 1 call did not end\n"), "{}", ended.stderr);
    assert_eq!(call.end().code, Some(11));
}

#[test]
fn a_node_that_is_killed_is_missed_by_its_callers_and_replaced() {
    let sandbox = waiting();
    let node = sandbox.serve(&["w.toml"]);
    let call = call_that_waits(&sandbox);
    node.signal("-KILL");
    assert_eq!(node.end().code, None);
    insta::assert_snapshot!(without_folder(&sandbox, &call.end().complaint()), @"11: roadrunner: the node at roadrunner.sock went away with the call of `w`: the connection was closed; it may have run, or not");
    assert!(sandbox.path("roadrunner.sock").exists(), "as a process leaves it that was killed");
    let refused = sandbox.run(&["invoke", "w"]);
    assert!(refused.stderr.contains("Connection refused"), "{}", refused.stderr);
    sandbox.write("f.wat", says("second"));
    let _node = sandbox.serve(&["w.toml"]);
    assert_eq!(called(&sandbox), "second");
}

#[test]
fn a_caller_that_is_killed_disturbs_nobody() {
    let sandbox = waiting();
    let node = sandbox.serve(&["w.toml"]);
    for _ in 0..3 {
        let call = call_that_waits(&sandbox);
        call.signal("-KILL");
        assert_eq!(call.end().code, None);
        go_on(&sandbox);
    }
    let call = call_that_waits(&sandbox);
    go_on(&sandbox);
    assert_eq!(call.end().fine(), b"waited");
    node.signal("-TERM");
    assert_eq!(node.end().code, Some(0));
}

#[test]
fn functions_in_other_processes_are_served_and_reloaded() {
    let sandbox = Sandbox::with_echo(b"payload");
    let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
    sandbox.write("w.toml", manifest + "placement = \"process:other\"\n");
    let mut node = sandbox.serve(&["w.toml"]);
    let call = |name| sandbox.run(&["invoke", name, "-i", "input"]).fine();
    assert_eq!((call("w"), call("f")), (b"payload".to_vec(), b"payload".to_vec()));
    sandbox.write("f.wat", ECHO.replace("BODY", "(i32.store8 (local.get 0) (i32.const 80))"));
    node.signal("-HUP");
    node.wait_for("loaded w.toml again");
    assert_eq!((call("w"), call("f")), (b"Payload".to_vec(), b"Payload".to_vec()));
}

/// A complaint without the name of its folder.
fn without_folder(sandbox: &Sandbox, complaint: &str) -> String {
    complaint.replace(&format!("{}/", sandbox.0.path().display()), "")
}

#[test]
fn workflows_of_one_name_are_refused() {
    let sandbox = Sandbox::with_function("");
    sandbox.write("v.toml", sandbox.read("w.toml"));
    insta::assert_snapshot!(sandbox.run(&["serve", "w.toml", "v.toml"]).complaint(), @r#"3: roadrunner: w.toml and v.toml: two workflows would both be called "w"; rename one of them"#);
    assert_eq!(sandbox.run(&["serve"]).code, Some(2));
    assert_eq!(sandbox.run(&["serve", "nowhere.toml"]).code, Some(3));
    sandbox.write("f.wat", "(module)");
    assert_eq!(sandbox.run(&["serve", "w.toml"]).code, Some(4));
}

#[test]
fn places_where_a_node_can_not_listen() {
    let sandbox = Sandbox::with_echo(b"payload");
    let serve = |option: &str, place: &str| {
        let complaint = sandbox.run(&["serve", "w.toml", option, place]).complaint();
        complaint.replace(place, "PLACE")
    };
    let _other = UnixListener::bind(sandbox.path("used.sock")).unwrap();
    insta::assert_snapshot!(serve("--socket", "used.sock"), @"1: roadrunner: can't take calls at PLACE: another process listens there");
    insta::assert_snapshot!(serve("--socket", "input"), @"1: roadrunner: can't take calls at PLACE: a file that is no socket has this name");
    assert_eq!(sandbox.read("input"), b"payload");
    insta::assert_snapshot!(serve("--socket", "nowhere/s.sock"), @"1: roadrunner: can't take calls at PLACE: No such file or directory (os error 2)");
    insta::assert_snapshot!(serve("--socket", "input/s.sock"), @"1: roadrunner: can't take calls at PLACE: Not a directory (os error 20)");
    insta::assert_snapshot!(serve("--socket", &"s".repeat(200)), @"1: roadrunner: can't take calls at PLACE: path must be shorter than SUN_LEN");
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    insta::assert_snapshot!(serve("--node", &used.local_addr().unwrap().to_string()), @"1: roadrunner: can't take calls at PLACE: Address already in use (os error 98)");
    insta::assert_snapshot!(serve("--node", "0.0.0.0:0").replace(char::is_numeric, "N"), @"N: roadrunner: can't take calls at PLACE: N.N.N.N:NNNNN is not on this host, so it takes --tls DIR with this node's certificate, or --insecure in a network where nobody else is");
    insta::assert_snapshot!(serve("--node", "192.0.2.1:7400"), @"1: roadrunner: can't take calls at PLACE: Cannot assign requested address (os error 99)");
}

#[test]
fn a_folder_that_is_closed_to_the_node() {
    let sandbox = Sandbox::with_function("");
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::set_permissions(sandbox.path("closed"), Permissions::from_mode(0o500)).unwrap();
    if File::create(sandbox.path("closed/file")).is_ok() {
        return; // The superuser may write anywhere.
    }
    let ended = sandbox.run(&["serve", "w.toml", "--socket", "closed/s.sock"]);
    insta::assert_snapshot!(ended.complaint(), @"1: roadrunner: can't take calls at closed/s.sock: Permission denied (os error 13)");
}

#[test]
fn the_socket_is_its_users_alone() {
    let sandbox = Sandbox::with_function("");
    let _node = sandbox.serve(&["w.toml"]);
    let found = fs::symlink_metadata(sandbox.path("roadrunner.sock")).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let again = sandbox.run(&["serve", "w.toml"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("another process listens there"), "{}", again.stderr);
    assert_eq!(sandbox.run(&["invoke", "w"]).code, Some(0), "and the first one goes on");
}
