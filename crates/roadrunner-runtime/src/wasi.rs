//! WASI preview 1 with nothing ambient but the time and random numbers: no network, the environment
//! and directories that the manifest names, and standard streams that are pipes.
//!
//! A command's payload is its stdin and its response its stdout; both are copied, and counted.

use std::time::Instant;

use bytes::Bytes;
use roadrunner_buffer::{Sealed, Traffic};
use roadrunner_transport::Fault;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, WasiCtxBuilder};

use crate::function::FunctionSpec;

/// Bytes of logging that one invocation may write to a standard stream; a guest that floods it gets
/// an error from its writes.
const LOG_BYTES: usize = 64 << 10;

/// A WASI context and the pipes it writes to.
pub(crate) struct Wasi {
    pub(crate) ctx: WasiP1Ctx,
    stdout: MemoryOutputPipe,
    stderr: MemoryOutputPipe,
    is_command: bool,
}

/// A payload that stdin reads from.
struct Stdin(Sealed<'static>);

impl AsRef<[u8]> for Stdin {
    fn as_ref(&self) -> &[u8] {
        // `Wasi::command` has read it once, so its pages are mapped.
        self.0.bytes().unwrap_or_default()
    }
}

/// The monotonic clock of one invocation, which `sleep.rs` knows the beginning of.
struct Clock(Instant);

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Wasi {
    /// For a command: stdin is the payload, stdout becomes the response.
    pub(crate) fn command(
        spec: &FunctionSpec,
        epoch: Instant,
        payload: Sealed<'static>,
        limit: u64,
    ) -> Result<(Box<Self>, Traffic), Fault> {
        let function = || spec.name.clone();
        payload.bytes().map_err(|source| Fault::HandOver { function: function(), source })?;
        let len = payload.len() as u64;
        let mut builder = Self::builder(spec, epoch);
        Self::open_dirs(&mut builder, spec)?;
        builder.stdin(MemoryInputPipe::new(Bytes::from_owner(Stdin(payload))));
        builder.arg(&spec.name);
        let capacity = usize::try_from(limit).unwrap_or(usize::MAX);
        // The guest's reads copy out of the payload, once into a host buffer and once into place.
        let traffic = Traffic { copied: 2 * len, moved: 0 };
        Ok((Self::build(builder, capacity, true), traffic))
    }

    /// For a handler that may see directories.
    pub(crate) fn handler(spec: &FunctionSpec, epoch: Instant) -> Result<Box<Self>, Fault> {
        let mut builder = Self::builder(spec, epoch);
        Self::open_dirs(&mut builder, spec)?;
        Ok(Self::build(builder, LOG_BYTES, false))
    }

    /// For a handler that sees no directory.
    pub(crate) fn without_dirs(spec: &FunctionSpec, epoch: Instant) -> Box<Self> {
        Self::build(Self::builder(spec, epoch), LOG_BYTES, false)
    }

    fn open_dirs(builder: &mut WasiCtxBuilder, spec: &FunctionSpec) -> Result<(), Fault> {
        for (guest_path, dir) in &spec.wasi.dirs {
            let perms = if dir.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            builder.preopened_dir(&dir.path, guest_path, perms).map_err(|error| {
                let function = spec.name.clone();
                let reason =
                    format!("its directory {} can't be opened: {error:#}", dir.path.display());
                Fault::Exhausted { function, reason }
            })?;
        }
        Ok(())
    }

    fn builder(spec: &FunctionSpec, epoch: Instant) -> WasiCtxBuilder {
        let mut builder = WasiCtxBuilder::new();
        builder.monotonic_clock(Clock(epoch));
        for (name, value) in &spec.wasi.env {
            builder.env(name, value);
        }
        builder
    }

    fn build(mut builder: WasiCtxBuilder, capacity: usize, is_command: bool) -> Box<Self> {
        let (stdout, stderr) = (MemoryOutputPipe::new(capacity), MemoryOutputPipe::new(LOG_BYTES));
        let ctx = builder.stdout(stdout.clone()).stderr(stderr.clone()).build_p1();
        Box::new(Self { ctx, stdout, stderr, is_command })
    }

    /// What was written to stdout.
    pub(crate) fn stdout(&mut self) -> Bytes {
        self.stdout.contents()
    }

    /// What was written to stderr.
    pub(crate) fn stderr(&mut self) -> String {
        String::from_utf8_lossy(&self.stderr.contents()).into_owned()
    }

    /// Logs what was written, but for a command's response.
    pub(crate) fn log(&mut self, function: &str) {
        let stdout = if self.is_command { Bytes::new() } else { self.stdout.contents() };
        for stream in [stdout, self.stderr.contents()] {
            for line in String::from_utf8_lossy(&stream).lines() {
                tracing::info!(function, "{line}");
            }
        }
    }
}
