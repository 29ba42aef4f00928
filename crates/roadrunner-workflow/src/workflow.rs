//! A workflow that is known to be right.

use std::fs::File;
use std::io::Read;
use std::ops::Index;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::error::{ManifestError, Report, quoted};
use crate::manifest::Reader;
use crate::{Plan, graph, limit};

/// A validated workflow: every name in it is resolved, every file was there, and the functions
/// form one graph without cycles, from one entry to one result.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub(crate) name: String,
    pub(crate) entry: FunctionIndex,
    pub(crate) last: FunctionIndex,
    pub(crate) functions: Vec<Function>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) callers: Vec<String>,
    pub(crate) here: Placement,
    pub(crate) result_leaves: bool,
}

/// Which function of its workflow: the position in the order of the file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionIndex(pub(crate) usize);

impl FunctionIndex {
    /// The position in [`Workflow::functions`].
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Which node of its workflow: the position in [`Workflow::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub(crate) usize);

impl NodeIndex {
    /// The position in [`Workflow::nodes`].
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// One function.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Function {
    /// Its name, unique in the workflow; safe as a part of paths and labels.
    pub name: String,
    /// Its code.
    pub module: Module,
    /// Who gets its output: nobody (the last function), one (a chain) or several (fan-out).
    pub next: Vec<FunctionIndex>,
    /// Whose outputs it gets, in the order of the file, which is the edge order of a fan-in.
    pub previous: Vec<FunctionIndex>,
    /// Whom the guest itself may call. Unlike `next` this may be recursive; the depth of calls
    /// is bounded when they are made.
    pub calls: Vec<FunctionIndex>,
    /// Where it runs.
    pub placement: Placement,
    /// Most linear memory in bytes, if the manifest says so.
    pub memory_bytes: Option<u64>,
    /// Most time for one invocation, if the manifest says so.
    pub timeout: Option<Duration>,
    /// How often a call of it may be made again that a peer did not answer. More than 0 only where
    /// running it twice does no harm.
    pub retries: u32,
    /// Whether a sandbox that has had a call may have another.
    pub reuse: bool,
    /// What it sees through WASI.
    pub wasi: Wasi,
    /// Headers of an HTTP request that it sees when it takes one.
    pub headers: Vec<Header>,
    /// The type of its output, if the manifest says so, for HTTP clients.
    pub content_type: Option<String>,
}

/// Where a function's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// In a `.wasm`, `.wat` or `.cwasm` file; relative to where the manifest's own path is.
    File(PathBuf),
    /// In an image: `REGISTRY/NAME:TAG` or `REGISTRY/NAME@DIGEST`, what follows `oci://`. Whoever loads the workflow says
    /// which file that is, with [`Workflow::place_images`].
    Image(String),
}

impl Module {
    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Image(_) => None,
        }
    }
}

/// A header of HTTP requests that a function sees as an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Its name, in lower case.
    pub name: String,
    /// The variable's name: as in CGI (RFC 3875), `CONTENT_TYPE` or `HTTP_` and the header's name.
    pub variable: String,
}

impl Header {
    pub(crate) fn of(name: String) -> Self {
        let upper = name.to_ascii_uppercase().replace('-', "_");
        let variable = if upper == "CONTENT_TYPE" { upper } else { format!("HTTP_{upper}") };
        Self { name, variable }
    }
}

/// Where a function runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// In the process that runs the workflow.
    Local,
    /// In another process of this host, known by its name.
    Process(String),
    /// On another host.
    Node(NodeIndex),
}

/// What a function sees through WASI; nothing unless the manifest grants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wasi {
    /// Environment variables, name and value, in the order of the file.
    pub env: Vec<(String, String)>,
    /// Folders of the host.
    pub dirs: Vec<Dir>,
}

/// A folder of the host that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dir {
    /// Where the guest sees it: an absolute path without `.`, `..` and a final `/`.
    pub guest: String,
    /// Where it is; relative to where the manifest's own path is.
    pub host: PathBuf,
    /// Whether the guest may write to it.
    pub write: bool,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its name in the manifest.
    pub name: String,
    /// `HOST:PORT`; the host may be a name that is still to be looked up.
    pub address: String,
}

/// A manifest places nothing on a node of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "workflow {} has no function on node {}; {}",
    quoted(workflow),
    quoted(node),
    say_nodes(there)
)]
pub struct NoSuchNode {
    workflow: String,
    node: String,
    /// Those that have functions, in quotes.
    there: Vec<String>,
}

fn say_nodes(there: &[String]) -> String {
    if there.is_empty() {
        return "place functions there with placement = \"node:NAME\" and a table [nodes.NAME]"
            .into();
    }
    format!("its nodes with functions are {}", there.join(", "))
}

/// What stands under a path that a manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Nothing, or something that cannot be seen.
    Nothing,
}

impl Found {
    /// Looks in the file system.
    #[must_use]
    pub fn on_disk(path: &Path) -> Self {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Self::Folder,
            Ok(_) => Self::File,
            Err(_) => Self::Nothing,
        }
    }
}

impl Workflow {
    /// Places every function in the process that runs the workflow.
    pub fn place_locally(&mut self) {
        for function in &mut self.functions {
            function.placement = Placement::Local;
        }
    }

    /// Places every function in a process of its own, with the function's name.
    pub fn place_in_processes(&mut self) {
        for function in &mut self.functions {
            function.placement = Placement::Process(function.name.clone());
        }
    }

    /// Places every function on a node of its own, with the function's name. Where the nodes are is for
    /// the caller to know.
    pub fn place_on_nodes(&mut self) {
        self.nodes.clear();
        for function in &mut self.functions {
            function.placement = Placement::Node(NodeIndex(self.nodes.len()));
            self.nodes.push(Node { name: function.name.clone(), address: String::new() });
        }
    }

    /// Puts files in the place of images. `find` is asked for the image of each function that `is_wanted`.
    ///
    /// # Errors
    /// The first one of `find`.
    pub fn place_images<E>(
        &mut self,
        is_wanted: impl Fn(&Self, &Function) -> bool,
        mut find: impl FnMut(&str) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        for index in 0..self.functions.len() {
            let function = &self.functions[index];
            if let Module::Image(image) = &function.module
                && is_wanted(self, function)
            {
                let path = find(image)?;
                self.functions[index].module = Module::File(path);
            }
        }
        Ok(())
    }

    /// Says that it is loaded on this node of its manifest, for its part of the work: its functions
    /// there, and not the workflow itself.
    ///
    /// # Errors
    /// [`NoSuchNode`] if the manifest has no node of the name, or no function is placed there.
    pub fn serve_as(&mut self, node: &str) -> Result<(), NoSuchNode> {
        let found = self.nodes.iter().position(|it| it.name == node).map(NodeIndex);
        let here = found.map(Placement::Node);
        match here.filter(|here| self.functions.iter().any(|it| it.placement == *here)) {
            Some(here) => {
                self.here = here;
                Ok(())
            }
            None => {
                let placed = |index: &usize| {
                    let here = Placement::Node(NodeIndex(*index));
                    self.functions.iter().any(|function| function.placement == here)
                };
                let nodes = (0..self.nodes.len()).filter(placed);
                let there = nodes.map(|index| quoted(&self.nodes[index].name)).collect();
                Err(NoSuchNode { workflow: self.name.clone(), node: node.into(), there })
            }
        }
    }

    /// Where it is loaded: functions of this placement are here.
    #[must_use]
    pub fn here(&self) -> &Placement {
        &self.here
    }

    /// Whether the owner of a certificate with these names may call its functions: its manifest says
    /// so, or the owner is one of its nodes.
    #[must_use]
    pub fn admits(&self, names: &[String]) -> bool {
        let known = |name: &String| {
            self.callers.contains(name) || self.nodes.iter().any(|node| node.name == *name)
        };
        names.iter().any(known)
    }

    /// Says that the result goes to other processes of this host.
    pub fn hand_result_out(&mut self) {
        self.result_leaves = true;
    }

    /// A placement as a manifest says it.
    #[must_use]
    pub fn say(&self, placement: &Placement) -> String {
        match placement {
            Placement::Local => "local".into(),
            Placement::Process(name) => format!("process:{name}"),
            Placement::Node(node) => format!("node:{}", self.nodes[node.0].name),
        }
    }

    /// Reads a manifest and checks it against the file system.
    ///
    /// # Errors
    /// [`ManifestError`] if the file cannot be read or is not a right manifest.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        Self::load_looking(path, &Found::on_disk)
    }

    /// As [`Workflow::load`]; `look` says what stands under each path, and so hears of every file and
    /// folder that the manifest names, also those of one that is wrong.
    ///
    /// # Errors
    /// As [`Workflow::load`].
    pub fn load_looking(path: &Path, look: &dyn Fn(&Path) -> Found) -> Result<Self, ManifestError> {
        let unreadable = |reason| ManifestError::Unreadable { path: path.to_owned(), reason };
        if look(path) == Found::Folder {
            return Err(ManifestError::Folder { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(limit::MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() > limit::MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { path: path.to_owned() });
        }
        Self::parse_bytes(&bytes, path, look)
    }

    /// Checks a manifest's text. `origin` is its path, for messages and as the start of the
    /// relative paths in it; `look` says what stands under each of those, so that a workflow can
    /// also name modules that are not files.
    ///
    /// # Errors
    /// [`ManifestError`] if it is not a right manifest.
    pub fn parse(
        text: &str,
        origin: &Path,
        look: &dyn Fn(&Path) -> Found,
    ) -> Result<Self, ManifestError> {
        if text.len() > limit::MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { path: origin.to_owned() });
        }
        let mut report = Report::new(text);
        let table = DeTable::parse(text).map_err(|error| syntax_error(text, origin, &error))?;
        let base = origin.parent().unwrap_or(Path::new(""));
        let manifest = Reader { report: &mut report, base, look }.manifest(table.get_ref());
        graph::build(manifest, &mut report, origin)
    }

    fn parse_bytes(
        bytes: &[u8],
        origin: &Path,
        look: &dyn Fn(&Path) -> Found,
    ) -> Result<Self, ManifestError> {
        match str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, origin, look),
            Err(error) => {
                let (readable, _) = bytes.split_at(error.valid_up_to());
                let readable = String::from_utf8_lossy(readable);
                let mut report = Report::new(&readable);
                report.add(readable.len(), || {
                    "this is not UTF-8 text; save the manifest as UTF-8".to_owned()
                });
                Err(report.take(origin))
            }
        }
    }

    /// The workflow's name; safe as a part of paths and labels.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function that gets the workflow's input.
    #[must_use]
    pub fn entry(&self) -> FunctionIndex {
        self.entry
    }

    /// The function whose output is the workflow's result.
    #[must_use]
    pub fn last(&self) -> FunctionIndex {
        self.last
    }

    /// The functions in the order of the file.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<FunctionIndex> {
        self.functions.iter().position(|function| function.name == name).map(FunctionIndex)
    }

    /// Every index, in the order of the file.
    pub fn indexes(&self) -> impl ExactSizeIterator<Item = FunctionIndex> + use<> {
        (0..self.functions.len()).map(FunctionIndex)
    }

    /// The other hosts, in the order of the file.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is to be run, in which order.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan::new(self)
    }
}

/// Indexing panics for an index of another, larger workflow, like a slice.
impl Index<FunctionIndex> for Workflow {
    type Output = Function;

    fn index(&self, index: FunctionIndex) -> &Function {
        &self.functions[index.0]
    }
}

/// Indexing panics for an index of another, larger workflow, like a slice.
impl Index<NodeIndex> for Workflow {
    type Output = Node;

    fn index(&self, index: NodeIndex) -> &Node {
        &self.nodes[index.0]
    }
}

/// Only the first one is shown: what follows it is mostly its consequence.
fn syntax_error(text: &str, origin: &Path, error: &toml::de::Error) -> ManifestError {
    let span = error.span().unwrap_or(text.len()..text.len());
    let mut report = Report::new(text);
    report.add(span.start, || match (error.message(), text.get(span)) {
        ("duplicate key", Some(key)) => {
            format!("{} is given twice; remove or rename one of them", quoted(key))
        }
        (message, _) => format!("this is not TOML: {}", message.replace('\n', ", ")),
    });
    report.take(origin)
}
