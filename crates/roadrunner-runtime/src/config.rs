//! What a runtime may use, each limit with its reason.

use std::path::PathBuf;
use std::time::Duration;

use roadrunner_buffer::{BreakEven, PoolLimits};

/// Time a function has when nothing else is said.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Linear memory a function may use when nothing else is said, in bytes: twice the largest payload,
/// so that one can be read while the next is written.
pub(crate) const DEFAULT_MEMORY: u64 = 2 << 30;

/// Size of WebAssembly's own stack in bytes. Deep recursion ends in a trap there.
pub(crate) const WASM_STACK: usize = 512 << 10;

/// Stack in bytes that must be free before a nested call starts: WebAssembly's, and the host's
/// frames around it, which are large without optimizations.
pub(crate) const CALL_STACK: usize = WASM_STACK + (256 << 10);

/// Stack in bytes that is added when less is free: room for a few nested calls.
pub(crate) const MORE_STACK: usize = 4 << 20;

/// Where compiled code is kept between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cache {
    /// In this directory.
    Directory(PathBuf),
    /// Nowhere.
    Off,
}

impl Cache {
    /// `$XDG_CACHE_HOME/roadrunner` or `$HOME/.cache/roadrunner`, or nowhere without either.
    #[must_use]
    pub fn user() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map_or(Self::Off, |base| Self::Directory(base.join("roadrunner")))
    }
}

/// What a runtime may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sandboxes that can exist at once. Each reserves 4 GiB of address space, of which a process
    /// has 128 TiB, and no memory until it runs.
    pub sandboxes: u32,
    /// Threads for calls that run beside their caller.
    pub workers: usize,
    /// Calls that may wait for a worker; further ones run when they are waited for.
    pub queue: usize,
    /// Largest payload in bytes.
    pub payload_bytes: u64,
    /// Bytes of payloads that the windows of one app may show at once, together with those that its
    /// functions submitted and that have not landed yet, and with what its commands read and write:
    /// what a tenant can hold.
    pub app_window_bytes: u64,
    /// Longest that a whole call may take, whatever time its functions have each.
    pub longest_call: Duration,
    /// Bounds of the pool of recycled pages.
    pub pool: PoolLimits,
    /// Where compiled code is kept.
    pub cache: Cache,
    /// The break-even between copying and moving; measured at start where it is not given.
    pub break_even: Option<BreakEven>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sandboxes: 1000,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            queue: 1024,
            payload_bytes: roadrunner_abi::limit::PAYLOAD_BYTES,
            app_window_bytes: 64 << 30,
            longest_call: Duration::from_secs(3600),
            pool: PoolLimits::default(),
            cache: Cache::user(),
            break_even: None,
        }
    }
}
