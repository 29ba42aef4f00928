//! Programs in other languages than Rust, built by their own compilers and not changed for this: they run as containers.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::daemon::{Daemon, success};
use super::image::Image;
use super::{OURS, outcome, passes};
use crate::shell::Workspace;
use crate::tools;

/// Where `scripts/go.sh` unpacks it, from the repository's root.
const GO: &str = "target/tools/go/bin/go";

/// Bytes through a program's streams: more than pipes hold.
const STREAM: usize = 2_000_000;

/// Compiles the programs for which there are compilers, and gives them to containerd.
pub(super) fn prepare(workspace: &Workspace, daemon: &Daemon) -> Result<()> {
    let sources = workspace.root.join("xtask/src/containerd");
    let folder = daemon.folder();
    if tools::works(workspace, &tools::HAS_C_FOR_WASI) {
        let clang = ["--target=wasm32-wasi", "-O2", "-o"];
        let c = [folder.join("c.wasm"), sources.join("program.c")];
        workspace.command("clang").args(clang).args(c).run()?;
    } else {
        println!(
            "skipped: the program in C: clang has no WASI; `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32`"
        );
    }
    let go = workspace.root.join(GO);
    if go.exists() {
        let build = workspace.command(&go).args(["build", "-ldflags=-s -w", "-o"]);
        let build = build.args([folder.join("go.wasm"), sources.join("program.go")]);
        let build = build.env("GOOS", "wasip1").env("GOARCH", "wasm").env("GOTOOLCHAIN", "local");
        // Not the user's own, and kept: it has Go's library.
        let cache = workspace.target.join("tools/go-cache");
        build.env("GOCACHE", cache).env("GO111MODULE", "off").run()?;
    } else {
        println!(
            "skipped: the program in Go: it is not in {GO}; `cargo xtask test --only setup` unpacks it, on Debian"
        );
    }
    for language in ["c", "go"] {
        let (module, name) = (folder.join(format!("{language}.wasm")), image(language));
        if module.exists() {
            let files: &[(&str, &[u8])] = &[("program.wasm", &fs::read(&module)?)];
            daemon.import(&Image { name: &name, entry: &["/program.wasm"], files })?;
        }
    }
    Ok(())
}

fn image(language: &str) -> String {
    format!("docker.io/e2e/{language}:1")
}

/// Arguments, environment, directories, streams and exit codes.
pub(super) fn programs(daemon: &Daemon) -> Result<()> {
    for language in ["c", "go"] {
        if daemon.folder().join(format!("{language}.wasm")).exists() {
            program(daemon, language).with_context(|| format!("the program in {language}"))?;
        }
    }
    Ok(())
}

fn program(daemon: &Daemon, language: &str) -> Result<()> {
    let image = image(language);
    let run = |options: &[&str], args: &[&str]| -> Command {
        let words = ["run", "--rm", "--runtime", OURS];
        daemon.ctr(&[&words[..], options, &[&image, language, "/program.wasm"], args].concat())
    };
    let said = success(&mut run(&["--env", "QUALITY=85"], &["say", "two words", ""]))?;
    ensure!(said == "argument: two words\nargument: \nQUALITY: 85\n", "it said {said:?}");

    let host = daemon.folder().join("languages");
    fs::create_dir_all(&host)?;
    fs::write(host.join("input"), "of the host\n")?;
    let mount =
        |mode: &str| format!("type=bind,src={},dst=/data,options=rbind:{mode}", host.display());
    let (readable, writable) = (mount("ro"), mount("rw"));
    let read = success(&mut run(&["--mount", &readable], &["read", "/data/input"]))?;
    ensure!(read == "of the host\n", "it read {read:?}");
    let missing = outcome(&mut run(&["--mount", &readable], &["read", "/data/none"]))?;
    ensure!(missing.2 == 2 && missing.1.contains("/data/none"), "{missing:?}");
    let write = ["write", "/data/output", language];
    let refused = outcome(&mut run(&["--mount", &readable], &write))?;
    ensure!(refused.2 == 1 && !host.join("output").exists(), "it wrote to what is read-only");
    success(&mut run(&["--mount", &writable], &write))?;
    ensure!(fs::read_to_string(host.join("output"))? == language);
    fs::remove_file(host.join("output"))?;

    let sent = vec![b'x'; STREAM];
    passes(&mut run(&[], &["cat"]), &sent)?;
    for code in [0, 3, 255] {
        let ended = outcome(&mut run(&[], &["exit", &code.to_string()]))?;
        ensure!(ended == (String::new(), format!("leaving with {code}\n"), code), "{ended:?}");
    }
    Ok(())
}
