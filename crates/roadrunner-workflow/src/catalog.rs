//! What a node serves, and what each name stands for.
//!
//! | name | what it runs |
//! |---|---|
//! | `WORKFLOW` | the workflow, from its entry to its result |
//! | `WORKFLOW.FUNCTION` | one of its functions |
//! | `FUNCTION` | the same, where one workflow has it and nothing else is called so |
//!
//! The first two must be unique, or there is no catalog. Functions that a manifest places on another
//! node have no name here: that node serves them. A node that serves its part of a workflow has names
//! for that alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use roadrunner_runtime::{
    Account, Bounds, BufferError, Call, Caller, Fault, Home, Inbox, Payload, Reply, Traffic,
    Undelivered,
};

use crate::error::quoted;
use crate::executable::Executable;
use crate::run::{Finished, RunError};
use crate::workflow::{Placement, Workflow};

/// Two things that would have the same name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} would both be called {}; rename one of them", quoted(name))]
pub struct Clash {
    /// The name.
    pub name: String,
    /// Which workflows they are of, in the order in which they were given.
    pub of: (usize, usize),
    what: String,
}

/// What the names of some workflows stand for.
#[derive(Debug, Default)]
pub struct Names {
    unique: HashMap<String, Callee>,
    /// Names of functions alone; nothing where several workflows have it.
    bare: HashMap<String, Option<Callee>>,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Callee {
    workflow: usize,
    /// For a function the length of its own name, with which the name that it is called by ends.
    function: Option<usize>,
}

impl Names {
    /// Names the workflows, which are known by their order from then on, and their functions.
    ///
    /// # Errors
    /// When two of them would have the same name.
    pub fn of<'w>(workflows: impl IntoIterator<Item = &'w Workflow>) -> Result<Self, Clash> {
        let mut names = Self::default();
        let mut taken = HashMap::new();
        for (at, workflow) in workflows.into_iter().enumerate() {
            let whole = Callee { workflow: at, function: None };
            let alone = *workflow.here() == Placement::Local;
            if alone {
                let what = format!("workflow {}", quoted(workflow.name()));
                names.add(&mut taken, workflow.name().to_owned(), whole, what)?;
            }
            for function in workflow.functions() {
                // What other processes of this host have is called by way of this one.
                let here = match function.placement {
                    Placement::Node(_) => function.placement == *workflow.here(),
                    _ => alone,
                };
                if !here {
                    continue;
                }
                let name = function.name.as_str();
                let callee = Callee { workflow: at, function: Some(name.len()) };
                let full = format!("{}.{name}", workflow.name());
                let what =
                    format!("function {} of workflow {}", quoted(name), quoted(workflow.name()));
                names.add(&mut taken, full, callee, what)?;
                let alone = names.bare.entry(name.to_owned());
                alone.and_modify(|it| *it = None).or_insert(Some(callee));
            }
        }
        Ok(names)
    }

    fn add(
        &mut self,
        taken: &mut HashMap<String, (usize, String)>,
        name: String,
        callee: Callee,
        what: String,
    ) -> Result<(), Clash> {
        match taken.entry(name.clone()) {
            Entry::Occupied(first) => {
                let (workflow, other) = first.get();
                let of = (*workflow, callee.workflow);
                let what = if *other == what {
                    "two workflows".into()
                } else {
                    format!("{other} and {what}")
                };
                Err(Clash { name, of, what })
            }
            Entry::Vacant(free) => {
                free.insert((callee.workflow, what));
                self.unique.insert(name, callee);
                Ok(())
            }
        }
    }

    fn find(&self, name: &str) -> Option<Callee> {
        let unique = self.unique.get(name).copied();
        unique.or_else(|| self.bare.get(name).copied().flatten())
    }

    /// As [`Names::find`], where only a function can be meant: one that has a workflow's name too.
    fn find_function(&self, name: &str) -> Option<Callee> {
        let unique = self.unique.get(name).copied().filter(|callee| callee.function.is_some());
        unique.or_else(|| self.bare.get(name).copied().flatten())
    }
}

/// Workflows that take calls, each of which can be replaced while it runs: a call runs to its end on
/// what was there when it came. `E` holds an executable and what must live as long.
#[derive(Debug)]
pub struct Catalog<E> {
    now: RwLock<Arc<Served<E>>>,
    running: AtomicUsize,
}

#[derive(Debug)]
struct Served<E> {
    names: Names,
    workflows: Vec<Arc<E>>,
}

impl<E: AsRef<Executable>> Served<E> {
    fn of(workflows: Vec<Arc<E>>) -> Result<Arc<Self>, Clash> {
        let all = workflows.iter().map(|it| E::as_ref(it).workflow());
        Ok(Arc::new(Self { names: Names::of(all)?, workflows }))
    }
}

impl<E: AsRef<Executable>> Catalog<E> {
    /// Serves these workflows.
    ///
    /// # Errors
    /// When two things would have the same name.
    pub fn new(workflows: Vec<E>) -> Result<Self, Clash> {
        let served = Served::of(workflows.into_iter().map(Arc::new).collect())?;
        Ok(Self { now: RwLock::new(served), running: AtomicUsize::new(0) })
    }

    /// Puts a workflow in the place of one that was given to [`Catalog::new`] at this position, for
    /// calls that come from now on. Whoever replaces does so one after the other.
    ///
    /// # Errors
    /// When two things would have the same name; nothing is replaced then.
    ///
    /// # Panics
    /// For a position that there is not, like a slice.
    pub fn replace(&self, at: usize, workflow: E) -> Result<(), Clash> {
        let mut workflows = self.now().workflows.clone();
        workflows[at] = Arc::new(workflow);
        let served = Served::of(workflows)?;
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, served);
        drop(now);
        // Its last owner takes the old workflow apart, which takes a while: not under the lock.
        drop(before);
        Ok(())
    }

    /// The workflow that was given to [`Catalog::new`] at this position, as it is now.
    ///
    /// # Panics
    /// For a position that there is not, like a slice.
    #[must_use]
    pub fn at(&self, position: usize) -> Arc<E> {
        Arc::clone(&self.now().workflows[position])
    }

    /// The workflow of this name, as it is now.
    #[must_use]
    pub fn workflow(&self, name: &str) -> Option<Arc<E>> {
        let served = self.now();
        let Callee { workflow, function: None } = served.names.find(name)? else { return None };
        Some(Arc::clone(&served.workflows[workflow]))
    }

    /// The workflow that the function of this name is of, as it is now, and its own name there. `None` where
    /// there is no such function, or several.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<(Arc<E>, String)> {
        let served = self.now();
        let Callee { workflow, function: Some(len) } = served.names.find_function(name)? else {
            return None;
        };
        Some((Arc::clone(&served.workflows[workflow]), name[name.len() - len..].to_owned()))
    }

    /// Calls that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn now(&self) -> Arc<Served<E>> {
        // No code that can panic runs under the lock, so a poisoned one is still in order.
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<E: AsRef<Executable>> Inbox for Catalog<E> {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        let served = self.now();
        let Some(Callee { workflow, function }) = served.names.find(call.target) else {
            let fault = Fault::Unknown { function: call.target.into() };
            return Err(Undelivered::before(fault, call.payload));
        };
        // What was replaced meanwhile goes as soon as its own calls have ended.
        let holder = Arc::clone(&served.workflows[workflow]);
        drop(served);
        let exe = E::as_ref(&holder);
        if let Caller::Named(names) = &call.caller
            && !exe.workflow().admits(names)
        {
            let (function, caller) = (call.target.into(), names.join(", "));
            return Err(Undelivered::before(Fault::Forbidden { function, caller }, call.payload));
        }
        match function {
            Some(len) => {
                let target = &call.target[call.target.len() - len..];
                exe.app().deliver(None, Call { target, ..call })
            }
            None => answer(exe, call).map_err(Undelivered::after),
        }
    }
}

/// A call under way.
struct Running<'c>(&'c AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs a whole workflow for a call of it. What its hand-overs cost is in the reply's hops.
///
/// # Errors
/// As the function that ended it.
pub fn answer(exe: &Executable, call: Call<'_>) -> Result<Reply, Fault> {
    let Call { target, payload, deadline, depth, trace, .. } = call;
    let (payload, copied) = owned(payload, exe.home())
        .map_err(|source| Fault::HandOver { function: target.into(), source })?;
    // A workflow that calls itself by way of nodes comes to an end at the depth of calls, too.
    let bounds = Bounds { deadline, depth: depth.saturating_add(1), trace };
    match exe.run_within(bounds, payload, &mut |_| {}) {
        Ok(finished) => Ok(reply(finished, copied)),
        Err(RunError { fault, .. }) => Err(fault),
    }
}

/// A payload that borrows from nobody.
fn owned(payload: Payload<'_>, home: &Home) -> Result<(Payload<'static>, Traffic), BufferError> {
    Ok(match payload {
        Payload::One(sealed) => {
            let (sealed, copied) = sealed.detach(home)?;
            (Payload::One(sealed), copied)
        }
        Payload::Held(reply) => (Payload::Held(reply), Traffic::default()),
        Payload::Many(parts) => (Payload::Many(parts), Traffic::default()),
    })
}

/// The result of a run as the answer to its call. What its hand-overs cost stands with the hops, and
/// nowhere twice; `traffic` is what it took to begin.
fn reply(finished: Finished, traffic: Traffic) -> Reply {
    let Finished { mut reply, hops, total } = finished;
    let peaks = hops.iter().map(|hop| hop.account.memory_peak);
    let memory_peak = peaks.max().unwrap_or(reply.account.memory_peak);
    reply.account = Account { traffic, run: total, memory_peak, ..Account::default() };
    reply.parts = Vec::new();
    reply.hops = hops;
    reply
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Found;

    /// A workflow of these functions in a chain.
    fn workflow(name: &str, functions: &[&str]) -> Workflow {
        let mut text = format!("workflow = {{ name = {name:?}, entry = {:?} }}\n", functions[0]);
        for (at, function) in functions.iter().enumerate() {
            let next = &functions[at + 1..functions.len().min(at + 2)];
            text += &format!("[functions.{function:?}]\nmodule = \"m.wasm\"\nnext = {next:?}\n");
        }
        Workflow::parse(&text, Path::new("r.toml"), &|_| Found::File).unwrap()
    }

    /// The workflow and function that a name stands for.
    fn found(workflows: &[Workflow], name: &str) -> Option<(usize, String)> {
        let Callee { workflow, function } = Names::of(workflows).unwrap().find(name)?;
        let function = function.map(|len| name[name.len() - len..].to_owned());
        Some((workflow, function.unwrap_or_default()))
    }

    fn clash(workflows: &[Workflow]) -> (String, (usize, usize)) {
        let clash = Names::of(workflows).unwrap_err();
        (clash.to_string(), clash.of)
    }

    #[test]
    fn workflows_and_functions_have_names() {
        let workflows = [workflow("w", &["a", "b"]), workflow("v", &["b", "c"])];
        let found = |name| found(&workflows, name);
        assert_eq!(found("w"), Some((0, String::new())));
        assert_eq!(found("v"), Some((1, String::new())));
        assert_eq!(found("w.a"), Some((0, "a".into())));
        assert_eq!(found("w.b"), Some((0, "b".into())));
        assert_eq!(found("v.b"), Some((1, "b".into())));
        assert_eq!(found("a"), Some((0, "a".into())));
        assert_eq!(found("c"), Some((1, "c".into())));
        assert_eq!(found("b"), None, "there are two");
        for name in ["", ".", "w.", ".a", "w.c", "W", "w.a.b", "w a", "wa"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn a_workflow_goes_before_a_function_of_its_name() {
        let workflows = [workflow("v", &["w", "x"]), workflow("w", &["w"])];
        assert_eq!(found(&workflows, "w"), Some((1, String::new())));
        assert_eq!(found(&workflows, "v.w"), Some((0, "w".into())));
        assert_eq!(found(&workflows, "w.w"), Some((1, "w".into())));
        // Unless only a function is asked for, of which there are two here.
        let names = Names::of(&workflows).unwrap();
        assert_eq!(names.find_function("w"), None);
        let names = Names::of(&workflows[1..]).unwrap();
        assert_eq!(names.find_function("w"), Some(Callee { workflow: 0, function: Some(1) }));
        assert_eq!(names.find_function("v"), None);
    }

    #[test]
    fn names_with_dots_stand_for_one_thing() {
        let workflows = [workflow("a.b", &["c"]), workflow("x", &["a.b.c", "b.c"])];
        assert_eq!(found(&workflows, "a.b.c"), Some((0, "c".into())), "and not x's function");
        assert_eq!(found(&workflows, "x.a.b.c"), Some((1, "a.b.c".into())));
        assert_eq!(found(&workflows, "b.c"), Some((1, "b.c".into())));
    }

    #[test]
    fn a_name_for_two_things_is_refused() {
        let (w, same) = (workflow("w", &["f"]), workflow("w", &["g"]));
        let (said, of) = clash(&[w.clone(), workflow("v", &["f"]), same]);
        let expected = r#"two workflows would both be called "w"; rename one of them"#;
        assert_eq!((said.as_str(), of), (expected, (0, 2)));
        let (said, of) = clash(&[w, workflow("w.f", &["h"])]);
        let expected = r#"function "f" of workflow "w" and workflow "w.f" would both be called "w.f"; rename one of them"#;
        assert_eq!((said.as_str(), of), (expected, (0, 1)));
        let (said, _) = clash(&[workflow("a", &["b.c"]), workflow("a.b", &["c"])]);
        assert!(said.ends_with(r#"would both be called "a.b.c"; rename one of them"#), "{said}");
    }

    #[test]
    fn functions_of_other_nodes_have_no_name_here() {
        let text = r#"
            workflow = { name = "w", entry = "a" }
            functions.a = { module = "m.wasm", next = ["b"] }
            functions.b = { module = "m.wasm", next = ["c"], placement = "node:far" }
            functions.c = { module = "m.wasm", placement = "process:gpu" }
            nodes.far = { address = "10.0.0.7:7400" }
        "#;
        let workflow = Workflow::parse(text, Path::new("r.toml"), &|_| Found::File).unwrap();
        let workflows = [workflow];
        for (name, is_there) in [("a", true), ("b", false), ("w.b", false), ("w.c", true)] {
            assert_eq!(found(&workflows, name).is_some(), is_there, "{name}");
        }
    }
}
