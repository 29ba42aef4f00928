//! What can be asked for, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use roadrunner_workflow::Executable;

/// A loaded workflow, and what must live as long.
pub type Loaded = Arc<dyn AsRef<Executable> + Send + Sync>;

/// What a gateway serves. It is asked anew for each request, so what it answers may change at any time: a
/// request goes on with what it was given.
pub trait Catalog: Send + Sync {
    /// The workflow of this name.
    fn workflow(&self, name: &str) -> Option<Loaded>;

    /// The workflow that a function belongs to, and the function's name there.
    ///
    /// # Errors
    /// When there is none, or several.
    fn function(&self, name: &str) -> Result<(Loaded, String), Unfound>;

    /// Whether requests should come here now.
    fn ready(&self) -> bool;
}

/// Why a name means no function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfound {
    /// There is none.
    Unknown,
    /// Several workflows have one; these names mean one each.
    Ambiguous(Vec<String>),
}

/// Loaded workflows, which can be exchanged while they are in use.
///
/// A function is named `FUNCTION` where one workflow has it, and `WORKFLOW.FUNCTION`. Names may have dots
/// themselves, so both readings of a name count, and one with two meanings is refused: a request never goes
/// to another function than yesterday because a workflow was added.
#[derive(Default)]
pub struct Workflows {
    loaded: RwLock<Option<Named>>,
}

type Named = Arc<BTreeMap<String, Arc<Executable>>>;

impl Workflows {
    /// Without any, and not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves these from now on, by their names, and is ready. Requests in flight go on with what they have.
    pub fn replace(&self, workflows: impl IntoIterator<Item = Arc<Executable>>) {
        let named = workflows.into_iter().map(|exe| (exe.workflow().name().to_owned(), exe));
        let loaded = Some(Arc::new(named.collect()));
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    fn loaded(&self) -> Option<Named> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Workflows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.loaded().unwrap_or_default();
        f.debug_set().entries(loaded.keys()).finish()
    }
}

impl Catalog for Workflows {
    fn workflow(&self, name: &str) -> Option<Loaded> {
        Some(self.loaded()?.get(name)?.clone())
    }

    fn function(&self, name: &str) -> Result<(Loaded, String), Unfound> {
        let loaded = self.loaded().unwrap_or_default();
        let all = loaded.iter().flat_map(|(workflow, exe)| {
            let functions = exe.workflow().functions().iter();
            functions.map(move |function| (workflow, exe, function.name.as_str()))
        });
        let qualified = |workflow: &str, function: &str| {
            let rest = name.strip_prefix(workflow).and_then(|rest| rest.strip_prefix('.'));
            rest == Some(function)
        };
        let mut meant: Vec<_> = all
            .filter(|(workflow, _, function)| *function == name || qualified(workflow, function))
            .collect();
        match (meant.pop(), meant.len()) {
            (None, _) => Err(Unfound::Unknown),
            (Some((_, exe, function)), 0) => Ok((exe.clone(), function.to_owned())),
            (Some(last), _) => {
                meant.push(last);
                let names = meant.iter().map(|(workflow, _, name)| format!("{workflow}.{name}"));
                Err(Unfound::Ambiguous(names.collect()))
            }
        }
    }

    fn ready(&self) -> bool {
        self.loaded().is_some()
    }
}
