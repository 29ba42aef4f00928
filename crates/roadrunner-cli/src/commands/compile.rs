//! `roadrunner compile`: ahead of time, into a `.cwasm` file.

use roadrunner_runtime::{Config, ModuleSource, Runtime};

use crate::args::Compile;
use crate::exit::{Exit, Failure};
use crate::output::{self, Destination};
use crate::progress::Progress;
use crate::report;

/// Extension of compiled modules.
const EXTENSION: &str = "cwasm";

pub(crate) fn run(options: &Compile) -> Result<Exit, Failure> {
    if options.module.extension().is_some_and(|it| it == EXTENSION) {
        let message =
            format!("{} is compiled already; name a .wasm or .wat file", options.module.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let beside = || Destination::File(options.module.with_extension(EXTENSION));
    let to = options.output.clone().unwrap_or_else(beside);
    if let Destination::File(path) = &to
        && let (Ok(path), Ok(module)) = (path.canonicalize(), options.module.canonicalize())
        && path == module
    {
        let message = format!(
            "{} would be written over the module itself; name another --output",
            options.module.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let runtime = Runtime::new(Config::default())?;
    let progress = Progress::start(format!("compiling {}", options.module.display()));
    let code = runtime.precompile(&ModuleSource::File(options.module.clone()))?;
    drop(progress);
    output::deliver(&to, &code, ".cwasm")?;
    if let Destination::File(path) = &to {
        output::print(&format!("{} ({})\n", path.display(), report::bytes(code.len() as u64)))?;
    }
    Ok(Exit::Success)
}
