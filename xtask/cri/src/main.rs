//! A client of CRI, as the kubelet is one: each call of this program is one request to the runtime, and prints what matters
//! of the answer in a line. `cargo xtask e2e containerd` drives containerd's CRI plugin with it.
//!
//! A program of its own and not a part of `xtask`, which links no asynchronous code and is built in seconds.

mod messages;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use messages as m;

/// One request may pull in a whole pod; the kubelet itself waits for two minutes.
const PATIENCE: Duration = Duration::from_secs(120);

/// One request to a container runtime.
#[derive(Parser)]
struct Cli {
    /// The runtime's socket.
    #[arg(long)]
    socket: String,
    #[command(subcommand)]
    request: Request,
}

#[derive(Subcommand)]
enum Request {
    /// Starts a pod, and prints its identifier.
    RunPod {
        #[command(flatten)]
        pod: Pod,
        /// The runtime class's handler.
        #[arg(long)]
        handler: String,
    },
    /// Makes a container in a pod, and prints its identifier.
    Create {
        /// The pod's identifier.
        id: String,
        #[command(flatten)]
        pod: Pod,
        #[arg(long)]
        container: String,
        #[arg(long)]
        image: String,
        #[arg(long, value_parser = pair)]
        env: Vec<(String, String)>,
        /// A directory of the host's and where the container sees it.
        #[arg(long, value_parser = pair)]
        mount: Vec<(String, String)>,
        /// Most bytes of memory.
        #[arg(long, default_value_t = 0)]
        memory: i64,
        command: Vec<String>,
    },
    /// Starts a container.
    Start { id: String },
    /// Prints a container's state, exit code, reason and message.
    Status { id: String },
    /// Prints what a container uses.
    Stats { id: String },
    /// Prints what a pod uses.
    PodStats { id: String },
    /// Ends a container, which has so many seconds to end itself.
    Stop {
        id: String,
        #[arg(long, default_value_t = 2)]
        timeout: i64,
    },
    /// Removes a container.
    Remove { id: String },
    /// Prints a pod's state and address.
    PodStatus { id: String },
    /// Ends a pod with its containers.
    StopPod { id: String },
    /// Removes a pod with its containers.
    RemovePod { id: String },
}

/// What the kubelet repeats with each container of a pod.
#[derive(Args)]
struct Pod {
    /// The pod's name.
    #[arg(long)]
    name: String,
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The directory for its containers' logs.
    #[arg(long)]
    logs: String,
    #[arg(long, default_value = "")]
    cgroup: String,
    #[arg(long, value_parser = pair)]
    annotation: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Pod {
    fn config(&self) -> m::PodConfig {
        let metadata = m::PodMetadata {
            name: self.name.clone(),
            uid: format!("uid-{}", self.name),
            namespace: self.namespace.clone(),
        };
        m::PodConfig {
            metadata: Some(metadata),
            log_directory: self.logs.clone(),
            annotations: self.annotation.iter().cloned().collect::<BTreeMap<_, _>>(),
            linux: Some(m::LinuxPod { cgroup_parent: self.cgroup.clone() }),
        }
    }
}

/// A connection to the runtime.
struct Client(Grpc<Channel>);

impl Client {
    async fn connect(socket: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{socket}"))?.timeout(PATIENCE);
        let channel = endpoint.connect().await;
        Ok(Self(Grpc::new(channel.with_context(|| format!("nobody answers at {socket}"))?)))
    }

    async fn ask<Q, A>(&mut self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await?;
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.0.unary(tonic::Request::new(request), path, codec).await;
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => anyhow::bail!("{method}: {:?}: {}", status.code(), status.message()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match answer(Cli::parse()).await {
        Ok(line) => {
            #[expect(clippy::print_stdout, reason = "the answer is what this program is for")]
            {
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn answer(cli: Cli) -> Result<String> {
    let mut client = Client::connect(&cli.socket).await?;
    let done = |_: m::Empty| String::new();
    match cli.request {
        Request::RunPod { pod, handler } => {
            let run = m::RunPod { config: Some(pod.config()), runtime_handler: handler };
            client.ask("RunPodSandbox", run).await.map(|pod: m::Id| pod.id)
        }
        Request::Create { id, pod, container, image, env, mount, memory, command } => {
            let config = m::ContainerConfig {
                log_path: format!("{container}.log"),
                metadata: Some(m::Named { name: container }),
                image: Some(m::Named { name: image }),
                command,
                envs: env.into_iter().map(|(key, value)| m::KeyValue { key, value }).collect(),
                mounts: mount
                    .into_iter()
                    .map(|(host_path, container_path)| m::Mount { container_path, host_path })
                    .collect(),
                linux: Some(m::LinuxContainer {
                    resources: Some(m::Resources { memory_limit_bytes: memory }),
                }),
            };
            let (config, pod_config) = (Some(config), Some(pod.config()));
            let create = m::CreateContainer { pod: id, config, pod_config };
            client.ask("CreateContainer", create).await.map(|made: m::Id| made.id)
        }
        Request::Start { id } => client.ask("StartContainer", m::Id { id }).await.map(done),
        Request::Status { id } => {
            let answer: m::ContainerStatusResponse =
                client.ask("ContainerStatus", m::Id { id }).await?;
            let it = answer.status.context("the answer has no status")?;
            let states = ["created", "running", "exited"];
            let state = usize::try_from(it.state).ok().and_then(|at| states.get(at));
            let state = state.unwrap_or(&"unknown");
            Ok(format!("{state} {} {}: {}", it.exit_code, it.reason, it.message))
        }
        Request::Stats { id } => {
            let answer: m::ContainerStatsResponse =
                client.ask("ContainerStats", m::Id { id }).await?;
            let it = answer.stats.context("the answer has no statistics")?;
            usage(it.cpu, it.memory)
        }
        Request::PodStats { id } => {
            let answer: m::PodStatsResponse = client.ask("PodSandboxStats", m::Id { id }).await?;
            let it = answer.stats.and_then(|it| it.linux);
            let it = it.context("the answer has no statistics")?;
            usage(it.cpu, it.memory)
        }
        Request::Stop { id, timeout } => {
            client.ask("StopContainer", m::Stop { container: id, timeout }).await.map(done)
        }
        Request::Remove { id } => client.ask("RemoveContainer", m::Id { id }).await.map(done),
        Request::PodStatus { id } => {
            let answer: m::PodStatusResponse = client.ask("PodSandboxStatus", m::Id { id }).await?;
            let it = answer.status.context("the answer has no status")?;
            let state = if it.state == 0 { "ready" } else { "notready" };
            Ok(format!("{state} {}", it.network.unwrap_or_default().ip))
        }
        Request::StopPod { id } => client.ask("StopPodSandbox", m::Id { id }).await.map(done),
        Request::RemovePod { id } => client.ask("RemovePodSandbox", m::Id { id }).await.map(done),
    }
}

/// Processor time in nanoseconds and memory in bytes, as a line.
fn usage(cpu: Option<m::CpuUsage>, memory: Option<m::MemoryUsage>) -> Result<String> {
    let cpu = cpu.and_then(|it| it.core_ns).context("it says no processor time")?.value;
    let memory = memory.and_then(|it| it.working_set_bytes);
    let memory = memory.context("it says no memory")?.value;
    Ok(format!("{cpu} {memory}"))
}
