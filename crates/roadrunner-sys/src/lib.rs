//! Every raw system call that Roadrunner makes, for its data path and for its containers.
//!
//! This is the only crate that uses `libc` and the one to edit for a port. It knows addresses,
//! lengths and descriptors, and nothing of who owns them: that is `roadrunner-buffer`'s business.
//!
//! Rules that the SAFETY lines below refer to:
//!
//! * **R1** A call that changes mappings is `unsafe` and passes its whole contract on to the caller:
//!   the named range is the caller's to rearrange and nothing borrows from it.
//! * **R2** A call that only takes integers and descriptors can't touch this process's memory.
//! * **R3** A call that reads or writes through a pointer gets it from a Rust reference that
//!   outlives the call, with the reference's own length.
//! * **R4** A descriptor becomes owned where the kernel has just given it, so that nobody else knows it.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "this crate is one of the three rooms for unsafe code")]

mod closer;
mod connect;
mod container;
#[cfg(test)]
mod descriptors;
mod host;
mod mapping;
mod memfd;
mod peer;
mod ring;
mod socket;
mod splice;
#[cfg(test)]
mod testing;
mod thread;
mod waiting;
mod zerocopy;

pub use closer::close_aside;
pub use connect::{connect_unix, end_with_peer};
pub use container::{
    MountFlags, enter_network, leave_groups, mount, open_below, open_stream, own_mounts,
    restrict_mount, see_files_as, unmount,
};
pub use host::{
    ThreadClock, available_memory, cpu_time, cpu_time_of, end_with_parent, has_ended, map_count,
    max_map_count, page_size, parent_of, thread_cpu_time,
};
pub use mapping::{
    Advice, advise, discard_pages, is_mapped, is_modified, is_whole_file, map_plain,
    map_plain_in_hole, map_private, map_shared, move_pages, reserve, resident_bytes, resize, unmap,
};
pub use memfd::{Memfd, Seals};
pub use peer::{PeerCredentials, peer_credentials, peer_pidfd, user};
pub use ring::Ring;
pub use socket::{
    MAX_DESCRIPTORS, Ready, is_quiet, receive_with_descriptors, send_with_descriptors,
    stop_listening, wait_until_ready,
};
pub use splice::{Pipe, send_file};
pub use thread::{spawn, spawn_with_stack};
pub use waiting::{Waker, wait_for_any};
pub use zerocopy::{
    Completed, completed, disconnect, enable_zerocopy, is_out_of_buffers, send_zerocopy, unsent,
    wait_for_completion,
};
