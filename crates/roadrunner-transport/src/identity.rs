//! Who this host is to others, and whom it believes: the certificates of TLS between nodes.
//!
//! ```text
//! FOLDER/ca.pem     the authorities that sign the nodes' certificates
//! FOLDER/cert.pem   this node's certificate, and those between it and an authority
//! FOLDER/key.pem    its private key
//! ```
//!
//! A node's names are the DNS names of its certificate. Both sides show theirs.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Longest file in bytes: a few hundred certificates.
const FILE_BYTES: u64 = 1 << 20;

/// The files of a folder.
const AUTHORITIES: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// How a file is opened.
type Open<'a> = dyn Fn(&Path) -> io::Result<File> + 'a;

/// A node's certificate, its key, and the authorities that it believes.
#[derive(Clone)]
pub struct Identity {
    names: Arc<[String]>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

/// Why a folder holds no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file can't be read.
    #[error("can't read {}: {reason}; a folder for TLS has {AUTHORITIES}, {CERTIFICATE} and {KEY}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is no {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The certificate would be refused by every peer with the same authorities.
    #[error("{} would be refused by other nodes: {reason}", path.display())]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Identity {
    /// Reads a folder's files and makes sure that they fit together and are valid now.
    ///
    /// # Errors
    /// [`IdentityError`] with the file that is wrong.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        Self::load_by(folder, &|path| File::open(path))
    }

    /// As [`Identity::load`], with files that `open` opens: where others can put links into the folder, it is for it to see
    /// that they lead nowhere else.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load_by(folder: &Path, open: &Open<'_>) -> Result<Self, IdentityError> {
        let at = |name: &str| folder.join(name);
        let authorities = certificates(&at(AUTHORITIES), open, "list of certificates in PEM")?;
        let chain = certificates(&at(CERTIFICATE), open, "certificate in PEM")?;
        let key = read(&at(KEY), open)?;
        let key = PrivateKeyDer::from_pem_slice(&key);
        let key = key.map_err(|error| malformed(at(KEY), "private key in PEM", error))?;
        let names = names_of(&chain[0]);
        let names = names.map_err(|error| malformed(at(CERTIFICATE), "certificate", error))?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| {
                malformed(at(AUTHORITIES), "list of authorities' certificates", error)
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots);
        let callers =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let callers = callers
            .build()
            .map_err(|error| malformed(at(AUTHORITIES), "list of authorities", error))?;
        let nodes = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let nodes = nodes
            .build()
            .map_err(|error| malformed(at(AUTHORITIES), "list of authorities", error))?;
        let valid = callers.verify_client_cert(&chain[0], &chain[1..], UnixTime::now());
        let refused = |reason: String| IdentityError::Refused { path: at(CERTIFICATE), reason };
        valid.map_err(|error| refused(error.to_string()))?;
        if names.is_empty() {
            let reason = "it has no DNS name, which is a node's name (subjectAltName)".to_owned();
            return Err(refused(reason));
        }
        let mismatch = |error| malformed(at(KEY), "key of this certificate", error);
        let only = &[&rustls::version::TLS13];
        let version = |error| malformed(at(KEY), "key for TLS 1.3", error);
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(only)
            .map_err(version)?
            .with_client_cert_verifier(callers)
            .with_single_cert(chain.clone(), key.clone_key());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(only)
            .map_err(version)?
            .with_webpki_verifier(nodes)
            .with_client_auth_cert(chain, key);
        let (mut server, mut client) = (server.map_err(mismatch)?, client.map_err(mismatch)?);
        // Sessions are not resumed: connections are pooled, and each shows its certificates.
        server.send_tls13_tickets = 0;
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Self { names: names.into(), client: Arc::new(client), server: Arc::new(server) })
    }

    /// This node's names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The DNS names of a certificate, wildcards left out: nobody is called so.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)?;
    let names = parsed.valid_dns_names().filter(|name| !name.starts_with('*'));
    Ok(names.map(str::to_owned).collect())
}

fn certificates(
    path: &Path,
    open: &Open<'_>,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(path, open)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|error| malformed(path.into(), what, error))?;
    if read.is_empty() {
        return Err(malformed(path.into(), what, "it has no certificate"));
    }
    Ok(read)
}

fn read(path: &Path, open: &Open<'_>) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(reason) => Err(IdentityError::Unreadable { path: path.into(), reason }),
    }
}

fn malformed(path: PathBuf, what: &'static str, reason: impl ToString) -> IdentityError {
    IdentityError::Malformed { path, what, reason: reason.to_string() }
}
