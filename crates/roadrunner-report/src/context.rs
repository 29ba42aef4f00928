//! What belongs to the runs: the machine, what was skipped, and why a result is worse than it should be.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::files;
use crate::names::{Experiment, Metric, Place, System};
use crate::units;

/// `machine.json`: where, when and of what the runs were made, in order of the names.
#[derive(Debug, Default)]
pub(crate) struct Machine(Vec<(String, String)>);

impl Machine {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let Some(text) = files::read(path)? else { return Ok(Self::default()) };
        let machine: Value =
            serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        if !machine.is_object() {
            bail!("{}: not an object; `cargo xtask evaluate` writes one", path.display());
        }
        let mut facts = Vec::new();
        flatten("", &machine, &mut facts);
        Ok(Self(facts))
    }

    /// Every fact as a name in words and a value.
    pub(crate) fn facts(&self) -> &[(String, String)] {
        &self.0
    }

    /// A fact by its name.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Turns nested objects into names of several words.
fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('_', " ");
                let name = if name.is_empty() { key } else { format!("{name}: {key}") };
                flatten(&name, value, facts);
            }
        }
        Value::Null => {}
        Value::Number(number) if name.ends_with(" bytes") => {
            let bytes = number.as_f64().unwrap_or_default();
            facts.push((name.trim_end_matches(" bytes").to_owned(), units::bytes(bytes)));
        }
        Value::String(text) => facts.push((name.to_owned(), text.clone())),
        other => facts.push((name.to_owned(), other.to_string())),
    }
}

/// A row of `skipped.csv`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skipped {
    pub(crate) experiment: Experiment,
    pub(crate) place: Place,
    pub(crate) system: System,
    pub(crate) reason: String,
}

impl Skipped {
    /// Reads the file; no file is nothing skipped.
    pub(crate) fn read(path: &Path) -> Result<Vec<Self>> {
        let Some(text) = files::read(path)? else { return Ok(Vec::new()) };
        Ok(files::rows(path, &text)?.into_iter().map(|(_, skipped)| skipped).collect())
    }
}

/// In what way a result is worse than it should be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A peer is faster.
    Slower,
    /// The paper's prototype did better against the same kind of peer.
    BelowPaper,
    /// A named target was missed.
    Target,
}

/// One `[[note]]` of `notes.toml`: why something is worse. What it leaves out, it holds for all of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    kind: Kind,
    experiment: Option<Experiment>,
    place: Option<Place>,
    ours: Option<System>,
    peer: Option<System>,
    metric: Option<Metric>,
    target: Option<String>,
    pub(crate) reason: String,
}

/// What a note can be about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Comparison {
        kind: Kind,
        experiment: Experiment,
        place: Place,
        ours: System,
        peer: System,
        metric: Metric,
    },
    Target(&'static str),
}

impl Note {
    fn is_about(&self, subject: &Subject) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        match subject {
            Subject::Target(id) => {
                self.kind == Kind::Target && self.target.as_deref().is_none_or(|name| name == *id)
            }
            Subject::Comparison { kind, experiment, place, ours, peer, metric } => {
                self.kind == *kind
                    && fits(self.experiment.as_ref(), experiment)
                    && fits(self.place.as_ref(), place)
                    && fits(self.ours.as_ref(), ours)
                    && fits(self.peer.as_ref(), peer)
                    && fits(self.metric.as_ref(), metric)
            }
        }
    }
}

/// All notes; the first that fits counts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notes {
    #[serde(default, rename = "note")]
    notes: Vec<Note>,
}

impl Notes {
    /// Reads the file; without one nothing is explained.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let Some(text) = files::read(path)? else { return Ok(Self::default()) };
        toml::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// Why this is worse, if anybody wrote it down.
    pub(crate) fn reason(&self, subject: &Subject) -> Option<&str> {
        self.notes.iter().find(|note| note.is_about(subject)).map(|note| note.reason.trim())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn in_a_file<T>(text: &str, read: impl Fn(&Path) -> Result<T>) -> Result<T> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, text).expect("a file");
        read(&path)
    }

    #[test]
    fn a_machine_is_told_by_its_names() {
        let told = r#"{"mode": "quick", "cores": 2, "peers": {"redis": "7.0"}, "swap": null, "memory_bytes": 8e9}"#;
        let machine = in_a_file(told, Machine::read).expect("it is right");
        let facts: Vec<_> = machine.facts().iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            facts,
            [("cores", "2"), ("memory", "8.00 GB"), ("mode", "quick"), ("peers: redis", "7.0")]
        );
        assert_eq!(machine.fact("mode"), Some("quick"));
        let wrong = in_a_file("[1]", Machine::read).expect_err("no object");
        assert!(format!("{wrong:#}").contains("not an object"), "{wrong:#}");
        let torn = in_a_file("{\n\"mode\": ", Machine::read).expect_err("torn");
        assert!(format!("{torn:#}").contains("line 2"), "{torn:#}");
    }

    #[test]
    fn the_first_note_that_fits_gives_the_reason() {
        let notes = in_a_file(
            "[[note]]\nkind = 'slower'\npeer = 'iceoryx2'\nreason = ' no isolation '\n\
             [[note]]\nkind = 'slower'\nplace = 'same-host'\nreason = 'other'\n\
             [[note]]\nkind = 'target'\ntarget = 'link'\nreason = 'headers'\n",
            Notes::read,
        )
        .expect("they are right");
        let slower = |place, peer| Subject::Comparison {
            kind: Kind::Slower,
            experiment: Experiment::Transfer,
            place,
            ours: System::RoadrunnerKernel,
            peer,
            metric: Metric::Latency,
        };
        assert_eq!(notes.reason(&slower(Place::SameHost, System::Iceoryx2)), Some("no isolation"));
        assert_eq!(notes.reason(&slower(Place::SameHost, System::Redis)), Some("other"));
        assert_eq!(notes.reason(&slower(Place::TwoHosts1Gbit, System::Redis)), None);
        assert_eq!(notes.reason(&Subject::Target("link")), Some("headers"));
        assert_eq!(notes.reason(&Subject::Target("memory")), None);
        let wrong = in_a_file("[[note]]\nkind = 'odd'\nreason = ''\n", Notes::read);
        let wrong = format!("{:#}", wrong.expect_err("no such kind"));
        assert!(wrong.contains("line 2") && wrong.contains("slower"), "{wrong}");
    }
}
