//! Where an image is: a registry, a name there, and a tag or a digest.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::Digest;

/// `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:DIGEST`. Nothing of it is filled in: which registry a short name means
/// depends on who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(oci_client::Reference);

/// What is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no image: {reason}; write REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST"
)]
pub struct ReferenceError {
    text: String,
    reason: String,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason: &str| ReferenceError { text: text.into(), reason: reason.into() };
        let registry = text.split_once('/').map(|(registry, _)| registry);
        // As Docker tells a registry from the first part of a name.
        if !registry.is_some_and(|it| it == "localhost" || it.contains(['.', ':'])) {
            return Err(refuse("it says no registry"));
        }
        let parsed = oci_client::Reference::try_from(text);
        let parsed = parsed.map_err(|error| refuse(&error.to_string()))?;
        let named = text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        if !named {
            return Err(refuse("it says neither a tag nor a digest"));
        }
        let is_right = |digest: &str| digest.parse::<Digest>().is_ok();
        if parsed.digest().is_some_and(|digest| !is_right(digest)) {
            return Err(refuse("its digest is no SHA-256"));
        }
        Ok(Self(parsed))
    }
}

impl Reference {
    /// The digest, where it says one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|digest| digest.parse().ok())
    }

    /// The same image by this digest.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        let (registry, name) = (self.0.registry().into(), self.0.repository().into());
        Self(oci_client::Reference::with_digest(registry, name, digest.to_string()))
    }

    /// `HOST` or `HOST:PORT` of the registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Whether the registry is on this host, so that nobody else hears what it says.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let registry = self.registry();
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    pub(crate) fn inner(&self) -> &oci_client::Reference {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_in_full() {
        let hex = Digest::of(b"x");
        let exact = format!("localhost:5000/a/b@{hex}");
        for good in ["ghcr.io/x/y:1", "localhost/x:latest", "127.0.0.1:5000/a:1.2-b", &exact] {
            let reference: Reference = good.parse().unwrap();
            assert_eq!(reference.to_string(), good);
        }
        for bad in [
            "",
            "x:1",
            "x/y:1",
            "ghcr.io/x/y",
            "localhost:5000/x",
            "ghcr.io/X:1",
            "ghcr.io/x@sha256:12",
            "ghcr.io/../x:1",
            "ghcr.io/x:1 2",
            "http://ghcr.io/x:1",
        ] {
            let refused = bad.parse::<Reference>().unwrap_err().to_string();
            assert!(refused.contains("write REGISTRY/NAME:TAG"), "{refused}");
        }
        let by_tag: Reference = "localhost:5000/a/b:1".parse().unwrap();
        assert_eq!(by_tag.digest(), None);
        assert_eq!(by_tag.at(&hex).to_string(), exact);
        assert_eq!(exact.parse::<Reference>().unwrap().digest(), Some(hex));
    }

    #[test]
    fn only_this_host_is_spoken_to_in_the_clear() {
        for (text, expected) in [
            ("localhost/x:1", true),
            ("localhost:5000/x:1", true),
            ("127.0.0.2:1/x:1", true),
            ("127.0.0.1.example.com/x:1", false),
            ("localhost.example.com/x:1", false),
            ("ghcr.io/x:1", false),
            ("10.0.0.1:5000/x:1", false),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().is_loopback(), expected, "{text}");
        }
    }
}
