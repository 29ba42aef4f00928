//! The text of `roadrunner.toml`, read into typed values that know where they stand.
//!
//! Everything that one function or node says about itself is checked here: keys, types, units,
//! names, files. What they say about each other is checked in `graph.rs`.

use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use crate::error::{At, Report, quoted};
use crate::fields::{Entry, Section};
use crate::limit;
use crate::names::{check_name, header, is_address};
use crate::workflow::{Found, Header, Module, Wasi};

/// The keys of each table, in the order in which they are documented.
pub(crate) mod keys {
    pub(crate) const ROOT: &[&str] = &["workflow", "functions", "nodes"];
    pub(crate) const WORKFLOW: &[&str] = &["name", "entry", "callers"];
    pub(crate) const FUNCTION: &[&str] = &[
        "module",
        "next",
        "calls",
        "placement",
        "memory",
        "timeout",
        "idempotent",
        "retries",
        "reuse",
        "headers",
        "content_type",
        "wasi",
    ];
    pub(crate) const WASI: &[&str] = &["env", "dirs"];
    pub(crate) const DIR: &[&str] = &["path", "write"];
    pub(crate) const NODE: &[&str] = &["address"];
}

/// What the manifest says. A field that is wrong is reported and absent.
pub(crate) struct Manifest {
    pub(crate) name: Option<String>,
    pub(crate) entry: Option<At<String>>,
    pub(crate) callers: Vec<String>,
    /// In the order of the file.
    pub(crate) functions: Vec<Declared>,
    /// Name and address, in the order of the file.
    pub(crate) nodes: Vec<(String, String)>,
}

/// One function as the manifest declares it.
pub(crate) struct Declared {
    pub(crate) name: At<String>,
    pub(crate) module: Module,
    pub(crate) next: Vec<At<String>>,
    pub(crate) calls: Vec<At<String>>,
    pub(crate) placement: DeclaredPlacement,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) reuse: bool,
    pub(crate) wasi: Wasi,
    pub(crate) headers: Vec<Header>,
    pub(crate) content_type: Option<String>,
}

pub(crate) enum DeclaredPlacement {
    Local,
    Process(String),
    Node(At<String>),
}

/// Where problems go, and what the manifest's relative paths mean.
pub(crate) struct Reader<'r, 't> {
    pub(crate) report: &'r mut Report<'t>,
    /// The manifest's folder.
    pub(crate) base: &'r Path,
    pub(crate) look: &'r dyn Fn(&Path) -> Found,
}

impl Reader<'_, '_> {
    /// Reads the whole manifest.
    pub(crate) fn manifest(&mut self, table: &DeTable<'_>) -> Manifest {
        let root = Section::root(table);
        root.only(self.report, keys::ROOT, |_| None);
        let functions = self.functions(&root);
        let nodes = self.nodes(&root);
        let (name, entry, callers) = self.workflow(&root, &functions);
        Manifest { name, entry, callers, functions, nodes }
    }

    fn workflow(
        &mut self,
        root: &Section<'_>,
        functions: &[Declared],
    ) -> (Option<String>, Option<At<String>>, Vec<String>) {
        let Some(entry) = root.get("workflow") else {
            self.report.add(0, || {
                "the manifest has no table [workflow]; write [workflow] with `name` and `entry`"
                    .to_owned()
            });
            return (None, None, Vec::new());
        };
        let Some(section) =
            Section::open(self.report, "[workflow]".to_owned(), &entry, "[workflow]")
        else {
            return (None, None, Vec::new());
        };
        section.only(self.report, keys::WORKFLOW, |_| None);
        let name = section.required_text(self.report, "name", "\"my-workflow\"");
        if let Some(name) = &name {
            check_name(self.report, "the workflow", name.at, &name.value);
        }
        let example = functions
            .first()
            .map_or("\"first-function\"".to_owned(), |first| quoted(&first.name.value));
        let entry = section.required_text(self.report, "entry", &example);
        let callers = self.callers(&section);
        (name.map(|name| name.value), entry, callers)
    }

    fn callers(&mut self, section: &Section<'_>) -> Vec<String> {
        let callers = section.texts(self.report, "callers");
        if let Some(over) = callers.get(limit::CALLERS) {
            let (count, most) = (callers.len(), limit::CALLERS);
            self.report.add(over.at, || {
                format!("the workflow has {count} callers, but {most} is the limit; remove some")
            });
        }
        for caller in callers.iter().take(limit::CALLERS) {
            check_name(self.report, "a caller", caller.at, &caller.value);
        }
        callers.into_iter().map(|caller| caller.value).collect()
    }

    fn functions(&mut self, root: &Section<'_>) -> Vec<Declared> {
        const EXAMPLE: &str = "[functions.NAME] with module = \"NAME.wasm\"";
        let functions = root.get("functions");
        let section = match &functions {
            None => None,
            Some(entry) => {
                match Section::open(self.report, "`functions`".to_owned(), entry, EXAMPLE) {
                    None => return Vec::new(),
                    some => some,
                }
            }
        };
        let Some(section) = section.filter(|section| section.len() > 0) else {
            let at = functions.map_or(0, |entry| entry.at);
            self.report.add(at, || format!("the workflow has no functions; write {EXAMPLE}"));
            return Vec::new();
        };
        if section.len() > limit::FUNCTIONS {
            let (count, most) = (section.len(), limit::FUNCTIONS);
            self.report.add(section.at, || {
                format!("the workflow has {count} functions, but {most} is the limit; split it into several workflows")
            });
        }
        let entries = section.entries();
        entries.iter().take(limit::FUNCTIONS).map(|entry| self.function(entry)).collect()
    }

    fn nodes(&mut self, root: &Section<'_>) -> Vec<(String, String)> {
        let Some(entry) = root.get("nodes") else {
            return Vec::new();
        };
        let example = "[nodes.NAME] with address = \"HOST:PORT\"";
        let Some(nodes) = Section::open(self.report, "`nodes`".to_owned(), &entry, example) else {
            return Vec::new();
        };
        if nodes.len() > limit::NODES {
            let (count, most) = (nodes.len(), limit::NODES);
            self.report.add(nodes.at, || {
                format!("the manifest has {count} nodes, but {most} is the limit; remove some")
            });
        }
        let entries = nodes.entries();
        let entries = entries.iter().take(limit::NODES);
        entries.map(|entry| (entry.key.to_owned(), self.node(entry).unwrap_or_default())).collect()
    }

    fn node(&mut self, entry: &Entry<'_>) -> Option<String> {
        check_name(self.report, "a node", entry.at, entry.key);
        let title = format!("node {}", quoted(entry.key));
        let example = format!("[nodes.{}]", header(entry.key));
        let section = Section::open(self.report, title, entry, &example)?;
        section.only(self.report, keys::NODE, |_| None);
        let At { at, value: address } =
            section.required_text(self.report, "address", "\"10.0.0.7:7400\"")?;
        if !is_address(&address) {
            self.report.add(at, || {
                format!(
                    "{} has address {}, which is not HOST:PORT; write it like \"10.0.0.7:7400\", \"[fd00::7]:7400\" or \"edge-1.lan:7400\"",
                    section.title,
                    quoted(&address)
                )
            });
        }
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference names every key and states every limit.
    #[test]
    fn the_reference_is_complete() {
        let reference = include_str!("../../../docs/manifest.md");
        let tables =
            [keys::ROOT, keys::WORKFLOW, keys::FUNCTION, keys::WASI, keys::DIR, keys::NODE];
        for key in tables.into_iter().flatten() {
            assert!(
                reference.contains(&format!("`{key}`")),
                "docs/manifest.md does not explain `{key}`"
            );
        }
        let stated = [
            (limit::FUNCTIONS as u64, "1024 functions"),
            (limit::NODES as u64, "1024 nodes"),
            (limit::CALLERS as u64, "1024 callers"),
            (u64::from(limit::RETRIES), "10 times"),
            (limit::MANIFEST_BYTES as u64 >> 20, "1 MiB"),
            (roadrunner_abi::limit::INPUTS as u64, "256 inputs"),
            (u64::from(roadrunner_abi::limit::NAME_BYTES), "128 bytes"),
            (limit::TIMEOUT_MAX.as_secs() / 3600, "24h"),
            (u64::from(limit::TIMEOUT_MIN.subsec_millis()), "1ms"),
            (limit::MEMORY_MIN_BYTES >> 10, "64 KiB"),
            (limit::MEMORY_MAX_BYTES >> 30, "4 GiB"),
            (limit::HEADERS as u64, "16 headers"),
        ];
        for (number, words) in stated {
            assert!(words.starts_with(&number.to_string()), "{words} is {number} now");
            assert!(reference.contains(words), "docs/manifest.md does not state {words}");
        }
    }
}
