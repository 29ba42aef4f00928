//! A container's configuration: the parts of OCI's `config.json` that mean something to a sandbox.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Refusal;

/// Bytes of a `config.json`: those of Kubernetes have some ten thousand.
const CONFIG_BYTES: u64 = 8 << 20;

/// By which containerd's CRI plugin tells the pod of a container, and users of other clients may.
const POD: &str = "io.kubernetes.cri.sandbox-id";

/// By which it tells a pod's own container, which runs nothing, from the others.
const KIND: &str = "io.kubernetes.cri.container-type";

/// By which it tells the namespace of Kubernetes.
const NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";

/// By which it tells what a container is called in its pod.
const NAME: &str = "io.kubernetes.cri.container-name";

/// The file of the configuration in a container's directory.
pub(crate) const FILE: &str = "config.json";

/// What is asked of this runtime. What else there is in the file is of no meaning here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    pub(crate) process: Process,
    pub(crate) root: Root,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) linux: Linux,
}

/// What runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) terminal: bool,
    pub(crate) user: User,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
}

/// For whom it acts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Its root file system.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
}

/// Something that it sees in its file system.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Mount {
    pub(crate) destination: PathBuf,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) source: PathBuf,
    pub(crate) options: Vec<String>,
}

/// What is Linux's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Linux {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) resources: Option<Resources>,
    /// The control group to be in.
    pub(crate) cgroups_path: Option<String>,
}

/// A namespace that it runs in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// An existing one; without, a new one.
    pub(crate) path: Option<PathBuf>,
}

/// How much it may use.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    memory: Option<Memory>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    /// In bytes; negative without a limit.
    limit: Option<i64>,
}

impl Spec {
    /// Reads the configuration of the container in this directory.
    pub(crate) fn of_bundle(bundle: &Path) -> Result<Self, Refusal> {
        let path = bundle.join(FILE);
        let shown = path.display();
        let len = fs::metadata(&path).map_err(Refusal::failed(format!("read {shown}")))?.len();
        if len > CONFIG_BYTES {
            let limit = format!("{shown} has {len} bytes, over the limit of {CONFIG_BYTES}");
            return Err(Refusal::Invalid(limit));
        }
        let text = fs::read(&path).map_err(Refusal::failed(format!("read {shown}")))?;
        serde_json::from_slice(&text)
            .map_err(|error| Refusal::Invalid(format!("{shown} is no configuration: {error}")))
    }

    /// The identifier of the pod that a container belongs to: its own where it says nothing.
    pub(crate) fn pod<'a>(&'a self, id: &'a str) -> &'a str {
        self.annotations.get(POD).map_or(id, String::as_str)
    }

    /// Whether it is a pod's own container, which lives as long as the pod and runs nothing.
    pub(crate) fn is_pod(&self) -> bool {
        self.annotations.get(KIND).is_some_and(|kind| kind == "sandbox")
    }

    /// The namespace of Kubernetes that its pod is in.
    pub(crate) fn kubernetes_namespace(&self) -> Option<&str> {
        self.annotations.get(NAMESPACE).map(String::as_str)
    }

    /// The network namespace to enter, where it is not the host's.
    pub(crate) fn network(&self) -> Option<&Path> {
        let mut all = self.linux.namespaces.iter();
        all.find(|it| it.kind == "network")?.path.as_deref()
    }

    /// Whether its users are to be others than the host's.
    pub(crate) fn has_user_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|it| it.kind == "user")
    }

    /// What Kubernetes calls the container.
    pub(crate) fn container_name(&self) -> Option<&str> {
        self.annotations.get(NAME).map(String::as_str)
    }

    /// Bytes of memory that it may use, where that is limited.
    pub(crate) fn memory(&self) -> Option<u64> {
        let limit = self.linux.resources.as_ref()?.memory.as_ref()?.limit?;
        u64::try_from(limit).ok().filter(|limit| *limit > 0)
    }

    /// The name of the control group to be in, where there is one.
    pub(crate) fn cgroup(&self) -> Option<&str> {
        self.linux.cgroups_path.as_deref().filter(|name| !name.is_empty())
    }

    /// Its environment; of a name that is there twice the last one counts.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let pairs = self.process.env.iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl Mount {
    /// Whether an option is set.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it == option)
    }

    /// Whether it shows something of the host.
    pub(crate) fn is_bind(&self) -> bool {
        self.kind == "bind" || self.has("bind") || self.has("rbind")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_matters_is_read_and_the_rest_passed_over() {
        let spec = spec(
            r#"{"ociVersion": "1.1.0", "hostname": "x",
                "process": {"args": ["/a.wasm", "b"], "env": ["A=1", "B=x=y", "bad", "A=2"], "cwd": "/",
                            "user": {"uid": 7, "gid": 8, "additionalGids": [1]}, "capabilities": {}},
                "root": {"path": "rootfs", "readonly": true},
                "mounts": [{"destination": "/d", "source": "/s", "type": "none", "options": ["rbind", "ro"]},
                           {"destination": "/proc", "source": "proc", "type": "proc"}],
                "annotations": {"io.kubernetes.cri.sandbox-id": "pod"},
                "linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/n"}],
                          "cgroupsPath": "/k8s.io/x",
                          "resources": {"memory": {"limit": 1000}, "cpu": {"shares": 2}}}}"#,
        );
        assert_eq!(spec.pod("own"), "pod");
        assert!(!spec.is_pod() && spec.root.readonly);
        assert_eq!(spec.network(), Some(Path::new("/n")));
        assert_eq!(spec.memory(), Some(1000));
        assert_eq!(spec.cgroup(), Some("/k8s.io/x"));
        assert_eq!((spec.process.user.uid, spec.process.user.gid), (7, 8));
        let env: Vec<_> = spec.env().into_iter().collect();
        assert_eq!(env, [("A".into(), "2".into()), ("B".into(), "x=y".into())]);
        assert_eq!(spec.mounts.iter().map(Mount::is_bind).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn nothing_is_needed() {
        let empty = spec("{}");
        assert_eq!(empty.pod("own"), "own");
        assert_eq!((empty.network(), empty.memory(), empty.cgroup()), (None, None, None));
        assert!(!empty.has_user_namespace());
        assert!(spec(r#"{"linux": {"namespaces": [{"type": "user"}]}}"#).has_user_namespace());
        assert_eq!(spec(r#"{"linux": {"resources": {"memory": {"limit": -1}}}}"#).memory(), None);
        assert_eq!(spec(r#"{"linux": {"namespaces": [{"type": "network"}]}}"#).network(), None);
        let kind = r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}"#;
        assert!(spec(kind).is_pod());
    }

    #[test]
    fn a_file_that_is_no_configuration_is_named() {
        let bundle = tempfile::tempdir().unwrap();
        let refused = Spec::of_bundle(bundle.path()).unwrap_err().to_string();
        assert!(refused.contains("config.json") && refused.contains("No such file"), "{refused}");
        fs::write(bundle.path().join(FILE), "{").unwrap();
        let refused = Spec::of_bundle(bundle.path()).unwrap_err().to_string();
        assert!(refused.contains("no configuration"), "{refused}");
    }
}
