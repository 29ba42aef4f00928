//! A workflow made ready: each function that runs here compiled and linked, and a way to each other one.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use roadrunner_runtime::{
    App, BufferError, FunctionSpec, Home, LoadError, Meter, Mode, ModuleSource, Remote, Retrying,
    Runtime, Sealed, Terms, WasiDir, WasiSpec,
};

use crate::plan::{Backing, Plan};
use crate::workflow::{Function, FunctionIndex, Module, Placement, Workflow};

/// Why a workflow can't be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A function can't be loaded.
    #[error("function `{function}`: {source}")]
    Load {
        /// Its name.
        function: String,
        /// Why.
        source: LoadError,
    },
    /// A function's module is in an image, and nobody said which file that is.
    #[error("function `{function}`: its image {image} was not pulled")]
    Image {
        /// Its name.
        function: String,
        /// The image.
        image: String,
    },
    /// There is no way to where a function is placed.
    #[error("function `{function}` is placed where there is no way to from here: {placement}")]
    Placement {
        /// Its name.
        function: String,
        /// Its placement, as the manifest says it.
        placement: String,
    },
}

/// Where a workflow is loaded, and what can be reached from there.
pub struct Place<'p> {
    /// Functions with this placement are loaded.
    pub here: Placement,
    /// Whether there is a way to another placement.
    pub can_reach: &'p dyn Fn(&Placement) -> bool,
    /// That way.
    pub way: &'p dyn Fn(&Placement, &Terms) -> Remote,
    /// Whether other processes are of this trust domain, so that payloads can go there in segments.
    pub trusted: bool,
    /// What counts what a function uses here, by its name.
    pub meter: &'p dyn Fn(&str) -> Option<Arc<Meter>>,
}

impl AsRef<Self> for Executable {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Place<'_> {
    /// In the one process that runs everything.
    #[must_use]
    pub fn alone() -> Self {
        let way = &|_: &Placement, _: &Terms| unreachable!("nothing else can be reached");
        let (can_reach, meter) = (&|_: &Placement| false, &|_: &str| None);
        Self { here: Placement::Local, can_reach, way, trusted: true, meter }
    }
}

/// A workflow whose functions are compiled and linked.
#[derive(Debug)]
pub struct Executable {
    pub(crate) workflow: Workflow,
    pub(crate) plan: Plan,
    pub(crate) app: Arc<App>,
}

impl Executable {
    /// Loads the functions that are placed here; `source` says where the module that the manifest names
    /// is.
    ///
    /// # Errors
    /// When a function can't be loaded, or there is no way to one that is placed elsewhere.
    pub fn load(
        runtime: &Runtime,
        workflow: Workflow,
        source: &dyn Fn(&Path) -> ModuleSource,
        place: &Place<'_>,
    ) -> Result<Self, PrepareError> {
        let plan = workflow.plan();
        let mut specs = Vec::new();
        let mut elsewhere = Vec::new();
        for index in workflow.indexes() {
            let function = &workflow[index];
            if function.placement == place.here {
                let module = match &function.module {
                    Module::File(path) => source(path),
                    Module::Image(image) => {
                        let (function, image) = (function.name.clone(), image.clone());
                        return Err(PrepareError::Image { function, image });
                    }
                };
                let backing = match plan.backing(index) {
                    Backing::Passed if !place.trusted => Backing::Shared,
                    backing => backing,
                };
                let mut spec = spec(&workflow, function, backing, module);
                spec.meter = (place.meter)(&function.name);
                specs.push(spec);
            } else if (place.can_reach)(&function.placement) {
                elsewhere.push(function);
            } else if is_needed(&workflow, index) {
                let placement = workflow.say(&function.placement);
                return Err(PrepareError::Placement { function: function.name.clone(), placement });
            }
        }
        let ways = |terms: &Terms| {
            let mut ways: HashMap<&Placement, Remote> = HashMap::new();
            let mut remotes = HashMap::new();
            for function in &elsewhere {
                let make = || (place.way)(&function.placement, terms);
                let way = ways.entry(&function.placement).or_insert_with(make);
                let way: Remote = match function.retries {
                    0 => Arc::clone(way),
                    retries => Arc::new(Retrying::new(Arc::clone(way), retries)),
                };
                remotes.insert(function.name.clone(), way);
            }
            remotes
        };
        let app = runtime
            .load_beside(specs, ways)
            .map_err(|(function, source)| PrepareError::Load { function, source })?;
        Ok(Self { workflow, plan, app })
    }

    /// The workflow.
    #[must_use]
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// Its functions, for calling them one by one.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// An input of `len` bytes that `write` fills, in pages that can go to the first function.
    ///
    /// # Errors
    /// When the kernel has no memory or descriptor, or `write` fails.
    pub fn input(
        &self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<Sealed<'static>, BufferError> {
        let entry = &self.workflow[self.workflow.entry()];
        match self.app.mode_of(&entry.name) {
            Some(Mode::Kernel) => Sealed::write_shared(len, self.home(), write),
            _ => Sealed::write(len, self.home(), write),
        }
    }

    /// Where the workflow's pages belong: for making an input that can move.
    #[must_use]
    pub fn home(&self) -> &Home {
        self.app.home()
    }
}

/// Whether a function is called from where its workflow is loaded: by the executor, which a node that
/// serves its part has not, or by a function there.
fn is_needed(workflow: &Workflow, index: FunctionIndex) -> bool {
    let here = workflow.here();
    let calls =
        |function: &Function| function.placement == *here && function.calls.contains(&index);
    !matches!(here, Placement::Node(_)) || workflow.functions().iter().any(calls)
}

fn spec(
    workflow: &Workflow,
    function: &Function,
    backing: Backing,
    module: ModuleSource,
) -> FunctionSpec {
    let mut spec = FunctionSpec::new(&function.name, module);
    spec.calls = function.calls.iter().map(|&it| workflow[it].name.clone()).collect();
    spec.memory_bytes = function.memory_bytes.unwrap_or(spec.memory_bytes);
    spec.timeout = function.timeout.unwrap_or(spec.timeout);
    spec.reuse = function.reuse;
    spec.backing = match backing {
        Backing::Private => roadrunner_runtime::Backing::Private,
        Backing::Shared => roadrunner_runtime::Backing::Memfd,
        Backing::Passed => roadrunner_runtime::Backing::Segment,
    };
    let dirs = function
        .wasi
        .dirs
        .iter()
        .map(|dir| (dir.guest.clone(), WasiDir { path: dir.host.clone(), write: dir.write }));
    spec.wasi = WasiSpec { env: function.wasi.env.iter().cloned().collect(), dirs: dirs.collect() };
    spec
}
