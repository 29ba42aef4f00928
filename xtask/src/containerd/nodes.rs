//! Two nodes: pods in two network namespaces with a link between them, each with a registry of its own, as two hosts have.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::daemon::{Daemon, success};
use super::functions::{CHAIN, IMAGE, end_in, invoke_at};
use super::{OURS, outcome};

/// The nodes by the names in their certificates, with their addresses.
const NODES: [(&str, &str); 2] = [("here", "10.77.0.1"), ("there", "10.77.0.2")];

/// Where all functions are, as each of them is told.
const ADDRESSES: &str =
    "decode=here@10.77.0.1:7400,resize=there@10.77.0.2:7400,encode=there@10.77.0.2:7401";

/// The network between them, until this is dropped.
struct Network<'d>(&'d Daemon);

impl<'d> Network<'d> {
    fn make(daemon: &'d Daemon) -> Result<Self> {
        let network = Self(daemon);
        for (node, _) in NODES {
            network.ip(&["netns", "add", node])?;
        }
        let link = ["link", "add", "rr0", "netns", "here", "type", "veth"];
        network.ip(&[&link[..], &["peer", "name", "rr1", "netns", "there"]].concat())?;
        for ((node, address), device) in NODES.into_iter().zip(["rr0", "rr1"]) {
            network.ip(&["-n", node, "addr", "add", &format!("{address}/24"), "dev", device])?;
            network.ip(&["-n", node, "link", "set", device, "up"])?;
            network.ip(&["-n", node, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        success(self.0.inside(Path::new("ip")).args(args)).map(drop)
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        for (node, _) in NODES {
            let _ = self.ip(&["netns", "del", node]);
        }
    }
}

/// Starts a function of the chain on a node.
fn serve(
    daemon: &Daemon,
    node: &str,
    pod: &str,
    (name, next): (&str, &str),
    guard: &str,
) -> Result<()> {
    let log = format!("file://{}", log_of(daemon, name));
    let annotations = [
        format!("io.kubernetes.cri.sandbox-id={pod}"),
        format!("dev.roadrunner/function={name}"),
        format!("dev.roadrunner/next={next}"),
        format!("dev.roadrunner/address={ADDRESSES}"),
        format!("dev.roadrunner/{guard}"),
    ];
    let tls = daemon.folder().join("tls").join(node);
    let mount = format!("type=bind,src={},dst=/tls,options=rbind:ro", tls.display());
    let network = format!("network:/run/netns/{node}");
    let mut args = vec!["run", "--detach", "--runtime", OURS, "--log-uri", &log];
    args.extend(["--mount", &mount, "--with-ns", &network]);
    annotations.iter().for_each(|it| args.extend(["--annotation", it]));
    let entry = format!("/{name}.wasm");
    args.extend([IMAGE, name, &entry]);
    success(&mut daemon.ctr_of(&daemon.node(node), &args)).map(drop)
}

fn log_of(daemon: &Daemon, name: &str) -> String {
    daemon.folder().join(format!("{name}-of-node.log")).display().to_string()
}

/// `decode` on one node, and what follows on the other.
fn workflow(daemon: &Daemon, guard: &str) -> Result<()> {
    let [decode, resize, encode] = CHAIN;
    serve(daemon, "here", "decode", decode, guard)?;
    serve(daemon, "there", "resize", resize, guard)?;
    serve(daemon, "there", "resize", encode, guard)?;
    let here = daemon.registry_of(&daemon.node("here"));
    for _ in 0..2 {
        let (said, code) = invoke_at(daemon, &here)?;
        ensure!(code == 0, "{said}");
    }
    for (function, hop) in
        [("decode", "hop decode -> resize: network, "), ("resize", "hop resize -> encode: user, ")]
    {
        let log = fs::read_to_string(log_of(daemon, function))?;
        ensure!(log.matches(hop).count() == 2, "not 2 times {hop:?} in:\n{log}");
    }
    Ok(())
}

fn end_all(daemon: &Daemon) -> Result<()> {
    for (node, name) in [("there", "encode"), ("there", "resize"), ("here", "decode")] {
        end_in(daemon, &daemon.node(node), name)?;
        fs::remove_file(log_of(daemon, name))?;
    }
    Ok(())
}

/// With certificates on both sides; who has none is not heard, and a node that is gone is missed by its name.
pub(super) fn with_certificates(daemon: &Daemon) -> Result<()> {
    let network = Network::make(daemon)?;
    let roadrunner = daemon.folder().join("roadrunner");
    let tls = daemon.folder().join("tls");
    let mut certify = daemon.inside(&roadrunner);
    success(certify.args(["certify", "here", "there", "--dir"]).arg(&tls))?;
    workflow(daemon, "tls=/tls")?;

    let mut stranger = daemon.inside(Path::new("ip"));
    stranger.args(["netns", "exec", "here"]).arg(&roadrunner);
    stranger.args(["invoke", "resize", "--node", "10.77.0.2:7400", "--insecure", "--input"]);
    let (_, said, code) = outcome(stranger.arg(daemon.folder().join("photo")))?;
    let was_heard = code == 0 || said.contains("the payload is not a frame");
    ensure!(!was_heard, "a stranger was heard: {said}");
    // Each address is for its function alone.
    let mut other = daemon.inside(Path::new("ip"));
    other.args(["netns", "exec", "here"]).arg(&roadrunner).args(["invoke", "encode", "--node"]);
    other.args(["there@10.77.0.2:7400", "--tls"]).arg(tls.join("here")).arg("--input");
    let (_, said, code) = outcome(other.arg(daemon.folder().join("photo")))?;
    let is_unknown = code != 0 && said.contains("serves nothing called `encode`");
    ensure!(is_unknown, "the address of one function took a call of another: {said}");

    end_in(daemon, &daemon.node("there"), "encode")?;
    let here = daemon.registry_of(&daemon.node("here"));
    let (said, code) = invoke_at(daemon, &here)?;
    ensure!(code != 0 && said.contains("encode"), "{code}: {said}");
    end_in(daemon, &daemon.node("there"), "resize")?;
    let (said, code) = invoke_at(daemon, &here)?;
    ensure!(code != 0 && said.contains("resize"), "{code}: {said}");
    serve(daemon, "there", "resize", CHAIN[1], "tls=/tls")?;
    serve(daemon, "there", "resize", CHAIN[2], "tls=/tls")?;
    let (said, code) = invoke_at(daemon, &here)?;
    ensure!(code == 0, "after it was started again: {said}");
    end_all(daemon)?;
    drop(network);
    Ok(())
}

/// In the clear, where an annotation says so; without it nothing listens.
pub(super) fn in_the_clear(daemon: &Daemon) -> Result<()> {
    let network = Network::make(daemon)?;
    workflow(daemon, "insecure=true")?;
    let log = fs::read_to_string(log_of(daemon, "decode"))?;
    ensure!(log.contains("warning: calls between nodes are in the clear"), "nobody warned: {log}");
    end_all(daemon)?;
    let refused = serve(daemon, "here", "decode", CHAIN[0], "insecure=false");
    let refused = format!("{:#}", refused.err().context("it is served without protection")?);
    ensure!(refused.contains("dev.roadrunner/tls"), "{refused}");
    let here = daemon.node("here");
    let _ = daemon.ctr_of(&here, &["task", "delete", "--force", "decode"]).output()?;
    success(&mut daemon.ctr_of(&here, &["container", "rm", "decode"]))?;
    drop(network);
    Ok(())
}
