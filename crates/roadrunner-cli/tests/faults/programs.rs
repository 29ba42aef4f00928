//! `roadrunner` itself: nodes, callers, runs and their workers, killed at any moment or without descriptors,
//! memory or disk.

use std::fs;
use std::os::unix::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use roadrunner_buffer::{Home, Sealed};
use roadrunner_transport::{self as transport, Tcp, Terms, Trust, Unix};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::books::{children, limit_with_left};
use crate::dice::Dice;
use crate::processes::{are_gone, ends, kill, pid};
use crate::program::{Going, Sandbox};
use crate::world::{self, Client, LIMIT, Outcome, PLENTY, RIGHT, Tagged, World, attempt};

/// The function takes some milliseconds, so that there is a time while it runs.
const BUSY: &str = "(local $n i32)
    (loop $on
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $on (i32.lt_u (local.get $n) (i32.const 2000000))))";

/// Two functions, in processes of their own by the mode of a run.
const CHAIN: &str = "[workflow]\nname = \"chain\"\nentry = \"a\"\n[functions.a]\nmodule = \"f.wat\"\nnext = [\"b\"]\n[functions.b]\nmodule = \"f.wat\"\n";

/// What the program exits with that couldn't have its result: a lack of this machine's, a file that can't
/// be written, another process that went away, and what a manifest or module may end in that can't be read
/// without a descriptor.
const TYPED: [i32; 7] = [1, 3, 4, 5, 8, 9, 11];

/// Address space of the libraries and stacks that the program starts with, in KiB, with some to spare.
const LIBRARIES_KIB: u64 = 6 << 10;

/// Length in bytes of a payload in a file, and of one that is much to a process with little memory.
const USUAL: usize = 290 << 10;
const LARGE: usize = 8 << 20;

/// What is done to which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    KillNode,
    KillCaller,
    KillWorker,
    KillRun,
    /// So many descriptors are left to the node.
    NodeDescriptors(u64),
    /// So many KiB of address space are left to the node.
    NodeMemory(u64),
    /// The caller may open so many.
    CallerDescriptors(u64),
    /// The caller has so many KiB of address space more than it starts with, and a payload of 8 MiB.
    CallerMemory(u64),
    /// The result goes to a device without room.
    FullDevice,
    /// The result goes to a file system without room.
    FullDisk,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    deed: Deed,
    tcp: bool,
    after: Duration,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let (deed, most_us) = match dice.below(16) {
            0..3 => (Deed::KillNode, 6_000),
            3..6 => (Deed::KillCaller, 10_000),
            6..9 => (Deed::KillWorker, 40_000),
            9 => (Deed::KillRun, 40_000),
            10 => (Deed::NodeDescriptors(dice.below(4) as u64), 1),
            11 => (Deed::NodeMemory(256 + dice.below(8 << 10) as u64), 1),
            // Three and one for its libraries is the least that it starts with.
            12 => (Deed::CallerDescriptors(4 + dice.below(4) as u64), 1),
            13 => (Deed::CallerMemory(dice.below(16 << 10) as u64), 1),
            14 => (Deed::FullDevice, 1),
            _ => (Deed::FullDisk, 1),
        };
        let after = Duration::from_micros(dice.below(most_us) as u64);
        Self { deed, tcp: dice.one_in(2), after }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.deed {
            Deed::KillNode => "kill -9 of a node",
            Deed::KillCaller => "kill -9 of a caller",
            Deed::KillWorker => "kill -9 of a worker",
            Deed::KillRun => "kill -9 of a run",
            Deed::NodeDescriptors(_) => "EMFILE at a node",
            Deed::NodeMemory(_) => "ENOMEM at a node",
            Deed::CallerDescriptors(_) => "EMFILE at a caller",
            Deed::CallerMemory(_) => "ENOMEM at a caller",
            Deed::FullDevice | Deed::FullDisk => "disk full",
        }
    }
}

/// A node that lives as long as the run, and what starts others.
pub(crate) struct Programs {
    sandbox: Sandbox,
    node: Node,
    home: Home,
    namespaces: bool,
}

struct Node {
    going: Going,
    socket: String,
    address: String,
}

impl Node {
    fn start(sandbox: &Sandbox, socket: &str) -> Self {
        let going = sandbox.serve(&["w.toml", "--node", "127.0.0.1:0", "--socket", socket]);
        let (_, address) = going.said.trim_end().rsplit_once(' ').unwrap();
        Self { socket: socket.into(), address: address.into(), going }
    }

    fn client(&self, sandbox: &Sandbox, tcp: bool, home: &Home) -> Client {
        let terms = Terms { home: home.clone(), payload_limit: LIMIT, trust: Trust::None };
        if tcp {
            return Box::new(Tcp::new(transport::Node::on_loopback(self.address.clone()), terms));
        }
        let address = SocketAddr::from_pathname(sandbox.path(&self.socket)).unwrap();
        Box::new(Unix::new(address, terms))
    }

    fn options(&self, tcp: bool) -> [&str; 2] {
        if tcp { ["--node", &self.address] } else { ["--socket", &self.socket] }
    }
}

impl Programs {
    pub(crate) fn start() -> Self {
        let sandbox = Sandbox::with_function(BUSY);
        let manifest = String::from_utf8(sandbox.read("w.toml")).unwrap();
        sandbox.write("w.toml", manifest.replace("300ms", "20s"));
        sandbox.write("chain.toml", CHAIN);
        sandbox.write("input", crate::program::noise(USUAL));
        sandbox.write("large", crate::program::noise(LARGE));
        fs::create_dir(sandbox.path("full")).unwrap();
        let mut probe = Command::new("unshare");
        probe.args([
            "--user",
            "--map-root-user",
            "--mount",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ]);
        let probed = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let namespaces = probed.is_ok_and(|status| status.success());
        if !namespaces {
            println!("no file system of its own can be mounted here: a full disk is /dev/full");
        }
        let node = Node::start(&sandbox, "s.sock");
        Self { node, sandbox, home: world::home(), namespaces }
    }

    /// The node's process.
    pub(crate) fn node(&self) -> u32 {
        self.node.going.process()
    }

    pub(crate) fn run(
        &self,
        plan: Plan,
        world: &World,
        dice: &mut Dice,
    ) -> Result<Outcome, String> {
        let outcome = match plan.deed {
            Deed::KillNode => self.kill_node(plan, world, dice),
            Deed::KillCaller => self.kill_caller(plan),
            Deed::KillWorker => self.kill_worker(plan, dice),
            Deed::KillRun => self.kill_run(plan),
            Deed::NodeDescriptors(left) => {
                let limit = limit_with_left(self.node(), left);
                self.limited(&self.node, plan, (Resource::Nofile, limit), world, dice)
            }
            Deed::NodeMemory(kib) => self.poor_node(plan, kib, world, dice),
            Deed::CallerDescriptors(most) => {
                self.poor_caller(self.invoke(plan, "out"), &format!("ulimit -n {most}"))
            }
            Deed::CallerMemory(kib) => {
                let limit = format!("ulimit -v {}", self.program_kib() + LIBRARIES_KIB + kib);
                let args = self.invoke(plan, "out").into_iter();
                let large = args.map(|arg| if arg == "input" { "large".into() } else { arg });
                self.poor_caller(large.collect(), &limit)
            }
            Deed::FullDevice => self.full_device(plan),
            Deed::FullDisk if self.namespaces => self.full_disk(plan),
            Deed::FullDisk => self.full_device(plan),
        }?;
        let tagged = of_few_lengths(world, dice);
        let client = self.node.client(&self.sandbox, plan.tcp, &self.home);
        let (good, ..) = call(&self.home, &client, plan.tcp, &tagged, PLENTY)?;
        if good == RIGHT {
            return Ok(outcome);
        }
        let said = self.node.going.says();
        Err(format!("after it ended in {outcome}, a good call ended in {good}; the node:\n{said}"))
    }

    fn kill_node(&self, plan: Plan, world: &World, dice: &mut Dice) -> Result<Outcome, String> {
        let doomed = Node::start(&self.sandbox, "doomed.sock");
        let client = doomed.client(&self.sandbox, plan.tcp, &self.home);
        let tagged = of_few_lengths(world, dice);
        let outcome = thread::scope(|scope| {
            let home = &self.home;
            let caller = scope.spawn(|| call(home, &client, plan.tcp, &tagged, PLENTY));
            thread::sleep(plan.after);
            kill(doomed.going.process());
            caller.join().unwrap()
        })?;
        drop(doomed);
        // Whoever calls it then learns that nobody is there.
        let (again, ..) = call(&self.home, &client, plan.tcp, &tagged, PLENTY)?;
        if again != "Unreachable, payload back" {
            return Err(format!("a call of a node that is gone ended in {again}"));
        }
        Ok(outcome.0)
    }

    fn invoke(&self, plan: Plan, output: &str) -> Vec<String> {
        let [option, place] = self.node.options(plan.tcp);
        let args = ["invoke", "f", "--input", "input", "--output", output, option, place];
        args.map(String::from).into()
    }

    fn spawn(&self, args: &[String]) -> Child {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.sandbox.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn kill_caller(&self, plan: Plan) -> Result<Outcome, String> {
        let mut caller = self.spawn(&self.invoke(plan, "out"));
        thread::sleep(plan.after);
        caller.kill().unwrap();
        let status = caller.wait().unwrap();
        let killed = status.code().is_none();
        self.whole_output()?;
        if killed || status.success() {
            return Ok(if killed { "killed" } else { "done before" }.into());
        }
        Err(format!("the caller ended by {status}"))
    }

    /// The file of a result is there as a whole or not at all.
    fn whole_output(&self) -> Result<bool, String> {
        let there = fs::read(self.sandbox.path("out")).ok();
        if let Some(bytes) = &there {
            fs::remove_file(self.sandbox.path("out")).unwrap();
            if !["input", "large"].iter().any(|input| *bytes == self.sandbox.read(input)) {
                return Err(format!("the result has {} bytes that are others", bytes.len()));
            }
        }
        // What the killed leave of a result that was being written.
        for entry in fs::read_dir(self.sandbox.0.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".roadrunner-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        Ok(there.is_some())
    }

    /// A run of two processes, and those of them that were there when it was time.
    fn begin_run(&self, plan: Plan) -> (Child, Vec<u32>) {
        let mode = if plan.tcp { "network" } else { "kernel" };
        let args = ["run", "chain.toml", "--mode", mode, "--input", "input", "--output", "out"];
        let run = self.spawn(&args.map(String::from));
        thread::sleep(plan.after);
        let workers = children(run.id());
        (run, workers)
    }

    fn kill_worker(&self, plan: Plan, dice: &mut Dice) -> Result<Outcome, String> {
        let (mut run, workers) = self.begin_run(plan);
        let killed = !workers.is_empty();
        if killed {
            kill(dice.pick(&workers));
        }
        let outcome = self.typed(&mut run)?;
        are_gone(&workers)?;
        Ok(if killed { outcome } else { format!("no worker then, {outcome}") })
    }

    fn kill_run(&self, plan: Plan) -> Result<Outcome, String> {
        let (mut run, workers) = self.begin_run(plan);
        run.kill().unwrap();
        run.wait().unwrap();
        self.whole_output()?;
        are_gone(&workers)?;
        Ok(format!("{} workers ended with it", workers.len()))
    }

    /// How the program ended by itself: with the whole result, or with one of its codes and a sentence.
    fn typed(&self, child: &mut Child) -> Result<Outcome, String> {
        let status = ends(child)?;
        let mut said = String::new();
        let stderr = child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut { stderr }, &mut said).unwrap();
        let there = self.whole_output()?;
        match status.code() {
            Some(0) if there => Ok(RIGHT.into()),
            Some(code) if TYPED.contains(&code) && said.starts_with("roadrunner: ") => {
                Ok(format!("exit {code}"))
            }
            _ => Err(format!("it ended by {status} and said: {said}")),
        }
    }

    /// Calls of a node that has little left.
    fn limited(
        &self,
        node: &Node,
        plan: Plan,
        (resource, limit): (Resource, u64),
        world: &World,
        dice: &mut Dice,
    ) -> Result<Outcome, String> {
        const TIME: Duration = Duration::from_millis(500);
        let process = Some(pid(node.going.process()));
        let tagged: Vec<_> = (0..3).map(|_| of_few_lengths(world, dice)).collect();
        // The node has this process's limits.
        let few = Rlimit { current: Some(limit), ..getrlimit(resource) };
        let before = prlimit(process, resource, few).map_err(|error| error.to_string())?;
        let outcomes: Result<Vec<_>, String> = thread::scope(|scope| {
            let home = &self.home;
            let begin = |tagged| {
                let client = node.client(&self.sandbox, plan.tcp, home);
                scope.spawn(move || call(home, &client, plan.tcp, tagged, TIME))
            };
            let calls: Vec<_> = tagged.iter().map(begin).collect();
            calls.into_iter().map(|call| Ok(call.join().unwrap()?.0)).collect()
        });
        // It may have ended for it.
        let _ = prlimit(process, resource, before);
        // The three may differ; the worst is what it was about.
        let mut outcomes = outcomes?;
        outcomes.sort_by_key(|outcome| outcome == RIGHT);
        Ok(outcomes.swap_remove(0))
    }

    /// Calls of a node without address space. What is too large for it is refused; where a few bytes of its
    /// heap are, Rust's or C's library ends the process, which its callers survive.
    fn poor_node(
        &self,
        plan: Plan,
        kib: u64,
        world: &World,
        dice: &mut Dice,
    ) -> Result<Outcome, String> {
        let doomed = Node::start(&self.sandbox, "doomed.sock");
        let statm = fs::read_to_string(format!("/proc/{}/statm", doomed.going.process())).unwrap();
        let pages: u64 = statm.split_once(' ').unwrap().0.parse().unwrap();
        let limit = (Resource::As, (pages * 4 + kib) * 1024);
        let outcome = self.limited(&doomed, plan, limit, world, dice)?;
        let client = doomed.client(&self.sandbox, plan.tcp, &self.home);
        let (good, ..) = call(&self.home, &client, plan.tcp, &of_few_lengths(world, dice), PLENTY)?;
        if good == RIGHT {
            return Ok(outcome);
        }
        let ended = doomed.going.end();
        // The words of Rust's library, where a thread gets no signal stack too, and of C's.
        let of_memory =
            ["memory allocation of ", "failed to allocate an alternative stack", "out of memory"];
        if ended.code.is_none()
            && let Some(words) = of_memory.iter().find(|words| ended.stderr.contains(**words))
        {
            return Ok(format!("{outcome}, and the node ended: {words}"));
        }
        let (code, said) = (ended.code, ended.stderr);
        Err(format!(
            "after {outcome} it ended in {good}; the node ended by {code:?} and said:\n{said}"
        ))
    }

    /// The program by way of others, which take its own name and arguments as theirs.
    fn by_way_of(&self, others: &[&str], args: Vec<String>) -> Child {
        let own = self.sandbox.command(&[]);
        let mut command = Command::new(others[0]);
        command.args(&others[1..]).arg(own.get_program()).args(args);
        for (key, value) in own.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.current_dir(self.sandbox.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `invoke` under a limit of the shell's.
    fn poor_caller(&self, args: Vec<String>, limit: &str) -> Result<Outcome, String> {
        let limited = format!("{limit} && exec \"$@\"");
        self.typed(&mut self.by_way_of(&["sh", "-c", &limited, "sh"], args))
    }

    /// Address space in KiB that the program itself takes, as the node maps it.
    fn program_kib(&self) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.node())).unwrap();
        let own = maps.lines().filter(|line| line.ends_with("/roadrunner"));
        let bytes = own.map(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            address(end) - address(start)
        });
        bytes.sum::<u64>() / 1024
    }

    fn full_device(&self, plan: Plan) -> Result<Outcome, String> {
        let outcome = self.typed(&mut self.spawn(&self.invoke(plan, "/dev/full")))?;
        self.is_kept(&outcome)
    }

    /// A result that can't be written is kept elsewhere.
    fn is_kept(&self, outcome: &str) -> Result<Outcome, String> {
        let kept: Vec<_> = fs::read_dir(self.sandbox.temp()).unwrap().flatten().collect();
        let right = outcome == "exit 9"
            && kept.len() == 1
            && fs::read(kept[0].path()).unwrap() == self.sandbox.read("input");
        for file in &kept {
            fs::remove_file(file.path()).unwrap();
        }
        if right { Ok("exit 9, result kept".into()) } else { Err(format!("{outcome}, {kept:?}")) }
    }

    /// `invoke` in a namespace of its own, where a file system of 64 KiB is mounted.
    fn full_disk(&self, plan: Plan) -> Result<Outcome, String> {
        let mount = "mount -t tmpfs -o size=64k none full && exec \"$@\"";
        let others = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"];
        let outcome = self.typed(&mut self.by_way_of(&others, self.invoke(plan, "full/out")))?;
        self.is_kept(&outcome)
    }

    /// Nothing but what was there, and is to be there.
    pub(crate) fn nothing_is_left(&self) -> Result<(), String> {
        let _ = self.sandbox.temp();
        let mut names: Vec<_> = fs::read_dir(self.sandbox.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        let expected = [
            "chain.toml",
            "doomed.sock",
            "f.wat",
            "full",
            "input",
            "large",
            "s.sock",
            "tmp",
            "w.toml",
        ];
        let more: Vec<_> = names.iter().filter(|name| !expected.contains(&name.as_str())).collect();
        let kept = fs::read_dir(self.sandbox.temp()).unwrap().count();
        if more.is_empty() && kept == 0 {
            return Ok(());
        }
        Err(format!("files are left: {more:?}, and {kept} temporary ones"))
    }
}

/// A payload for a node that keeps pages by their lengths: of few that don't fit into
/// each other's pages, so that what it keeps is soon all there.
fn of_few_lengths(world: &World, dice: &mut Dice) -> Tagged {
    let len = dice.pick(&[24, 100 << 10, USUAL]);
    world.of_len(len, dice)
}

/// A call of a node's function.
fn call(
    home: &Home,
    client: &Client,
    tcp: bool,
    tagged: &Tagged,
    time: Duration,
) -> Result<world::Judged, String> {
    let write = |place: &mut [u8]| {
        place.copy_from_slice(&tagged.bytes);
        Ok(())
    };
    let len = tagged.bytes.len();
    let payload =
        if tcp { Sealed::write(len, home, write) } else { Sealed::write_shared(len, home, write) };
    attempt(&**client, "f", payload.unwrap(), tagged, time)
}
