//! The program under test, and small workflows for it.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// Gives its payload back; a bump allocator that never frees.
pub(crate) const ECHO: &str = r#"(module
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 65536))
  (func (export "allocate_memory") (param $len i32) (result i32)
    (local $ptr i32)
    (local.set $ptr (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get $len)))
    (if (i32.eq (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 16)))) (i32.const -1))
      (then (return (i32.const 0))))
    (local.get $ptr))
  (func (export "deallocate_memory") (param i32))
  (func (export "handle") (param i32 i32) (result i64)
    BODY
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))"#;

/// A folder of its own for one test, in which the program runs.
pub(crate) struct Sandbox(pub(crate) TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        // Private, as the folder must be in which nodes listen.
        builder.prefix("roadrunner-test-").permissions(Permissions::from_mode(0o700));
        Self(builder.tempdir().unwrap())
    }

    /// One with a workflow `w.toml` of a single function that runs `body` and gives its payload back.
    pub(crate) fn with_function(body: &str) -> Self {
        let sandbox = Self::new();
        sandbox.write("f.wat", ECHO.replace("BODY", body));
        sandbox.write(
            "w.toml",
            "[workflow]\nname = \"w\"\nentry = \"f\"\n[functions.f]\nmodule = \"f.wat\"\ntimeout = \"300ms\"\n",
        );
        sandbox
    }

    /// One with an input and a workflow `w.toml` that gives it back.
    pub(crate) fn with_echo(input: &[u8]) -> Self {
        let sandbox = Self::with_function("");
        sandbox.write("input", input);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The program in this folder, with nothing on stdin and one cache of compiled code for all tests.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadrunner"));
        command.args(args).current_dir(&self.0).stdin(Stdio::null());
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        command.env("TMPDIR", self.temp()).env("COLUMNS", "100");
        // Where nodes listen that are not told where.
        command.env("XDG_RUNTIME_DIR", self.0.path());
        command.env_remove("RUST_LOG").env_remove("TRACEPARENT");
        // With it, Rust's library hangs where memory ends while a panic's backtrace is printed.
        command.env_remove("RUST_BACKTRACE");
        command
    }

    /// The program with these arguments, going on beside the test.
    pub(crate) fn start(&self, args: &[&str]) -> Going {
        Self::going(&mut self.command(args))
    }

    /// A node in a group of its own, as a shell gives what it starts on a terminal.
    pub(crate) fn serve_on_terminal(&self, args: &[&str]) -> Going {
        let mut node = Self::going(self.command(&[&["serve"], args].concat()).process_group(0));
        node.wait_for(" serves ");
        node
    }

    pub(crate) fn going(command: &mut Command) -> Going {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| to.send(line))
        });
        Going { child, lines, said: String::new() }
    }

    /// A node that takes calls.
    pub(crate) fn serve(&self, args: &[&str]) -> Going {
        let mut node = self.start(&[&["serve"], args].concat());
        node.wait_for(" serves ");
        node
    }

    /// Where temporary files go.
    pub(crate) fn temp(&self) -> PathBuf {
        let temp = self.path("tmp");
        fs::create_dir_all(&temp).unwrap();
        temp
    }

    /// The result that was kept, and that there is only one.
    pub(crate) fn kept(&self) -> Vec<u8> {
        let kept: Vec<_> = fs::read_dir(self.temp()).unwrap().map(Result::unwrap).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        fs::read(kept[0].path()).unwrap()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::of(&self.command(args).output().unwrap())
    }
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The program while it runs. Its end is the end of this value.
pub(crate) struct Going {
    child: Child,
    lines: Receiver<String>,
    /// Its stderr, as far as somebody waited for it.
    pub(crate) said: String,
}

impl Going {
    /// Waits for a line on stderr with this in it.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120));
            let line = line.unwrap_or_else(|_| panic!("it never said {part:?}, but {}", self.said));
            self.said += &format!("{line}\n");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The number of its process.
    #[allow(dead_code, reason = "for the fault run")]
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr that nobody has waited for.
    #[allow(dead_code, reason = "for the fault run")]
    pub(crate) fn says(&self) -> String {
        self.lines.try_iter().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The processes that its threads started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let lists = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
        let lists: Vec<_> = lists.map(Result::unwrap_or_default).collect();
        lists.join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// What Ctrl-C does on a terminal: a signal to the whole group.
    pub(crate) fn interrupt(&self) {
        let group = format!("-{}", self.child.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let mut stdout = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code();
        let stderr = std::mem::take(&mut self.said);
        let stderr = self.lines.iter().fold(stderr, |said, line| said + &line + "\n");
        Ended { code, stdout, stderr }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the program ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout.clone(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Stdout of a program that had nothing to complain about.
    pub(crate) fn fine(self) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.stdout
    }

    /// Exit code and stderr of a program that printed nothing else.
    pub(crate) fn complaint(self) -> String {
        assert!(self.stdout.is_empty(), "{}", String::from_utf8_lossy(&self.stdout));
        format!("{}: {}", self.code.unwrap_or(-1), self.stderr)
    }
}

/// A payload that is no text and has no period.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
