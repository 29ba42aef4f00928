//! What the paper calls the state of the art: functions on plain Wasmtime and WASI that hand payloads over by HTTP as
//! JSON.
//!
//! ```text
//!   json-source: serializes -> stdout -> host: POST  ---->  host: body -> stdin -> json-sink: deserializes
//! ```
//!
//! The host does HTTP, as `wasmtime serve` and Spin do, and gives each request a fresh sandbox out of Wasmtime's pooling
//! allocator. A body is one buffer, so that a function's `read` and `write` are a copy each and no system call; sockets
//! of WASI, by which WasmEdge's functions speak HTTP themselves, cost a call for each piece.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roadrunner_evaluation::agent::{self, Measured, nanos};
use roadrunner_evaluation::http::{Client, serve};
use wasmtime::{
    Config, Engine, Inlining, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store,
};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

use crate::ours::failed;

const SOURCE: &[u8] = include_bytes!("../../../guests/dist/json-source.wasm");
const SINK: &[u8] = include_bytes!("../../../guests/dist/json-sink.wasm");

/// Most that a function may write, in bytes: a payload of 1 GiB and what is around it.
const OUTPUT_BYTES: usize = (1 << 30) + (1 << 20);

/// Sandboxes at once: a hundred consumers, and some.
const SANDBOXES: u32 = 128;

/// What wasm32 can address, in bytes.
const LINEAR_MEMORY: usize = 4 << 30;

/// A function that is compiled and linked.
struct Function {
    engine: Engine,
    instance: InstancePre<WasiP1Ctx>,
}

impl Function {
    fn new(wasm: &[u8]) -> io::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(SANDBOXES).total_memories(SANDBOXES).total_tables(SANDBOXES);
        pool.max_memory_size(LINEAR_MEMORY);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config.compiler_inlining(Inlining::Yes);
        let engine = Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        add_to_linker_sync(&mut linker, |context| context).map_err(failed)?;
        let module = Module::new(&engine, wasm).map_err(failed)?;
        let instance = linker.instantiate_pre(&module).map_err(failed)?;
        Ok(Self { engine, instance })
    }

    /// Runs it in a fresh sandbox; what it wrote to stdout and stderr.
    fn call(&self, variable: (&str, &str), stdin: Vec<u8>) -> io::Result<[Bytes; 2]> {
        let outputs = [(); 2].map(|()| MemoryOutputPipe::new(OUTPUT_BYTES));
        let mut context = WasiCtxBuilder::new();
        context.env(variable.0, variable.1).stdin(MemoryInputPipe::new(stdin));
        context.stdout(outputs[0].clone()).stderr(outputs[1].clone());
        let mut store = Store::new(&self.engine, context.build_p1());
        // What one call of WASI may have copied: by default 128 MiB, less than the largest payloads.
        store.set_hostcall_fuel(OUTPUT_BYTES);
        let instance = self.instance.instantiate(&mut store).map_err(failed)?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(failed)?;
        if let Err(error) = start.call(&mut store, ())
            && error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0)
        {
            let said = outputs[1].contents();
            return Err(failed(format!("{error:#}: {}", String::from_utf8_lossy(&said))));
        }
        drop(store);
        Ok(outputs.map(|output| output.try_into_inner().unwrap_or_default().freeze()))
    }
}

/// The numbers that a function says.
fn numbers<const N: usize>(text: &[u8]) -> io::Result<[u64; N]> {
    let text = String::from_utf8_lossy(text);
    let numbers = text.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| failed(format!("a function said {text:?}")))
}

pub(crate) fn source(address: &str) -> io::Result<()> {
    let function = Function::new(SOURCE)?;
    let mut client = Client::new(address.parse().map_err(failed)?);
    agent::take_orders(|order| {
        let [json, said] = function.call(("SIZE", &order.size.to_string()), Vec::new())?;
        // The clock starts when it has made its payload, which is before these two.
        let [mut serialization_ns, mut wasm_io_ns] = numbers(&said)?;
        let before = Duration::from_nanos(serialization_ns + wasm_io_ns);
        let start = Instant::now();
        let answers = client.post(&json, order.consumers)?;
        let total_ns = nanos(before + start.elapsed());
        for answer in answers {
            let [seen, reading, deserializing] = numbers(answer.as_bytes())?;
            agent::check(seen, order.size)?;
            wasm_io_ns += reading;
            serialization_ns += deserializing;
        }
        Ok(Measured { total_ns, serialization_ns, wasm_io_ns, ..Measured::default() })
    })
}

pub(crate) fn sink(address: &str) -> io::Result<()> {
    let function = Function::new(SINK)?;
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?.to_string();
    let handler = move |body: Vec<u8>| {
        let len = body.len().to_string();
        let [answer, _] = function.call(("CONTENT_LENGTH", &len), body)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    std::thread::spawn(move || {
        // The harness hears of it when the next request is refused.
        serve(listener, Arc::new(handler)).inspect_err(|error| eprintln!("the sink ended: {error}"))
    });
    agent::say_ready(&bound)?;
    agent::wait_for_end()
}
