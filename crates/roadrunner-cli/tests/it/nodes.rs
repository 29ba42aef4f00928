//! Workflows whose functions are on other hosts: who is let in, and what happens when a host goes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::program::{Ended, Going, Sandbox, noise};

/// A folder with a workflow of two functions, the second on a node, and certificates for it.
struct Hosts(Sandbox);

impl Hosts {
    fn new(names: &[&str]) -> Self {
        let sandbox = Sandbox::with_function("");
        sandbox.run(&[&["certify"], names].concat()).code_of(0);
        Self(sandbox)
    }

    /// The manifest, where its node is at an address; `more` is for the function there.
    fn manifest(&self, address: &str, callers: &str, more: &str) {
        let text = format!(
            "[workflow]\nname = \"w\"\nentry = \"near\"\ncallers = [{callers}]\n\
             [functions.near]\nmodule = \"f.wat\"\nnext = [\"far\"]\n\
             [functions.far]\nmodule = \"f.wat\"\nplacement = \"node:edge-1\"\n{more}\n\
             [nodes.edge-1]\naddress = \"{address}\"\n"
        );
        self.0.write("w.toml", text);
    }

    /// The node, at any free port, which the manifest has from then on.
    fn serve(&self, callers: &str, args: &[&str]) -> Going {
        self.manifest("127.0.0.1:7400", callers, "");
        let node =
            self.0.serve(&[&["w.toml", "--as", "edge-1", "--node", "127.0.0.1:0"], args].concat());
        let address = address_of(&node);
        self.manifest(&address, callers, "");
        node
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.0.run(&[&["run", "w.toml", "--input", "input", "--output", "out"], args].concat())
    }
}

impl Ended {
    fn code_of(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
    }
}

fn address_of(node: &Going) -> String {
    node.said.lines().last().and_then(|line| line.rsplit(' ').next()).unwrap().to_owned()
}

#[test]
fn functions_run_where_the_manifest_places_them() {
    let hosts = Hosts::new(&["edge-1", "laptop"]);
    let input = noise(3_000_000);
    hosts.0.write("input", &input);
    let _node = hosts.serve("\"laptop\"", &["--tls", "tls/edge-1"]);
    let ended = hosts.run(&["--tls", "tls/laptop", "--report", "json"]);
    ended.code_of(0);
    assert!(hosts.0.read("out") == input);
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let modes: Vec<_> = report["hops"].as_array().unwrap().iter().map(|hop| &hop["mode"]).collect();
    assert_eq!(modes, ["user", "network"]);
    // A node serves its part, and nothing else of the workflow.
    let address = address_of(&_node);
    let call = |name: &str| {
        let node = format!("edge-1@{address}");
        hosts.0.run(&["invoke", name, "--node", &node, "--tls", "tls/laptop", "-i", "input"])
    };
    for name in ["far", "w.far"] {
        assert!(call(name).fine() == input, "{name}");
    }
    for name in ["w", "near", "w.near"] {
        let said = call(name).complaint();
        assert!(said.starts_with("2: ") && said.contains("serves nothing called"), "{said}");
    }
}

#[test]
fn only_whom_the_manifest_names_is_let_in() {
    let hosts = Hosts::new(&["edge-1", "laptop", "stranger"]);
    hosts.0.write("input", "letter");
    let node = hosts.serve("\"laptop\"", &["--tls", "tls/edge-1"]);
    let said = hosts.run(&["--tls", "tls/stranger"]).complaint();
    let expected = "11: roadrunner: `stranger` may not call `w.far`; add it to `callers` in [workflow] of the manifest there\n";
    assert_eq!(said, expected);
    let address = address_of(&node);
    let call = |options: &[&str]| {
        hosts.0.run(&[&["invoke", "far", "-i", "input"], options].concat()).complaint()
    };
    let plain = call(&["--node", &address]);
    assert!(plain.starts_with("11: "), "{plain}");
    let other = call(&["--node", &format!("edge-2@{address}"), "--tls", "tls/laptop"]);
    assert!(other.starts_with("11: ") && other.contains("edge-2"), "{other}");
    let elsewhere = call(&["--node", &address, "--tls", "tls/laptop"]);
    assert!(elsewhere.contains("its certificate is not accepted here"), "{elsewhere}");
    let strangers = Hosts::new(&["edge-1", "laptop"]);
    let theirs = strangers.0.path("tls/laptop");
    let theirs = theirs.to_str().unwrap();
    let foreign = call(&["--node", &format!("edge-1@{address}"), "--tls", theirs]);
    assert!(foreign.contains("its certificate is not accepted here"), "{foreign}");
    // And is there for those who may.
    hosts.run(&["--tls", "tls/laptop"]).code_of(0);
}

#[test]
fn other_hosts_take_protection_or_a_word() {
    let hosts = Hosts::new(&["edge-1"]);
    hosts.manifest("127.0.0.1:7400", "", "");
    let open = ["serve", "w.toml", "--as", "edge-1", "--node", "0.0.0.0:0"];
    let said = hosts.0.run(&open).complaint();
    assert!(said.starts_with("2: roadrunner: can't take calls at 0.0.0.0:0: "), "{said}");
    assert!(said.contains("--tls DIR") && said.contains("--insecure"), "{said}");
    let node = hosts.0.serve(&[&open[1..], &["--insecure"]].concat());
    assert!(node.said.contains("warning: calls between hosts are in the clear"), "{}", node.said);
    let port = address_of(&node);
    let port = port.rsplit(':').next().unwrap();
    hosts.manifest(&format!("127.0.0.1:{port}"), "", "");
    hosts.0.write("input", "letter");
    hosts.run(&[]).code_of(0);
    assert_eq!(hosts.0.read("out"), b"letter");
    // An address of documentation, RFC 5737: refused before anything is sent there.
    hosts.manifest("192.0.2.1:7400", "", "");
    let said = hosts.run(&[]).complaint();
    assert!(said.starts_with("11: ") && said.contains("--tls DIR"), "{said}");
}

#[test]
fn a_part_that_is_none_is_refused() {
    let hosts = Hosts::new(&["edge-1"]);
    hosts.manifest("127.0.0.1:7400", "", "");
    insta::assert_snapshot!(hosts.0.run(&["serve", "w.toml", "--as", "edge-2"]).complaint(), @r#"3: roadrunner: w.toml: workflow "w" has no function on node "edge-2"; its nodes with functions are "edge-1""#);
    insta::assert_snapshot!(hosts.0.run(&["serve", "w.toml", "--as", "edge-1", "--tls", "nowhere"]).complaint(), @"2: roadrunner: can't read nowhere/ca.pem: No such file or directory (os error 2); a folder for TLS has ca.pem, cert.pem and key.pem");
    hosts.0.run(&["certify", "laptop"]).code_of(0);
    insta::assert_snapshot!(hosts.0.run(&["serve", "w.toml", "--as", "edge-1", "--tls", "tls/laptop"]).complaint(), @"2: roadrunner: tls/laptop has a certificate of laptop, so nobody would believe that this is node edge-1; name the folder that `roadrunner certify edge-1` made");
    assert_eq!(hosts.0.run(&["run", "w.toml", "--tls", "tls/edge-1", "--insecure"]).code, Some(2));
}

#[test]
fn what_may_run_twice_waits_for_a_node_that_starts() {
    let hosts = Hosts::new(&["edge-1", "laptop"]);
    hosts.0.write("input", "letter");
    let node = hosts.serve("\"laptop\"", &["--tls", "tls/edge-1"]);
    let address = address_of(&node);
    drop(node);
    let run = ["run", "w.toml", "-i", "input", "-o", "out", "--tls", "tls/laptop", "--verbose"];
    // Once is all there is without a word.
    assert_eq!(hosts.0.run(&run).code, Some(11));
    hosts.manifest(&address, "\"laptop\"", "idempotent = true\nretries = 10");
    let mut running = hosts.0.start(&run);
    running.wait_for("calling again");
    let serve = ["w.toml", "--as", "edge-1", "--tls", "tls/edge-1"];
    let _node = hosts.0.serve(&serve);
    let ended = running.end();
    ended.code_of(0);
    assert_eq!(hosts.0.read("out"), b"letter");
}

#[test]
fn certificates_are_private_and_never_replaced() {
    let hosts = Hosts::new(&["edge-1", "edge-2.lan"]);
    let mode = |path: &str| fs::metadata(hosts.0.path(path)).unwrap().permissions().mode() & 0o777;
    for folder in ["tls", "tls/edge-1"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["tls/ca.key", "tls/edge-1/key.pem", "tls/edge-2.lan/key.pem"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let key = hosts.0.read("tls/edge-1/key.pem");
    let said = hosts.0.run(&["certify", "edge-3", "edge-1"]).complaint();
    assert_eq!(
        said,
        "2: roadrunner: tls/edge-1 is there already; remove it to have a new certificate\n"
    );
    assert_eq!(hosts.0.read("tls/edge-1/key.pem"), key);
    assert!(!hosts.0.path("tls/edge-3").exists(), "all or nothing");
    // The authority stays the same.
    let authority = hosts.0.read("tls/ca.pem");
    hosts.0.run(&["certify", "edge-3"]).code_of(0);
    assert_eq!(hosts.0.read("tls/edge-3/ca.pem"), authority);
    // Without its key an authority is none, and gets no other one.
    fs::rename(hosts.0.path("tls/ca.key"), hosts.0.path("kept")).unwrap();
    let said = hosts.0.run(&["certify", "edge-6"]).complaint();
    assert!(said.starts_with("5: ") && said.contains("tls/ca.key is missing"), "{said}");
    assert!(!hosts.0.path("tls/ca.key").exists() && !hosts.0.path("tls/edge-6").exists());
    fs::rename(hosts.0.path("kept"), hosts.0.path("tls/ca.key")).unwrap();
    // A disk that was full after the key left one without the other.
    fs::remove_file(hosts.0.path("tls/ca.pem")).unwrap();
    hosts.0.run(&["certify", "edge-5"]).code_of(0);
    assert_eq!(hosts.0.read("tls/edge-5/ca.pem"), hosts.0.read("tls/ca.pem"));
    for name in ["", "Edge", "edge 1", "../edge", "edge/1", "-edge", "edge.", "*"] {
        assert_eq!(hosts.0.run(&["certify", "--", name]).code, Some(2), "{name:?}");
    }
    // An authority that is not the one that is believed signs nothing.
    fs::copy(hosts.0.path("tls/edge-1/key.pem"), hosts.0.path("tls/ca.key")).unwrap();
    assert_eq!(hosts.0.run(&["certify", "edge-4"]).code, Some(2));
    assert!(!hosts.0.path("tls/edge-4").exists());
    hosts.0.write("tls/ca.key", "nonsense");
    assert_eq!(hosts.0.run(&["certify", "edge-4"]).code, Some(2));
    assert_eq!(hosts.0.run(&["certify", "edge", "--dir", "no/where"]).code, Some(9));
    assert!(!Path::new("no").exists());
}

#[test]
fn a_node_that_dies_with_a_call_is_told_from_one_that_is_not_there() {
    let hosts = Hosts::new(&["edge-1", "laptop"]);
    hosts.0.write("input", "letter");
    let log = r#"(module
        (import "roadrunner" "log" (func $log (param i32 i32 i32)))
        (data (i32.const 64) "entered")"#;
    let stay = "(call $log (i32.const 2) (i32.const 64) (i32.const 7)) (if (local.get 1) (then (loop (br 0))))";
    let echo = crate::program::ECHO.replacen("(module", log, 1);
    hosts.0.write("f.wat", echo.replace("BODY", stay));
    let mut node = hosts.serve("\"laptop\"", &["--tls", "tls/edge-1"]);
    let target = format!("edge-1@{}", address_of(&node));
    let call = ["invoke", "far", "--node", &target, "--tls", "tls/laptop", "-i", "input"];
    let calling = hosts.0.start(&call);
    node.wait_for("entered");
    node.signal("-KILL");
    let ended = calling.end();
    ended.code_of(11);
    assert!(ended.stderr.contains("may have run"), "{}", ended.stderr);
    let gone = hosts.0.run(&call);
    gone.code_of(11);
    assert!(gone.stderr.contains("no node takes the call of `far`"), "{}", gone.stderr);
}
