//! Programs that start, work and end: each in a fresh sandbox of this process, or this process with one sandbox for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use roadrunner_evaluation::agent::{self, Measured, nanos};
use roadrunner_runtime::{
    Config as RuntimeConfig, FunctionSpec, ModuleSource, Payload, Runtime, Sealed, WasiDir,
    WasiSpec,
};
use wasmtime::{Cache, CacheConfig, Config, Engine, Linker, Module, Store};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use crate::ours::{PAYLOAD_BYTES, failed};

/// Longest that a program may compute.
const LONGEST: Duration = Duration::from_secs(600);

/// Runs a module in fresh sandboxes of Roadrunner, one for each order.
pub(crate) fn sandbox(
    module: &Path,
    stdin: &Path,
    folder: &Path,
    variables: &[String],
) -> io::Result<()> {
    let payload = fs::read(stdin)?;
    let config = RuntimeConfig { payload_bytes: PAYLOAD_BYTES, ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).map_err(failed)?;
    let env = variables.iter().filter_map(|variable| variable.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let dir = WasiDir { path: folder.to_owned(), write: false };
    let dirs = BTreeMap::from([(folder.to_string_lossy().into_owned(), dir)]);
    // A compiler gives its output no ending.
    let bytes = fs::read(module)?;
    let source = ModuleSource::Bytes { name: "program".into(), bytes: bytes.into() };
    let spec = FunctionSpec {
        wasi: WasiSpec { env, dirs },
        timeout: LONGEST,
        memory_bytes: 4 << 30,
        ..FunctionSpec::new("program", source)
    };
    let app = runtime.load(vec![spec]).map_err(|(_, error)| failed(error))?;
    let mut printed = None;
    agent::take_orders(|_| {
        let start = Instant::now();
        let input = Payload::One(Sealed::borrowed(&payload));
        let reply = app.call("program", input, start);
        let mut reply = reply.map_err(|undelivered| failed(undelivered.fault))?;
        let total_ns = nanos(start.elapsed());
        let output = reply.payload().map_err(failed)?.bytes().map_err(failed)?.to_vec();
        if printed.get_or_insert_with(|| output.clone()) != &output {
            return Err(failed("it printed something else than before"));
        }
        Ok(Measured { total_ns, ..Measured::default() })
    })
}

/// Runs a WASI command by plain Wasmtime, with a cache of compiled code, as `wasmtime run` and runwasi's shim do.
pub(crate) fn command(module: &Path, folder: &Path) -> io::Result<()> {
    let mut cache = CacheConfig::new();
    cache.with_directory(folder.with_file_name("cache"));
    let mut config = Config::new();
    config.cache(Some(Cache::new(cache).map_err(failed)?));
    let engine = Engine::new(&config).map_err(failed)?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    add_to_linker_sync(&mut linker, |context| context).map_err(failed)?;
    let module = Module::from_file(&engine, module).map_err(failed)?;
    let mut context = WasiCtxBuilder::new();
    context.inherit_stdio().inherit_env();
    let name = folder.to_string_lossy();
    context.preopened_dir(folder, name, FsPerms::ReadOnly).map_err(failed)?;
    let mut store = Store::new(&engine, context.build_p1());
    let instance = linker.instantiate(&mut store, &module).map_err(failed)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(failed)?;
    match start.call(&mut store, ()) {
        Err(error) if error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0) => {
            Err(failed(format!("{error:#}")))
        }
        _ => Ok(()),
    }
}

/// Loads so many functions, says how much memory this process takes then, and waits.
pub(crate) fn idle(functions: u32) -> io::Result<()> {
    let runtime = Runtime::new(RuntimeConfig::default()).map_err(failed)?;
    let glance = include_bytes!("../../../guests/dist/glance.wasm");
    let spec = |nth| {
        let source = ModuleSource::Bytes { name: "glance".into(), bytes: glance[..].into() };
        FunctionSpec::new(format!("glance-{nth}"), source)
    };
    let specs = (0..functions).map(spec).collect();
    let app = runtime.load(specs).map_err(|(_, error)| failed(error))?;
    // Each has run, as one that waits for its next call has.
    for nth in 0..functions {
        let payload = Payload::One(Sealed::borrowed(&[0; 4096]));
        let name = format!("glance-{nth}");
        let reply = app.call(&name, payload, Instant::now());
        drop(reply.map_err(|undelivered| failed(undelivered.fault))?);
    }
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = kib.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| failed("/proc/self/smaps_rollup has no Pss"))?;
    agent::say_ready(&(kib * 1024).to_string())?;
    agent::wait_for_end()
}
