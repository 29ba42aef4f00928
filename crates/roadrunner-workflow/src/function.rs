//! What one `[functions.NAME]` table says: the module, the edges, the placement, the bounds and WASI.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::error::{At, quoted, quoted_path};
use crate::fields::{Entry, Section, kind};
use crate::limit;
use crate::manifest::{Declared, DeclaredPlacement, Reader, keys};
use crate::names::{check_name, header, is_image, is_plain_absolute};
use crate::units::{parse_duration, parse_size};
use crate::workflow::{Dir, Found, Module, Wasi};

const MODULE_ENDINGS: &[&str] = &["wasm", "wat", "cwasm"];

impl Reader<'_, '_> {
    /// Reads one function; what is wrong in it is reported and left at its default.
    pub(crate) fn function(&mut self, entry: &Entry<'_>) -> Declared {
        let name = At { at: entry.at, value: entry.key.to_owned() };
        check_name(self.report, "a function", name.at, &name.value);
        let mut declared = Declared {
            name,
            module: Module::File(PathBuf::new()),
            next: Vec::new(),
            calls: Vec::new(),
            placement: DeclaredPlacement::Local,
            memory_bytes: None,
            timeout: None,
            retries: 0,
            reuse: false,
            wasi: Wasi::default(),
            headers: Vec::new(),
            content_type: None,
        };
        let title = format!("function {}", quoted(entry.key));
        let example = format!("[functions.{}]", header(entry.key));
        let Some(section) = Section::open(self.report, title, entry, &example) else {
            return declared;
        };
        // `[functions.a.b]` is TOML for a table `b` in function `a`, not for a function `a.b`.
        let dotted = |inner: &Entry<'_>| {
            let module = inner.value.get_ref().as_table()?.contains_key("module");
            let whole = format!("{}.{}", entry.key, inner.key);
            module.then(|| {
                format!(
                    "; for a function with a dot in its name write [functions.{}]",
                    quoted(&whole)
                )
            })
        };
        section.only(self.report, keys::FUNCTION, dotted);
        let only_dotted = section.get("module").is_none()
            && section.entries().iter().any(|e| dotted(e).is_some());
        if !only_dotted {
            declared.module = self.module(&section);
        }
        declared.next = section.texts(self.report, "next");
        declared.calls = section.texts(self.report, "calls");
        declared.placement = self.placement(&section);
        let memory = limit::MEMORY_MIN_BYTES..=limit::MEMORY_MAX_BYTES;
        declared.memory_bytes =
            self.measure(&section, "memory", "\"256 MiB\"", parse_size, &memory, "64 KiB to 4 GiB");
        let timeout = limit::TIMEOUT_MIN..=limit::TIMEOUT_MAX;
        declared.timeout =
            self.measure(&section, "timeout", "\"10s\"", parse_duration, &timeout, "1ms to 24h");
        declared.retries = self.retries(&section);
        declared.reuse = section.switch(self.report, "reuse");
        declared.wasi = self.wasi(&section, entry.key);
        declared.headers = self.headers(&section, &declared);
        declared.content_type = self.content_type(&section);
        declared
    }

    fn retries(&mut self, section: &Section<'_>) -> u32 {
        let idempotent = section.switch(self.report, "idempotent");
        let retries = section.count(self.report, "retries", limit::RETRIES);
        if retries > 0 && !idempotent {
            let at = section.get("retries").map_or(section.at, |entry| entry.at);
            self.report.add(at, || {
                format!(
                    "{} has `retries`, with which a call may run twice; write idempotent = true if that does no harm",
                    section.title
                )
            });
        }
        retries
    }

    fn module(&mut self, section: &Section<'_>) -> Module {
        let Some(At { at, value: module }) =
            section.required_text(self.report, "module", "\"name.wasm\"")
        else {
            return Module::File(PathBuf::new());
        };
        let wrong = |why: &str| format!("{} has module {}, {why}", section.title, quoted(&module));
        if let Some(image) = module.strip_prefix("oci://") {
            if !is_image(image) {
                self.report.add(at, || {
                    wrong("which names no image; write oci://REGISTRY/NAME:TAG or oci://REGISTRY/NAME@sha256:DIGEST")
                });
            }
            return Module::Image(image.to_owned());
        }
        let path = self.base.join(&module);
        let ending = Path::new(&module).extension().and_then(|ending| ending.to_str());
        if !ending.is_some_and(|ending| MODULE_ENDINGS.contains(&ending)) {
            self.report.add(at, || {
                wrong("which is not a module; name a file that ends in .wasm, .wat or .cwasm")
            });
            return Module::File(path);
        }
        match (self.look)(&path) {
            Found::File => {}
            Found::Folder => self.report.add(at, || wrong("which is a folder; name the file in it")),
            Found::Nothing => self.report.add(at, || {
                let path = quoted_path(&path);
                wrong(&format!("but there is no file {path}; build it, or correct the path, which starts at the manifest's folder"))
            }),
        }
        Module::File(path)
    }

    fn placement(&mut self, section: &Section<'_>) -> DeclaredPlacement {
        let Some(At { at, value: placement }) = section.text(self.report, "placement", "\"local\"")
        else {
            return DeclaredPlacement::Local;
        };
        // `at` is the opening quote; the name's own offset is not known if the text has escapes.
        match placement.split_once(':') {
            None if placement == "local" => DeclaredPlacement::Local,
            Some(("process", name)) => {
                check_name(self.report, "a process", at, name);
                DeclaredPlacement::Process(name.to_owned())
            }
            Some(("node", name)) => DeclaredPlacement::Node(At { at, value: name.to_owned() }),
            _ => {
                self.report.add(at, || {
                    let placement = quoted(&placement);
                    format!(
                        "{} has the unknown placement {placement}; write \"local\", \"process:NAME\" or \"node:NAME\"",
                        section.title
                    )
                });
                DeclaredPlacement::Local
            }
        }
    }

    /// A number with a unit, within a range.
    fn measure<T: PartialOrd, E: std::fmt::Display>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        example: &str,
        parse: fn(&str) -> Result<T, E>,
        range: &RangeInclusive<T>,
        shown_range: &str,
    ) -> Option<T> {
        let At { at, value: text } = section.text(self.report, key, example)?;
        let title = &section.title;
        match parse(&text) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) => self.report.add(at, || {
                format!(
                    "{title} has {key} {}, which is out of range; write {shown_range}",
                    quoted(&text)
                )
            }),
            Err(error) => self.report.add(at, || format!("{title} has a wrong `{key}`: {error}")),
        }
        None
    }

    fn wasi(&mut self, function: &Section<'_>, name: &str) -> Wasi {
        let mut wasi = Wasi::default();
        let Some(entry) = function.get("wasi") else {
            return wasi;
        };
        let title = format!("[functions.{}.wasi]", header(name));
        let Some(section) = Section::open(self.report, title.clone(), &entry, &title) else {
            return wasi;
        };
        section.only(self.report, keys::WASI, |_| None);
        if let Some(env) = section.get("env") {
            let example = "env = { NAME = \"value\" }";
            if let Some(env) =
                Section::open(self.report, format!("`env` in {title}"), &env, example)
            {
                wasi.env =
                    env.entries().iter().filter_map(|entry| self.variable(&env, entry)).collect();
            }
        }
        if let Some(dirs) = section.get("dirs") {
            let example = "dirs = { \"/data\" = { path = \"./data\" } }";
            if let Some(dirs) =
                Section::open(self.report, format!("`dirs` in {title}"), &dirs, example)
            {
                wasi.dirs =
                    dirs.entries().iter().filter_map(|entry| self.dir(&dirs, entry)).collect();
            }
        }
        wasi
    }

    fn variable(&mut self, env: &Section<'_>, entry: &Entry<'_>) -> Option<(String, String)> {
        let Entry { key, at, value } = entry;
        if key.is_empty() || key.contains(['=', '\0']) {
            self.report.add(*at, || {
                format!(
                    "{} has the variable {}; write a name without \"=\"",
                    env.title,
                    quoted(key)
                )
            });
            return None;
        }
        let DeValue::String(text) = value.get_ref() else {
            self.report.add(value.span().start, || {
                let (key, found) = (header(key), kind(value.get_ref()));
                format!("{} has {found} as `{key}`, which must be text in quotes; write {key} = \"...\"", env.title)
            });
            return None;
        };
        if text.contains('\0') {
            self.report.add(value.span().start, || {
                format!("{} has a NUL character in `{}`; remove it", env.title, header(key))
            });
            return None;
        }
        Some(((*key).to_owned(), text.clone().into_owned()))
    }

    fn dir(&mut self, dirs: &Section<'_>, entry: &Entry<'_>) -> Option<Dir> {
        let guest = entry.key;
        let title = format!("{} in {}", quoted(guest), dirs.title);
        if !is_plain_absolute(guest) {
            self.report.add(entry.at, || {
                format!("{title} is not a guest path; write an absolute one such as \"/models\", without \".\", \"..\" and \"/\" at the end")
            });
        }
        let example = format!("{} = {{ path = \"./folder\" }}", quoted(guest));
        let section = Section::open(self.report, title, entry, &example)?;
        section.only(self.report, keys::DIR, |_| None);
        let write = section.switch(self.report, "write");
        let At { at, value: path } = section.required_text(self.report, "path", "\"./folder\"")?;
        let host = self.base.join(&path);
        let why = match (self.look)(&host) {
            Found::Folder => {
                return Some(Dir { guest: guest.to_owned(), host, write });
            }
            Found::File => "is a file",
            Found::Nothing => "does not exist",
        };
        self.report.add(at, || {
            let (path, host) = (quoted(&path), quoted_path(&host));
            format!("{} has path {path}, but {host} {why}; name a folder, starting at the manifest's folder", section.title)
        });
        None
    }
}
