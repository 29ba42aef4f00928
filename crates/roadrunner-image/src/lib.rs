//! OCI images of WebAssembly modules and of workflows.
//!
//! ```text
//! module, or manifest and modules -> artifact.rs  blobs and the manifest that lists them, by their digests
//!                                 -> archive.rs   an OCI image layout in a tar file, and back
//!                                 -> registry.rs  pushed to a registry
//! registry -> registry.rs         -> cache.rs     a folder of blobs, each under its digest
//! manifest.rs, digest.rs                          what an image's manifest says; all that the containerd shim needs
//! ```
//!
//! The image of a module is a Wasm OCI artifact as the CNCF's runtime group specifies it, which other tools run too: a
//! configuration `application/vnd.wasm.config.v0+json` and one layer `application/wasm`. The image of a workflow has its
//! manifest as a further layer before the modules', each of which says which module of the manifest it is:
//!
//! ```text
//! manifest -> configuration   architecture wasm, os wasip1, the digests of the layers
//!          -> roadrunner.toml application/vnd.roadrunner.workflow.v1+toml, workflows only
//!          -> decode.wasm     application/wasm, dev.roadrunner/module = "build/decode.wasm"
//!          -> ...
//! ```
//!
//! Images are made of their input and of nothing else: no time, no name of a machine, no owner. So the same input has the
//! same digest everywhere.
//!
//! The crate knows no manifest of a workflow and runs nothing. What comes from registries and archives is hostile: it is
//! bounded by [`limit`], and no byte of it is used before its digest was right.
#![forbid(unsafe_code)]

#[cfg(feature = "registry")]
mod archive;
#[cfg(feature = "registry")]
mod artifact;
#[cfg(feature = "registry")]
mod cache;
mod digest;
mod manifest;
#[cfg(feature = "registry")]
mod reference;
#[cfg(feature = "registry")]
mod registry;

#[cfg(feature = "registry")]
pub use archive::{ArchiveError, read, write};
#[cfg(feature = "registry")]
pub use artifact::{Artifact, Blob, Form, Module, ModuleError};
#[cfg(feature = "registry")]
pub use cache::{Cache, CacheError};
pub use digest::{Digest, DigestError};
pub use manifest::{
    Descriptor, Document, DocumentError, Index, MODULE, Manifest, Platform, TITLE, WORKFLOW_TYPE,
};
#[cfg(feature = "registry")]
pub use reference::{Reference, ReferenceError};
#[cfg(feature = "registry")]
pub use registry::{Pulled, Registry, RegistryError};

/// Bounds on what registries, archives and image stores may give.
pub mod limit {
    use std::time::Duration;

    /// Largest manifest in bytes: what registries are asked to take by the distribution specification.
    pub const MANIFEST_BYTES: u64 = 4 << 20;
    /// Layers of one image: a workflow's functions, and its manifest.
    pub const LAYERS: usize = 1025;
    /// Largest module in bytes: the largest language runtimes compiled to WebAssembly have some tens of millions.
    pub const MODULE_BYTES: u64 = 256 << 20;
    /// Most bytes of all layers together: an image is read into memory when it is archived or pushed.
    pub const IMAGE_BYTES: u64 = 1 << 30;
    /// Time for a connection to a registry.
    pub const CONNECT: Duration = Duration::from_secs(10);
    /// Time without a byte from a registry, after which it counts as gone.
    pub const SILENCE: Duration = Duration::from_secs(30);
    /// Time for a manifest, with what it takes to be let in.
    pub const MANIFEST_TIME: Duration = Duration::from_secs(30);
    /// Time for one layer: the largest one takes as long at half a megabyte a second.
    pub const LAYER_TIME: Duration = Duration::from_secs(600);
}
