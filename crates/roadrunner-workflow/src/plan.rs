//! What the executor walks through: the flow in an order in which every input is there in time.
//!
//! A plan also fixes, before anything runs, where the pages of each function's output will live.
//! A wrong guess would cost one copy, so this is decided where the whole workflow is known.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::workflow::{Function, FunctionIndex, Placement, Workflow};

/// The steps of a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    backing: Vec<Backing>,
}

/// One run of one function of the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The function to run.
    pub function: FunctionIndex,
    /// Whose outputs it gets, in edge order; empty for the entry, which gets the workflow's
    /// input. One is `handle`, several are `handle_many`.
    pub inputs: Vec<FunctionIndex>,
    /// Who gets its output; empty for the last, whose output is the workflow's result.
    pub consumers: Vec<Edge>,
    /// Where the pages of its output live.
    pub backing: Backing,
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The function that gets it.
    pub to: FunctionIndex,
    /// As which of its inputs, from 0.
    pub input: usize,
}

/// Where the pages of a buffer live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// Private pages, which move from window to window: one consumer, in the same process.
    Private,
    /// A memfd, which can be mapped several times: several consumers, here or in other processes.
    Shared,
    /// A memfd that goes to one consumer in another process and comes back for the next payload.
    Passed,
}

impl Plan {
    /// The flow in topological order; functions that could run at the same time stand in the
    /// order of the file. Functions that are only called are no steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Where the pages of a function's output live, also for functions that are only called.
    ///
    /// # Panics
    /// For an index of another, larger workflow, like a slice.
    #[must_use]
    pub fn backing(&self, function: FunctionIndex) -> Backing {
        self.backing[function.get()]
    }

    pub(crate) fn new(workflow: &Workflow) -> Self {
        let backing = backings(workflow);
        let step = |function: FunctionIndex| Step {
            function,
            inputs: workflow[function].previous.clone(),
            consumers: workflow[function]
                .next
                .iter()
                .map(|&to| edge(workflow, function, to))
                .collect(),
            backing: backing[function.get()],
        };
        Self { steps: order(workflow).into_iter().map(step).collect(), backing }
    }
}

/// `previous` ascends, so the place of a source in it is found by bisection.
fn edge(workflow: &Workflow, from: FunctionIndex, to: FunctionIndex) -> Edge {
    let input = workflow[to].previous.partition_point(|&source| source < from);
    Edge { to, input }
}

fn order(workflow: &Workflow) -> Vec<FunctionIndex> {
    let mut waiting: Vec<usize> =
        workflow.functions().iter().map(|function| function.previous.len()).collect();
    let mut ready = BinaryHeap::from([Reverse(workflow.entry())]);
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(function)) = ready.pop() {
        order.push(function);
        for &to in &workflow[function].next {
            waiting[to.get()] -= 1;
            if waiting[to.get()] == 0 {
                ready.push(Reverse(to));
            }
        }
    }
    order
}

fn backings(workflow: &Workflow) -> Vec<Backing> {
    let mut backings: Vec<Backing> =
        workflow.functions().iter().map(|function| of_output(workflow, function)).collect();
    let mut pass = |function: FunctionIndex| {
        let backing = &mut backings[function.get()];
        if *backing == Backing::Private {
            *backing = Backing::Passed;
        }
    };
    // A reply goes to whoever called, one at a time: only callers in other processes need a memfd.
    for caller in workflow.functions() {
        for &callee in &caller.calls {
            if by_descriptor(&workflow[callee].placement, &caller.placement) {
                pass(callee);
            }
        }
    }
    // The result goes to the process that runs the workflow.
    let (last, placement) = (workflow.last(), &workflow[workflow.last()].placement);
    if workflow.result_leaves && *placement == Placement::Local {
        // To whoever called, who is of no trust domain.
        backings[last.get()] = Backing::Shared;
    } else if by_descriptor(placement, &Placement::Local) {
        pass(last);
    }
    backings
}

fn of_output(workflow: &Workflow, function: &Function) -> Backing {
    let elsewhere =
        |&to: &FunctionIndex| by_descriptor(&function.placement, &workflow[to].placement);
    match function.next[..] {
        [] | [_] if !function.next.iter().any(elsewhere) => Backing::Private,
        [_] => Backing::Passed,
        _ => Backing::Shared,
    }
}

/// Whether a payload leaves `from` as a descriptor. What one node sends to another goes as bytes,
/// from any pages. A process sends it to the one that runs the workflow, wherever it goes then.
fn by_descriptor(from: &Placement, to: &Placement) -> bool {
    match (from, to) {
        (from, to) if from == to => false,
        (Placement::Node(_), _) | (Placement::Local, Placement::Node(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Found;

    /// A workflow of `name: next, next | calls @ placement` lines; the first is the entry.
    fn workflow(lines: &[(&str, &[&str], &[&str], &str)]) -> Workflow {
        let mut text = format!("workflow = {{ name = \"w\", entry = {:?} }}\n", lines[0].0);
        for (name, next, calls, placement) in lines {
            text += &format!(
                "[functions.{name}]\nmodule = \"m.wasm\"\nnext = {next:?}\ncalls = {calls:?}\nplacement = {placement:?}\n"
            );
        }
        text += "[nodes.far]\naddress = \"10.0.0.7:7400\"\n";
        Workflow::parse(&text, Path::new("r.toml"), &|_| Found::File).unwrap()
    }

    fn order_of(workflow: &Workflow) -> Vec<&str> {
        workflow.plan().steps().iter().map(|step| workflow[step.function].name.as_str()).collect()
    }

    fn backing_of(workflow: &Workflow, name: &str) -> Backing {
        workflow.plan().backing(workflow.find(name).unwrap())
    }

    #[test]
    fn fan_in_gets_its_inputs_in_the_order_of_the_file() {
        let workflow = workflow(&[
            ("split", &["c", "b", "a"], &[], "local"),
            ("join", &[], &[], "local"),
            ("b", &["join"], &[], "local"),
            ("a", &["join"], &[], "local"),
            ("c", &["join"], &[], "local"),
        ]);
        assert_eq!(order_of(&workflow), ["split", "b", "a", "c", "join"]);
        let plan = workflow.plan();
        let join = plan.steps().last().unwrap();
        let names: Vec<_> =
            join.inputs.iter().map(|&input| workflow[input].name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!(join.consumers, []);
        for step in plan.steps() {
            for edge in &step.consumers {
                assert_eq!(workflow[edge.to].previous[edge.input], step.function);
            }
        }
        assert_eq!(backing_of(&workflow, "split"), Backing::Shared);
        assert_eq!(backing_of(&workflow, "a"), Backing::Private);
        assert_eq!(backing_of(&workflow, "join"), Backing::Private);
    }

    #[test]
    fn what_leaves_its_place_is_shared() {
        let workflow = workflow(&[
            ("a", &["b"], &[], "local"),
            ("b", &["c"], &[], "process:gpu"),
            ("c", &["d"], &[], "process:gpu"),
            ("d", &["e"], &[], "process:cpu"),
            ("e", &["f"], &[], "node:far"),
            ("f", &[], &[], "node:far"),
        ]);
        let backings: Vec<_> = workflow.plan().steps().iter().map(|step| step.backing).collect();
        use Backing::{Passed, Private};
        assert_eq!(backings, [Passed, Private, Passed, Passed, Private, Private]);
    }

    #[test]
    fn a_result_for_another_process_is_shared() {
        let mut workflow = workflow(&[("a", &["b"], &[], "local"), ("b", &[], &[], "local")]);
        assert_eq!(backing_of(&workflow, "b"), Backing::Private);
        workflow.hand_result_out();
        assert_eq!(backing_of(&workflow, "b"), Backing::Shared);
        assert_eq!(backing_of(&workflow, "a"), Backing::Private);
    }

    #[test]
    fn replies_to_callers_elsewhere_are_shared() {
        let workflow = workflow(&[
            ("main", &[], &["near", "both"], "local"),
            ("near", &[], &["near"], "local"),
            ("both", &[], &["gpu"], "local"),
            ("gpu", &[], &["both"], "process:gpu"),
        ]);
        assert_eq!(order_of(&workflow), ["main"]);
        assert_eq!(backing_of(&workflow, "main"), Backing::Private);
        assert_eq!(backing_of(&workflow, "near"), Backing::Private);
        assert_eq!(backing_of(&workflow, "both"), Backing::Passed);
        assert_eq!(backing_of(&workflow, "gpu"), Backing::Passed);
    }
}
