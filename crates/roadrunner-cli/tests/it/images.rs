//! Images: built without a registry, pushed to Debian's, and functions whose modules are there. What hostile registries say is
//! tested in `roadrunner-image`.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::{Ended, Sandbox, noise};

/// Until a registry answers: it takes less than a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn image(sandbox: &Sandbox, args: &[&str]) -> Ended {
    sandbox.run(&[&["image"], args].concat())
}

/// The digest that `image build` prints.
fn digest_of(sandbox: &Sandbox, args: &[&str]) -> String {
    let printed = String::from_utf8(image(sandbox, args).fine()).unwrap();
    let digest = printed.strip_prefix("sha256:").unwrap().trim_end();
    assert_eq!(digest.len(), 64, "{printed}");
    format!("sha256:{digest}")
}

fn complaint(sandbox: &Sandbox, args: &[&str]) -> String {
    image(sandbox, args).complaint()
}

#[test]
fn the_same_input_makes_the_same_image() {
    let (sandbox, other) = (Sandbox::with_function(""), Sandbox::with_function(""));
    let built = ["build", "w.toml", "-o", "w.tar"];
    assert_eq!(digest_of(&sandbox, &built), digest_of(&other, &built));
    assert_eq!(sandbox.read("w.tar"), other.read("w.tar"));
    let module = digest_of(&sandbox, &["build", "f.wat", "-o", "f.tar"]);
    assert_ne!(module, digest_of(&sandbox, &["build", "f.wat", "-o", "c.tar", "--container"]));
    other.write("f.wat", sandbox.read("f.wat").iter().chain(b" ").copied().collect::<Vec<_>>());
    assert_eq!(
        module,
        digest_of(&other, &["build", "f.wat", "-o", "f.tar"]),
        "it is the module that counts"
    );
    // The archive to stdout, and the digest where it does not get into it.
    let streamed = image(&sandbox, &["build", "w.toml", "-o", "-"]);
    assert_eq!(streamed.code, Some(0));
    assert_eq!(streamed.stdout, sandbox.read("w.tar"));
    assert!(streamed.stderr.starts_with("sha256:"), "{}", streamed.stderr);
}

#[test]
fn what_an_image_is_made_of_is_not_written_over() {
    let sandbox = Sandbox::with_function("");
    for (source, output) in [("w.toml", "w.toml"), ("w.toml", "f.wat"), ("f.wat", "./f.wat")] {
        let before = sandbox.read(output);
        let said = complaint(&sandbox, &["build", source, "-o", output]);
        assert!(said.starts_with("2: ") && said.contains("would be written over"), "{said}");
        assert_eq!(sandbox.read(output), before);
    }
}

#[test]
fn what_no_image_can_hold_is_refused() {
    let sandbox = Sandbox::with_function("");
    let build = |source: &str| complaint(&sandbox, &["build", source, "-o", "x.tar"]);
    sandbox.write("m.cwasm", "machine code");
    sandbox.write("c.wasm", b"\0asm\x0d\0\x01\0");
    sandbox.write("t.wasm", "text");
    for (source, expected) in [
        ("m.cwasm", "4: roadrunner: m.cwasm is machine code"),
        ("c.wasm", "4: roadrunner: c.wasm is a WebAssembly component"),
        ("t.wasm", "4: roadrunner: t.wasm is no module"),
        ("none.wasm", "4: roadrunner: none.wasm can't be read"),
        ("none.toml", "3: roadrunner: none.toml: the manifest cannot be read"),
    ] {
        let said = build(source);
        assert!(said.starts_with(expected), "{said}");
    }
    let text = String::from_utf8(sandbox.read("w.toml")).unwrap();
    fs::create_dir(sandbox.path("models")).unwrap();
    sandbox.write(
        "d.toml",
        format!("{text}[functions.f.wasi]\ndirs = {{ \"/m\" = {{ path = \"models\" }} }}\n"),
    );
    let said = build("d.toml");
    assert!(said.starts_with("3: ") && said.contains("folder models"), "{said}");
    assert!(!sandbox.path("x.tar").exists());
}

/// Debian's registry, until this is dropped. `None` where it is not unpacked.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(sandbox: &Sandbox, auth: &str) -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_roadrunner"));
        // target/debug/roadrunner -> target/tools
        let unpacked =
            program.ancestors().nth(2).unwrap().join("tools/registry/bin/docker-registry");
        let program = [unpacked, PathBuf::from("/usr/bin/docker-registry")]
            .into_iter()
            .find(|it| it.exists());
        let Some(program) = program else {
            eprintln!(
                "skipped: docker-registry is not there; `cargo xtask test --only setup` unpacks it, on Debian"
            );
            return None;
        };
        // Another process may take the port in between; then this one is not answered and the test fails, which has not
        // been seen.
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let (root, address) = (sandbox.path("registry"), free.to_string());
        sandbox.write("registry.yml", format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {root:?} }} }}\nhttp: {{ addr: {address:?} }}\n{auth}"
        ));
        // What it was asked is on stdout.
        let log = File::create(sandbox.path("registry.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(sandbox.path("registry.yml")).stdout(log).stderr(Stdio::null());
        let registry = Self { child: command.spawn().unwrap(), address };
        let since = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(since.elapsed() < PATIENCE, "the registry does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with a cache of images of its own.
fn run(sandbox: &Sandbox, args: &[&str]) -> Ended {
    let mut command = sandbox.command(args);
    command
        .env("XDG_CACHE_HOME", sandbox.path("cache"))
        .env("DOCKER_CONFIG", sandbox.path("docker"));
    Ended::of(&command.output().unwrap())
}

/// A manifest of two functions with this module, the second in another process.
fn workflow(sandbox: &Sandbox, module: &str) {
    sandbox.write("r.toml", format!(
        "[workflow]\nname = \"r\"\nentry = \"a\"\n[functions.a]\nmodule = \"{module}\"\nnext = [\"b\"]\n\
         [functions.b]\nmodule = \"{module}\"\nplacement = \"process:side\"\n"
    ));
}

#[test]
fn a_function_runs_from_a_registry_and_from_the_cache_without_it() {
    let sandbox = Sandbox::with_echo(&noise(100_000));
    let Some(registry) = Registry::start(&sandbox, "") else { return };
    let built = digest_of(&sandbox, &["build", "f.wat", "-o", "f.tar"]);
    let name = format!("{}/echo", registry.address);
    let (tagged, exact) = (format!("{name}:1"), format!("{name}@{built}"));
    let pushed = run(&sandbox, &["image", "push", "f.tar", &tagged]).fine();
    assert_eq!(String::from_utf8(pushed).unwrap(), format!("{exact}\n"));

    let execute =
        |args: &[&str]| run(&sandbox, &[&["run", "r.toml", "--input", "input"], args].concat());
    workflow(&sandbox, &format!("oci://{tagged}"));
    for mode in ["auto", "user", "kernel", "network"] {
        assert_eq!(execute(&["--mode", mode]).fine(), sandbox.read("input"), "{mode}");
    }
    // Once for each run, however many processes it has. The registry writes it down when it has answered.
    let asked = || {
        let log = String::from_utf8(sandbox.read("registry.log")).unwrap();
        log.matches("GET /v2/echo/manifests/1 ").count()
    };
    let since = Instant::now();
    while asked() < 4 && since.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(asked(), 4);
    // Another image has the tag: it is looked up again, and is no function's.
    let demo = run(&sandbox, &["image", "push", "w.toml", &tagged]);
    assert_eq!(demo.code, Some(0), "{}", demo.stderr);
    let said = execute(&[]).complaint();
    assert!(said.starts_with("4: ") && said.contains("is the image of a workflow"), "{said}");
    workflow(&sandbox, &format!("oci://{name}:2"));
    let said = execute(&[]).complaint();
    assert!(said.starts_with("4: ") && said.contains("has no image"), "{said}");

    drop(registry);
    workflow(&sandbox, &format!("oci://{exact}"));
    assert_eq!(execute(&[]).fine(), sandbox.read("input"), "it is in the cache");
    workflow(&sandbox, &format!("oci://{tagged}"));
    let said = execute(&[]).complaint();
    assert!(said.starts_with("11: ") && said.contains("can't be reached"), "{said}");
    assert!(said.contains("named by its digest"), "{said}");
}

#[test]
fn a_registry_is_shown_the_credentials_of_docker_login() {
    let sandbox = Sandbox::with_function("");
    // htpasswd's bcrypt of "me:secret".
    sandbox.write("users", "me:$2y$05$yldmwQrPGhTV/jVUg8UjbOsU/30Lfo/LszllyG3wTIlncSUL100My\n");
    let auth = format!("auth: {{ htpasswd: {{ realm: r, path: {:?} }} }}\n", sandbox.path("users"));
    let Some(registry) = Registry::start(&sandbox, &auth) else { return };
    let name = format!("{}/echo:1", registry.address);
    let said = run(&sandbox, &["image", "push", "f.wat", &name]).complaint();
    assert!(said.starts_with("11: ") && said.contains("docker login"), "{said}");
    fs::create_dir(sandbox.path("docker")).unwrap();
    // base64 of "me:secret".
    let login = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, registry.address);
    sandbox.write("docker/config.json", login);
    let pushed = run(&sandbox, &["image", "push", "f.wat", &name]);
    assert_eq!(pushed.code, Some(0), "{}", pushed.stderr);
}

#[test]
fn what_is_pushed_is_an_image_and_where_to_is_said_in_full() {
    let sandbox = Sandbox::with_function("");
    sandbox.write("x.tar", "no archive");
    let said = complaint(&sandbox, &["push", "x.tar", "localhost:1/x:1"]);
    assert!(said.starts_with("4: ") && said.contains("is no image"), "{said}");
    let said = complaint(&sandbox, &["push", "f.wat", "localhost:1/x:1"]);
    assert!(said.starts_with("11: ") && said.contains("can't be reached"), "{said}");
    let said = complaint(&sandbox, &["push", "f.wat", "x:1"]);
    assert!(said.starts_with("2: ") && said.contains("says no registry"), "{said}");
}
