//! Functions: modules that were compiled, checked and linked, ready to run in fresh sandboxes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use roadrunner_abi::export;
use roadrunner_buffer::Backing;
use sha2::{Digest, Sha256};
use wasmtime::{Engine, ExternType, FuncType, InstancePre, Linker, Module, ModuleExport, ValType};

use crate::config::{DEFAULT_MEMORY, DEFAULT_TIMEOUT};
use crate::error::LoadError;
use crate::memory;
use crate::meter::{Meter, Running};
use crate::state::HostState;

/// What every precompiled module begins with.
const ELF: &[u8] = b"\x7fELF";

/// Where a module comes from.
#[derive(Clone, Debug)]
pub enum ModuleSource {
    /// A `.wasm`, `.wat` or `.cwasm` file.
    File(PathBuf),
    /// Bytes of such a file.
    Bytes {
        /// What to call it in messages.
        name: String,
        /// The bytes.
        bytes: Cow<'static, [u8]>,
    },
}

/// A directory that a function may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasiDir {
    /// The directory on this host.
    pub path: PathBuf,
    /// Whether the function may change it.
    pub write: bool,
}

/// What a function may see of the world. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WasiSpec {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Directories, by the path the function sees.
    pub dirs: BTreeMap<String, WasiDir>,
}

/// What makes a function.
#[derive(Clone, Debug)]
pub struct FunctionSpec {
    /// Its name.
    pub name: String,
    /// Its code.
    pub module: ModuleSource,
    /// Names of the functions that it may call itself.
    pub calls: Vec<String>,
    /// Linear memory it may use, in bytes.
    pub memory_bytes: u64,
    /// Time it has for one invocation.
    pub timeout: Duration,
    /// What it may see of the world.
    pub wasi: WasiSpec,
    /// Whether a sandbox that has had a call may have another, with what the guest left in its memory.
    pub reuse: bool,
    /// What its buffers are backed with, chosen by where its response goes.
    pub backing: Backing,
    /// Counts what its sandboxes use, where somebody wants to know.
    pub meter: Option<Arc<Meter>>,
}

impl FunctionSpec {
    /// A function with defaults for everything but its name and code.
    #[must_use]
    pub fn new(name: impl Into<String>, module: ModuleSource) -> Self {
        Self {
            name: name.into(),
            module,
            calls: Vec::new(),
            memory_bytes: DEFAULT_MEMORY,
            timeout: DEFAULT_TIMEOUT,
            wasi: WasiSpec::default(),
            reuse: false,
            backing: Backing::Private,
            meter: None,
        }
    }
}

/// How a function takes its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By `handle`, or `handle_many`, or either.
    Handler {
        /// `handle` is there.
        one: bool,
        /// `handle_many` is there.
        many: bool,
    },
    /// By stdin, as a WASI command.
    Command,
}

/// What a module offers and asks, for people.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// How it takes its payload.
    pub kind: Kind,
    /// Its exports with their types.
    pub exports: Vec<(String, String)>,
    /// Its imports with their types.
    pub imports: Vec<(String, String)>,
    /// Linear memory at start, in bytes.
    pub memory_bytes: u64,
    /// Most linear memory it asks for, in bytes.
    pub memory_max_bytes: Option<u64>,
}

/// A function, ready to run.
pub(crate) struct Function {
    pub(crate) spec: FunctionSpec,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) shape: Shape,
    /// Bytes below the module's initial memory size at which its allocator was seen to begin; a
    /// window can't lie there, so that much more is asked for.
    pub(crate) low_bytes: AtomicUsize,
    /// Pages of the last payload that moved in, in bytes: the next one is likely to be as long.
    pub(crate) input_bytes: AtomicUsize,
}

impl Function {
    pub(crate) fn load(
        spec: FunctionSpec,
        engine: &Engine,
        linker: &Linker<HostState>,
    ) -> Result<Self, LoadError> {
        let (name, module) = spec.module.compile(engine)?;
        let shape = Shape::of(&name, &module)?;
        if spec.reuse && matches!(shape.entry, Entry::Command(_)) {
            let reason = "it is a command, which runs once in its sandbox; take `reuse` out".into();
            return Err(LoadError::Shape { module: name, reason });
        }
        let pre = linker.instantiate_pre(&module).map_err(|error| LoadError::Shape {
            module: name,
            reason: format!(
                "{error:#}; the host offers modules `roadrunner` and `wasi_snapshot_preview1`"
            ),
        })?;
        let (low_bytes, input_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self { spec, pre, shape, low_bytes, input_bytes })
    }

    /// Counts what this thread does from now on as the function's, where that is counted.
    pub(crate) fn metered(&self) -> Option<Running> {
        self.spec.meter.as_ref().map(Meter::run)
    }
}

impl ModuleSource {
    /// Compiles the module, or takes its compiled form from the cache.
    pub(crate) fn compile(&self, engine: &Engine) -> Result<(String, Module), LoadError> {
        let (name, bytes) = self.read()?;
        // Code that was cut short is no longer detected, and is still an ELF file.
        let precompiled = Engine::detect_precompiled(&bytes).is_some() || bytes.starts_with(ELF);
        let module = if precompiled {
            // Machine code can do anything, so it is never taken for something harmless by its name.
            let named = Path::new(&name).extension().is_some_and(|it| it == "cwasm");
            let code = if named {
                checked_code(&bytes)
            } else {
                Err("it holds machine code but its name does not end in .cwasm".into())
            };
            code.and_then(|code| memory::load_precompiled(engine, code))
                .map_err(|reason| LoadError::Precompiled { module: name.clone(), reason })?
        } else if !resembles_wasm(&bytes) {
            let reason = "it begins like neither the binary nor the text format".into();
            return Err(LoadError::Invalid { module: name, reason });
        } else {
            Module::new(engine, &bytes).map_err(|error| LoadError::Invalid {
                module: name.clone(),
                reason: format!("{error:#}"),
            })?
        };
        Ok((name, module))
    }

    fn read(&self) -> Result<(String, Cow<'_, [u8]>), LoadError> {
        match self {
            Self::Bytes { name, bytes } => Ok((name.clone(), Cow::Borrowed(bytes))),
            Self::File(path) => fs::read(path)
                .map(|bytes| (path.display().to_string(), Cow::Owned(bytes)))
                .map_err(|source| LoadError::Unreadable { path: path.clone(), source }),
        }
    }

    /// Compiles ahead of time: the bytes of a `.cwasm` file, which end in the SHA-256 of the rest.
    pub(crate) fn precompile(&self, engine: &Engine) -> Result<Vec<u8>, LoadError> {
        let (name, module) = self.compile(engine)?;
        Shape::of(&name, &module)?;
        let mut code = module
            .serialize()
            .map_err(|error| LoadError::Invalid { module: name, reason: format!("{error:#}") })?;
        let digest = Sha256::digest(&code);
        code.extend_from_slice(&digest);
        Ok(code)
    }

    pub(crate) fn inspect(&self, engine: &Engine) -> Result<Inspection, LoadError> {
        let (name, module) = self.compile(engine)?;
        let shape = Shape::of(&name, &module)?;
        let (min, max) = memory_of(&name, &module)?;
        let exports = module.exports().map(|it| (it.name().to_owned(), describe(&it.ty())));
        let imports = module
            .imports()
            .map(|it| (format!("{}.{}", it.module(), it.name()), describe(&it.ty())));
        Ok(Inspection {
            kind: shape.kind(),
            exports: exports.collect(),
            imports: imports.collect(),
            memory_bytes: min,
            memory_max_bytes: max,
        })
    }
}

/// Whether bytes begin as WebAssembly does, in its binary format or, after comments, in its text
/// format. Others would be reported as errors in the text format, which they were not meant to be.
fn resembles_wasm(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    bytes.starts_with(b"\0asm") || [&b"("[..], b";;"].iter().any(|start| text.starts_with(start))
}

/// The machine code of a `.cwasm` file whose checksum is right. The checksum finds damage, not
/// malice: precompiled code is machine code and is trusted like any program.
fn checked_code(bytes: &[u8]) -> Result<&[u8], String> {
    let Some((code, digest)) = bytes.split_last_chunk::<32>() else {
        return Err("it is too short".into());
    };
    if Sha256::digest(code).as_slice() == digest {
        Ok(code)
    } else {
        Err("it is damaged: its checksum is wrong".into())
    }
}

/// Where a function's entry points are.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) memory: ModuleExport,
    /// Linear memory at start, in bytes. Wasmtime lays the module's data there by file mappings,
    /// which a window must never replace.
    pub(crate) initial_bytes: u64,
    pub(crate) allocator: Option<AllocatorShape>,
    pub(crate) initialize: Option<ModuleExport>,
    pub(crate) entry: Entry,
}

/// How the guest's allocator is exported. Only commands may do without: their payload comes by stdin.
#[derive(Clone)]
pub(crate) struct AllocatorShape {
    pub(crate) allocate: AllocateShape,
    pub(crate) deallocate: Option<ModuleExport>,
}

/// The export that gives memory.
#[derive(Clone)]
pub(crate) enum AllocateShape {
    Plain(ModuleExport),
    Realloc(ModuleExport),
}

/// What is called with a payload.
#[derive(Clone)]
pub(crate) enum Entry {
    Handler { one: Option<ModuleExport>, many: Option<ModuleExport> },
    Command(ModuleExport),
}

impl Shape {
    fn kind(&self) -> Kind {
        match &self.entry {
            Entry::Handler { one, many } => {
                Kind::Handler { one: one.is_some(), many: many.is_some() }
            }
            Entry::Command(_) => Kind::Command,
        }
    }

    fn of(name: &str, module: &Module) -> Result<Self, LoadError> {
        use ValType::{I32, I64};
        let function = |export: &str, params: &[ValType], results: &[ValType]| {
            typed_export(name, module, export, params, results)
        };
        let (initial_bytes, _) = memory_of(name, module)?;
        let memory = module.get_export_index(export::MEMORY);
        let one = function(export::HANDLE, &[I32, I32], &[I64])?;
        let many = function(export::HANDLE_MANY, &[I32, I32], &[I64])?;
        let start = function(export::START, &[], &[])?;
        let allocate = function(export::ALLOCATE, &[I32], &[I32])?;
        let deallocate = function(export::DEALLOCATE, &[I32], &[])?;
        let realloc = function(export::REALLOC, &[I32, I32, I32, I32], &[I32])?;
        let wrong = |reason: String| LoadError::Shape { module: name.into(), reason };
        let allocate = allocate.map(AllocateShape::Plain).or(realloc.map(AllocateShape::Realloc));
        let allocator = allocate.map(|allocate| AllocatorShape { allocate, deallocate });
        let entry = match (one, many, start) {
            (None, None, Some(start)) => Entry::Command(start),
            (None, None, None) => {
                return Err(wrong(
                    "it exports neither `handle(i32, i32) -> i64` nor \
                    `handle_many(i32, i32) -> i64` nor, as a WASI command, `_start()`"
                        .into(),
                ));
            }
            (one, _, _) if allocator.is_none() => {
                let entry = if one.is_some() { "handle" } else { "handle_many" };
                return Err(wrong(format!(
                    "it exports `{entry}` but no allocator: export \
                    `allocate_memory(i32) -> i32` and `deallocate_memory(i32)`, or `cabi_realloc`"
                )));
            }
            (one, many, _) => Entry::Handler { one, many },
        };
        let memory = memory.ok_or_else(|| wrong("it exports no `memory`".into()))?;
        let initialize = function(export::INITIALIZE, &[], &[])?;
        Ok(Self { memory, initial_bytes, allocator, initialize, entry })
    }
}

/// The export of this name, which must be a function of this type where it is there.
fn typed_export(
    name: &str,
    module: &Module,
    export: &str,
    params: &[ValType],
    results: &[ValType],
) -> Result<Option<ModuleExport>, LoadError> {
    let wanted = FuncType::new(module.engine(), params.iter().cloned(), results.iter().cloned());
    match module.get_export(export) {
        None => Ok(None),
        Some(ExternType::Func(ty)) if FuncType::eq(&ty, &wanted) => {
            Ok(module.get_export_index(export))
        }
        Some(other) => Err(LoadError::Shape {
            module: name.into(),
            reason: format!(
                "its export `{export}` is {}, not {}",
                describe(&other),
                describe(&ExternType::Func(wanted))
            ),
        }),
    }
}

/// Least and most linear memory in bytes.
fn memory_of(name: &str, module: &Module) -> Result<(u64, Option<u64>), LoadError> {
    let wrong = |reason: &str| LoadError::Shape { module: name.into(), reason: reason.into() };
    match module.get_export(export::MEMORY) {
        Some(ExternType::Memory(memory)) if memory.is_64() || memory.is_shared() => {
            Err(wrong("its memory is shared or 64-bit; the ABI is for plain wasm32"))
        }
        Some(ExternType::Memory(memory)) => {
            let bytes = |pages: u64| pages.saturating_mul(memory.page_size());
            Ok((bytes(memory.minimum()), memory.maximum().map(bytes)))
        }
        Some(_) => Err(wrong("its export `memory` is not a memory")),
        None => Err(wrong("it exports no `memory`")),
    }
}

/// A type in the text format's words.
fn describe(ty: &ExternType) -> String {
    let list = |types: Vec<String>| types.join(", ");
    match ty {
        ExternType::Func(func) => format!(
            "func({}) -> ({})",
            list(func.params().map(|ty| ty.to_string()).collect()),
            list(func.results().map(|ty| ty.to_string()).collect())
        ),
        ExternType::Memory(memory) => format!("memory of {} pages", memory.minimum()),
        ExternType::Global(global) => format!("global {}", global.content()),
        ExternType::Table(_) => "table".into(),
        ExternType::Tag(_) => "tag".into(),
        #[allow(unreachable_patterns, reason = "the set of kinds grows with the engine")]
        _ => "something else".into(),
    }
}
