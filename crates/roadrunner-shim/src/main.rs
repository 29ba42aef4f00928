//! `containerd-shim-roadrunner-v1`: runs WebAssembly in containerd and under Kubernetes, all containers of a pod as
//! sandboxes in one process.
//!
//! containerd starts this program for each container (`start`). The first one of a pod starts the pod's process, which
//! serves containerd's task API over ttrpc; the others find it there:
//!
//! ```text
//! containerd -> shim start  -> launch.rs     which pod is it of, is its process there, where does it listen
//!            -> ttrpc       -> service.rs    the task API: create, start, kill, wait, delete
//!                           -> container.rs  one container's life, in states
//!                           -> rootfs.rs, streams.rs, module.rs   what it is made of
//!                           -> image.rs, containerd.rs            its module, where that is a layer of its image
//!                           -> roadrunner-runtime                 its sandbox
//!                           -> stats.rs, cgroup.rs   what it uses, and where the kernel counts the pod
//!            -> shim delete -> launch.rs     what a process that was killed left behind
//! ```
//!
//! A container whose annotations name a function (`function.rs`) runs no command: it waits for payloads. `functions.rs` takes
//! them in and hands them on, `registry.rs` knows where other pods' functions are, and `away.rs` where those of other nodes.
//!
//! There is no pause process and no process for a container: a pod is one process in the pod's network namespace, with
//! mounts of its own, so that nothing stays mounted when it goes, however it goes.

#![forbid(unsafe_code)]

mod away;
mod cgroup;
mod container;
mod containerd;
mod error;
mod events;
mod flags;
mod function;
mod functions;
mod image;
mod launch;
mod module;
mod reach;
mod registry;
mod rootfs;
mod serve;
mod service;
mod spec;
mod stats;
mod streams;

use std::process::ExitCode;

use flags::{Action, Flags};

fn main() -> ExitCode {
    let flags = Flags::parse(std::env::args().skip(1));
    let done = flags.and_then(|flags| match flags.action {
        Action::Version => launch::show_version(),
        Action::Info => launch::show_info(),
        Action::Start => launch::start(&flags),
        Action::Delete => launch::delete(&flags),
        Action::Serve => serve::serve(&flags),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // containerd passes this on to whoever asked for the container.
        Err(error) => {
            eprintln!("containerd-shim-roadrunner-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}
