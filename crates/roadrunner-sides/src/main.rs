//! The processes of the evaluation whose functions are WebAssembly, and iceoryx2's. The harness
//! (`roadrunner-evaluation`) starts these processes and says what they do; see `agent.rs` there.
#![forbid(unsafe_code)]

mod hose;
mod iceoryx;
mod ours;
mod paper;
mod programs;
mod wasi;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roadrunner_evaluation::names::System;

/// A process of the evaluation; `roadrunner-evaluation` starts it.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// The producer.
    Source(Peer),
    /// The consumers.
    Sink(Peer),
    /// A WASI command, by plain Wasmtime.
    Command { module: PathBuf, folder: PathBuf },
    /// A WASI command, in fresh sandboxes of Roadrunner.
    Sandbox { module: PathBuf, stdin: PathBuf, folder: PathBuf, variables: Vec<String> },
    /// Functions that wait.
    Idle { functions: u32 },
}

#[derive(clap::Args)]
struct Peer {
    #[arg(value_enum)]
    system: System,
    /// Where the other end listens, or this one is to.
    address: String,
    /// Functions that get each payload.
    #[arg(long, default_value_t = 1)]
    consumers: u32,
}

fn main() -> ExitCode {
    let done = match Args::parse().role {
        Role::Source(peer) => source(&peer),
        Role::Sink(peer) => sink(&peer),
        Role::Command { module, folder } => programs::command(&module, &folder),
        Role::Sandbox { module, stdin, folder, variables } => {
            programs::sandbox(&module, &stdin, &folder, &variables)
        }
        Role::Idle { functions } => programs::idle(functions),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn source(Peer { system, address, consumers }: &Peer) -> io::Result<()> {
    match system {
        System::RoadrunnerUser => ours::user(*consumers),
        System::RoadrunnerKernel => ours::kernel_source(*consumers),
        System::RoadrunnerNetwork => ours::network_source(address, *consumers),
        System::WasmtimeHttpJson => wasi::source(address),
        System::Iceoryx2 => iceoryx::source(address),
        System::PaperCopy => paper::copy(),
        System::PaperHose => hose::source(address),
        other => Err(io::Error::other(format!("{other} has no source here"))),
    }
}

fn sink(Peer { system, address, .. }: &Peer) -> io::Result<()> {
    match system {
        System::RoadrunnerKernel => ours::kernel_sink(address),
        System::RoadrunnerNetwork => ours::network_sink(address),
        System::WasmtimeHttpJson => wasi::sink(address),
        System::Iceoryx2 => iceoryx::sink(address),
        System::PaperHose => hose::sink(address),
        other => Err(io::Error::other(format!("{other} has no sink here"))),
    }
}
