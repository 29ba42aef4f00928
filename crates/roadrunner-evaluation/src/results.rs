//! The files of results: a row after each run, so that what is finished stays, whatever comes next.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::names::{Experiment, Place, System};

/// The file with the rows.
pub const RUNS: &str = "runs.csv";

/// The columns of `runs.csv`.
const COLUMNS: [&str; 18] = [
    "experiment",
    "place",
    "system",
    "x",
    "run",
    "total_s",
    "transfer_s",
    "serialization_s",
    "wasm_io_s",
    "hand_over_s",
    "consumer_s",
    "cpu_user_s",
    "cpu_kernel_s",
    "memory_peak_bytes",
    "page_faults",
    "copied_bytes",
    "transfers",
    "note",
];

/// The columns of `skipped.csv`.
const SKIPPED_COLUMNS: [&str; 4] = ["experiment", "place", "system", "reason"];

/// Why results can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file can't be read.
    #[error("can't read {path}: {reason}; see what it is, and name another folder with --results")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file can't be written.
    #[error(
        "can't write {path}: {reason}; the finished rows are kept, and the same command goes on after them"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder has results of another kind.
    #[error(
        "{path} has results of another kind ({found}); name another folder with --results, or remove it"
    )]
    Other {
        /// The folder.
        path: PathBuf,
        /// What it has.
        found: String,
    },
}

/// What one run gave. Times are in seconds; `None` is what was not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Of the whole run.
    pub total_s: Option<f64>,
    /// What is left of it after the next two.
    pub transfer_s: Option<f64>,
    /// In serializing and deserializing.
    pub serialization_s: Option<f64>,
    /// In carrying bytes into and out of linear memories.
    pub wasm_io_s: Option<f64>,
    /// Until the consumer's function began, and the way of its answer from another process or host.
    pub hand_over_s: Option<f64>,
    /// In the consumer's function.
    pub consumer_s: Option<f64>,
    /// Processor time of all processes of the system, in user mode.
    pub cpu_user_s: Option<f64>,
    /// The same in the kernel.
    pub cpu_kernel_s: Option<f64>,
    /// Most memory of all processes of the system.
    pub memory_peak_bytes: Option<u64>,
    /// Page faults of all processes of the system.
    pub page_faults: Option<u64>,
    /// Payload bytes that the runtime copied.
    pub copied_bytes: Option<u64>,
    /// Hand-overs that the run made.
    pub transfers: u32,
    /// What a reader should know.
    pub note: String,
}

/// What a row is about: its first four columns.
pub(crate) type Key = (Experiment, Place, System, String);

/// The files, open.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    runs: Rows,
    skipped: Rows,
    counts: HashMap<String, u32>,
    reasons: HashMap<String, String>,
}

impl Results {
    /// Opens a folder's results, or begins them. A last row that was not finished is taken out.
    ///
    /// # Errors
    /// When there are files that are something else.
    pub fn open(folder: &Path) -> Result<Self, ResultsError> {
        fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
        let (runs, rows) = Rows::open(folder.join(RUNS), &COLUMNS)?;
        let mut counts = HashMap::new();
        for row in rows {
            *counts.entry(row[..4].join(",")).or_default() += 1;
        }
        let (skipped, rows) = Rows::open(folder.join("skipped.csv"), &SKIPPED_COLUMNS)?;
        let reasons = rows.into_iter().map(|row| (row[..3].join(","), row[3].clone())).collect();
        Ok(Self { folder: folder.to_owned(), runs, skipped, counts, reasons })
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether anything has been measured.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        !self.counts.is_empty()
    }

    /// How many runs there are.
    #[must_use]
    pub(crate) fn count(&self, key: &Key) -> u32 {
        self.counts.get(&said(key)).copied().unwrap_or(0)
    }

    /// Writes a run down. Its number is how many there were.
    ///
    /// # Errors
    /// When it can't be written; then nothing of it is left in the file.
    pub(crate) fn append(&mut self, key: &Key, outcome: &Outcome) -> Result<(), ResultsError> {
        let count = self.counts.entry(said(key)).or_default();
        let seconds =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.9}"));
        let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
        let (experiment, place, system, x) = key;
        self.runs.append(&[
            experiment.to_string(),
            place.to_string(),
            system.to_string(),
            x.clone(),
            count.to_string(),
            seconds(outcome.total_s),
            seconds(outcome.transfer_s),
            seconds(outcome.serialization_s),
            seconds(outcome.wasm_io_s),
            seconds(outcome.hand_over_s),
            seconds(outcome.consumer_s),
            seconds(outcome.cpu_user_s),
            seconds(outcome.cpu_kernel_s),
            number(outcome.memory_peak_bytes),
            number(outcome.page_faults),
            number(outcome.copied_bytes),
            outcome.transfers.to_string(),
            outcome.note.clone(),
        ])?;
        *count += 1;
        Ok(())
    }

    /// Writes down why a system was not run, once for each reason.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn skip(
        &mut self,
        experiment: Experiment,
        place: Place,
        system: System,
        reason: &str,
    ) -> Result<(), ResultsError> {
        let row =
            [experiment.to_string(), place.to_string(), system.to_string(), reason.to_owned()];
        let known = self.reasons.insert(row[..3].join(","), reason.to_owned());
        if known.as_deref() == Some(reason) { Ok(()) } else { self.skipped.append(&row) }
    }
}

/// What can't be written.
fn refused(path: &Path, error: &io::Error) -> ResultsError {
    ResultsError::Write { path: path.to_owned(), reason: error.to_string() }
}

fn said((experiment, place, system, x): &Key) -> String {
    format!("{experiment},{place},{system},{x}")
}

/// A CSV file that rows are put behind.
#[derive(Debug)]
struct Rows {
    path: PathBuf,
    file: File,
}

impl Rows {
    /// Also the rows that are there.
    fn open(path: PathBuf, columns: &[&str]) -> Result<(Self, Vec<Vec<String>>), ResultsError> {
        let unreadable = |reason: &dyn ToString| ResultsError::Read {
            path: path.clone(),
            reason: reason.to_string(),
        };
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| unreadable(&error))?;
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
        // What follows the last line's end is a row that a crash cut off.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|error| unreadable(&error))?;
        let mut this = Self { path: path.clone(), file };
        if whole == 0 {
            this.append(columns)?;
            return Ok((this, Vec::new()));
        }
        let mut reader = csv::Reader::from_reader(&text.as_bytes()[..whole]);
        let found = reader.headers().map_err(|error| unreadable(&error))?;
        if found.iter().ne(columns.iter().copied()) {
            let found = format!("the columns of {} are others", path.display());
            let path = path.parent().unwrap_or(&path).to_owned();
            return Err(ResultsError::Other { path, found });
        }
        let rows = reader.records().map(|row| {
            let row = row.map_err(|error| unreadable(&error))?;
            Ok(row.iter().map(str::to_owned).collect())
        });
        Ok((this, rows.collect::<Result<_, ResultsError>>()?))
    }

    fn append(&mut self, row: &[impl AsRef<str>]) -> Result<(), ResultsError> {
        let refused = |error: io::Error| refused(&self.path, &error);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = writer.write_record(row.iter().map(AsRef::as_ref));
        written.map_err(|error| refused(io::Error::other(error)))?;
        let bytes = writer.into_inner().map_err(|error| refused(io::Error::other(error)))?;
        let before = self.file.metadata().map_err(refused)?.len();
        self.file.write_all(&bytes).map_err(|error| {
            // A disk that is full takes half a row; if this fails too, the next start takes it out.
            let _ = self.file.set_len(before);
            refused(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(x: &str) -> Key {
        (Experiment::Transfer, Place::SameHost, System::Tcp, x.into())
    }

    #[test]
    fn rows_stay_and_are_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = Outcome {
            total_s: Some(0.25),
            copied_bytes: Some(7),
            transfers: 1,
            note: "a, b".into(),
            ..Outcome::default()
        };
        let mut results = Results::open(folder.path()).unwrap();
        results.append(&key("1"), &outcome).unwrap();
        results.append(&key("10"), &outcome).unwrap();
        drop(results);
        let path = folder.path().join("runs.csv");
        // As a crash leaves it.
        let cut = fs::read_to_string(&path).unwrap() + "transfer,same-host,tc";
        fs::write(&path, cut).unwrap();
        let mut results = Results::open(folder.path()).unwrap();
        assert_eq!((results.count(&key("1")), results.count(&key("2"))), (1, 0));
        results.append(&key("1"), &outcome).unwrap();
        assert_eq!(results.count(&key("1")), 2);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], COLUMNS.join(","));
        assert_eq!(lines[3], "transfer,same-host,tcp,1,1,0.250000000,,,,,,,,,,7,1,\"a, b\"");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_reason_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut results = Results::open(folder.path()).unwrap();
            for reason in ["no, it isn't here", "no, it isn't here"] {
                results.skip(Experiment::Transfer, Place::SameHost, System::Redis, reason).unwrap();
            }
        }
        let text = fs::read_to_string(folder.path().join("skipped.csv")).unwrap();
        assert_eq!(
            text,
            "experiment,place,system,reason\ntransfer,same-host,redis,\"no, it isn't here\"\n"
        );
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.csv");
        fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = Results::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("the columns of") && error.contains("--results"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,b\n1,2\n");
    }

    #[test]
    fn a_full_disk_is_said_and_leaves_no_half_row() {
        let (full, file) = ("/dev/full".into(), OpenOptions::new().append(true).open("/dev/full"));
        let mut rows = Rows { path: full, file: file.unwrap() };
        let error = rows.append(&["a"]).unwrap_err();
        assert!(std::error::Error::source(&error).is_none(), "it would be said twice");
        let error = error.to_string();
        assert!(error.contains("No space left") && error.contains("kept"), "{error}");
    }
}
