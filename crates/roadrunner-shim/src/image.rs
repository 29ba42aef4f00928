//! Finds a container's module in its image where no file of the root file system is one: in a Wasm OCI artifact modules are
//! layers themselves, which containerd keeps and does not unpack.

use roadrunner_image::{Descriptor, Document, Manifest, limit};

use crate::containerd::{Asking, Store};
use crate::error::Refusal;
use crate::module;

/// The module of a container's image that its first argument names, with its name. `None` where no layer is a module.
pub(crate) fn find(
    store: &Store,
    container: &str,
    entry: Option<&str>,
) -> Result<Option<(String, Vec<u8>)>, Refusal> {
    store.ask(async |containerd| {
        let image = containerd.image_of(container).await?;
        if image.is_empty() {
            return Ok(None);
        }
        let manifest = manifest(containerd, &image).await?;
        let Some(layer) = choose(&manifest, &image, entry)? else { return Ok(None) };
        let bytes = containerd.blob(&layer.digest, layer.size).await?;
        let name = layer.title().unwrap_or(&image).to_owned();
        module::check(&name, &bytes)?;
        Ok(Some((name, bytes)))
    })
}

async fn manifest(containerd: &mut Asking<'_>, image: &str) -> Result<Manifest, Refusal> {
    let refuse = |error| Refusal::Invalid(format!("the image {image}: {error}"));
    let mut digest = containerd.digest_of(image).await?;
    // An index, and the image that is chosen from it.
    for _ in 0..2 {
        let bytes = containerd.blob(&digest, limit::MANIFEST_BYTES).await?;
        match Document::parse(&bytes).map_err(refuse)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => digest = index.wasm().map_err(refuse)?.digest.clone(),
        }
    }
    Err(Refusal::Invalid(format!("the image {image} is an index of indexes")))
}

/// The only module, or the one that has the first argument's name.
fn choose<'m>(
    manifest: &'m Manifest,
    image: &str,
    entry: Option<&str>,
) -> Result<Option<&'m Descriptor>, Refusal> {
    let all: Vec<&Descriptor> = manifest.modules().collect();
    let name = entry.unwrap_or_default().trim_start_matches('/');
    let named = all.iter().find(|layer| layer.title() == Some(name));
    match (named, &all[..]) {
        (_, []) => Ok(None),
        (Some(layer), _) | (None, [layer]) => Ok(Some(layer)),
        (None, _) => {
            let names: Vec<_> = all.iter().filter_map(|layer| layer.title()).collect();
            let names = names.join(", ");
            let why = format!("the image {image} has several modules and none is called {name:?}");
            Err(Refusal::Invalid(format!("{why}; its command must name one of {names}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(titles: &[&str]) -> Manifest {
        let digest = roadrunner_image::Digest::of(b"");
        let blob = |media: &str, title: &str| {
            format!(
                r#"{{"mediaType": "{media}", "digest": "{digest}", "size": 0, "annotations": {{"org.opencontainers.image.title": "{title}"}}}}"#
            )
        };
        let layers: Vec<_> = titles.iter().map(|title| blob("application/wasm", title)).collect();
        let (config, layers) =
            (blob("application/vnd.oci.image.config.v1+json", ""), layers.join(","));
        let text = format!(r#"{{"schemaVersion": 2, "config": {config}, "layers": [{layers}]}}"#);
        match Document::parse(text.as_bytes()) {
            Ok(Document::Manifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_module_is_the_only_one_or_the_named_one() {
        let chosen = |titles: &[&str], entry| {
            let manifest = manifest(titles);
            let layer = choose(&manifest, "i", entry);
            layer.map(|it| it.and_then(Descriptor::title).map(str::to_owned))
        };
        assert_eq!(chosen(&[], Some("/a.wasm")).unwrap(), None);
        for entry in [None, Some("/"), Some("/a.wasm"), Some("anything")] {
            assert_eq!(chosen(&["a.wasm"], entry).unwrap().unwrap(), "a.wasm");
        }
        assert_eq!(chosen(&["a.wasm", "b.wasm"], Some("/b.wasm")).unwrap().unwrap(), "b.wasm");
        let refused = chosen(&["a.wasm", "b.wasm"], Some("/")).unwrap_err().to_string();
        assert!(refused.contains("one of a.wasm, b.wasm"), "{refused}");
    }
}
