//! What is pulled, and what is refused.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use roadrunner_image::{
    Artifact, Cache, Digest, Form, Module, Reference, Registry, RegistryError, limit,
};
use tempfile::TempDir;

use crate::fake::{Answer, Fake};

const CORE: &[u8] = b"\0asm\x01\0\0\0";

fn artifact() -> Artifact {
    let module = Module { title: "a.wasm".into(), path: None, bytes: CORE.into() };
    Artifact::of_module(module, Form::Artifact).unwrap()
}

/// What a registry with this image says, if it is honest.
fn honest(artifact: &Artifact, path: &str) -> Answer {
    let blob = artifact.blobs().find(|it| path.ends_with(&it.descriptor.digest.to_string()));
    match blob {
        Some(blob) if path.starts_with("x/blobs/") => Answer::Bytes(blob.bytes.clone()),
        _ if path == "x/manifests/1" => Answer::Bytes(artifact.manifest().into()),
        _ if path.ends_with(&artifact.digest().to_string()) => {
            Answer::Bytes(artifact.manifest().into())
        }
        _ => Answer::Status("404 Not Found"),
    }
}

/// Pulls the only module of `x`.
fn pull(address: &str, suffix: &str, cache: &Cache) -> Result<(Digest, PathBuf), RegistryError> {
    let reference: Reference = format!("{address}/x{suffix}").parse().unwrap();
    let registry = Registry::of(&reference);
    let pulled = registry.pull_manifest(&reference, cache)?;
    let layer = pulled.manifest.modules().next().unwrap().clone();
    Ok((pulled.digest, registry.pull_blob(&reference, &layer, cache)?))
}

fn cache() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("images"));
    (dir, cache)
}

/// The files of a cache, drafts too.
fn files(dir: &TempDir) -> usize {
    fs::read_dir(dir.path().join("images/sha256")).map_or(0, Iterator::count)
}

/// Pulls by the tag from a registry that says this of the manifest and the layer.
fn refused(manifest: Option<Answer>, layer: Option<Answer>) -> (RegistryError, usize, u64) {
    let fake = Fake::start(move |path| {
        let other = if path.starts_with("x/blobs/") { &layer } else { &manifest };
        other.clone().unwrap_or_else(|| honest(&artifact(), path))
    });
    let (dir, cache) = cache();
    let error = pull(&fake.address, ":1", &cache).unwrap_err();
    (error, files(&dir), fake.taken.load(Ordering::SeqCst))
}

#[test]
fn a_digest_is_asked_for_once_and_a_tag_each_time() {
    let fake = Fake::start(|path| honest(&artifact(), path));
    let (dir, cache) = cache();
    let (digest, path) = pull(&fake.address, ":1", &cache).unwrap();
    assert_eq!(digest, artifact().digest());
    assert_eq!(fs::read(&path).unwrap(), CORE);
    assert_eq!(files(&dir), 2, "the manifest and the module");
    let exact = format!("@{digest}");
    let before = fake.requests.load(Ordering::SeqCst);
    assert_eq!(pull(&fake.address, &exact, &cache).unwrap(), (digest.clone(), path.clone()));
    assert_eq!(fake.requests.load(Ordering::SeqCst), before, "it was asked for again");
    pull(&fake.address, ":1", &cache).unwrap();
    assert!(fake.requests.load(Ordering::SeqCst) > before, "the tag was not looked up");

    let address = fake.address.clone();
    drop(fake);
    assert_eq!(pull(&address, &exact, &cache).unwrap(), (digest, path.clone()));
    let gone = pull(&address, ":1", &cache).unwrap_err();
    assert!(matches!(gone, RegistryError::Unreachable { .. }), "{gone}");
    // What the disk lost bytes of is not used.
    fs::write(&path, "damage").unwrap();
    assert!(matches!(pull(&address, &exact, &cache), Err(RegistryError::Unreachable { .. })));
}

#[test]
fn the_image_for_webassembly_is_taken_from_an_index() {
    let artifact = artifact();
    let (native, wasm, len) = (Digest::of(b"native"), artifact.digest(), artifact.manifest().len());
    let index = format!(
        r#"{{"schemaVersion": 2, "manifests": [
            {{"mediaType": "m", "digest": "{native}", "size": 1, "platform": {{"os": "linux", "architecture": "amd64"}}}},
            {{"mediaType": "m", "digest": "{wasm}", "size": {len}, "platform": {{"os": "wasip1", "architecture": "wasm"}}}}]}}"#
    );
    let fake = Fake::start(move |path| match path {
        "x/manifests/1" => Answer::Bytes(index.clone().into()),
        path => honest(&artifact, path),
    });
    let (_dir, cache) = cache();
    assert_eq!(pull(&fake.address, ":1", &cache).unwrap().0, wasm);
}

#[test]
fn other_bytes_than_the_digests_are_refused() {
    let (error, kept, _) = refused(None, Some(Answer::Bytes(b"\0asm\x01\0\0\x01".into())));
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
    assert_eq!(kept, 1, "only the manifest is kept");
    for layer in [Answer::Cut, Answer::Bytes(Vec::new())] {
        let (error, kept, _) = refused(None, Some(layer));
        assert_eq!(kept, 1, "{error}");
    }
    // A manifest under the digest of another one.
    let fake = Fake::start(|_| Answer::Bytes(artifact().manifest().into()));
    let (dir, cache) = cache();
    let error = pull(&fake.address, &format!("@{}", Digest::of(b"other")), &cache).unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
    assert_eq!(files(&dir), 0);
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let (error, kept, taken) = refused(None, Some(Answer::Endless));
    assert!(error.to_string().contains("more bytes"), "{error}");
    assert_eq!(kept, 1);
    // What was on its way in the buffers of sockets.
    assert!(taken < 64 << 20, "{taken} bytes of a module of 8 were taken");
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    let long = vec![b' '; usize::try_from(limit::MANIFEST_BYTES).unwrap() + 1];
    for (bytes, expected) in
        [(long, "over the limit"), (b"<html>".to_vec(), "can't be read"), (Vec::new(), "can't be")]
    {
        let (error, _, _) = refused(Some(Answer::Bytes(bytes)), None);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn who_says_no_is_quoted() {
    let (error, ..) = refused(Some(Answer::Status("401 Unauthorized")), None);
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("docker login"), "{error}");
    let (error, ..) = refused(Some(Answer::Status("500 Internal Server Error")), None);
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    // A port that nobody listens at.
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let (_dir, cache) = cache();
    let error = pull(&free.to_string(), ":1", &cache).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}
