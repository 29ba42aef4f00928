//! Tests of the crate's public interface.

mod bad_manifests;
mod good_manifests;
mod properties;
#[cfg(feature = "run")]
mod run;

use std::path::Path;

use roadrunner_workflow::{Found, Workflow};

/// Parses as if the manifest stood in `flow/` beside some files. Modules are there unless their
/// name begins with `missing`, and folders are what has no ending.
fn parse(text: &str) -> Result<Workflow, String> {
    let look = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match path.extension() {
            _ if name.starts_with("missing") => Found::Nothing,
            None => Found::Folder,
            Some(_) => Found::File,
        }
    };
    Workflow::parse(text, Path::new("flow/r.toml"), &look).map_err(|error| error.to_string())
}
