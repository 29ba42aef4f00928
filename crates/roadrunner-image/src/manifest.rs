//! What an image says about itself: its manifest, or the index of several. Read from anybody, so bounded and checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, limit};

/// The media type of a manifest.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a module.
pub(crate) const WASM_TYPE: &str = "application/wasm";
/// That of modules in images by runwasi's tools, from before there was a standard.
const OLDER_WASM_TYPE: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
/// The media type of a workflow's manifest.
pub const WORKFLOW_TYPE: &str = "application/vnd.roadrunner.workflow.v1+toml";
/// The annotation with a layer's name as a file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation that says which module of the workflow's manifest a layer is.
pub const MODULE: &str = "dev.roadrunner/module";

/// The processor of modules, as images call it.
pub(crate) const ARCHITECTURE: &str = "wasm";
/// The system interface of modules.
pub(crate) const OS: &str = "wasip1";

/// A blob, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// What its bytes must have.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// In an index, what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `wasm`.
    pub architecture: String,
    /// Such as `wasip1`.
    pub os: String,
}

impl Platform {
    /// That of modules.
    pub(crate) fn wasm() -> Self {
        Self { architecture: ARCHITECTURE.into(), os: OS.into() }
    }
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// What describes the image as a whole.
    pub config: Descriptor,
    /// What it holds.
    pub layers: Vec<Descriptor>,
}

/// Images of the same program for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// Their manifests.
    pub manifests: Vec<Descriptor>,
}

/// What stands under the digest of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, of which one is to be chosen.
    Index(Index),
}

/// Why a document is none, or not of an image that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is too long.
    #[error("its manifest has {0} bytes, over the limit of {most}", most = limit::MANIFEST_BYTES)]
    TooLong(u64),
    /// It is neither a manifest nor an index.
    #[error("its manifest can't be read: {0}")]
    Unreadable(serde_json::Error),
    /// It has too many layers or images.
    #[error("it has {0} layers or images, over the limit of {most}", most = limit::LAYERS)]
    TooMany(usize),
    /// A layer is too large.
    #[error("its layer {digest} has {size} bytes, over the limit of {}", limit::MODULE_BYTES)]
    TooLarge {
        /// The layer.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
    /// All of it is too large.
    #[error("its layers have more than {} bytes together, which is the limit", limit::IMAGE_BYTES)]
    AllTooLarge,
    /// None of an index's images is for WebAssembly.
    #[error("it is for several platforms, of which none is WebAssembly (wasip1/wasm)")]
    NoPlatform,
}

impl Document {
    /// Reads it. What it lists is within [`limit`] then.
    ///
    /// # Errors
    /// [`DocumentError`] for what is neither a manifest nor an index, or is over a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let len = bytes.len() as u64;
        if len > limit::MANIFEST_BYTES {
            return Err(DocumentError::TooLong(len));
        }
        #[derive(Deserialize)]
        struct Probe {
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(DocumentError::Unreadable)?;
        if probe.manifests.is_some() {
            let index: Index = serde_json::from_slice(bytes).map_err(DocumentError::Unreadable)?;
            check_count(index.manifests.len())?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(DocumentError::Unreadable)?;
        check_count(manifest.layers.len())?;
        let mut all = 0_u64;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if blob.size > limit::MODULE_BYTES {
                let (digest, size) = (blob.digest.clone(), blob.size);
                return Err(DocumentError::TooLarge { digest, size });
            }
            all += blob.size;
        }
        if all > limit::IMAGE_BYTES {
            return Err(DocumentError::AllTooLarge);
        }
        Ok(Self::Manifest(manifest))
    }
}

fn check_count(count: usize) -> Result<(), DocumentError> {
    if count > limit::LAYERS { Err(DocumentError::TooMany(count)) } else { Ok(()) }
}

impl Index {
    /// The image for WebAssembly, or the only one.
    ///
    /// # Errors
    /// [`DocumentError::NoPlatform`] if there is none.
    pub fn wasm(&self) -> Result<&Descriptor, DocumentError> {
        let platform = |it: &&Descriptor| {
            let platform = it.platform.as_ref();
            // `wasi` is what it was called before there were versions of it.
            platform.is_some_and(|it| {
                it.architecture == ARCHITECTURE && matches!(it.os.as_str(), OS | "wasi")
            })
        };
        let only = match &self.manifests[..] {
            [only] => Some(only),
            _ => None,
        };
        self.manifests.iter().find(platform).or(only).ok_or(DocumentError::NoPlatform)
    }
}

impl Manifest {
    /// The layers that are modules.
    pub fn modules(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().filter(|it| [WASM_TYPE, OLDER_WASM_TYPE].contains(&&*it.media_type))
    }

    /// The layer that is a workflow's manifest.
    #[must_use]
    pub fn workflow(&self) -> Option<&Descriptor> {
        self.layers.iter().find(|it| it.media_type == WORKFLOW_TYPE)
    }
}

impl Descriptor {
    /// Its name as a file, if it has one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media: &str, size: u64) -> String {
        let digest = Digest::of(media.as_bytes());
        format!(r#"{{"mediaType": "{media}", "digest": "{digest}", "size": {size}}}"#)
    }

    fn manifest(layers: &[String]) -> String {
        let config = layer("application/vnd.wasm.config.v0+json", 2);
        let layers = layers.join(",");
        format!(r#"{{"schemaVersion": 2, "config": {config}, "layers": [{layers}], "more": 1}}"#)
    }

    fn refused(text: &str) -> String {
        Document::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn modules_are_told_from_other_layers() {
        let layers = [
            layer("application/vnd.oci.image.layer.v1.tar", 1),
            layer(WORKFLOW_TYPE, 2),
            layer(WASM_TYPE, 3),
            layer(OLDER_WASM_TYPE, 4),
        ];
        let parsed = Document::parse(manifest(&layers).as_bytes()).unwrap();
        let Document::Manifest(parsed) = parsed else { panic!("{parsed:?}") };
        assert_eq!(parsed.modules().map(|it| it.size).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(parsed.workflow().unwrap().size, 2);
    }

    #[test]
    fn the_image_for_webassembly_is_chosen() {
        let entry = |size: u64, os: &str, architecture: &str| {
            let plain = layer(MANIFEST_TYPE, size);
            let platform = format!(r#"{{"os": "{os}", "architecture": "{architecture}"}}"#);
            plain.replace(r#""size""#, &format!(r#""platform": {platform}, "size""#))
        };
        let chosen = |manifests: &[String]| {
            let text = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, manifests.join(","));
            let Document::Index(index) = Document::parse(text.as_bytes()).unwrap() else {
                panic!("{text}")
            };
            index.wasm().map(|it| it.size).map_err(|error| error.to_string())
        };
        let (native, wasm) = (entry(1, "linux", "amd64"), entry(2, "wasip1", "wasm"));
        assert_eq!(chosen(&[native.clone(), wasm]), Ok(2));
        assert_eq!(chosen(&[native.clone(), entry(3, "wasi", "wasm")]), Ok(3));
        assert_eq!(chosen(std::slice::from_ref(&native)), Ok(1), "the only one");
        let none = chosen(&[native, entry(4, "linux", "arm64")]).unwrap_err();
        assert!(none.contains("none is WebAssembly"), "{none}");
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let most = layer(WASM_TYPE, limit::MODULE_BYTES);
        assert!(Document::parse(manifest(std::slice::from_ref(&most)).as_bytes()).is_ok());
        let over = refused(&manifest(&[layer(WASM_TYPE, limit::MODULE_BYTES + 1)]));
        assert!(over.contains("268435457 bytes"), "{over}");
        let together = refused(&manifest(&vec![most; 5]));
        assert!(together.contains("together"), "{together}");
        let many = refused(&manifest(&vec![layer(WASM_TYPE, 1); limit::LAYERS + 1]));
        assert!(many.contains("1026 layers"), "{many}");
        let long = refused(&" ".repeat(usize::try_from(limit::MANIFEST_BYTES).unwrap() + 1));
        assert!(long.contains("4194305 bytes"), "{long}");
        for text in ["", "[]", "{}", "null", r#"{"manifests": 1}"#] {
            assert!(refused(text).contains("can't be read"), "{text}");
        }
        let name = manifest(&[layer(WASM_TYPE, 1).replace("sha256:", "sha256:../../")]);
        assert!(refused(&name).contains("a digest is"), "{name}");
    }
}
