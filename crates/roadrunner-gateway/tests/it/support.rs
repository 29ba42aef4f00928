//! A gateway on a port of its own, with functions of every kind.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_gateway::{Gateway, Limits};
use roadrunner_runtime::{BreakEven, Cache, Config, ModuleSource, PoolLimits, Runtime};
use roadrunner_workflow::{Catalog, Executable, Found, Place, Workflow};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, PATIENCE};
use crate::peers::{Peers, Way};

/// From here on payloads move in these tests.
pub(crate) const MOVES: usize = 16 << 10;

/// Longest payload in these tests.
pub(crate) const LONGEST: u64 = 32 << 20;

pub(crate) const MIB: usize = 1 << 20;

/// A workflow of one function of this name.
fn one(name: &str, module: &str, more: &str) -> String {
    format!(
        "[workflow]\nname = \"{name}\"\nentry = \"{name}\"\n[functions.{name}]\nmodule = \"{module}\"\n{more}\n"
    )
}

fn manifests() -> Vec<String> {
    let chain = "[workflow]\nname = \"chain\"\nentry = \"first\"\n\
        [functions.first]\nmodule = \"pass.wat\"\nnext = [\"second\"]\n\
        [functions.second]\nmodule = \"pass.wat\"\n";
    let other = "[workflow]\nname = \"other\"\nentry = \"echo\"\n\
        [functions.echo]\nmodule = \"pass.wat\"\nnext = [\"second\"]\n\
        [functions.second]\nmodule = \"pass.wat\"\n";
    let shown = "[workflow]\nname = \"shown\"\nentry = \"show\"\n\
        [functions.show]\nmodule = \"shows.wat\"\nnext = [\"last\"]\nheaders = [\"x-a\"]\ncontent_type = \"a/b\"\n\
        [functions.last]\nmodule = \"adds.wat\"\nheaders = [\"x-a\"]\ncontent_type = \"image/png\"\n";
    let away = "placement = \"process:there\"";
    vec![
        chain.into(),
        other.into(),
        one("single", "echo.wasm", ""),
        one("shows", "shows.wat", "headers = [\"Accept-Language\", \"content-type\", \"cookie\"]"),
        one("typed", "shows.wat", "content_type = \"text/plain; charset=utf-8\""),
        shown.into(),
        one("noop", "noop.wasm", ""),
        one("fails", "fails.wat", ""),
        one("traps", "traps.wat", ""),
        one("lies", "lies.wat", ""),
        one("spins", "spins.wat", "timeout = \"20ms\""),
        one("waits", "echo.wasm", away),
        one("lost", "echo.wasm", away),
        one("unreachable", "echo.wasm", away),
        one("exhausted", "echo.wasm", away),
        one("panics", "echo.wasm", away),
    ]
}

/// A module whose `handle` is this code.
fn guest(code: &str) -> String {
    format!(
        r#"(module
             (import "roadrunner" "fail" (func $fail (param i32 i32)))
             (memory (export "memory") 1)
             (data (i32.const 16) "no \"such\" picture")
             (global $top (mut i32) (i32.const 65536))
             (func (export "allocate_memory") (param $len i32) (result i32)
               (local $at i32)
               (local.set $at (global.get $top))
               (global.set $top (i32.add (local.get $at) (local.get $len)))
               (drop (memory.grow
                 (i32.add (i32.const 1) (i32.shr_u (local.get $len) (i32.const 16)))))
               (local.get $at))
             (func (export "deallocate_memory") (param i32))
             (func (export "handle") (param $ptr i32) (param $len i32) (result i64) {code}))"#
    )
}

/// A command that runs this code and writes its environment, with a NUL behind each variable.
fn shows(before: &str) -> String {
    format!(
        r#"(module
             (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
             (memory (export "memory") 2)
             (func (export "_start")
               {before}
               (drop (call $sizes (i32.const 0) (i32.const 4)))
               (drop (call $get (i32.const 64) (i32.const 65536)))
               (i32.store (i32.const 8) (i32.const 65536))
               (i32.store (i32.const 12) (i32.load (i32.const 4)))
               (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))"#
    )
}

fn source(module: &Path) -> ModuleSource {
    let name = module.file_name().unwrap().to_str().unwrap();
    let text = match name {
        "pass.wat" => guest(
            "(i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) \
                     (i64.extend_i32_u (local.get $len)))",
        ),
        "fails.wat" => guest("(call $fail (i32.const 16) (i32.const 17)) (i64.const 0)"),
        "traps.wat" => guest("unreachable"),
        "lies.wat" => guest("(i64.const -1)"),
        "shows.wat" => shows(""),
        "adds.wat" => shows(
            "(i32.store (i32.const 8) (i32.const 1024)) (i32.store (i32.const 12) (i32.const 60000))
             (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 12)))
             (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))",
        ),
        "spins.wat" => guest("(loop $again (br $again)) (i64.const 0)"),
        _ => {
            let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/dist");
            return ModuleSource::File(dist.join(name));
        }
    };
    ModuleSource::Bytes { name: name.to_owned(), bytes: Cow::Owned(text.into_bytes()) }
}

fn runtime() -> Runtime {
    let config = Config {
        sandboxes: 64,
        workers: 2,
        pool: PoolLimits { bytes: 64 << 20, ranges: 32, empty_ranges: 16 },
        cache: Cache::Off,
        payload_bytes: LONGEST,
        break_even: Some(BreakEven::fixed(MOVES)),
        ..Config::default()
    };
    Runtime::new(config).unwrap()
}

fn load(runtime: &Runtime, peers: &Arc<Peers>, manifests: Vec<String>) -> Vec<Executable> {
    let load = |manifest: String| {
        let look = |path: &Path| path.extension().map_or(Found::Folder, |_| Found::File);
        let workflow = Workflow::parse(&manifest, Path::new("r.toml"), &look)
            .unwrap_or_else(|error| panic!("{error}"));
        let way = |_: &_, _: &_| -> roadrunner_runtime::Remote { Arc::new(Way(peers.clone())) };
        let place = Place { can_reach: &|_| true, way: &way, ..Place::alone() };
        Executable::load(runtime, workflow, &source, &place).unwrap()
    };
    manifests.into_iter().map(load).collect()
}

/// A gateway that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    catalog: Arc<Catalog<Executable>>,
    pub(crate) peers: Arc<Peers>,
    shutdown: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
    tokio: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// With these limits and everything loaded.
    pub(crate) fn start(limits: Limits) -> Self {
        Self::with(limits, manifests())
    }

    fn with(limits: Limits, manifests: Vec<String>) -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let peers = Arc::new(Peers::default());
        let loaded = load(&runtime(), &peers, manifests);
        let catalog = Arc::new(Catalog::new(loaded).unwrap());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let gateway = tokio.block_on(Gateway::bind(loopback, limits)).unwrap();
        let address = gateway.local_addr();
        let (shutdown, ordered) = oneshot::channel::<()>();
        let served = tokio.spawn(gateway.serve(catalog.clone(), async {
            let _ = ordered.await;
        }));
        let (shutdown, served, tokio) = (Some(shutdown), Some(served), Some(tokio));
        Self { address, catalog, peers, shutdown, served, tokio }
    }

    /// Puts a workflow of this name, whose function fails, in the place of the one of the name `old`.
    pub(crate) fn replace(&self, old: &str, name: &str) {
        let named = |manifest: &String| manifest.contains(&format!("name = \"{old}\""));
        let at = manifests().iter().position(named).unwrap();
        let manifest = one(name, "fails.wat", "");
        let loaded = load(&runtime(), &self.peers, vec![manifest]).remove(0);
        self.catalog.replace(at, loaded).unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.client().post(path, body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut client = self.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client.answer()
    }

    /// The number behind a series in the metrics; 0 where it is not there.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let page = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().unwrap())
    }

    /// Waits until a series has this value.
    pub(crate) fn await_metric(&self, series: &str, value: u64) {
        let begun = Instant::now();
        while self.metric(series) != value {
            assert!(begun.elapsed() < PATIENCE, "{series} never became {value}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Orders the shutdown.
    pub(crate) fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    /// Waits until it is through.
    pub(crate) fn await_end(&mut self) {
        let served = self.served.take().unwrap();
        self.tokio.as_ref().unwrap().block_on(served).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.peers.release();
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_background();
        }
    }
}

/// Bytes that differ from page to page.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at + at / 4096) % 251).unwrap() + 1).collect()
}
