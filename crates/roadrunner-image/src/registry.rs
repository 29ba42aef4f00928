//! To registries and from them, by the distribution specification (`oci-client`).
//!
//! A registry is hostile, and so is the network to it: every wait ends ([`limit`]), no blob is longer than its descriptor
//! says, and none is kept that has another digest. Registries on this host are spoken to in the clear, as is custom, all
//! others over TLS with the authorities that this host trusts. Credentials are those of `docker login`.
//!
//! The requests are asynchronous, and nobody here has anything else to do meanwhile: they run on a reactor of their own in the
//! calling thread.

use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use tokio::io::AsyncWrite;
use tokio::runtime::{Builder, Runtime};

use crate::cache::Draft;
use crate::manifest::{INDEX_TYPE, MANIFEST_TYPE};
use crate::{
    Artifact, Cache, CacheError, Descriptor, Digest, Document, DocumentError, Manifest, Reference,
    limit,
};

/// Letters of what a registry says that are shown.
const SHOWN: usize = 300;

/// Why an image can't be pushed or pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no way to it, or it did not answer in time.
    #[error("the registry {registry} can't be reached: {reason}")]
    Unreachable {
        /// Its address.
        registry: String,
        /// Why.
        reason: String,
    },
    /// It has no such image.
    #[error("the registry has no image {0}")]
    NotFound(String),
    /// It doesn't let this user.
    #[error("the registry does not let us at {image}: {reason}; see `docker login {registry}`")]
    Denied {
        /// The image.
        image: String,
        /// The registry's address.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// It said something else than it should.
    #[error("the registry did not do as asked with {image}: {reason}")]
    Refused {
        /// The image.
        image: String,
        /// What it said.
        reason: String,
    },
    /// It gave something else than was asked for.
    #[error("the registry gave other bytes for {image} than those of {digest}")]
    Damaged {
        /// The image.
        image: String,
        /// What was asked for.
        digest: Digest,
    },
    /// What it gave can't be used.
    #[error("{image}: {source}")]
    Document {
        /// The image.
        image: String,
        /// Why.
        source: DocumentError,
    },
    /// What was pulled can't be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// This process can't have what it takes to ask.
    #[error("no registry can be asked: {0}")]
    Host(String),
}

/// An image that is in the cache.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What was pulled: the digest of the image, and not of an index that it was chosen from.
    pub digest: Digest,
    /// What it says.
    pub manifest: Manifest,
}

/// A registry, as seen by this user.
pub struct Registry {
    address: String,
    is_loopback: bool,
    /// Made when something is asked: what is in the cache takes neither authorities nor credentials.
    link: OnceCell<Link>,
}

/// What it takes to ask.
struct Link {
    runtime: Runtime,
    client: Client,
    auth: RegistryAuth,
}

impl Registry {
    /// The registry of an image. Nothing is asked of it yet.
    #[must_use]
    pub fn of(reference: &Reference) -> Self {
        let (address, is_loopback) = (reference.registry().to_owned(), reference.is_loopback());
        Self { address, is_loopback, link: OnceCell::new() }
    }

    fn link(&self) -> Result<&Link, RegistryError> {
        if let Some(link) = self.link.get() {
            return Ok(link);
        }
        let made = Link::to(&self.address, self.is_loopback)?;
        Ok(self.link.get_or_init(|| made))
    }

    /// Stores an image under a name, and gives its digest. `progress` is told of each blob before it goes.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not take it.
    pub fn push(
        &self,
        reference: &Reference,
        artifact: &Artifact,
        progress: &mut dyn FnMut(&Descriptor),
    ) -> Result<Digest, RegistryError> {
        let (image, digest) = (reference.inner(), artifact.digest());
        let Link { client, auth, .. } = self.link()?;
        let auth = client.auth(image, auth, RegistryOperation::Push);
        self.wait(reference, None, limit::MANIFEST_TIME, auth)?;
        for blob in artifact.blobs() {
            let name = blob.descriptor.digest.to_string();
            progress(&blob.descriptor);
            // What can't be asked for is pushed, and the answer to that counts.
            let there = client.blob_exists(image, &name);
            if self.wait(reference, None, limit::MANIFEST_TIME, there).is_ok_and(|there| there) {
                continue;
            }
            let push = client.push_blob(image, blob.bytes.clone(), &name);
            self.wait(reference, None, limit::LAYER_TIME, push)?;
        }
        let media = MANIFEST_TYPE.parse().map_err(host)?;
        let push = client.push_manifest_raw(image, artifact.manifest().to_vec(), media);
        self.wait(reference, None, limit::MANIFEST_TIME, push)?;
        Ok(digest)
    }

    /// Has an image's manifest in the cache; a tag is looked up, a digest is not asked for twice.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not give it, or gives something else.
    pub fn pull_manifest(
        &self,
        reference: &Reference,
        cache: &Cache,
    ) -> Result<Pulled, RegistryError> {
        let mut asked = reference.clone();
        // An index, and the image that is chosen from it.
        for _ in 0..2 {
            let bytes = self.document(&asked, cache)?;
            let refuse = |source| RegistryError::Document { image: reference.to_string(), source };
            match Document::parse(&bytes).map_err(refuse)? {
                Document::Manifest(manifest) => {
                    return Ok(Pulled { digest: Digest::of(&bytes), manifest });
                }
                Document::Index(index) => {
                    asked = reference.at(&index.wasm().map_err(refuse)?.digest);
                }
            }
        }
        let source = DocumentError::NoPlatform;
        Err(RegistryError::Document { image: reference.to_string(), source })
    }

    fn document(&self, asked: &Reference, cache: &Cache) -> Result<Vec<u8>, RegistryError> {
        if let Some(digest) = asked.digest()
            && let Some(bytes) = cache.read(&digest)?
        {
            return Ok(bytes);
        }
        let types = [MANIFEST_TYPE, INDEX_TYPE];
        let Link { client, auth, .. } = self.link()?;
        let pull = client.pull_manifest_raw(asked.inner(), auth, &types);
        let digest = asked.digest();
        let (bytes, _) = self.wait(asked, digest.as_ref(), limit::MANIFEST_TIME, pull)?;
        if let Some(digest) = digest
            && Digest::of(&bytes) != digest
        {
            return Err(RegistryError::Damaged { image: asked.to_string(), digest });
        }
        let len = bytes.len() as u64;
        if len > limit::MANIFEST_BYTES {
            let source = DocumentError::TooLong(len);
            return Err(RegistryError::Document { image: asked.to_string(), source });
        }
        cache.put(&bytes)?;
        Ok(bytes.into())
    }

    /// Has a blob of an image in the cache, and says where.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry does not give it, or gives something else.
    pub fn pull_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        cache: &Cache,
    ) -> Result<PathBuf, RegistryError> {
        if let Some(path) = cache.find(&blob.digest)? {
            return Ok(path);
        }
        let mut out = Out { draft: cache.draft(blob.size)?, broken: None };
        let name = blob.digest.to_string();
        let Link { client, auth, .. } = self.link()?;
        let pull = async {
            client.store_auth_if_needed(&self.address, auth).await;
            client.pull_blob(reference.inner(), name.as_str(), &mut out).await
        };
        let pulled = self.wait(reference, Some(&blob.digest), limit::LAYER_TIME, pull);
        if let Some(error) = out.broken.take() {
            return Err(cache.failed("write to")(error).into());
        }
        pulled?;
        let damaged =
            || RegistryError::Damaged { image: reference.to_string(), digest: blob.digest.clone() };
        out.draft.keep(&blob.digest)?.ok_or_else(damaged)
    }

    /// Waits for an answer, at most so long. `digest` is that of what is asked for.
    fn wait<T>(
        &self,
        reference: &Reference,
        digest: Option<&Digest>,
        time: Duration,
        answer: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, RegistryError> {
        let runtime = &self.link()?.runtime;
        let answer = runtime.block_on(async { tokio::time::timeout(time, answer).await });
        let late = |_| RegistryError::Unreachable {
            registry: self.address.clone(),
            reason: format!("it took more than {} s", time.as_secs()),
        };
        answer.map_err(late)?.map_err(|error| self.explain(reference, digest, error))
    }

    fn explain(
        &self,
        reference: &Reference,
        digest: Option<&Digest>,
        error: OciDistributionError,
    ) -> RegistryError {
        use OciDistributionError as E;
        let (image, registry) = (reference.to_string(), self.address.clone());
        let has = |code: &OciErrorCode| match &error {
            E::RegistryError { envelope, .. } => envelope.errors.iter().any(|it| it.code == *code),
            _ => false,
        };
        let missing =
            [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown];
        if missing.iter().any(has) || matches!(error, E::ImageManifestNotFoundError(_)) {
            return RegistryError::NotFound(image);
        }
        let closed = [OciErrorCode::Unauthorized, OciErrorCode::Denied];
        let reason = shown(&error);
        match error {
            E::UnauthorizedError { .. }
            | E::AuthenticationFailure(_)
            | E::ServerError { code: 401 | 403, .. } => {
                RegistryError::Denied { image, registry, reason }
            }
            E::ServerError { code: 404, .. } => RegistryError::NotFound(image),
            _ if closed.iter().any(has) => RegistryError::Denied { image, registry, reason },
            E::RequestError(_) => RegistryError::Unreachable { registry, reason },
            E::DigestError(_) => match digest {
                Some(digest) => RegistryError::Damaged { image, digest: digest.clone() },
                None => RegistryError::Refused { image, reason },
            },
            _ => RegistryError::Refused { image, reason },
        }
    }
}

impl Link {
    fn to(address: &str, is_loopback: bool) -> Result<Self, RegistryError> {
        // The provider that everything else here takes; it is there already from the second time on.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clear = if is_loopback { vec![address.to_owned()] } else { Vec::new() };
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(clear),
            connect_timeout: Some(limit::CONNECT),
            read_timeout: Some(limit::SILENCE),
            user_agent: concat!("roadrunner/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(host)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(host)?;
        Ok(Self { runtime, client, auth: credentials(address)? })
    }
}

/// What went wrong with its causes, in which a registry's words may be: cut, where they are long.
fn shown(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some say their cause themselves.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

fn host(error: impl std::error::Error) -> RegistryError {
    RegistryError::Host(shown(&error))
}

/// What `docker login` wrote down for a registry, in `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
fn credentials(registry: &str) -> Result<RegistryAuth, RegistryError> {
    use CredentialRetrievalError as E;
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(name, password)) => {
            Ok(RegistryAuth::Basic(name, password))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(RegistryAuth::Bearer(token)),
        Err(E::ConfigNotFound | E::ConfigReadError | E::NoCredentialConfigured) => {
            Ok(RegistryAuth::Anonymous)
        }
        Err(error) => {
            let why = format!("the credentials for {registry} can't be read: {error}");
            Err(RegistryError::Host(why))
        }
    }
}

/// A draft that the client writes to. Files are always ready.
struct Out<'c> {
    draft: Draft<'c>,
    /// What the disk said, which is no fault of the registry.
    broken: Option<io::Error>,
}

impl AsyncWrite for Out<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let out = self.get_mut();
        Poll::Ready(match out.draft.write(bytes) {
            Err(error) if error.kind() != io::ErrorKind::FileTooLarge => {
                out.broken = Some(error);
                Err(io::ErrorKind::Other.into())
            }
            written => written.map(|()| bytes.len()),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
