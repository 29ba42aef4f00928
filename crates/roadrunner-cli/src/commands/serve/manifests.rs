//! The manifests of a node: loaded at its start, and again when they or their modules changed.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use roadrunner_runtime::{ModuleSource, Runtime};
use roadrunner_workflow::{Catalog, Found, Names, Workflow};

use crate::args::Mode;
use crate::commands::run::{self, Loaded};
use crate::crew::Load;
use crate::exit::{Exit, Failure};
use crate::images;
use crate::output;
use crate::security::Security;
use crate::watch::Files;

/// How often files are looked at. A change is taken up when nothing has changed since the look
/// before: a compiler that writes a module takes its time.
const LOOK: Duration = Duration::from_secs(1);

/// Longest wait before a process that ended again is started again; the first is a look, and each further one twice
/// as long. One that ran for as long has the first wait again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What takes the calls of a node.
pub(super) type Served = Catalog<Loaded>;

/// What is loaded, and from where.
pub(super) struct Manifests {
    runtime: Runtime,
    catalog: Arc<Served>,
    how: How,
    all: Vec<Manifest>,
}

/// How manifests are loaded.
#[derive(Clone, Debug)]
pub(super) struct How {
    /// Whether results go to other processes of this host.
    pub(super) handed_out: bool,
    /// The node whose part is served, if that is not the whole.
    pub(super) part: Option<String>,
    /// How other nodes are called.
    pub(super) security: Security,
}

/// A manifest.
struct Manifest {
    path: PathBuf,
    /// Its workflow's name at the start.
    name: String,
    /// The files of the last attempt to load it, as they were before.
    files: Files,
    /// What they were at the last look, if that was not the same.
    changing: Option<Files>,
    revival: Revival,
}

/// When a workflow was loaded because a process had ended, and the wait before the next time.
#[derive(Default)]
struct Revival(Option<(Instant, Duration)>);

impl Revival {
    /// Whether a process that has ended is to run again now.
    fn is_due(&mut self, now: Instant) -> bool {
        let wait = match self.0 {
            Some((since, wait)) if now < since + wait => return false,
            Some((since, wait)) if now < since + wait + LONGEST_WAIT => {
                (wait * 2).min(LONGEST_WAIT)
            }
            _ => LOOK,
        };
        self.0 = Some((now, wait));
        true
    }
}

impl Manifests {
    /// Loads workflows of different names.
    pub(super) fn load(runtime: &Runtime, paths: &[PathBuf], how: How) -> Result<Self, Failure> {
        let (mut all, mut workflows) = (Vec::new(), Vec::new());
        for path in paths {
            let (files, read) = how.read(path);
            let workflow = read?;
            let name = workflow.name().to_owned();
            workflows.push(workflow);
            let path = path.clone();
            all.push(Manifest { path, name, files, changing: None, revival: Revival::default() });
        }
        // Before anything is compiled.
        Names::of(&workflows).map_err(|clash| {
            let (one, other) = (paths[clash.of.0].display(), paths[clash.of.1].display());
            Failure::new(Exit::Workflow, format!("{one} and {other}: {clash}"))
        })?;
        let compile = |(workflow, path): (_, &PathBuf)| how.compile(runtime, workflow, path);
        let loaded: Result<Vec<_>, Failure> =
            workflows.into_iter().zip(paths).map(compile).collect();
        let catalog = Catalog::new(loaded?)
            .map_err(|clash| Failure::new(Exit::Workflow, clash.to_string()))?;
        Ok(Self { runtime: runtime.clone(), catalog: Arc::new(catalog), how, all })
    }

    /// The workflows' names.
    pub(super) fn say(&self) -> String {
        self.all.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Where the first manifest says that a node is.
    pub(super) fn address_of(&self, node: &str) -> Option<String> {
        let loaded = self.catalog.at(0);
        let nodes = loaded.exe.workflow().nodes();
        nodes.iter().find(|it| it.name == node).map(|it| it.address.clone())
    }

    pub(super) fn catalog(&self) -> &Arc<Served> {
        &self.catalog
    }

    /// Loads everything again when told so, and what changed when it is seen, for as long as there is
    /// somebody to tell.
    pub(super) fn keep_fresh(mut self, told: &Receiver<()>) {
        loop {
            match told.recv_timeout(LOOK) {
                Ok(()) => (0..self.all.len()).for_each(|at| self.load_again(at)),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        for at in 0..self.all.len() {
            let manifest = &mut self.all[at];
            if let Some(placement) = self.catalog.at(at).ended_process() {
                let path = manifest.path.display().to_string();
                if manifest.revival.is_due(Instant::now()) {
                    output::complain(&format!(
                        "the process for `{placement}` of {path} ended; its calls fail until it runs again"
                    ));
                    self.load_again(at);
                    continue;
                }
            }
            let now = manifest.files.now();
            if now == manifest.files {
                manifest.changing = None;
            } else if manifest.changing.as_ref() == Some(&now) {
                self.load_again(at);
            } else {
                manifest.changing = Some(now);
            }
        }
    }

    /// Puts a manifest's workflow as it is now in the place of what it was. One that does not load
    /// leaves that there.
    fn load_again(&mut self, at: usize) {
        let manifest = &mut self.all[at];
        let (files, read) = self.how.read(&manifest.path);
        // A failed attempt is not repeated before something changes again, or a process that ended is due.
        manifest.files = files;
        manifest.changing = None;
        let loaded =
            read.and_then(|workflow| self.how.compile(&self.runtime, workflow, &manifest.path));
        let path = manifest.path.display();
        let replaced = loaded.and_then(|loaded| {
            self.catalog
                .replace(at, loaded)
                .map_err(|clash| Failure::new(Exit::Workflow, format!("{path}: {clash}")))
        });
        match replaced {
            Ok(()) => output::note(&format!("roadrunner: loaded {path} again, for new calls\n")),
            Err(failure) => {
                output::complain(&format!("{failure}; what {path} was before stays in service"));
            }
        }
    }
}

impl How {
    /// Reads a manifest, and what the files are that it names.
    fn read(&self, path: &Path) -> (Files, Result<Workflow, Failure>) {
        let files = RefCell::new(Files::default());
        let look = |path: &Path| -> Found { files.borrow_mut().note(path) };
        let read = Workflow::load_looking(path, &look).map_err(Failure::from);
        (files.into_inner(), read.and_then(|workflow| self.part_of(workflow, path)))
    }

    fn part_of(&self, mut workflow: Workflow, path: &Path) -> Result<Workflow, Failure> {
        if let Some(node) = &self.part {
            workflow.serve_as(node).map_err(|error| {
                Failure::new(Exit::Workflow, format!("{}: {error}", path.display()))
            })?;
        }
        Ok(workflow)
    }

    fn compile(
        &self,
        runtime: &Runtime,
        mut workflow: Workflow,
        path: &Path,
    ) -> Result<Loaded, Failure> {
        if self.handed_out {
            workflow.hand_result_out();
        }
        let pins = images::pull(&mut workflow, Mode::Auto)?;
        let manifest = Load::Manifest(path.to_owned(), self.security.clone(), pins);
        let file = |path: &Path| ModuleSource::File(path.to_owned());
        run::load(runtime, workflow, Mode::Auto, &manifest, &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_at_once_is_started_less_and_less_often() {
        let (mut revival, start) = (Revival::default(), Instant::now());
        let mut starts = Vec::new();
        for second in 0..300 {
            if revival.is_due(start + LOOK * second) {
                starts.push(second);
            }
        }
        assert_eq!(starts, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        // Long after the last start it is as new.
        let later = start + LOOK * 243 + 3 * LONGEST_WAIT;
        assert!(revival.is_due(later) && revival.is_due(later + LOOK));
    }
}
