//! `roadrunner demo`: the built-in workflow on the built-in photograph.

mod compare;
mod copying;

use std::borrow::Cow;
use std::path::Path;

use roadrunner_runtime::{Config, ModuleSource, Runtime, Sealed};
use roadrunner_workflow::{Executable, Found, Place, Workflow};
use serde::Serialize;

use super::run::{deliver, execute, load, say};
use crate::args::{Demo, Mode};
use crate::crew::{self, Load};
use crate::exit::{Exit, Failure};
use crate::output::Destination;
use crate::report::{self, Report};
use compare::Comparison;

const MANIFEST: &str = include_str!("../../../../../examples/demo/roadrunner.toml");
const PHOTOGRAPH: &[u8] = include_bytes!("../../../../../assets/astronaut.png");

/// The modules that the manifest names, by file name.
const MODULES: [(&str, &[u8]); 7] = [
    ("decode.wasm", include_bytes!("../../../../../guests/dist/decode.wasm")),
    ("resize.wasm", include_bytes!("../../../../../guests/dist/resize.wasm")),
    ("greyscale.wasm", include_bytes!("../../../../../guests/dist/greyscale.wasm")),
    ("edges.wasm", include_bytes!("../../../../../guests/dist/edges.wasm")),
    ("blur.wasm", include_bytes!("../../../../../guests/dist/blur.wasm")),
    ("sheet.wasm", include_bytes!("../../../../../guests/dist/sheet.wasm")),
    ("encode.wasm", include_bytes!("../../../../../guests/dist/encode.wasm")),
];

/// The report of `run`, and the comparison.
#[derive(Serialize)]
struct DemoReport<'a> {
    #[serde(flatten)]
    run: Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

pub(crate) fn run(options: &Demo) -> Result<Exit, Failure> {
    let runtime = Runtime::new(Config::default())?;
    let mut workflow = workflow()?;
    crew::place(&mut workflow, options.mode);
    let loaded = load(&runtime, workflow, options.mode, &Load::Demo, &module)?;
    let exe = &loaded.exe;
    let (mut finished, usage) = execute(exe, photograph(exe)?)?;
    // The picture is safe before anything else is measured; the comparison needs it too, and
    // reading leaves it where it is.
    deliver(&mut finished.reply, &options.output, ".png")?;
    // Copying within one process compares with moving within one process.
    let within = matches!(options.mode, Mode::Auto | Mode::User);
    let comparison = if within { Some(compare::run(exe, &mut finished.reply)?) } else { None };

    let text = if options.report.is_some() {
        let run = Report::new(exe.workflow().name(), finished.total, &finished.hops, usage);
        report::line(&DemoReport { run, comparison: comparison.as_ref() })
    } else {
        let table = report::table(&finished.hops);
        let total = report::time(finished.total);
        let picture = match &options.output {
            Destination::File(path) => format!("\nThe picture is in {}.\n", path.display()),
            _ => String::new(),
        };
        let comparison = comparison.map(|it| format!(" {it}")).unwrap_or_default();
        format!("{table}\nThis first run took {total}.{comparison}\n{picture}")
    };
    say(&options.output, &text)?;
    Ok(Exit::Success)
}

/// The workflow, checked as any other.
pub(super) fn workflow() -> Result<Workflow, Failure> {
    let look = |path: &Path| match embedded(path) {
        Some(_) => Found::File,
        None => Found::Nothing,
    };
    Ok(Workflow::parse(MANIFEST, Path::new("the demo's roadrunner.toml"), &look)?)
}

fn embedded(path: &Path) -> Option<&'static (&'static str, &'static [u8])> {
    MODULES.iter().find(|(name, _)| path.file_name().is_some_and(|it| it == *name))
}

pub(super) fn module(path: &Path) -> ModuleSource {
    match embedded(path) {
        Some((name, bytes)) => {
            ModuleSource::Bytes { name: (*name).into(), bytes: Cow::Borrowed(bytes) }
        }
        None => ModuleSource::File(path.to_owned()),
    }
}

/// The photograph, in pages that can move.
fn photograph(exe: &Executable) -> Result<Sealed<'static>, Failure> {
    let written = exe.input(PHOTOGRAPH.len(), |place| {
        place.copy_from_slice(PHOTOGRAPH);
        Ok(())
    });
    written.map_err(|error| Failure::new(Exit::Host, format!("could not {error}")))
}

/// The workflow once more, for a runtime that copies.
fn load_again(runtime: &Runtime) -> Result<Executable, Failure> {
    Ok(Executable::load(runtime, workflow()?, &module, &Place::alone())?)
}
