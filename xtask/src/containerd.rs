//! The containerd shim against a real containerd: images, containers, streams, signals, and what they leave behind.
//!
//! Everything happens in namespaces and in a folder of their own ([`daemon`]), with images that are made here ([`image`])
//! of a program that is compiled here (`program.rs`). Nothing is installed but the unpacked packages of containerd and runc.

mod artifacts;
mod cri;
mod daemon;
mod functions;
mod image;
mod killed;
mod languages;
mod nodes;
mod pods;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::guests::toolchain::{self, TARGET};
use crate::shell::Workspace;
use crate::steps::FEATURES;
use crate::test::Outcome;
use crate::tools;
use daemon::{Daemon, PAUSE, PREFIX, success};
use image::Image;

/// Both runtimes that are compared.
const OURS: &str = "io.containerd.roadrunner.v1";
const RUNC: &str = "io.containerd.runc.v2";

/// The images: the program, one that does nothing, and a native one that does nothing.
const PROGRAM: &str = "docker.io/e2e/program:1";
const NOOP: &str = "docker.io/e2e/noop:1";
const NATIVE: &str = "docker.io/e2e/true:1";

/// Pairs of containers that are timed.
const PAIRS: usize = 10;

/// Most of runc's time that an empty container may take.
const MOST_OF_RUNC: f64 = 0.6;

/// Series of pairs that are timed until one is within that: a neighbour's load hits one side of a series more than the other.
const SERIES: usize = 3;

/// What is checked, by its name.
type Scenario = (&'static str, fn(&Daemon) -> Result<()>);

const SCENARIOS: [Scenario; 23] = [
    ("arguments and environment arrive", arguments),
    ("streams and exit codes are a process's", streams),
    ("the root and mounted directories are seen", directories),
    ("signals end whatever a container does", signals),
    ("the containers of a pod are one process", pods),
    ("programs in C and Go run unchanged", languages::programs),
    ("what can't run says why", refusals),
    ("a module that is a layer of its image runs", artifacts::one_module),
    ("a function's module is a layer of its workflow's image", artifacts::function),
    ("an image with nothing to run says so", artifacts::refusals),
    ("functions of a pod hand over by moving pages", functions::in_one_pod),
    ("functions of pods hand over by descriptors", functions::in_three_pods),
    ("what can't be served says why", functions::refusals),
    ("a pod of functions through CRI", cri::a_pod),
    ("commands through CRI", cri::commands),
    ("what can't run says why through CRI", cri::refusals),
    ("namespaces and memory limits hold through CRI", cri::limits),
    ("functions of nodes hand over by TLS", nodes::with_certificates),
    ("functions of nodes hand over in the clear where told", nodes::in_the_clear),
    ("a pod is killed while it has a payload", killed::pod),
    ("containerd is killed and started again", killed::containerd),
    ("pods leave nothing behind", pods::a_few),
    ("an empty container takes less than runc's", times),
];

/// Runs all scenarios, where this machine lets us; says why not where it doesn't.
pub(crate) fn run(workspace: &Workspace) -> Result<Outcome> {
    run_some(workspace, "")
}

/// Runs the scenarios in whose names a word occurs.
pub(crate) fn run_some(workspace: &Workspace, word: &str) -> Result<Outcome> {
    ensure!(
        SCENARIOS.iter().any(|(name, _)| name.contains(word)),
        "no scenario's name has {word:?} in it; there are {:?}",
        SCENARIOS.map(|(name, _)| name)
    );
    with_daemon(workspace, "e2e-containerd", |daemon| {
        for (name, scenario) in SCENARIOS.into_iter().filter(|(name, _)| name.contains(word)) {
            let start = Instant::now();
            scenario(daemon).with_context(|| format!("scenario `{name}`"))?;
            // Requests end before processes do.
            daemon
                .wait_until("nothing is left", || Ok(daemon.leftovers()?.is_empty()))
                .with_context(|| {
                    format!("scenario `{name}` left {:?}", daemon.leftovers().unwrap_or_default())
                })?;
            println!("{:>6.1} s  {name}", start.elapsed().as_secs_f64());
        }
        Ok(())
    })
}

/// Starts so many pods with a function each, calls each and ends them, as often as this.
pub(crate) fn run_pods(workspace: &Workspace, count: usize, rounds: usize) -> Result<Outcome> {
    with_daemon(workspace, "e2e-pods", |daemon| pods::many(daemon, count, rounds))
}

/// Does something with a containerd that has all images, and sees that nothing of it is left.
fn with_daemon(
    workspace: &Workspace,
    folder: &str,
    work: impl FnOnce(&Daemon) -> Result<()>,
) -> Result<Outcome> {
    if let Some(reason) = missing(workspace) {
        return Ok(Outcome::Skipped(reason));
    }
    // As the tests are built, so that the suite builds nothing twice.
    let build = ["build", "--workspace", "--bins", "--tests", "--locked", FEATURES];
    workspace.cargo(&build).run()?;
    let daemon = Daemon::start(workspace, workspace.target.join(folder))?;
    images(workspace, &daemon)?;
    artifacts::prepare(workspace, &daemon)?;
    functions::link_clients(workspace, daemon.folder())?;
    functions::prepare(workspace, &daemon)?;
    languages::prepare(workspace, &daemon)?;
    work(&daemon)?;
    let folder = daemon.folder().to_owned();
    drop(daemon);
    fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    Ok(Outcome::Passed)
}

/// Why it can't run here.
fn missing(workspace: &Workspace) -> Option<String> {
    if !workspace.root.join(PREFIX).join("bin/runc").exists() {
        let how = "`cargo xtask test --only setup` unpacks them, on Debian";
        return Some(format!("containerd and runc are not in {PREFIX}; {how}"));
    }
    for tool in [
        ["unshare", "-V"],
        ["nsenter", "-V"],
        ["ip", "-V"],
        ["timeout", "--version"],
        ["cc", "--version"],
    ] {
        if !tools::works(workspace, &tool) {
            return Some(format!("this machine has no `{}`", tool[0]));
        }
    }
    let probe = "mount -t tmpfs tmpfs /tmp && cd /tmp && \
        mkdir a b c d && mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d";
    let namespaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", probe];
    if tools::works(workspace, &[&["unshare"][..], &namespaces].concat()) {
        return None;
    }
    Some(
        "it takes root, and a kernel with namespaces and overlayfs; not all of that is here".into(),
    )
}

/// Compiles what runs in containers, and gives it to containerd.
fn images(workspace: &Workspace, daemon: &Daemon) -> Result<()> {
    let toolchain = toolchain::find(workspace)?;
    let rustc = toolchain.rustc().unwrap_or(Path::new("rustc"));
    let empty = daemon.folder().join("noop.rs");
    fs::write(&empty, "fn main() {}\n")?;
    let program = workspace.root.join("xtask/src/containerd/program.rs");
    let flags = ["--target", TARGET, "--edition=2024", "-O", "-Cstrip=symbols", "-o"];
    for (source, name) in [(&program, "program"), (&empty, "noop")] {
        let module = daemon.folder().join(format!("{name}.wasm"));
        workspace.command(rustc).args(flags).args([&module, source]).run()?;
    }
    let native = daemon.folder().join("true");
    let source = daemon.folder().join("true.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    workspace.command("cc").args(["-O1", "-static", "-o"]).args([&native, &source]).run()?;

    let read = |name: &str| fs::read(daemon.folder().join(name));
    let (program, noop, native) = (read("program.wasm")?, read("noop.wasm")?, read("true")?);
    let program: &[(&str, &[u8])] = &[
        ("program.wasm", &program),
        ("etc/motd", b"of the image\n"),
        ("text", b"no module"),
        ("bin/native", &native),
        ("cut.wasm", &program[..program.len() / 2]),
    ];
    daemon.import(&Image { name: PROGRAM, entry: &["/program.wasm"], files: program })?;
    let noop: &[(&str, &[u8])] = &[("noop.wasm", &noop)];
    daemon.import(&Image { name: NOOP, entry: &["/noop.wasm"], files: noop })?;
    daemon.import(&Image { name: PAUSE, entry: &["/pause"], files: &[] })?;
    let native: &[(&str, &[u8])] = &[("bin/true", &native)];
    daemon.import(&Image { name: NATIVE, entry: &["/bin/true"], files: native })
}

/// `ctr run` of the program with these options and arguments.
fn program(daemon: &Daemon, options: &[&str], id: &str, args: &[&str]) -> Command {
    let run = ["run", "--rm", "--runtime", OURS];
    let what = [PROGRAM, id, "/program.wasm"];
    daemon.ctr(&[&run[..], options, &what, args].concat())
}

/// What a client printed on its streams, and its exit code, which is the container's.
fn outcome(command: &mut Command) -> Result<(String, String, i32)> {
    let done = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&done.stdout), text(&done.stderr), done.status.code().unwrap_or(-1)))
}

fn arguments(daemon: &Daemon) -> Result<()> {
    let args = ["say", "two words", "", "--flag=\"x\""];
    let said = success(&mut program(daemon, &["--env", "QUALITY=85"], "say", &args))?;
    let expected =
        "arguments: [\"two words\", \"\", \"--flag=\\\"x\\\"\"]\nQUALITY: Some(\"85\")\n";
    ensure!(said == expected, "it said {said:?}");
    let said = success(&mut program(daemon, &[], "bare", &["say"]))?;
    ensure!(said == "arguments: []\nQUALITY: None\n", "it said {said:?}");
    Ok(())
}

/// That a container gives back what it gets, more than pipes hold.
fn passes(container: &mut Command, sent: &[u8]) -> Result<()> {
    let mut cat = container.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = cat.stdin.take().context("it was asked for")?;
    let got = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whether all of it arrived is seen at the other end.
            let _ = stdin.write_all(sent);
            drop(stdin);
        });
        cat.wait_with_output()
    })?;
    ensure!(got.status.success() && got.stdout == sent, "cat gave {} bytes", got.stdout.len());
    Ok(())
}

fn streams(daemon: &Daemon) -> Result<()> {
    // More than pipes hold, so that both ends have to wait for each other.
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(|word| word.to_le_bytes()).collect();
    passes(&mut program(daemon, &[], "cat", &["cat"]), &sent)?;
    for code in [0, 1, 42, 255] {
        let text = code.to_string();
        let ended = outcome(&mut program(daemon, &[], "exit", &["exit", &text]))?;
        let expected = (String::new(), format!("leaving with {code}\n"), code);
        ensure!(ended == expected, "exit {code} ended as {ended:?}");
    }
    let (_, said, code) = outcome(&mut program(daemon, &[], "trap", &["trap"]))?;
    ensure!(code == 134, "a trap ended with {code}");
    ensure!(said.contains("as it was told") && said.contains("unreachable"), "it said {said:?}");
    Ok(())
}

fn directories(daemon: &Daemon) -> Result<()> {
    let host = daemon.folder().join("host");
    fs::create_dir_all(&host)?;
    fs::write(host.join("input"), "of the host\n")?;
    let mount =
        |options: &str| format!("type=bind,src={},dst=/data,options={options}", host.display());
    let (readable, writable) = (mount("rbind:ro"), mount("rbind:rw"));
    let read =
        |options: &[&str], path| success(&mut program(daemon, options, "read", &["read", path]));
    ensure!(read(&[], "/etc/motd")? == "of the image\n");
    ensure!(read(&["--mount", &readable], "/data/input")? == "of the host\n");
    ensure!(read(&["--mount", &readable], "/etc/motd")? == "of the image\n", "both are seen");

    let write = ["write", "/data/output", "written"];
    let refused = outcome(&mut program(daemon, &["--mount", &readable], "write", &write))?;
    ensure!(refused.2 != 0 && !host.join("output").exists(), "it wrote to what is read-only");
    success(&mut program(daemon, &["--mount", &writable], "write", &write))?;
    ensure!(fs::read_to_string(host.join("output"))? == "written");

    // Of the user that it runs for.
    fs::set_permissions(&host, fs::Permissions::from_mode(0o777))?;
    fs::write(host.join("secret"), "root's")?;
    fs::set_permissions(host.join("secret"), fs::Permissions::from_mode(0o600))?;
    let user = ["--user", "1234:1234", "--mount", &writable];
    let secret = outcome(&mut program(daemon, &user, "secret", &["read", "/data/secret"]))?;
    ensure!(secret.2 != 0 && secret.0.is_empty(), "another user read root's file: {secret:?}");

    std::os::unix::fs::symlink("/etc/hostname", host.join("absolute"))?;
    std::os::unix::fs::symlink("../../../../../../../etc/hostname", host.join("upwards"))?;
    let out = ["/data/../../etc/hostname", "/data/absolute", "/data/upwards"];
    for path in out.into_iter().chain(["/proc/1/environ", "/etc/passwd"]) {
        let options = ["--mount", &*readable];
        let (said, _, code) = outcome(&mut program(daemon, &options, "out", &["read", path]))?;
        ensure!(code != 0 && said.is_empty(), "{path} of the host was read: {said:?}");
    }
    let listed = success(&mut program(daemon, &["--read-only"], "list", &["list", "/"]))?;
    ensure!(
        listed.starts_with("bin cut.wasm") && listed.ends_with("program.wasm text\n"),
        "{listed:?}"
    );
    let refused = outcome(&mut program(daemon, &["--read-only"], "ro", &["write", "/new", "x"]))?;
    ensure!(refused.2 != 0, "a read-only root was written to");
    Ok(())
}

/// Starts a container in the background that says a line once it runs.
fn background(
    daemon: &Daemon,
    options: &[&str],
    id: &str,
    args: &[&str],
) -> Result<std::process::Child> {
    let mut run = program(daemon, options, id, args);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.as_mut().context("it was asked for")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(!line.is_empty(), "container {id} ended before it said anything");
    Ok(child)
}

fn signals(daemon: &Daemon) -> Result<()> {
    for (what, signal, code) in
        [("sleep", "SIGTERM", 143), ("spin", "SIGKILL", 137), ("sleep", "SIGINT", 130)]
    {
        let mut running = background(daemon, &[], what, &[what])?;
        let tasks = success(&mut daemon.ctr(&["task", "ls"]))?;
        ensure!(tasks.contains("RUNNING"), "it is not listed: {tasks}");
        // A guest can't see a signal; one that ends nobody changes nothing.
        success(&mut daemon.ctr(&["task", "kill", "--signal", "SIGWINCH", what]))?;
        success(&mut daemon.ctr(&["task", "kill", "--signal", signal, what]))?;
        let ended = running.wait()?.code();
        ensure!(ended == Some(code), "{signal} ended {what} with {ended:?}");
    }
    // One that waits for input, with nobody to give any.
    let mut cat = program(daemon, &[], "cat", &["cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    daemon.wait_until("cat runs", || {
        Ok(success(&mut daemon.ctr(&["task", "ls"]))?.contains("RUNNING"))
    })?;
    success(&mut daemon.ctr(&["task", "kill", "cat"]))?;
    let ended = cat.wait()?.code();
    ensure!(ended == Some(143), "SIGTERM ended cat with {ended:?}");
    // One that waits in the kernel, for somebody to write into a pipe. Only its pod's end ends its thread.
    let host = daemon.folder().join("pipes");
    fs::create_dir_all(&host)?;
    ensure!(Command::new("mkfifo").arg(host.join("pipe")).status()?.success(), "no pipe is made");
    let mount = format!("type=bind,src={},dst=/data,options=rbind:rw", host.display());
    let mut opening = background(daemon, &["--mount", &mount], "open", &["open", "/data/pipe"])?;
    success(&mut daemon.ctr(&["task", "kill", "--signal", "SIGKILL", "open"]))?;
    let ended = opening.wait()?.code();
    ensure!(ended == Some(137), "SIGKILL ended who opens a pipe with {ended:?}");
    Ok(())
}

fn pods(daemon: &Daemon) -> Result<()> {
    let pod = ["--annotation", "io.kubernetes.cri.sandbox-id=one"];
    let ids = ["one", "two", "three"];
    let mut running = Vec::new();
    for id in ids {
        running.push(background(daemon, &pod, id, &["sleep"])?);
    }
    let other = ["--annotation", "io.kubernetes.cri.sandbox-id=other"];
    running.push(background(daemon, &other, "other", &["sleep"])?);
    let shims = daemon.shims()?;
    ensure!(shims.len() == 2, "two pods have the processes {shims:?}");
    // No pause process, and none for a container: containerd's shell and containerd are the others.
    let all = daemon.processes()?;
    let others =
        all.iter().filter(|(pid, line)| !shims.contains(pid) && !line.contains("/bin/ctr"));
    ensure!(others.count() <= 3, "there are processes for containers: {all:?}");
    success(&mut daemon.ctr(&["task", "kill", "--signal", "SIGKILL", "two"]))?;
    ensure!(running.remove(1).wait()?.code() == Some(137));
    ensure!(daemon.shims()? == shims, "the pod went with one of its containers");
    for id in ["one", "three", "other"] {
        success(&mut daemon.ctr(&["task", "kill", id]))?;
    }
    for mut child in running {
        ensure!(child.wait()?.code() == Some(143));
    }
    Ok(())
}

fn refusals(daemon: &Daemon) -> Result<()> {
    let cases = [
        ("/text", "is no WebAssembly module"),
        ("/bin/native", "is a native program"),
        ("/none.wasm", "has no entry point /none.wasm"),
        ("/cut.wasm", "can run here"),
        ("/etc", "is no file"),
    ];
    for (entry, expected) in cases {
        let run = ["run", "--rm", "--runtime", OURS, PROGRAM, "refused", entry];
        let (_, said, code) = outcome(&mut daemon.ctr(&run))?;
        ensure!(code == 1 && said.contains(expected), "{entry}: {code}: {said}");
    }
    let terminal = ["run", "--rm", "--tty", "--runtime", OURS, PROGRAM, "tty"];
    let (_, said, code) = outcome(&mut daemon.ctr(&terminal))?;
    ensure!(code != 0, "a terminal was promised: {said}");

    let mut running = background(daemon, &[], "runs", &["sleep"])?;
    let exec = ["task", "exec", "--exec-id", "x", "runs", "/program.wasm"];
    let (_, said, code) = outcome(&mut daemon.ctr(&exec))?;
    ensure!(code != 0 && said.contains("exec is not there"), "{code}: {said}");
    success(&mut daemon.ctr(&["task", "kill", "runs"]))?;
    running.wait()?;

    // Memory that is not there: the program says so and aborts.
    let little = ["--memory-limit", "67108864"];
    let (_, said, code) = outcome(&mut program(daemon, &little, "fill", &["fill"]))?;
    ensure!(code == 134 && said.contains("memory allocation"), "{code}: {said}");
    Ok(())
}

fn times(daemon: &Daemon) -> Result<()> {
    let mut ratios = Vec::new();
    for series in 0..SERIES {
        let ratio = ratio(daemon, series)?;
        println!("          ratio {ratio:.2}, of medians of {PAIRS} in turn, not optimized");
        if ratio <= MOST_OF_RUNC {
            return Ok(());
        }
        ratios.push(ratio);
    }
    bail!("{ratios:.2?} of runc's time are more than {MOST_OF_RUNC}")
}

/// One series: the time of an empty container by that of runc's.
fn ratio(daemon: &Daemon, series: usize) -> Result<f64> {
    let timed = |runtime, image, id: &str| -> Result<Duration> {
        let start = Instant::now();
        success(&mut daemon.ctr(&["run", "--rm", "--runtime", runtime, image, id]))?;
        Ok(start.elapsed())
    };
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    // One pair first that nobody counts: files are read into memory, and the module is compiled.
    for round in 0..=PAIRS {
        let one = timed(OURS, NOOP, &format!("noop-{series}-{round}"))?;
        let other = timed(RUNC, NATIVE, &format!("true-{series}-{round}"))?;
        if round > 0 {
            ours.push(one);
            native.push(other);
        }
    }
    let ours = shown("Roadrunner, a module that does nothing", ours)?;
    let native = shown("runc, /bin/true", native)?;
    Ok(ours.as_secs_f64() / native.as_secs_f64())
}

/// Prints the spread of some times, and gives their median.
fn shown(what: &str, mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    let (Some(least), Some(most)) = (times.first(), times.last()) else {
        bail!("nothing was timed")
    };
    let median = times[times.len() / 2];
    let [least, median_ms, most] =
        [*least, median, *most].map(|time| format!("{:.0}", time.as_secs_f64() * 1e3));
    println!("          {what}: {median_ms} ms ({least} to {most})");
    Ok(median)
}
