//! The files of a report: written, or compared with those that are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::export;
use crate::files;
use crate::page;
use crate::plot;
use crate::report::Report;

const PAGE: &str = "index.html";
const PLOTS: &str = "plots";

/// What should be in a folder of results, by path below it; `None` is a file of an earlier report that must not be there.
pub(crate) struct Files(BTreeMap<PathBuf, Option<String>>);

impl Files {
    /// All of a report's. Without one, none of them should be there.
    pub(crate) fn of(report: Option<&Report>, results: &Path) -> Result<Self> {
        let mut all: BTreeMap<PathBuf, Option<String>> =
            export::names().chain([PAGE]).map(|name| (name.into(), None)).collect();
        for plot in plots(results)? {
            all.insert(plot, None);
        }
        let Some(report) = report else { return Ok(Self(all)) };
        for (name, text) in export::tables(&report.runs)? {
            all.insert(name.into(), Some(text));
        }
        for figure in &report.figures {
            let name = Path::new(PLOTS).join(format!("{}.svg", figure.id));
            all.insert(name, Some(plot::standalone(&figure.svg)));
        }
        all.insert(PAGE.into(), Some(page::page(report)));
        Ok(Self(all))
    }

    /// Writes those that differ, each at once, and removes those of an earlier report.
    pub(crate) fn write(&self, results: &Path) -> Result<()> {
        for (name, text) in self.stale(results)? {
            let path = results.join(name);
            match text {
                Some(text) => replace(&path, text)?,
                None => fs::remove_file(&path)
                    .with_context(|| format!("could not remove {}", path.display()))?,
            }
        }
        Ok(())
    }

    /// Fails if a file is not what the runs give.
    pub(crate) fn check(&self, results: &Path) -> Result<()> {
        let stale: Vec<_> = self.stale(results)?.into_iter().map(|(name, _)| name).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = stale.iter().map(|name| name.display().to_string()).collect();
        bail!("not what the runs in {} give: {}", results.display(), names.join(", "))
    }

    fn stale(&self, results: &Path) -> Result<Vec<(&Path, Option<&str>)>> {
        let mut stale = Vec::new();
        for (name, text) in &self.0 {
            if files::read(&results.join(name))? != *text {
                stale.push((name.as_path(), text.as_deref()));
            }
        }
        Ok(stale)
    }
}

/// The figures that are there.
fn plots(results: &Path) -> Result<Vec<PathBuf>> {
    let folder = results.join(PLOTS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = || format!("could not read {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(unreadable)? {
        let name = PathBuf::from(entry.with_context(unreadable)?.file_name());
        if name.extension().is_some_and(|extension| extension == "svg") {
            found.push(Path::new(PLOTS).join(name));
        }
    }
    Ok(found)
}

/// Puts a whole file in the place of another: a disk that fills up leaves the old one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("could not write {}; what was there is still there", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let mut half = path.as_os_str().to_owned();
    half.push(".new");
    let written = fs::write(&half, text).and_then(|()| fs::rename(&half, path));
    if written.is_err() {
        // It may not be there; the error that counts is the first.
        let _ = fs::remove_file(&half);
    }
    written.with_context(failed)
}
