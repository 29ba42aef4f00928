//! Images whose layers are modules, as `roadrunner image build` makes them: containerd keeps these and unpacks nothing.

use anyhow::{Result, ensure};

use super::daemon::{Daemon, success};
use super::image::Image;
use super::{OURS, outcome};
use crate::shell::Workspace;

const MODULE: &str = "docker.io/e2e/module:1";
const WORKFLOW: &str = "docker.io/e2e/workflow:1";
const EMPTY: &str = "docker.io/e2e/empty:1";
const MISSING: &str = "docker.io/e2e/missing:1";

/// Builds and imports them: the program of the other images, the demo's workflow, and two with nothing that could run.
pub(super) fn prepare(workspace: &Workspace, daemon: &Daemon) -> Result<()> {
    let roadrunner = || workspace.command(workspace.target.join("debug/roadrunner"));
    let program = daemon.folder().join("program.wasm");
    let demo = workspace.root.join("examples/demo/roadrunner.toml");
    let archive = daemon.folder().join("artifact.tar");
    for (source, name) in [(program, MODULE), (demo, WORKFLOW)] {
        let build = roadrunner().args(["image", "build", "--container", "--name", name]);
        let digest = build.args(["--output"]).args([&archive, &source]).output()?;
        ensure!(digest.starts_with("sha256:"), "no digest was printed: {digest:?}");
        // An artifact is for no platform that this machine has.
        let import = ["image", "import", "--all-platforms"];
        success(daemon.ctr(&import).arg(&archive))?;
    }
    let files: &[(&str, &[u8])] = &[("readme", b"nothing to run")];
    daemon.import(&Image { name: EMPTY, entry: &[], files })?;
    daemon.import(&Image { name: MISSING, entry: &["/none.wasm"], files })
}

/// `ctr run` of an image with these arguments.
fn run(daemon: &Daemon, image: &str, args: &[&str]) -> Result<(String, String, i32)> {
    let run = ["run", "--rm", "--runtime", OURS, "--platform", "wasip1/wasm", image, "layer"];
    outcome(&mut daemon.ctr(&[&run[..], args].concat()))
}

/// The only module of an image runs, whatever its command is called, with the streams and the exit code of any other.
pub(super) fn one_module(daemon: &Daemon) -> Result<()> {
    for name in ["/program.wasm", "tool"] {
        let said = run(daemon, MODULE, &[name, "say", "two words"])?;
        let expected = "arguments: [\"two words\"]\nQUALITY: None\n";
        ensure!(said == (expected.into(), String::new(), 0), "as {name} it said {said:?}");
    }
    let (_, said, code) = run(daemon, MODULE, &["tool", "exit", "42"])?;
    ensure!(code == 42, "{code}: {said}");
    // What the image itself says.
    let said = run(daemon, MODULE, &[])?;
    ensure!(said == (String::new(), String::new(), 0), "it said {said:?}");
    Ok(())
}

/// A function's module is found in the image of its workflow, by the name of its layer.
pub(super) fn function(daemon: &Daemon) -> Result<()> {
    let function = ["--annotation", "dev.roadrunner/function=decode"];
    let run = ["run", "--detach", "--null-io", "--runtime", OURS, "--platform", "wasip1/wasm"];
    success(&mut daemon.ctr(&[&run[..], &function, &[WORKFLOW, "layer"]].concat()))?;
    ensure!(daemon.registry().join("decode").exists(), "nobody serves decode");
    success(&mut daemon.ctr(&["task", "delete", "--force", "layer"]))?;
    success(&mut daemon.ctr(&["container", "rm", "layer"])).map(drop)
}

/// An image in which nothing can run says what it has not, and one with several modules which they are.
pub(super) fn refusals(daemon: &Daemon) -> Result<()> {
    let (_, said, code) = run(daemon, WORKFLOW, &["/none.wasm"])?;
    ensure!(code != 0 && said.contains("must name one of decode.wasm, "), "{code}: {said}");
    for (image, expected) in
        [(EMPTY, "has no entry point"), (MISSING, "has no entry point /none.wasm")]
    {
        let (_, said, code) =
            outcome(&mut daemon.ctr(&["run", "--rm", "--runtime", OURS, image, "no"]))?;
        ensure!(code != 0 && said.contains(expected), "{image}: {code}: {said}");
    }
    Ok(())
}
