//! How calls between hosts are protected: what was typed, and the certificates it names.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use roadrunner_transport::{Identity, Protection};

use crate::exit::{Exit, Failure};
use crate::output;

/// Protection of calls to and from other hosts.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Security {
    /// A folder with this node's certificate, for calls of other hosts: ca.pem, cert.pem and key.pem.
    /// `roadrunner certify` makes one.
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<PathBuf>,
    /// Call other hosts, and be called by them, in the clear and by anybody.
    #[arg(long, conflicts_with = "tls")]
    pub(crate) insecure: bool,
}

impl Security {
    /// Reads the certificates.
    pub(crate) fn protection(&self) -> Result<Protection, Failure> {
        match &self.tls {
            Some(folder) => match Identity::load(folder) {
                Ok(identity) => Ok(Protection::Tls(identity)),
                Err(error) => Err(Failure::new(Exit::Usage, error.to_string())),
            },
            None if self.insecure => Ok(Protection::Insecure),
            None => Ok(Protection::Loopback),
        }
    }

    /// Says once what --insecure means.
    pub(crate) fn warn(&self) {
        if self.insecure {
            output::complain(
                "warning: calls between hosts are in the clear, and anybody can make them (--insecure)",
            );
        }
    }

    /// The same for another process of the program.
    pub(crate) fn options(&self) -> Vec<OsString> {
        match &self.tls {
            Some(folder) => vec!["--tls".into(), folder.into()],
            None if self.insecure => vec!["--insecure".into()],
            None => Vec::new(),
        }
    }
}
