//! `roadrunner inspect`: what a module offers and asks.

use std::fmt::Write as _;

use roadrunner_runtime::{Config, Inspection, Kind, ModuleSource, Runtime};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::exit::{Exit, Failure};
use crate::{output, report};

pub(crate) fn run(options: &Inspect) -> Result<Exit, Failure> {
    let module = options.module.display().to_string();
    let source = ModuleSource::File(options.module.clone());
    let found = Runtime::new(Config::default())?.inspect(&source)?;
    let text = if options.json {
        report::line(&as_json(&module, &found))
    } else {
        as_text(&module, &found)
    };
    output::print(&text)?;
    Ok(Exit::Success)
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Handler { one: true, many: true } => "handle, handle_many",
        Kind::Handler { many: true, .. } => "handle_many",
        Kind::Handler { .. } => "handle",
        Kind::Command => "command",
    }
}

fn as_json(module: &str, found: &Inspection) -> Value {
    let list = |items: &[(String, String)]| -> Vec<Value> {
        items.iter().map(|(name, ty)| json!({ "name": name, "type": ty })).collect()
    };
    json!({
        "module": module,
        "kind": kind(found.kind),
        "memory_bytes": found.memory_bytes,
        "memory_max_bytes": found.memory_max_bytes,
        "exports": list(&found.exports),
        "imports": list(&found.imports),
    })
}

fn as_text(module: &str, found: &Inspection) -> String {
    let takes = match found.kind {
        Kind::Handler { one: true, many: true } => "one payload (handle) or several (handle_many)",
        Kind::Handler { many: true, .. } => "several payloads, as a fan-in (handle_many)",
        Kind::Handler { .. } => "one payload (handle)",
        Kind::Command => "one payload on stdin, as a WASI command; the response is its stdout",
    };
    let most = match found.memory_max_bytes {
        Some(bytes) => format!("at most {}", report::bytes(bytes)),
        None => "no limit of its own".into(),
    };
    let mut text = format!("module   {module}\ntakes    {takes}\n");
    // Writing to a string can't fail.
    let _ = writeln!(text, "memory   {} at start, {most}", report::bytes(found.memory_bytes));
    for (title, items) in [("exports", &found.exports), ("imports", &found.imports)] {
        let _ = writeln!(text, "{title}{}", if items.is_empty() { "  none" } else { "" });
        let width = items.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, ty) in items {
            let _ = writeln!(text, "  {name:width$}  {ty}");
        }
    }
    text
}
