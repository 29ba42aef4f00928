//! What can be asked for, by name. Which name stands for what is the node's catalog's business.

use std::sync::Arc;

use roadrunner_workflow::Executable;

/// A loaded workflow, and what must live as long.
pub(crate) type Loaded = Arc<dyn AsRef<Executable> + Send + Sync>;

/// A catalog of whatever holds its workflows. It is asked anew for each request, so what it answers may
/// change at any time: a request goes on with what it was given.
pub trait Catalog: Send + Sync {
    /// The workflow of this name.
    fn workflow(&self, name: &str) -> Option<Arc<dyn AsRef<Executable> + Send + Sync>>;

    /// The workflow that the function of this name is of, and its own name there. `None` where there is no
    /// such function, or several.
    fn function(&self, name: &str) -> Option<(Arc<dyn AsRef<Executable> + Send + Sync>, String)>;
}

impl<E> Catalog for roadrunner_workflow::Catalog<E>
where
    E: AsRef<Executable> + Send + Sync + 'static,
{
    fn workflow(&self, name: &str) -> Option<Loaded> {
        Some(self.workflow(name)?)
    }

    fn function(&self, name: &str) -> Option<(Loaded, String)> {
        let (loaded, name) = self.function(name)?;
        Some((loaded, name))
    }
}
