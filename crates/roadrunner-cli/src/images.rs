//! Modules in images (`module = "oci://..."`): pulled into the user's cache, from which they are loaded like files.
//!
//! A tag is looked up once for each load of a workflow, by the process that loads it. The processes that it starts are told
//! the digests, so that all of them run the same code, and ask no registry.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use roadrunner_image::{Descriptor, Digest, Manifest, Reference, Registry, RegistryError};
use roadrunner_runtime::Cache;
use roadrunner_workflow::{Function, Placement, Workflow};

use crate::args::Mode;
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::report;

/// Where images are in the folder of compiled code.
const FOLDER: &str = "images";

/// Which image a tag or digest of a manifest stood for when it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    image: String,
    digest: Digest,
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (image, digest) = text.split_once('=').ok_or("write IMAGE=DIGEST")?;
        let digest = digest.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { image: image.into(), digest })
    }
}

impl Pin {
    /// As an option of a process that is started.
    pub(crate) fn option(&self) -> OsString {
        format!("--image={}={}", self.image, self.digest).into()
    }
}

/// Pulls the images of the functions that are loaded here or in processes of this one's, and says which they were.
pub(crate) fn pull(workflow: &mut Workflow, mode: Mode) -> Result<Vec<Pin>, Failure> {
    let is_loaded = |workflow: &Workflow, function: &Function| match (workflow.here(), mode) {
        // A mode's nodes are processes of this host.
        (_, Mode::Network) => true,
        (Placement::Local, _) => !matches!(function.placement, Placement::Node(_)),
        (here, _) => function.placement == *here,
    };
    let mut pins: Vec<Pin> = Vec::new();
    workflow.place_images(is_loaded, |image| {
        let pinned = pins.iter().find(|pin| pin.image == image);
        let (digest, path) = find(image, pinned.map(|pin| &pin.digest))?;
        if pinned.is_none() {
            pins.push(Pin { image: image.into(), digest });
        }
        Ok::<_, Failure>(path)
    })?;
    Ok(pins)
}

/// Takes the images of the functions that are placed here from the cache, as whoever started this process says.
pub(crate) fn place(
    workflow: &mut Workflow,
    here: &Placement,
    pins: &[Pin],
) -> Result<(), Failure> {
    let is_here = |_: &Workflow, function: &Function| function.placement == *here;
    workflow.place_images(is_here, |image| {
        let pinned = pins.iter().find(|pin| pin.image == image);
        find(image, pinned.map(|pin| &pin.digest)).map(|(_, path)| path)
    })
}

/// The digest of an image and the file of its module. With a digest it is looked for in the cache first.
fn find(image: &str, digest: Option<&Digest>) -> Result<(Digest, PathBuf), Failure> {
    let reference: Reference = image
        .parse()
        .map_err(|error| Failure::new(Exit::Workflow, format!("oci://{image}: {error}")))?;
    let reference = digest.map_or_else(|| reference.clone(), |digest| reference.at(digest));
    let cache = cache()?;
    let registry = Registry::of(&reference);
    let progress = Progress::start(format!("pulling {reference}"));
    let pulled = registry.pull_manifest(&reference, &cache).map_err(|error| {
        let is_away = matches!(error, RegistryError::Unreachable { .. });
        let failure = Failure::from(error);
        if reference.digest().is_none() && is_away {
            let advice =
                "a module that is named by its digest, and was pulled before, needs no registry";
            return Failure::new(failure.exit, format!("{failure}; {advice}"));
        }
        failure
    })?;
    let module = only_module(&pulled.manifest)
        .map_err(|why| Failure::new(Exit::Module, format!("{reference} {why}")))?;
    progress.say(format!("pulling {reference} ({})", report::bytes(module.size)));
    let exact = reference.at(&pulled.digest);
    Ok((pulled.digest, registry.pull_blob(&exact, module, &cache)?))
}

/// The module of an image that has one.
fn only_module(manifest: &Manifest) -> Result<&Descriptor, String> {
    let all: Vec<_> = manifest.modules().collect();
    match &all[..] {
        [module] if manifest.workflow().is_none() => Ok(module),
        [] => Err("has no WebAssembly module: no layer of it is application/wasm".into()),
        _ => Err("is the image of a workflow; a function takes that of one module".into()),
    }
}

/// The images of this user.
fn cache() -> Result<roadrunner_image::Cache, Failure> {
    match Cache::user() {
        Cache::Directory(folder) => Ok(roadrunner_image::Cache::new(folder.join(FOLDER))),
        Cache::Off => {
            let why =
                "there is no folder for images; set HOME or XDG_CACHE_HOME to an absolute path";
            Err(Failure::new(Exit::Host, why))
        }
    }
}
