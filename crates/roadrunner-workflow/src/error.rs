//! What is wrong with a manifest, in sentences that say what to write instead.
//!
//! A [`Report`] collects problems by byte offset while the manifest is read; it becomes a
//! [`ManifestError`] whose problems are in the order of the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::limit;

/// Why a workflow could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file could not be read.
    #[error("{}: the manifest cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file that was named.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// A folder was named instead of the manifest in it.
    #[error("{}: this is a folder; name the manifest in it, such as {}", path.display(), path.join("roadrunner.toml").display())]
    Folder {
        /// The folder that was named.
        path: PathBuf,
    },
    /// The file is larger than [`limit::MANIFEST_BYTES`].
    #[error("{}: the file has more than {} bytes, too many for a manifest; name a roadrunner.toml", path.display(), limit::MANIFEST_BYTES)]
    TooLarge {
        /// The file that was named.
        path: PathBuf,
    },
    /// The manifest was read and is wrong.
    #[error("{0}")]
    Invalid(Problems),
}

/// All that is wrong with one manifest, in the order of the file; at least one problem.
///
/// Shown with one line per problem, `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    origin: PathBuf,
    list: Vec<Problem>,
    left_out: usize,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the manifest, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to write instead, without the place.
    pub message: String,
}

impl Problems {
    /// The problems, at most [`limit::PROBLEMS`].
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.display();
        for (index, problem) in self.list.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(
                f,
                "{newline}{origin}:{}:{}: {}",
                problem.line, problem.column, problem.message
            )?;
        }
        match self.left_out {
            0 => Ok(()),
            1 => write!(f, "\n{origin}: 1 more problem"),
            more => write!(f, "\n{origin}: {more} more problems"),
        }
    }
}

/// A value and the byte offset at which the manifest gives it.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

/// Collects problems while a manifest is read.
pub(crate) struct Report<'a> {
    text: &'a str,
    found: Vec<At<String>>,
    left_out: usize,
}

impl<'a> Report<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new(), left_out: 0 }
    }

    /// Notes a problem at a byte offset. The message is only made if it will be shown, which
    /// bounds the work (such as searching for similar names) on a manifest full of errors.
    pub(crate) fn add(&mut self, at: usize, message: impl FnOnce() -> String) {
        if self.found.len() < limit::PROBLEMS {
            self.found.push(At { at, value: message() });
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The error, if there was a problem.
    pub(crate) fn check(&mut self, origin: &Path) -> Result<(), ManifestError> {
        if self.is_empty() { Ok(()) } else { Err(self.take(origin)) }
    }

    /// All problems so far, in the order of the file.
    pub(crate) fn take(&mut self, origin: &Path) -> ManifestError {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|problem| problem.at);
        let list = found
            .into_iter()
            .map(|At { at, value: message }| {
                let (line, column) = line_and_column(self.text, at);
                Problem { line, column, message }
            })
            .collect();
        ManifestError::Invalid(Problems {
            origin: origin.to_owned(),
            list,
            left_out: self.left_out,
        })
    }
}

/// Line and column, both from 1, of a byte offset; a byte order mark takes no column.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before[start..].trim_start_matches('\u{feff}').chars().count() + 1;
    (line, column)
}

/// Text from the manifest as it is shown in a message: in quotes, on one line, without control
/// characters, and cut where it is very long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
    }
}

/// A path from the manifest as it is shown in a message.
pub(crate) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// `; did you mean ...?` if one of the candidates is likely to be what was meant, else nothing.
pub(crate) fn did_you_mean<'c>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'c str>,
    show: impl FnOnce(&str) -> String,
) -> String {
    // The distance is a product of both lengths: names that are too long to be valid get none.
    const LONGEST: usize = roadrunner_abi::limit::NAME_BYTES as usize;
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    if wrong.len() > LONGEST {
        return String::new();
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::osa_distance(&wrong.to_lowercase(), candidate), candidate))
        .filter(|&(distance, candidate)| {
            distance <= allowed && distance < candidate.chars().count()
        })
        .min_by_key(|&(distance, _)| distance)
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean {}?", show(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_start_at_one() {
        let text = "\u{feff}a\nü = 1\r\nx";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, 3), (1, 1));
        assert_eq!(line_and_column(text, 5), (2, 1));
        assert_eq!(line_and_column(text, 6), (2, 1), "inside a character");
        assert_eq!(line_and_column(text, 7), (2, 2));
        assert_eq!(line_and_column(text, text.len()), (3, 2));
        assert_eq!(line_and_column(text, usize::MAX), (3, 2));
    }

    #[test]
    fn only_similar_names_are_suggested() {
        let suggest = |wrong| did_you_mean(wrong, ["module", "next", "wasi"], quoted);
        assert_eq!(suggest("modul"), "; did you mean \"module\"?");
        assert_eq!(suggest("Next"), "; did you mean \"next\"?");
        assert_eq!(suggest("nxet"), "; did you mean \"next\"?");
        assert_eq!(suggest("retries"), "");
        assert_eq!(suggest(""), "");
        // Names too long to be valid are not compared at all, or a hostile manifest costs seconds.
        let longest = "x".repeat(roadrunner_abi::limit::NAME_BYTES as usize);
        let suggest = |wrong: &str| did_you_mean(wrong, [longest.as_str()], |_| "it".to_owned());
        assert_eq!(suggest(&longest[1..]), "; did you mean it?");
        assert_eq!(suggest(&format!("{longest}x")), "");
    }

    #[test]
    fn a_flood_of_problems_is_counted_not_shown() {
        let mut report = Report::new("");
        for _ in 0..limit::PROBLEMS {
            report.add(0, || "wrong".to_owned());
        }
        report.add(0, || unreachable!("this one is not shown"));
        report.add(0, || unreachable!("this one is not shown"));
        let shown = report.check(Path::new("r.toml")).unwrap_err().to_string();
        assert_eq!(shown.lines().count(), limit::PROBLEMS + 1);
        assert!(shown.ends_with("\nr.toml: 2 more problems"), "{shown}");
    }

    #[test]
    fn text_from_the_manifest_cannot_write_to_the_terminal() {
        assert_eq!(quoted("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(quoted(&"x".repeat(1000)).len(), 105);
    }
}
