//! `environ_get` and `environ_sizes_get` of WASI preview 1: what the manifest grants, and what a call brings.
//!
//! The stock functions know one environment, which is fixed when a sandbox is made; a call comes after that.
//! What stands in the manifest goes before what a client sends.

use roadrunner_abi::export;
use wasmtime::{Caller, Extern, Linker};

use crate::state::HostState;

// Numbers that WASI preview 1 gives.
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;

/// Length of a pointer and of a size in bytes.
const WORD: usize = 4;

/// The caller's span, as a `traceparent`.
const TRACEPARENT: &str = "TRACEPARENT";

/// Environment variables of one call, names and values: neither has a NUL, and no name a `=`.
pub type Variables = Vec<(String, Vec<u8>)>;

type Host<'a> = Caller<'a, HostState>;

/// Puts this module's functions in the place of the stock ones.
pub(crate) fn replace_environment(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let module = "wasi_snapshot_preview1";
    linker.allow_shadowing(true);
    linker.func_wrap(module, "environ_sizes_get", sizes)?;
    linker.func_wrap(module, "environ_get", get)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Every variable as `NAME=value` with a NUL behind it.
fn environment(state: &HostState) -> Vec<Vec<u8>> {
    let granted = &state.function.spec.wasi.env;
    let trace = (!state.trace.is_none()).then(|| state.trace.to_string());
    let trace = trace.iter().map(|trace| (TRACEPARENT, trace.as_bytes()));
    let brought = state.variables.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let of_call = trace.chain(brought).filter(|(name, _)| !granted.contains_key(*name));
    let granted = granted.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let text = |(name, value): (&str, &[u8])| [name.as_bytes(), b"=", value, b"\0"].concat();
    granted.chain(of_call).map(text).collect()
}

fn sizes(mut host: Host<'_>, count: u32, bytes: u32) -> i32 {
    let environment = environment(host.data());
    let all = environment.iter().map(Vec::len).sum();
    let written = [(count, environment.len()), (bytes, all)]
        .into_iter()
        .try_for_each(|(at, number)| put(&mut host, at, &word(number)?));
    if written.is_some() { SUCCESS } else { FAULT }
}

fn get(mut host: Host<'_>, pointers: u32, texts: u32) -> i32 {
    let environment = environment(host.data());
    let mut starts = Vec::with_capacity(environment.len() * WORD);
    let mut next = texts as usize;
    for text in &environment {
        let Some(start) = word(next) else { return FAULT };
        starts.extend(start);
        next += text.len();
    }
    let written = put(&mut host, pointers, &starts);
    let written = written.and_then(|()| put(&mut host, texts, &environment.concat()));
    if written.is_some() { SUCCESS } else { FAULT }
}

fn word(number: usize) -> Option<[u8; WORD]> {
    u32::try_from(number).ok().map(u32::to_le_bytes)
}

/// Writes to linear memory; `None` where that lies outside of it.
fn put(host: &mut Host<'_>, at: u32, bytes: &[u8]) -> Option<()> {
    let memory = host.get_export(export::MEMORY).and_then(Extern::into_memory)?;
    let at = at as usize;
    memory.data_mut(host).get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}
