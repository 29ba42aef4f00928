//! containerd's task API for the containers of one pod.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::shim_sync::Task;
use containerd_shim_protos::topics::{TASK_CREATE_EVENT_TOPIC, TASK_DELETE_EVENT_TOPIC};
use containerd_shim_protos::ttrpc::{Result as TtrpcResult, TtrpcContext};
use containerd_shim_protos::types::task::ProcessInfo;
use roadrunner_runtime::{FunctionSpec, Meter, ModuleSource, Process, Stop};

use crate::cgroup;
use crate::container::{Container, Ended, Metered, Stage, Work};
use crate::containerd::Store;
use crate::error::Refusal;
use crate::events::{Events, timestamp};
use crate::function::Served;
use crate::functions::Functions;
use crate::image;
use crate::module;
use crate::registry;
use crate::rootfs::Rootfs;
use crate::serve::{Exit, Lazy};
use crate::spec::Spec;
use crate::stats::OfPod;
use crate::streams::{Places, Streams};

/// What a guest without a limit of its own may use: all that it can address.
const ADDRESSABLE: u64 = 4 << 30;

/// The containers of a pod.
pub(crate) struct Pod {
    /// containerd's namespace and the pod's identifier.
    namespace: String,
    name: String,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// Those that are being made. Whoever needs both locks takes this one first.
    making: Mutex<HashSet<String>>,
    functions: Mutex<Option<Arc<Functions>>>,
    runtime: Lazy,
    images: Store,
    /// What it uses itself.
    own: OfPod,
    events: Arc<Events>,
    exit: Arc<Exit>,
    /// This process, which is every container's.
    pid: u32,
}

impl Pod {
    pub(crate) fn new(
        (namespace, name): (String, String),
        (runtime, images): (Lazy, Store),
        events: Arc<Events>,
        exit: Arc<Exit>,
    ) -> Self {
        let (pid, containers, functions) = (std::process::id(), Mutex::default(), Mutex::default());
        let (making, own) = (Mutex::default(), OfPod::default());
        Self {
            namespace,
            name,
            containers,
            making,
            functions,
            runtime,
            images,
            own,
            events,
            exit,
            pid,
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn making(&self) -> MutexGuard<'_, HashSet<String>> {
        // As above.
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more calls of functions.
    pub(crate) fn close(&self) {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(functions);
    }

    /// A container; with `exec` set one of further processes in it, which there are none of.
    fn find(&self, id: &str, exec: &str) -> Result<Arc<Container>, Refusal> {
        if !exec.is_empty() {
            return Err(Refusal::NotFound(format!("container {id} has no process {exec}")));
        }
        let found = self.containers().get(id).cloned();
        found.ok_or_else(|| Refusal::NotFound(format!("there is no container {id}")))
    }

    fn make(&self, request: &CreateTaskRequest) -> Result<Container, Refusal> {
        if !request.checkpoint.is_empty() || !request.parent_checkpoint.is_empty() {
            return Err(Refusal::Unsupported("checkpoints can't be restored"));
        }
        let bundle = PathBuf::from(&request.bundle);
        let spec = Spec::of_bundle(&bundle)?;
        if request.terminal || spec.process.terminal {
            return Err(Refusal::Unsupported(
                "a WebAssembly container has no terminal; start it without one",
            ));
        }
        if spec.has_user_namespace() {
            return Err(Refusal::Unsupported(
                "a WebAssembly container has no user namespace; its user is the host's",
            ));
        }
        let places = Places {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let mut rootfs = Rootfs::mount(&bundle, &spec, &request.rootfs)?;
        let stop = Arc::new(Stop::new().map_err(Refusal::failed("make a descriptor"))?);
        let metered = Metered {
            meter: Arc::default(),
            limit: spec.memory().map(|limit| limit.min(ADDRESSABLE)),
        };
        let (work, metered, open_end) = if spec.is_pod() {
            (Work::Pod, None, None)
        } else if let Some(served) = Served::of(&spec)? {
            let streams = Streams::open(&places)?;
            let meter = Arc::clone(&metered.meter);
            let work = self.function(&request.id, served, &spec, rootfs.path(), streams, meter)?;
            (work, Some(metered), None)
        } else {
            let mut streams = Streams::open(&places)?;
            let open_end = streams.open_end.take();
            let how = (&stop, Arc::clone(&metered.meter));
            let work = self.command(&request.id, &spec, &mut rootfs, streams, how)?;
            (work, Some(metered), open_end)
        };
        let names = (request.id.clone(), bundle, places);
        let events = Arc::clone(&self.events);
        Ok(Container::new(names, work, metered, stop, open_end, rootfs, events))
    }

    /// The code of a container: a file that it names, or a layer of its image.
    fn module(&self, id: &str, spec: &Spec, rootfs: &Path) -> Result<(String, Vec<u8>), Refusal> {
        // Files first: these take no question to containerd.
        let refusal = match module::find(spec, rootfs) {
            Err(refusal @ Refusal::Invalid(_)) => refusal,
            found => return found,
        };
        match image::find(&self.images, id, spec.process.args.first().map(String::as_str)) {
            Ok(Some(module)) => Ok(module),
            Ok(None) => Err(refusal),
            Err(Refusal::Invalid(why)) => Err(Refusal::Invalid(why)),
            Err(error) => Err(Refusal::Failed(format!("{refusal}; {error}"))),
        }
    }

    /// A container's command, compiled and linked.
    fn command(
        &self,
        id: &str,
        spec: &Spec,
        rootfs: &mut Rootfs,
        streams: Streams,
        (stop, meter): (&Arc<Stop>, Arc<Meter>),
    ) -> Result<Work, Refusal> {
        let (entry, bytes) = self.module(id, spec, rootfs.path())?;
        let source = ModuleSource::Bytes { name: entry, bytes: bytes.into() };
        let mut function = FunctionSpec::new(id, source);
        function.memory_bytes = spec.memory().unwrap_or(ADDRESSABLE).min(ADDRESSABLE);
        function.meter = Some(meter);
        function.wasi.env = spec.env();
        function.wasi.dirs = rootfs.directories(spec)?;
        let app = self.runtime.get()?.load(vec![function]);
        let app = app.map_err(|(_, error)| Refusal::Invalid(error.to_string()))?;
        let user = spec.process.user;
        let process = Process {
            args: spec.process.args.clone(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            owner: (user.uid != 0 || user.gid != 0).then_some((user.uid, user.gid)),
            stop: Arc::clone(stop),
        };
        Ok(Work::Command { app, name: id.to_owned(), process: Box::new(process) })
    }

    /// A container's function, which waits for payloads once it is started.
    fn function(
        &self,
        id: &str,
        served: Served,
        spec: &Spec,
        rootfs: &Path,
        streams: Streams,
        meter: Arc<Meter>,
    ) -> Result<Work, Refusal> {
        let (entry, bytes) = self.module(id, spec, rootfs)?;
        let module = ModuleSource::Bytes { name: entry, bytes: bytes.into() };
        let functions = self.functions(spec)?;
        let env = spec.env();
        Ok(Work::Serve(Box::new(move || functions.add(served, module, env, streams.stderr, meter))))
    }

    /// What takes calls of the pod's functions, from the first of them on.
    fn functions(&self, spec: &Spec) -> Result<Arc<Functions>, Refusal> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(functions) = &*functions {
            return Ok(Arc::clone(functions));
        }
        let dir = registry::dir(&self.namespace, spec);
        let opened = Arc::new(Functions::open(&dir, &self.name, self.runtime.clone())?);
        *functions = Some(Arc::clone(&opened));
        Ok(opened)
    }

    fn created(&self, request: CreateTaskRequest) {
        let CreateTaskRequest { id, bundle, rootfs, stdin, stdout, stderr, .. } = request;
        let io = TaskIO { stdin, stdout, stderr, ..TaskIO::default() };
        let event = TaskCreate {
            container_id: id,
            bundle,
            rootfs,
            io: MessageField::some(io),
            pid: self.pid,
            ..TaskCreate::default()
        };
        self.events.send(TASK_CREATE_EVENT_TOPIC, &event);
    }

    fn delete_one(&self, id: &str, exec: &str) -> Result<DeleteResponse, Refusal> {
        let container = self.find(id, exec)?;
        let ended = container.delete()?;
        if self.containers().remove(id).is_some()
            && let Some(figures) = container.figures()
        {
            self.own.without(figures);
        }
        let (exit_status, exited_at) = told(ended);
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid: self.pid,
            exit_status,
            exited_at: exited_at.clone(),
            ..TaskDelete::default()
        };
        self.events.send(TASK_DELETE_EVENT_TOPIC, &event);
        let pid = self.pid;
        Ok(DeleteResponse { pid, exit_status, exited_at, ..DeleteResponse::default() })
    }
}

/// A container that is being made, for as long as this lives.
struct Making<'p>(&'p Pod, String);

impl<'p> Making<'p> {
    fn begin(pod: &'p Pod, id: &str) -> Result<Self, Refusal> {
        let mut making = pod.making();
        if pod.containers().contains_key(id) || !making.insert(id.to_owned()) {
            return Err(Refusal::Exists(id.to_owned()));
        }
        Ok(Self(pod, id.to_owned()))
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.making().remove(&self.1);
    }
}

/// An end as messages have it.
fn told(
    ended: Option<Ended>,
) -> (u32, MessageField<containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp>) {
    let at = ended.map(|ended| timestamp(ended.at));
    (ended.map_or(0, |ended| ended.code), MessageField::from_option(at))
}

impl Task for Pod {
    fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        let _making = Making::begin(self, &request.id)?;
        let container = self.make(&request).inspect_err(|refusal| {
            tracing::error!(id = request.id, "can't create a container: {refusal}");
        })?;
        self.containers().insert(request.id.clone(), Arc::new(container));
        self.created(request);
        Ok(CreateTaskResponse { pid: self.pid, ..CreateTaskResponse::default() })
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        self.find(&request.id, &request.exec_id)?.start(self.pid)?;
        Ok(StartResponse { pid: self.pid, ..StartResponse::default() })
    }

    fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let container = self.find(&request.id, &request.exec_id)?;
        let (status, ended) = match container.stage() {
            Stage::Created => (Status::CREATED, None),
            Stage::Running => (Status::RUNNING, None),
            Stage::Stopped(ended) => (Status::STOPPED, Some(ended)),
        };
        let (exit_status, exited_at) = told(ended);
        Ok(StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: self.pid,
            status: status.into(),
            stdin: container.places.stdin.clone(),
            stdout: container.places.stdout.clone(),
            stderr: container.places.stderr.clone(),
            exit_status,
            exited_at,
            ..StateResponse::default()
        })
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        self.find(&request.id, &request.exec_id)?.kill(request.signal, self.pid)?;
        Ok(Empty::default())
    }

    fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let ended = self.find(&request.id, &request.exec_id)?.wait();
        let (exit_status, exited_at) = told(Some(ended));
        Ok(WaitResponse { exit_status, exited_at, ..WaitResponse::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        Ok(self.delete_one(&request.id, &request.exec_id)?)
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        self.find(&request.id, "")?;
        let own = ProcessInfo { pid: self.pid, ..ProcessInfo::default() };
        Ok(PidsResponse { processes: vec![own], ..PidsResponse::default() })
    }

    fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let figures = match self.find(&request.id, "")?.figures() {
            Some(figures) => figures,
            None => {
                let all: Vec<_> = self.containers().values().cloned().collect();
                let guests: Vec<_> = all.iter().filter_map(|it| it.figures()).collect();
                self.own.figures(&guests)?
            }
        };
        let stats = figures.message(cgroup::is_unified())?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        let container = self.find(&request.id, &request.exec_id)?;
        if request.stdin {
            container.close_stdin();
        }
        Ok(Empty::default())
    }

    fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        if !request.id.is_empty() {
            self.find(&request.id, "")?;
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (shim_pid, task_pid) = (self.pid, self.pid);
        Ok(ConnectResponse { shim_pid, task_pid, version, ..ConnectResponse::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> TtrpcResult<Empty> {
        // containerd asks after every container; the pod's process goes with its last one.
        let making = self.making();
        if request.now || (making.is_empty() && self.containers().is_empty()) {
            self.exit.ask();
        }
        Ok(Empty::default())
    }

    fn resize_pty(&self, _: &TtrpcContext, _: ResizePtyRequest) -> TtrpcResult<Empty> {
        Err(Refusal::Unsupported("a WebAssembly container has no terminal").into())
    }

    fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> TtrpcResult<Empty> {
        let why =
            "a WebAssembly container runs its entry point and nothing else: exec is not there";
        Err(Refusal::Unsupported(why).into())
    }

    fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> TtrpcResult<Empty> {
        Err(Refusal::Unsupported("a WebAssembly container can't be paused").into())
    }

    fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> TtrpcResult<Empty> {
        Err(Refusal::Unsupported("a WebAssembly container can't be paused").into())
    }

    fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(Refusal::Unsupported("a WebAssembly container can't be checkpointed").into())
    }

    fn update(&self, _: &TtrpcContext, _: UpdateTaskRequest) -> TtrpcResult<Empty> {
        Err(Refusal::Unsupported("a WebAssembly container's limits can't be changed").into())
    }
}
