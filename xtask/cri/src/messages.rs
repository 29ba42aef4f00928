//! The messages of CRI's `runtime.v1`, as far as the client needs them: a field that is not named here keeps its default
//! when it is sent and is passed over when it is received. The numbers are those of `k8s.io/cri-api`.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodConfig {
    #[prost(message, tag = "1")]
    pub(crate) metadata: Option<PodMetadata>,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[prost(message, tag = "8")]
    pub(crate) linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxPod {
    #[prost(string, tag = "1")]
    pub(crate) cgroup_parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunPod {
    #[prost(message, tag = "1")]
    pub(crate) config: Option<PodConfig>,
    #[prost(string, tag = "2")]
    pub(crate) runtime_handler: String,
}

/// A request that names a pod or a container, and an answer that does.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Id {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stop {
    #[prost(string, tag = "1")]
    pub(crate) container: String,
    /// Seconds that it has before it is killed.
    #[prost(int64, tag = "2")]
    pub(crate) timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodStatusResponse {
    #[prost(message, tag = "1")]
    pub(crate) status: Option<PodStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodStatus {
    /// 0 is ready, 1 is not.
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(message, tag = "5")]
    pub(crate) network: Option<PodNetwork>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodNetwork {
    #[prost(string, tag = "1")]
    pub(crate) ip: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Named {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) container_path: String,
    #[prost(string, tag = "2")]
    pub(crate) host_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerConfig {
    #[prost(message, tag = "1")]
    pub(crate) metadata: Option<Named>,
    #[prost(message, tag = "2")]
    pub(crate) image: Option<Named>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) command: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) envs: Vec<KeyValue>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(string, tag = "11")]
    pub(crate) log_path: String,
    #[prost(message, tag = "15")]
    pub(crate) linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainer {
    #[prost(message, tag = "1")]
    pub(crate) resources: Option<Resources>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resources {
    #[prost(int64, tag = "4")]
    pub(crate) memory_limit_bytes: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateContainer {
    #[prost(string, tag = "1")]
    pub(crate) pod: String,
    #[prost(message, tag = "2")]
    pub(crate) config: Option<ContainerConfig>,
    #[prost(message, tag = "3")]
    pub(crate) pod_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStatusResponse {
    #[prost(message, tag = "1")]
    pub(crate) status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStatus {
    /// 0 is created, 1 running, 2 exited, 3 unknown.
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(int32, tag = "7")]
    pub(crate) exit_code: i32,
    #[prost(string, tag = "10")]
    pub(crate) reason: String,
    #[prost(string, tag = "11")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStatsResponse {
    #[prost(message, tag = "1")]
    pub(crate) stats: Option<ContainerStats>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStats {
    #[prost(message, tag = "2")]
    pub(crate) cpu: Option<CpuUsage>,
    #[prost(message, tag = "3")]
    pub(crate) memory: Option<MemoryUsage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodStatsResponse {
    #[prost(message, tag = "1")]
    pub(crate) stats: Option<PodStats>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodStats {
    /// The same fields as of a container, one earlier; its message is what matters here.
    #[prost(message, tag = "2")]
    pub(crate) linux: Option<LinuxPodStats>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxPodStats {
    #[prost(message, tag = "1")]
    pub(crate) cpu: Option<CpuUsage>,
    #[prost(message, tag = "2")]
    pub(crate) memory: Option<MemoryUsage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CpuUsage {
    #[prost(message, tag = "2")]
    pub(crate) core_ns: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemoryUsage {
    #[prost(message, tag = "2")]
    pub(crate) working_set_bytes: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}
