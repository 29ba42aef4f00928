//! The WebAssembly engine: how code is compiled, cached and laid out.

use wasmtime::{
    CacheConfig, Config as EngineConfig, Enabled, Engine, Inlining, InstanceAllocationStrategy,
    PoolingAllocationConfig,
};

use crate::config::{Cache, Config, WASM_STACK};
use crate::error::LoadError;

/// What wasm32 can address, in bytes.
const LINEAR_MEMORY: usize = 4 << 30;

/// Fewest sandboxes worth having: a call that is nested a few times, with one ahead.
const FEWEST: u32 = 8;

/// Tables a module may have, and their entries: enough for programs of every language we know;
/// indirect calls and closures need one table with an entry for each function.
const TABLES: u32 = 4;
const TABLE_ENTRIES: usize = 100_000;

/// Bytes of an instance's own book-keeping: globals and a few words for each function.
const INSTANCE_BYTES: usize = 4 << 20;

/// Makes an engine of a config, and says how many sandboxes it has.
///
/// Where address space is scarce (`ulimit -v`, a container's limit) it makes do with fewer sandboxes.
pub(crate) fn engine(config: &Config) -> Result<(Engine, u32), LoadError> {
    let mut sandboxes = config.sandboxes;
    loop {
        match with_sandboxes(config, sandboxes) {
            Err(error) if sandboxes > FEWEST => {
                let fewer = (sandboxes / 8).max(FEWEST);
                tracing::warn!(%error, "trying {fewer} sandboxes instead of {sandboxes}");
                sandboxes = fewer;
            }
            made => return made.map(|engine| (engine, sandboxes)),
        }
    }
}

fn with_sandboxes(config: &Config, sandboxes: u32) -> Result<Engine, LoadError> {
    let mut engine = EngineConfig::new();
    engine
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(sandboxes)))
        .memory_reservation(LINEAR_MEMORY as u64)
        // Windows are laid over linear memory by host address: it must stay where it is.
        .memory_may_move(false)
        .memory_init_cow(true)
        .compiler_inlining(Inlining::Yes)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(true)
        .wasm_tail_call(true);
    if let Cache::Directory(directory) = &config.cache {
        let mut cache = CacheConfig::new();
        cache.with_directory(directory);
        match wasmtime::Cache::new(cache) {
            Ok(cache) => {
                engine.cache(Some(cache));
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error,
                    "compiled code is not cached: the cache directory can't be used");
            }
        }
    }
    Engine::new(&engine).map_err(|error| {
        let advice = "a sandbox takes 4 GiB of address space; see `ulimit -v`";
        LoadError::Engine(format!("{error:#} ({sandboxes} sandboxes; {advice})"))
    })
}

fn pooling(sandboxes: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(sandboxes)
        .total_memories(sandboxes)
        .total_tables(sandboxes.saturating_mul(TABLES))
        .max_memory_size(LINEAR_MEMORY)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ENTRIES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memories_per_module(1)
        // Nothing here is asynchronous. A thousand stacks, which nobody asks for otherwise, are a thousand mappings and
        // most of an engine's start.
        .total_stacks(0)
        // A free sandbox gives up every page. Resetting those in place that PAGEMAP_SCAN names would
        // halve an empty call, but the scan passes over pages that are swapped out or on the move,
        // and their bytes would be the next guest's.
        .linear_memory_keep_resident(0)
        .table_keep_resident(0)
        .pagemap_scan(Enabled::No);
    // Memory protection keys stay out: Wasmtime's feature for them is not built in, so there is no
    // setting to turn off. They would put sandboxes close together and tell them apart by the key of
    // their pages; but what `mmap` lays for a window has no key, and what `mremap` moves into one
    // keeps its old one, so that a neighbour could reach it.
    pool
}
