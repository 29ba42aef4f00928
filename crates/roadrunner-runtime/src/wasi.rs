//! WASI preview 1 with nothing ambient but the time and random numbers: no network, the environment
//! and directories that the manifest names, and standard streams that are logged.
//!
//! What a guest reads of its environment: `environment.rs`. A command's payload is its stdin and its response
//! its stdout: `streams.rs`.

use std::time::Instant;

use roadrunner_transport::Fault;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, WasiCtxBuilder};

use crate::function::FunctionSpec;
use crate::process::Process;
use crate::stdio::Stdio;
use crate::streams::Streams;

/// Bytes of logging that one invocation may write to a standard stream; a guest that floods it gets
/// an error from its writes.
const LOG_BYTES: usize = 64 << 10;

/// A WASI context, the pipes for what it logs, and the streams of a command.
pub(crate) struct Wasi {
    pub(crate) ctx: WasiP1Ctx,
    pub(crate) streams: Option<Streams>,
    /// The streams of a process.
    pub(crate) stdio: Option<Stdio>,
    stdout: MemoryOutputPipe,
    stderr: MemoryOutputPipe,
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
        streams: Streams,
    ) -> Result<Box<Self>, Fault> {
        let mut builder = Self::builder(epoch);
        Self::open_dirs(&mut builder, spec)?;
        builder.arg(&spec.name);
        let mut wasi = Self::build(builder);
        wasi.streams = Some(streams);
        Ok(wasi)
    }

    /// For a process: its arguments and its streams.
    pub(crate) fn process(
        spec: &FunctionSpec,
        epoch: Instant,
        process: Process,
    ) -> Result<Box<Self>, Fault> {
        let mut builder = Self::builder(epoch);
        // Files are opened by the thread that acts for the process's owner. Directories take this over as they are
        // opened, so it comes first.
        builder.args(&process.args).allow_blocking_current_thread(true);
        Self::open_dirs(&mut builder, spec)?;
        let mut wasi = Self::build(builder);
        wasi.stdio = Some(Stdio::new(process));
        Ok(wasi)
    }

    /// For a handler that may see directories.
    pub(crate) fn handler(spec: &FunctionSpec, epoch: Instant) -> Result<Box<Self>, Fault> {
        let mut builder = Self::builder(epoch);
        Self::open_dirs(&mut builder, spec)?;
        Ok(Self::build(builder))
    }

    /// For a handler that sees no directory.
    pub(crate) fn without_dirs(epoch: Instant) -> Box<Self> {
        Self::build(Self::builder(epoch))
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

    fn builder(epoch: Instant) -> WasiCtxBuilder {
        let mut builder = WasiCtxBuilder::new();
        builder.monotonic_clock(Clock(epoch));
        builder
    }

    fn build(mut builder: WasiCtxBuilder) -> Box<Self> {
        let [stdout, stderr] = [(); 2].map(|()| MemoryOutputPipe::new(LOG_BYTES));
        let ctx = builder.stdout(stdout.clone()).stderr(stderr.clone()).build_p1();
        Box::new(Self { ctx, streams: None, stdio: None, stdout, stderr })
    }

    /// What was written to stderr.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.contents()).into_owned()
    }

    /// Logs what was written, which a command's response is no part of.
    pub(crate) fn log(&mut self, function: &str) {
        for stream in [self.stdout.contents(), self.stderr.contents()] {
            for line in String::from_utf8_lossy(&stream).lines() {
                tracing::info!(function, "{line}");
            }
        }
    }
}
