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

    /// Sees that a node's callers will believe its certificate: they expect the node's name in it.
    pub(crate) fn names_node(&self, protection: &Protection, node: &str) -> Result<(), Failure> {
        let (Protection::Tls(identity), Some(folder)) = (protection, &self.tls) else {
            return Ok(());
        };
        // What a wildcard stands for is the callers' to decide.
        let is_it = |name: &String| name == node || name.starts_with("*.");
        if identity.names().iter().any(is_it) {
            return Ok(());
        }
        let (folder, names) = (folder.display(), identity.names().join(", "));
        let what = format!(
            "{folder} has a certificate of {names}, so nobody would believe that this is node {node}; name the folder that `roadrunner certify {node}` made"
        );
        Err(Failure::new(Exit::Usage, what))
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
