//! A served function, as the annotations of its container say it.
//!
//! | annotation | what it says |
//! |---|---|
//! | `dev.roadrunner/function` | its name: the container waits for payloads and runs no command |
//! | `dev.roadrunner/next` | who gets its response, separated by commas |
//! | `dev.roadrunner/calls` | whom it may call itself, separated by commas |
//! | `dev.roadrunner/mode` | the farthest that its payloads go: `user` (its pod), `kernel` (its host), or `auto` for anywhere |
//! | `dev.roadrunner/address`, `tls`, `insecure` | functions on other nodes, see `away.rs` |
//! | `dev.roadrunner/memory` | most linear memory, such as `256 MiB` |
//! | `dev.roadrunner/timeout` | most time for one payload, such as `10s` |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roadrunner_workflow::limit::MEMORY_MAX_BYTES;
use roadrunner_workflow::units::parse_size;
use roadrunner_workflow::{Found, Workflow};

use crate::away::Away;
use crate::error::Refusal;
use crate::spec::Spec;

/// What all annotations of this runtime begin with.
const PREFIX: &str = "dev.roadrunner/";

/// The ones that there are.
const KNOWN: [&str; 9] =
    ["function", "next", "calls", "mode", "memory", "timeout", "address", "tls", "insecure"];

/// What the name of a function's module ends in, where a manifest has to name a file.
pub(crate) const MODULE: &str = ".wasm";

/// How far payloads may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To functions of the same pod.
    Pod,
    /// To any function of this host.
    Host,
    /// To other hosts too.
    #[default]
    Anywhere,
}

/// A function to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) next: Vec<String>,
    pub(crate) calls: Vec<String>,
    pub(crate) reach: Reach,
    /// Where functions are that this host may not have.
    pub(crate) away: Away,
    /// Its limits, as a manifest has them.
    pub(crate) limits: String,
}

impl Served {
    /// The function of a container; `None` for one that runs a command.
    pub(crate) fn of(spec: &Spec) -> Result<Option<Self>, Refusal> {
        // All containers of a pod of Kubernetes have the pod's annotations: there each says whose it is.
        let each = format!("{PREFIX}function.");
        let each = spec.annotations.keys().any(|name| name.starts_with(&each));
        let whose = spec.container_name().filter(|_| each).map(|name| format!(".{name}"));
        let whose = whose.unwrap_or_default();
        let annotation = |name: &str| {
            spec.annotations.get(&format!("{PREFIX}{name}{whose}")).map(|it| it.trim())
        };
        for name in spec.annotations.keys().filter_map(|name| name.strip_prefix(PREFIX)) {
            let name = name.split_once('.').map_or(name, |(name, _)| name);
            if !KNOWN.contains(&name) {
                let known = KNOWN.map(|name| format!("{PREFIX}{name}")).join(", ");
                let why = format!("there is no annotation {PREFIX}{name}; there are {known}");
                return Err(Refusal::Invalid(why));
            }
        }
        let Some(name) = annotation("function") else { return Ok(None) };
        let names = |annotation: Option<&str>| -> Vec<String> {
            let names = annotation.unwrap_or_default().split(',').map(str::trim);
            names.filter(|name| !name.is_empty()).map(String::from).collect()
        };
        let reach = match annotation("mode") {
            None | Some("auto") => Reach::Anywhere,
            Some("kernel") => Reach::Host,
            Some("user") => Reach::Pod,
            Some(other) => {
                let why = format!("{PREFIX}mode is {other:?}; it can be auto, user or kernel");
                return Err(Refusal::Invalid(why));
            }
        };
        let memory = memory(spec, annotation("memory"))?;
        let served = Self {
            name: name.to_owned(),
            next: names(annotation("next")),
            calls: names(annotation("calls")),
            reach,
            away: Away::of(&annotation, spec)?,
            limits: [("memory", memory.as_deref()), ("timeout", annotation("timeout"))]
                .iter()
                .filter_map(|(key, value)| Some(format!("{key} = {}\n", quoted((*value)?))))
                .collect(),
        };
        served.check()?;
        Ok(Some(served))
    }

    /// Whether a manifest takes these names and limits.
    fn check(&self) -> Result<(), Refusal> {
        // The functions that follow as a chain: whether their own edges fit is seen where all are known.
        let mut rest: Vec<&[String]> = self.next.chunks(1).collect();
        rest.push(&[]);
        let mut text = head(&self.name);
        let row = |name, next, calls| Row { name, next, calls, placement: "local" }.text();
        text += &row(&self.name, rest[0], &self.calls);
        text += &self.limits;
        for (name, next) in self.next.iter().zip(&rest[1..]) {
            text += &row(name, next, &[]);
        }
        let only_called = |name: &&String| **name != self.name && !self.next.contains(name);
        for name in self.calls.iter().filter(only_called) {
            text += &row(name, &[], &[]);
        }
        parse(&text).map(drop).map_err(|why| {
            Refusal::Invalid(format!(
                "the annotations of function {:?} are wrong: {why}",
                self.name
            ))
        })
    }
}

/// How much memory a function may use: what its annotation says, within its container's limit.
fn memory(spec: &Spec, annotation: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(limit) = spec.memory() else { return Ok(annotation.map(String::from)) };
    match annotation.map(parse_size) {
        // What is no size is said together with all else.
        Some(Err(_)) => Ok(annotation.map(String::from)),
        Some(Ok(asked)) if asked > limit => Err(Refusal::Invalid(format!(
            "{PREFIX}memory is {asked} bytes, and the container may use {limit}"
        ))),
        Some(Ok(asked)) => Ok(Some(format!("{asked} B"))),
        None => Ok(Some(format!("{} B", limit.min(MEMORY_MAX_BYTES)))),
    }
}

/// A function in a manifest.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) next: &'a [String],
    pub(crate) calls: &'a [String],
    pub(crate) placement: &'a str,
}

impl Row<'_> {
    pub(crate) fn text(&self) -> String {
        let (name, module) = (quoted(self.name), quoted(&(self.name.to_owned() + MODULE)));
        let (next, calls) = (list("next", self.next), list("calls", self.calls));
        let placement = quoted(self.placement);
        format!("[functions.{name}]\nmodule = {module}\n{next}{calls}placement = {placement}\n")
    }
}

/// What a function sees of its environment, in a manifest.
pub(crate) fn environment(name: &str, env: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> =
        env.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
    format!("[functions.{}.wasi]\nenv = {{ {} }}\n", quoted(name), pairs.join(", "))
}

/// The beginning of the manifest of a workflow that begins with a function and is called like it.
pub(crate) fn head(entry: &str) -> String {
    let entry = quoted(entry);
    format!("[workflow]\nname = {entry}\nentry = {entry}\n")
}

/// Reads a manifest that was made here. Its modules are no files.
pub(crate) fn parse(text: &str) -> Result<Workflow, String> {
    let origin: PathBuf = "annotations".into();
    Workflow::parse(text, &origin, &|_: &Path| Found::File).map_err(|error| error.to_string())
}

fn list(key: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("{key} = [{}]\n", names.join(", "))
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(annotations: &[(&str, &str)]) -> Result<Option<Served>, Refusal> {
        let with_prefix =
            |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
        let mut spec =
            Spec { annotations: annotations.iter().map(with_prefix).collect(), ..Spec::default() };
        spec.annotations.insert("io.kubernetes.cri.sandbox-id".into(), "pod".into());
        Served::of(&spec)
    }

    #[test]
    fn annotations_make_a_function() {
        assert_eq!(served(&[]).unwrap(), None, "a command");
        let all = [
            ("function", "resize"),
            ("next", "blur, edges,grey"),
            ("calls", "classify,resize"),
            ("mode", "user"),
            ("memory", "256 MiB"),
            ("timeout", "10s"),
        ];
        let expected = Served {
            name: "resize".into(),
            next: ["blur", "edges", "grey"].map(String::from).to_vec(),
            calls: ["classify", "resize"].map(String::from).to_vec(),
            reach: Reach::Pod,
            away: Away::default(),
            limits: "memory = \"256 MiB\"\ntimeout = \"10s\"\n".into(),
        };
        assert_eq!(served(&all).unwrap(), Some(expected));
        let least = served(&[("function", "f")]).unwrap().unwrap();
        assert_eq!(
            (least.reach, least.limits.as_str(), least.next.len()),
            (Reach::Anywhere, "", 0)
        );
    }

    #[test]
    fn a_function_has_no_more_memory_than_its_container() {
        let of = |limit: u64, annotation: Option<&str>| {
            let mut spec: Spec = serde_json::from_str(&format!(
                r#"{{"linux": {{"resources": {{"memory": {{"limit": {limit}}}}}}}}}"#
            ))
            .unwrap();
            spec.annotations.insert(format!("{PREFIX}function"), "f".into());
            if let Some(memory) = annotation {
                spec.annotations.insert(format!("{PREFIX}memory"), memory.into());
            }
            Served::of(&spec).map(|it| it.unwrap().limits)
        };
        assert_eq!(of(1 << 20, None).unwrap(), "memory = \"1048576 B\"\n");
        assert_eq!(of(1 << 40, None).unwrap(), "memory = \"4294967296 B\"\n");
        assert_eq!(of(1 << 20, Some("64 KiB")).unwrap(), "memory = \"65536 B\"\n");
        let refused = of(1 << 20, Some("2 MiB")).unwrap_err().to_string();
        assert!(refused.contains("1048576"), "{refused}");
        assert!(of(1 << 20, Some("lots")).is_err());
    }

    #[test]
    fn each_container_of_a_pod_has_a_function_of_its_own() {
        let annotations =
            [("function.a", "decode"), ("next.a", "resize"), ("function.b", "resize")];
        let of = |container: &str| {
            let mut spec = Spec::default();
            for (name, value) in annotations {
                spec.annotations.insert(format!("{PREFIX}{name}"), value.into());
            }
            spec.annotations.insert("io.kubernetes.cri.container-name".into(), container.into());
            Served::of(&spec).unwrap().map(|it| (it.name, it.next))
        };
        assert_eq!(of("a"), Some(("decode".into(), vec!["resize".into()])));
        assert_eq!(of("b"), Some(("resize".into(), vec![])));
        assert_eq!(of("side-car"), None, "a command");
    }

    #[test]
    fn what_is_wrong_with_annotations_is_said() {
        let cases: [(&[(&str, &str)], &str); 11] = [
            (&[("function", "Not A Name")], "not-a-name"),
            (&[("function", "")], "has the name"),
            (&[("function", "f"), ("next", "../x")], "has the name"),
            (&[("function", "f"), ("next", "f")], "f"),
            (&[("function", "f"), ("next", "a,a")], "a"),
            (&[("function", "f"), ("memory", "lots")], "size"),
            (&[("function", "f"), ("timeout", "10")], "unit"),
            (&[("function", "f"), ("mode", "fast")], "auto, user or kernel"),
            (&[("function", "f"), ("nxet", "g")], "dev.roadrunner/next"),
            (&[("function", "f"), ("address", "g=10.0.0.7:1")], "dev.roadrunner/tls"),
            (&[("function", "f"), ("tls", "/etc")], "mounts no such directory"),
        ];
        for (annotations, expected) in cases {
            let refused = served(annotations).unwrap_err().to_string();
            assert!(refused.contains(expected), "{annotations:?}: {refused}");
        }
        let injected = "x\"\n[functions.y]\nmodule = \"/etc/passwd\"\n#";
        assert!(served(&[("function", injected)]).is_err());
    }
}
