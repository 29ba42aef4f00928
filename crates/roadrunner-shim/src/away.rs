//! Functions on other nodes: where annotations say that they are, and how calls to and from there are protected.
//!
//! | annotation | what it says |
//! |---|---|
//! | `dev.roadrunner/address` | `NAME=[NODE@]HOST:PORT`, separated by commas: where functions are that no pod of this host serves; with the container's own function, where that takes calls of other nodes |
//! | `dev.roadrunner/tls` | the directory that the container mounts with its node's certificate: `ca.pem`, `cert.pem` and `key.pem` |
//! | `dev.roadrunner/insecure` | `true`: calls between nodes in the clear, by anybody |
//!
//! So all functions of a workflow can have the same list. `NODE` is the name in the other's certificate, without which
//! that is `HOST`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roadrunner_runtime::{Inbox, Terms};
use roadrunner_sys::open_below;
use roadrunner_transport::{Identity, IdentityError, Node, Protection, TcpServer};

use crate::error::Refusal;
use crate::spec::Spec;

/// Functions that one container may name: a workflow has tens.
const ADDRESSES: usize = 1024;

/// Before the name of a function whose successors are meant too, as calls between nodes have it: there is a workflow's name
/// before a function's.
pub(crate) const ONWARD: &str = "+";

/// Where functions are that this host may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Away {
    functions: BTreeMap<String, Address>,
    guard: Guard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    /// `HOST:PORT`.
    place: String,
    /// The name in its certificate.
    node: Option<String>,
}

/// What the calls are protected by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Guard {
    /// Nothing, and so they stay on the loopback.
    #[default]
    Loopback,
    /// The certificate in a directory that the container mounts.
    Tls(Mounted),
    Insecure,
}

impl Away {
    /// What the annotations of a container say.
    pub(crate) fn of<'a>(
        annotation: &dyn Fn(&str) -> Option<&'a str>,
        spec: &Spec,
    ) -> Result<Self, Refusal> {
        let guard = match (annotation("tls"), annotation("insecure")) {
            (Some(_), Some("true")) => {
                return Err(invalid(
                    "dev.roadrunner/tls and dev.roadrunner/insecure exclude each other",
                ));
            }
            (Some(folder), None | Some("false")) => Guard::Tls(mounted(folder, spec)?),
            (None, Some("true")) => Guard::Insecure,
            (None, None | Some("false")) => Guard::Loopback,
            (_, Some(other)) => {
                return Err(invalid(&format!(
                    "dev.roadrunner/insecure is {other:?}; it can be true or false"
                )));
            }
        };
        let mut functions = BTreeMap::new();
        let list = annotation("address").unwrap_or_default().split(',').map(str::trim);
        for entry in list.filter(|entry| !entry.is_empty()) {
            let (name, address) = Address::parse(entry).ok_or_else(|| {
                invalid(&format!("dev.roadrunner/address has {entry:?}; it takes NAME=HOST:PORT or NAME=NODE@HOST:PORT"))
            })?;
            if guard == Guard::Loopback && !address.is_on_loopback() {
                return Err(invalid(&format!(
                    "{entry:?} of dev.roadrunner/address is not on this host: it takes dev.roadrunner/tls with the directory \
                     of this node's certificate, or dev.roadrunner/insecure in a network where nobody else is"
                )));
            }
            if functions.insert(name.to_owned(), address).is_some() {
                return Err(invalid(&format!("dev.roadrunner/address has {name} twice")));
            }
        }
        if functions.len() > ADDRESSES {
            return Err(invalid(&format!("dev.roadrunner/address has over {ADDRESSES} functions")));
        }
        Ok(Self { functions, guard })
    }

    /// Whether it says where a function is.
    pub(crate) fn has(&self, function: &str) -> bool {
        self.functions.contains_key(function)
    }

    /// What the calls are protected by, read from its files.
    pub(crate) fn protection(&self) -> Result<Protection, Refusal> {
        match &self.guard {
            Guard::Loopback => Ok(Protection::Loopback),
            Guard::Insecure => Ok(Protection::Insecure),
            Guard::Tls(mounted) => {
                let identity = mounted.identity();
                let identity =
                    identity.map_err(|error| invalid(&format!("dev.roadrunner/tls: {error}")))?;
                Ok(Protection::Tls(identity))
            }
        }
    }

    /// What whoever reads the function's log should know.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        let is_insecure = self.guard == Guard::Insecure && !self.functions.is_empty();
        is_insecure.then_some(
            "warning: calls between nodes are in the clear, and anybody can make them (dev.roadrunner/insecure)",
        )
    }

    /// Where a function is called, and what with: all that follows it too, which its node knows, or it alone.
    pub(crate) fn node(
        &self,
        function: &str,
        onward: bool,
        protection: &Protection,
    ) -> Option<Node> {
        let Address { place, node } = self.functions.get(function)?.clone();
        let workflow = onward.then(|| ONWARD.to_owned());
        Some(Node { address: place, name: node, workflow, protection: protection.clone() })
    }

    /// Takes calls of other nodes for a function, where an address says so.
    pub(crate) fn listen(
        &self,
        function: &str,
        protection: Protection,
        inbox: Arc<dyn Inbox + Send + Sync>,
        terms: Terms,
    ) -> Result<Option<TcpServer>, Refusal> {
        let Some(Address { place, .. }) = self.functions.get(function) else { return Ok(None) };
        let server = TcpListener::bind(place)
            .and_then(|listener| TcpServer::on(listener, protection, inbox, terms));
        server.map(Some).map_err(Refusal::failed(format!("take calls of {function} at {place}")))
    }
}

impl Address {
    fn parse(entry: &str) -> Option<(&str, Self)> {
        let (name, place) = entry.split_once('=')?;
        let (node, place) = match place.split_once('@') {
            Some((node, place)) => (Some(node), place),
            None => (None, place),
        };
        let (host, port) = place.rsplit_once(':')?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        let is_right = is_port && !host.is_empty() && !name.is_empty() && node != Some("");
        is_right
            .then(|| (name.trim(), Self { place: place.to_owned(), node: node.map(String::from) }))
    }

    fn is_on_loopback(&self) -> bool {
        let host = self.place.rsplit_once(':').map_or("", |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// A directory that a container mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    /// What is mounted, on the host.
    source: PathBuf,
    /// Where in it the directory is.
    below: PathBuf,
}

impl Mounted {
    /// The identity in the directory. Its files are opened below what is mounted, which a container can put links into.
    fn identity(&self) -> Result<Identity, IdentityError> {
        let open = |path: &Path| {
            let root = File::open(&self.source)?;
            open_below(root.as_fd(), path)
        };
        Identity::load_by(&self.below, &open)
    }
}

/// Which directory of a container's mounts a path names. Only that: a pod's annotations come from people who may not see the
/// host's files.
fn mounted(folder: &str, spec: &Spec) -> Result<Mounted, Refusal> {
    let path = Path::new(folder);
    let mounts = spec.mounts.iter().filter(|it| it.is_bind());
    let below = mounts.filter_map(|it| Some((it, path.strip_prefix(&it.destination).ok()?)));
    // The one that is seen there covers those above it.
    let found = below.max_by_key(|(it, _)| it.destination.components().count());
    let is_plain =
        |rest: &Path| rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    match found {
        Some((mount, rest)) if is_plain(rest) => {
            Ok(Mounted { source: mount.source.clone(), below: rest.to_owned() })
        }
        _ => Err(invalid(&format!(
            "dev.roadrunner/tls is {folder:?}, and the container mounts no such directory"
        ))),
    }
}

fn invalid(why: &str) -> Refusal {
    Refusal::Invalid(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Mount;

    fn away(annotations: &[(&str, &'static str)]) -> Result<Away, Refusal> {
        let mount = |destination: &str, source: &str| Mount {
            destination: destination.into(),
            source: source.into(),
            kind: "bind".into(),
            options: Vec::new(),
        };
        let mounts = vec![mount("/etc", "/host/etc"), mount("/etc/tls", "/host/secret")];
        let spec = Spec { mounts, ..Spec::default() };
        let find = |name: &str| annotations.iter().find(|(it, _)| *it == name).map(|(_, it)| *it);
        Away::of(&find, &spec)
    }

    #[test]
    fn functions_are_where_annotations_say() {
        let list = "a=127.0.0.1:7400, b=edge-1@[::1]:7401 ,c=localhost:1,";
        let found = away(&[("address", list)]).unwrap();
        assert!(found.has("a") && found.has("c") && !found.has("d") && found.warning().is_none());
        let node = found.node("b", true, &Protection::Loopback).unwrap();
        assert_eq!((node.address.as_str(), node.name.as_deref()), ("[::1]:7401", Some("edge-1")));
        assert_eq!(node.workflow.as_deref(), Some(ONWARD));
        assert_eq!(found.node("a", false, &Protection::Loopback).unwrap().workflow, None);
        assert_eq!(away(&[]).unwrap(), Away::default());
    }

    #[test]
    fn other_hosts_take_a_certificate_or_a_word() {
        let far = ("address", "a=10.0.0.7:7400");
        let refused = away(&[far]).unwrap_err().to_string();
        assert!(refused.contains("dev.roadrunner/tls"), "{refused}");
        assert!(away(&[("address", "a=edge.example:7400")]).is_err(), "a name may be anywhere");
        assert!(away(&[far, ("insecure", "true")]).unwrap().warning().is_some());
        assert!(away(&[far, ("insecure", "false")]).is_err());
        let tls = away(&[far, ("tls", "/etc/tls/mine")]).unwrap();
        let mounted = Mounted { source: "/host/secret".into(), below: "mine".into() };
        assert_eq!(tls.guard, Guard::Tls(mounted), "the one that is seen there");
        let refused = tls.protection().unwrap_err().to_string();
        assert!(refused.contains("mine/ca.pem"), "{refused}");
    }

    #[test]
    fn links_of_a_container_lead_to_no_file_of_the_host() {
        let host = tempfile::tempdir().unwrap();
        let (secret, volume) = (host.path().join("ca.pem"), host.path().join("volume"));
        std::fs::write(&secret, "of the host").unwrap();
        std::fs::create_dir(&volume).unwrap();
        let why = |link: &str| {
            let mounted = Mounted { source: volume.clone(), below: PathBuf::new() };
            std::os::unix::fs::symlink(link, volume.join("ca.pem")).unwrap();
            let why = mounted.identity().unwrap_err();
            std::fs::remove_file(volume.join("ca.pem")).unwrap();
            why
        };
        for link in ["../ca.pem", secret.to_str().unwrap()] {
            let why = why(link);
            assert!(matches!(why, IdentityError::Unreadable { .. }), "{link}: {why}");
        }
        // As the kubelet lays a secret's files out.
        std::fs::create_dir(volume.join("..data")).unwrap();
        std::fs::write(volume.join("..data/ca.pem"), "of the volume").unwrap();
        let why = why("..data/ca.pem");
        assert!(matches!(why, IdentityError::Malformed { .. }), "{why}");
    }

    #[test]
    fn what_is_wrong_with_them_is_said() {
        let cases: [(&[(&str, &'static str)], &str); 9] = [
            (&[("address", "a")], "NAME=HOST:PORT"),
            (&[("address", "a=localhost")], "NAME=HOST:PORT"),
            (&[("address", "a=localhost:0")], "NAME=HOST:PORT"),
            (&[("address", "=localhost:1")], "NAME=HOST:PORT"),
            (&[("address", "a=@localhost:1")], "NAME=HOST:PORT"),
            (&[("address", "a=localhost:1,a=localhost:2")], "twice"),
            (&[("insecure", "yes")], "true or false"),
            (&[("insecure", "true"), ("tls", "/etc/tls")], "exclude"),
            (&[("tls", "/etc/../root")], "mounts no such directory"),
        ];
        for (annotations, expected) in cases {
            let refused = away(annotations).unwrap_err().to_string();
            assert!(refused.contains(expected), "{annotations:?}: {refused}");
        }
        for folder in ["/root/tls", "etc/tls", "", "/"] {
            let folder: &'static str = folder;
            assert!(away(&[("tls", folder)]).is_err(), "{folder:?} is not mounted");
        }
    }
}
