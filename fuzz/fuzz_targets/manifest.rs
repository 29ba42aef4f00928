//! Any text either is a workflow whose plan can be walked, or a refusal that says why.
//!
//! `cargo xtask test --only fuzz` runs it for seconds; `cargo +nightly fuzz run manifest` runs it for as long as wished.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use roadrunner_workflow::{Found, Workflow};

fuzz_target!(|text: &str| {
    match Workflow::parse(text, Path::new("roadrunner.toml"), &|_| Found::File) {
        Ok(workflow) => {
            let steps = workflow.plan().steps().len();
            assert_eq!(steps, workflow.functions().len(), "every function is planned once");
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal gives a reason"),
    }
});
