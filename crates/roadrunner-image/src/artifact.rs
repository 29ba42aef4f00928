//! An image in the making: its blobs, and the manifest that lists them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::manifest::{ARCHITECTURE, MANIFEST_TYPE, OS, WASM_TYPE};
use crate::{Descriptor, Digest, MODULE, Manifest, TITLE, WORKFLOW_TYPE, limit};

/// The media type of a Wasm artifact's configuration.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The media type of a container image's.
const CONTAINER_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// When every image was made: the specification wants a time, and the same input has to have the same digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What every core module begins with.
const CORE: &[u8] = b"\0asm\x01\0\0\0";
/// What components begin with.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// For whom an image is. The layers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Wasm OCI artifact: registries, Kubernetes, and other WebAssembly runtimes.
    Artifact,
    /// A container image with Wasm layers, which names its entry point: `ctr run` of containerd takes no other.
    Container,
}

/// A module of an image.
#[derive(Clone, Debug)]
pub struct Module {
    /// The name of its layer as a file.
    pub title: String,
    /// What the workflow's manifest calls it; nothing where the image is of this module alone.
    pub path: Option<String>,
    /// The module, in the binary format.
    pub bytes: Vec<u8>,
}

/// Why a module can't be in an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{title} {reason}")]
pub struct ModuleError {
    title: String,
    reason: &'static str,
}

/// A blob with its descriptor.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What a manifest says of it.
    pub descriptor: Descriptor,
    /// What has the descriptor's digest.
    pub bytes: Vec<u8>,
}

/// A complete image.
#[derive(Clone, Debug)]
pub struct Artifact {
    manifest: Vec<u8>,
    config: Blob,
    layers: Vec<Blob>,
}

/// The configuration: the fields of a Wasm artifact, and for a container image also its.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: Vec<&'a Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Execution<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<Rootfs>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    entrypoint: [&'a str; 1],
}

/// No layer is of a file system.
#[derive(Serialize)]
struct Rootfs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [String; 0],
}

impl Module {
    fn check(&self) -> Result<(), ModuleError> {
        let reason = if self.bytes.starts_with(COMPONENT) {
            "is a WebAssembly component; build a core module, for wasm32-wasip1"
        } else if !self.bytes.starts_with(CORE) {
            "is no WebAssembly module in the binary format"
        } else if self.bytes.len() as u64 > limit::MODULE_BYTES {
            "is larger than 256 MiB, the limit of images"
        } else {
            return Ok(());
        };
        Err(ModuleError { title: self.title.clone(), reason })
    }

    fn into_layer(self) -> Result<Blob, ModuleError> {
        self.check()?;
        let path = self.path.map(|path| (MODULE.to_owned(), path));
        let annotations = path.into_iter().chain([(TITLE.to_owned(), self.title)]);
        Ok(Blob::new(WASM_TYPE, self.bytes, annotations.collect()))
    }
}

impl Blob {
    fn new(media_type: &str, bytes: Vec<u8>, annotations: BTreeMap<String, String>) -> Self {
        let (media_type, digest) = (media_type.to_owned(), Digest::of(&bytes));
        let size = bytes.len() as u64;
        let descriptor = Descriptor { media_type, digest, size, platform: None, annotations };
        Self { descriptor, bytes }
    }
}

impl Artifact {
    /// The image of one module.
    ///
    /// # Errors
    /// [`ModuleError`] for what is no core module.
    pub fn of_module(module: Module, form: Form) -> Result<Self, ModuleError> {
        let title = module.title.clone();
        Ok(Self::new(vec![module.into_layer()?], form, &title))
    }

    /// The image of a workflow: its manifest as it is, and its modules. As a container it begins with `entry`, the title of
    /// one of them.
    ///
    /// # Errors
    /// [`ModuleError`] for what is no core module.
    pub fn of_workflow(
        manifest: Vec<u8>,
        modules: Vec<Module>,
        entry: &str,
        form: Form,
    ) -> Result<Self, ModuleError> {
        let title = (TITLE.to_owned(), "roadrunner.toml".to_owned());
        let mut layers = vec![Blob::new(WORKFLOW_TYPE, manifest, BTreeMap::from([title]))];
        for module in modules {
            layers.push(module.into_layer()?);
        }
        Ok(Self::new(layers, form, entry))
    }

    fn new(layers: Vec<Blob>, form: Form, entry: &str) -> Self {
        let is_container = form == Form::Container;
        let entry = format!("/{entry}");
        let config = Config {
            created: CREATED,
            architecture: ARCHITECTURE,
            os: OS,
            layer_digests: layers.iter().map(|it| &it.descriptor.digest).collect(),
            config: is_container.then_some(Execution { entrypoint: [&entry] }),
            rootfs: is_container.then_some(Rootfs { kind: "layers", diff_ids: [] }),
        };
        let media_type = if is_container { CONTAINER_CONFIG } else { WASM_CONFIG };
        let config = Blob::new(media_type, json(&config), BTreeMap::new());
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.into()),
            config: config.descriptor.clone(),
            layers: layers.iter().map(|it| it.descriptor.clone()).collect(),
        });
        Self { manifest, config, layers }
    }

    /// Of blobs that a manifest lists, which were found to be right.
    pub(crate) fn of_blobs(manifest: Vec<u8>, config: Blob, layers: Vec<Blob>) -> Self {
        Self { manifest, config, layers }
    }

    /// What the image is known by: the digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// All other blobs: the configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        [&self.config].into_iter().chain(&self.layers)
    }
}

/// JSON of a value that has no map with other keys than texts, which is all that can fail.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    fn module(title: &str, bytes: &[u8]) -> Module {
        Module { title: title.into(), path: None, bytes: bytes.into() }
    }

    /// The words of the CNCF's specification: other runtimes read them.
    #[test]
    fn the_image_of_a_module_is_a_wasm_artifact() {
        let artifact = Artifact::of_module(module("a.wasm", CORE), Form::Artifact).unwrap();
        let layer = "sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
        let config = format!(
            r#"{{"created":"1970-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","layerDigests":["{layer}"]}}"#
        );
        assert_eq!(str::from_utf8(&artifact.config.bytes).unwrap(), config);
        let (digest, size) = (Digest::of(config.as_bytes()), config.len());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{digest}","size":{size}}},"layers":[{{"mediaType":"application/wasm","digest":"{layer}","size":8,"annotations":{{"org.opencontainers.image.title":"a.wasm"}}}}]}}"#
        );
        assert_eq!(str::from_utf8(artifact.manifest()).unwrap(), manifest);
        assert_eq!(artifact.digest(), Digest::of(manifest.as_bytes()));
    }

    #[test]
    fn a_container_names_its_entry_point_and_has_the_same_layers() {
        let [plain, container] = [Form::Artifact, Form::Container]
            .map(|form| Artifact::of_module(module("a.wasm", CORE), form).unwrap());
        assert_ne!(plain.digest(), container.digest());
        assert_eq!(plain.layers[0].descriptor, container.layers[0].descriptor);
        let config = str::from_utf8(&container.config.bytes).unwrap();
        assert!(config.contains(r#""config":{"Entrypoint":["/a.wasm"]}"#), "{config}");
        assert!(config.contains(r#""rootfs":{"type":"layers","diff_ids":[]}"#), "{config}");
        assert_eq!(container.config.descriptor.media_type, CONTAINER_CONFIG);
    }

    #[test]
    fn a_workflow_carries_its_manifest_and_says_which_module_is_which() {
        let path = Some("../build/b.wasm".to_owned());
        let modules = vec![Module { path: path.clone(), ..module("b.wasm", CORE) }];
        let artifact = Artifact::of_workflow(b"text".into(), modules, "b.wasm", Form::Artifact);
        let Document::Manifest(manifest) = Document::parse(artifact.unwrap().manifest()).unwrap()
        else {
            panic!("no manifest")
        };
        assert_eq!(manifest.workflow().unwrap().digest, Digest::of(b"text"));
        let modules: Vec<_> = manifest.modules().collect();
        assert_eq!(modules.len(), 1);
        assert_eq!(modules[0].annotations.get(MODULE), path.as_ref());
        assert_eq!(modules[0].title(), Some("b.wasm"));
    }

    #[test]
    fn what_is_no_core_module_is_refused() {
        for (bytes, expected) in
            [(COMPONENT, "component"), (b"(module)".as_slice(), "binary format"), (b"", "binary")]
        {
            let refused = Artifact::of_module(module("x.wasm", bytes), Form::Artifact);
            let refused = refused.unwrap_err().to_string();
            assert!(refused.starts_with("x.wasm is") && refused.contains(expected), "{refused}");
        }
    }
}
