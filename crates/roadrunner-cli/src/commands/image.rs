//! `roadrunner image`: modules and workflows as OCI images, made without any other program, and pushed to registries.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use roadrunner_image::{Artifact, Form, Module, Registry, limit};
use roadrunner_workflow::{Found, Workflow};

use crate::args::{Image, ImageBuild, ImagePush};
use crate::exit::{Exit, Failure};
use crate::output::{self, Destination};
use crate::progress::Progress;
use crate::report;

pub(crate) fn run(options: &Image) -> Result<Exit, Failure> {
    match options {
        Image::Build(options) => build(options),
        Image::Push(options) => push(options),
    }
}

fn build(options: &ImageBuild) -> Result<Exit, Failure> {
    let form = if options.container { Form::Container } else { Form::Artifact };
    let Source { artifact, files } = Source::read(&options.source, form)?;
    if let Destination::File(path) = &options.output
        && let Ok(path) = path.canonicalize()
        && files.iter().any(|file| file.canonicalize().is_ok_and(|file| file == path))
    {
        let message = format!(
            "{} would be written over, which the image is made of; name another --output",
            path.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut archive = Vec::new();
    let name = options.name.as_ref().map(ToString::to_string);
    roadrunner_image::write(&artifact, name.as_deref(), &mut archive)
        .map_err(|error| Failure::new(Exit::Host, format!("can't make the archive: {error}")))?;
    output::deliver(&options.output, &archive, ".tar")?;
    let digest = format!("{}\n", artifact.digest());
    if options.output.is_stdout() {
        output::note(&digest);
        return Ok(Exit::Success);
    }
    output::print(&digest)?;
    Ok(Exit::Success)
}

fn push(options: &ImagePush) -> Result<Exit, Failure> {
    let artifact = match options.image.extension() {
        Some(ending) if ending == "tar" => archive(&options.image)?,
        _ => Source::read(&options.image, Form::Artifact)?.artifact,
    };
    let digest = artifact.digest();
    if options.reference.digest().is_some_and(|expected| expected != digest) {
        let message = format!("the image is {digest}, and not that of {}", options.reference);
        return Err(Failure::new(Exit::Usage, message));
    }
    let registry = Registry::of(&options.reference);
    let progress = Progress::start(format!("pushing {}", options.reference));
    registry.push(&options.reference, &artifact, &mut |blob| {
        let what = blob.title().unwrap_or("its configuration");
        progress.say(format!("pushing {what} ({})", report::bytes(blob.size)));
    })?;
    drop(progress);
    output::print(&format!("{}\n", options.reference.at(&digest)))?;
    Ok(Exit::Success)
}

fn archive(path: &Path) -> Result<Artifact, Failure> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Failure::new(Exit::Module, format!("can't read {shown}: {error}")))?;
    roadrunner_image::read(BufReader::new(file))
        .map_err(|error| Failure::new(Exit::Module, format!("{shown} is no image: {error}")))
}

/// An image, and the files that it was made of.
struct Source {
    artifact: Artifact,
    files: Vec<PathBuf>,
}

impl Source {
    /// Of a module, or of a workflow by its manifest.
    fn read(path: &Path, form: Form) -> Result<Self, Failure> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("wasm" | "wat" | "cwasm")) {
            return Self::of_workflow(path, form);
        }
        let title =
            path.with_extension("wasm").file_name().map(|name| name.to_string_lossy().into());
        let module =
            Module { title: title.unwrap_or_default(), path: None, bytes: module_bytes(path)? };
        let artifact = Artifact::of_module(module, form).map_err(refused)?;
        Ok(Self { artifact, files: vec![path.to_owned()] })
    }

    fn of_workflow(path: &Path, form: Form) -> Result<Self, Failure> {
        // All problems of the manifest, as `run` says them.
        Workflow::load(path)?;
        let unreadable =
            |error| Failure::new(Exit::Workflow, format!("can't read {}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let base = path.parent().unwrap_or(Path::new(""));
        // Once more, with paths as they stand in the text: by these whoever runs the image finds its modules.
        let look = |path: &Path| Found::on_disk(&base.join(path));
        let workflow = Workflow::parse(&text, Path::new("roadrunner.toml"), &look)?;
        let (mut modules, mut files) = (Vec::new(), vec![path.to_owned()]);
        let mut titles: HashMap<&Path, String> = HashMap::new();
        for function in workflow.functions() {
            if let Some(dir) = function.wasi.dirs.iter().find(|dir| dir.host.is_relative()) {
                let message = format!(
                    "{}: function \"{}\" has the folder {}, which an image does not carry; write the absolute path that it has where the image runs",
                    path.display(),
                    function.name,
                    dir.host.display()
                );
                return Err(Failure::new(Exit::Workflow, message));
            }
            let Some(module) = function.module.file() else { continue };
            if titles.contains_key(module) {
                continue;
            }
            // Functions have different names, files in different folders may not.
            let title = format!("{}.wasm", function.name);
            let (file, stands_as) = (base.join(module), module.to_string_lossy().into_owned());
            let bytes = module_bytes(&file)?;
            modules.push(Module { title: title.clone(), path: Some(stands_as), bytes });
            titles.insert(module, title);
            files.push(file);
        }
        let entry = workflow[workflow.entry()].module.file().and_then(|module| titles.get(module));
        let entry = entry.cloned().unwrap_or_default();
        let artifact =
            Artifact::of_workflow(text.into_bytes(), modules, &entry, form).map_err(refused)?;
        Ok(Self { artifact, files })
    }
}

/// A module in the binary format, which is all that images hold.
fn module_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let refuse = |why: String| Failure::new(Exit::Module, format!("{shown} {why}"));
    if path.extension().is_some_and(|ending| ending == "cwasm") {
        let why = "is machine code for this version of Roadrunner alone, and no image holds that; name the .wasm file";
        return Err(refuse(why.into()));
    }
    let len = path.metadata().map_err(|error| refuse(format!("can't be read: {error}")))?.len();
    if len > limit::MODULE_BYTES {
        let most = report::bytes(limit::MODULE_BYTES);
        return Err(refuse(format!("is larger than {most}, the limit of images")));
    }
    let bytes = fs::read(path).map_err(|error| refuse(format!("can't be read: {error}")))?;
    let binary = wat::parse_bytes(&bytes).map_err(|error| refuse(format!("is no module: {error}")));
    Ok(binary?.into_owned())
}

fn refused(error: roadrunner_image::ModuleError) -> Failure {
    Failure::new(Exit::Module, error.to_string())
}
