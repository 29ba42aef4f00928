//! Typed access to one TOML table: the keys it may have, their types, and where they stand.
//!
//! Reading never stops at a problem; a field that is wrong is reported and then absent.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::error::{At, Report, did_you_mean, quoted};

/// One table of the manifest.
pub(crate) struct Section<'t> {
    /// How messages call it, such as `[workflow]` or `function "resize"`.
    pub(crate) title: String,
    /// Where it begins.
    pub(crate) at: usize,
    table: &'t DeTable<'t>,
}

/// One key with its value.
pub(crate) struct Entry<'t> {
    pub(crate) key: &'t str,
    /// Where the key stands; the value's own place is in its span.
    pub(crate) at: usize,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    /// The whole document.
    pub(crate) fn root(table: &'t DeTable<'t>) -> Self {
        Self { title: "the manifest".to_owned(), at: 0, table }
    }

    /// The table that is this entry's value. `example` is what to write if it is not a table.
    pub(crate) fn open(
        report: &mut Report,
        title: String,
        entry: &Entry<'t>,
        example: &str,
    ) -> Option<Self> {
        match entry.value.get_ref() {
            DeValue::Table(table) => Some(Self { title, at: entry.at, table }),
            other => {
                report.add(entry.at, || {
                    format!("{title} is {}, but must be a table; write {example}", kind(other))
                });
                None
            }
        }
    }

    /// The entries in the order of the file.
    pub(crate) fn entries(&self) -> Vec<Entry<'t>> {
        let entry = |(key, value): (&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)| Entry {
            key: key.get_ref(),
            at: key.span().start,
            value,
        };
        let mut entries: Vec<_> = self.table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<'t>> {
        let (key, value) = self.table.get_key_value(key)?;
        Some(Entry { key: key.get_ref(), at: key.span().start, value })
    }

    /// Reports every key that is not among `known`; `hint` may add to the message.
    pub(crate) fn only(
        &self,
        report: &mut Report,
        known: &[&str],
        hint: impl Fn(&Entry<'_>) -> Option<String>,
    ) {
        for entry in self.entries() {
            if known.contains(&entry.key) {
                continue;
            }
            report.add(entry.at, || {
                let meant = hint(&entry).unwrap_or_else(|| {
                    did_you_mean(entry.key, known.iter().copied(), |key| format!("`{key}`"))
                });
                let known = known.join(", ");
                format!(
                    "{} has no key {}{meant} (known keys: {known})",
                    self.title,
                    quoted(entry.key)
                )
            });
        }
    }

    /// A key's text. `example` is what to write if it is something else.
    pub(crate) fn text(&self, report: &mut Report, key: &str, example: &str) -> Option<At<String>> {
        let entry = self.get(key)?;
        let at = entry.value.span().start;
        match entry.value.get_ref() {
            DeValue::String(text) => Some(At { at, value: text.clone().into_owned() }),
            other => {
                report.add(at, || self.wrong_type(key, other, "text in quotes", example));
                None
            }
        }
    }

    /// A key's text; a missing key is a problem too.
    pub(crate) fn required_text(
        &self,
        report: &mut Report,
        key: &str,
        example: &str,
    ) -> Option<At<String>> {
        if self.get(key).is_none() {
            report
                .add(self.at, || format!("{} has no `{key}`; write {key} = {example}", self.title));
        }
        self.text(report, key, example)
    }

    /// A key's truth value, `false` if it is not there.
    pub(crate) fn switch(&self, report: &mut Report, key: &str) -> bool {
        let Some(entry) = self.get(key) else {
            return false;
        };
        match entry.value.get_ref() {
            DeValue::Boolean(on) => *on,
            other => {
                report.add(entry.value.span().start, || {
                    self.wrong_type(key, other, "true or false", "false")
                });
                false
            }
        }
    }

    /// A key's whole number, at most `most`; 0 if it is not there.
    pub(crate) fn count(&self, report: &mut Report, key: &str, most: u32) -> u32 {
        let Some(entry) = self.get(key) else {
            return 0;
        };
        let number = match entry.value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            other => {
                let (wanted, example) = (format!("a number from 0 to {most}"), most.min(2));
                report.add(entry.value.span().start, || {
                    self.wrong_type(key, other, &wanted, &example.to_string())
                });
                return 0;
            }
        };
        number.filter(|&number| number <= most).unwrap_or_else(|| {
            report.add(entry.value.span().start, || {
                format!("{} has a `{key}` out of range; write 0 to {most}", self.title)
            });
            0
        })
    }

    /// A key's list of texts, empty if it is not there.
    pub(crate) fn texts(&self, report: &mut Report, key: &str) -> Vec<At<String>> {
        const WANTED: &str = "a list of names";
        let Some(entry) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = entry.value.get_ref() else {
            let other = entry.value.get_ref();
            report.add(entry.value.span().start, || {
                let example = match other {
                    DeValue::String(name) => format!("[{}]", quoted(name)),
                    _ => r#"["name"]"#.to_owned(),
                };
                self.wrong_type(key, other, WANTED, &example)
            });
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { at, value: text.clone().into_owned() }),
                other => report.add(at, || {
                    format!(
                        "{} has {} in `{key}`, which is {WANTED}; write {key} = [\"name\"]",
                        self.title,
                        kind(other)
                    )
                }),
            }
        }
        texts
    }

    fn wrong_type(&self, key: &str, found: &DeValue<'_>, wanted: &str, example: &str) -> String {
        format!(
            "{} has {} as `{key}`, which must be {wanted}; write {key} = {example}",
            self.title,
            kind(found)
        )
    }
}

/// How messages call a type of TOML.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
