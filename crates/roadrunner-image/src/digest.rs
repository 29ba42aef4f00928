//! The name of a blob: the SHA-256 of its bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a digest begins with; others are not read.
const ALGORITHM: &str = "sha256:";

/// Letters of a SHA-256 in hexadecimal.
const HEX: usize = 64;

/// The SHA-256 of a blob, shown as `sha256:` and 64 letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// What is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 letters of 0-9 and a-f, which this is not: {0:?}")]
pub struct DigestError(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::end(Sha256::new_with_prefix(bytes))
    }

    /// Of what was fed to the hash.
    pub(crate) fn end(hash: Sha256) -> Self {
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The 64 letters; safe as a part of paths.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let is_hex = |hex: &&str| {
            hex.len() == HEX && hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        };
        let hex = text.strip_prefix(ALGORITHM).filter(is_hex);
        // What a registry says is shown cut: it may be long.
        hex.map(|hex| Self(hex.into()))
            .ok_or_else(|| DigestError(text.chars().take(ALGORITHM.len() + HEX + 1).collect()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_shown() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn what_could_be_a_path_or_another_spelling_is_none() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let upper = format!("sha256:{}", hex.to_uppercase());
        let bad = ["", "sha256:", "sha256:../../x", hex, "sha512:00", &upper];
        for text in bad.iter().copied().chain([format!("sha256:{hex}0").as_str()]) {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
