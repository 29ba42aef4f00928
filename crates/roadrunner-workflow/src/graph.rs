//! What functions say about each other: names, cycles, who is reached, where it ends.
//!
//! `next` edges are the **flow**: data moves along them without anybody asking, so they form one
//! graph without cycles from the entry to a single last function. `calls` edges are permissions:
//! a guest may use them, recursively too, so they only have to name functions.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{At, ManifestError, Report, did_you_mean, quoted};
use crate::manifest::{Declared, DeclaredPlacement, Manifest};
use crate::names::header;
use crate::workflow::{Function, FunctionIndex, Node, NodeIndex, Placement, Workflow};

/// Most functions that are listed when a name is unknown and resembles none of them.
const NAMES_LISTED: usize = 8;

/// Names of a cycle that are shown before the rest is left out.
const CYCLE_SHOWN: usize = 12;

/// Edges from each function, with the places that name them.
type Edges = Vec<Vec<At<usize>>>;

/// Builds the workflow, or reports everything that is wrong. Each stage needs what the one
/// before it made sure of, so that one slip is not reported in several forms.
pub(crate) fn build(
    manifest: Manifest,
    report: &mut Report,
    origin: &Path,
) -> Result<Workflow, ManifestError> {
    let Resolved { entry, next, calls, placements } = resolve(&manifest, report);
    let Manifest { name, callers, functions, nodes, .. } = manifest;
    report.check(origin)?;
    // Both were reported above if they are missing.
    let (Some(name), Some(entry)) = (name, entry) else {
        return Err(report.take(origin));
    };

    check_cycles(report, &functions, &next);
    report.check(origin)?;
    let previous = previous(&next);
    check_fan_in(report, &functions, &previous);
    let last = check_reach(report, &functions, entry, &next, &calls);
    report.check(origin)?;
    let Some(last) = last else {
        return Err(report.take(origin));
    };

    let plain =
        |edges: Vec<At<usize>>| edges.into_iter().map(|edge| FunctionIndex(edge.value)).collect();
    let functions = functions.into_iter().zip(next).zip(calls).zip(previous).zip(placements);
    let functions = functions.map(|((((declared, next), calls), previous), placement)| Function {
        name: declared.name.value,
        module: declared.module,
        next: plain(next),
        previous: previous.into_iter().map(FunctionIndex).collect(),
        calls: plain(calls),
        placement,
        memory_bytes: declared.memory_bytes,
        timeout: declared.timeout,
        retries: declared.retries,
        reuse: declared.reuse,
        wasi: declared.wasi,
        headers: declared.headers,
        content_type: declared.content_type,
    });
    Ok(Workflow {
        name,
        entry: FunctionIndex(entry),
        last: FunctionIndex(last),
        functions: functions.collect(),
        nodes: nodes.into_iter().map(|(name, address)| Node { name, address }).collect(),
        callers,
        here: Placement::Local,
        result_leaves: false,
    })
}

/// A manifest's references to its own functions and nodes, followed.
struct Resolved {
    entry: Option<usize>,
    next: Edges,
    calls: Edges,
    placements: Vec<Placement>,
}

fn resolve(manifest: &Manifest, report: &mut Report) -> Resolved {
    let Manifest { entry, functions, nodes, .. } = manifest;
    let names = Names::new(functions);
    let mut edges = |key: &str, list: fn(&Declared) -> &[At<String>]| -> Edges {
        functions.iter().map(|from| names.edges(report, from, key, list(from))).collect()
    };
    let next = edges("next", |from| &from.next);
    let calls = edges("calls", |from| &from.calls);
    let placements = functions.iter().map(|function| placement(report, function, nodes)).collect();
    let known = entry.as_ref().and_then(|entry| names.find(&entry.value));
    // A manifest without functions has been reported as that.
    if let (Some(entry), None, false) = (entry, known, functions.is_empty()) {
        report.add(entry.at, || {
            let instead = names.instead_of(&entry.value);
            format!(
                "[workflow] names unknown function {} as `entry`{instead}",
                quoted(&entry.value)
            )
        });
    }
    Resolved { entry: known, next, calls, placements }
}

/// The functions by name.
struct Names<'m> {
    functions: &'m [Declared],
    by_name: HashMap<&'m str, usize>,
}

impl<'m> Names<'m> {
    fn new(functions: &'m [Declared]) -> Self {
        let by_name = functions
            .iter()
            .enumerate()
            .map(|(index, function)| (function.name.value.as_str(), index));
        Self { functions, by_name: by_name.collect() }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The name that is likely to be meant, else the names there are if they are few.
    fn instead_of(&self, wrong: &str) -> String {
        let names = || self.functions.iter().map(|function| function.name.value.as_str());
        let meant = did_you_mean(wrong, names(), quoted);
        if !meant.is_empty() || self.functions.len() > NAMES_LISTED {
            return meant;
        }
        format!(" (known functions: {})", names().map(quoted).collect::<Vec<_>>().join(", "))
    }

    /// Resolves one list of names; reports those that are unknown or given twice, and self edges
    /// of the flow (a function may call itself).
    fn edges(
        &self,
        report: &mut Report,
        from: &Declared,
        key: &str,
        list: &[At<String>],
    ) -> Vec<At<usize>> {
        let mut edges = Vec::new();
        let mut seen = vec![false; self.functions.len()];
        let title = || format!("function {}", quoted(&from.name.value));
        for At { at, value: name } in list {
            let Some(to) = self.find(name) else {
                report.add(*at, || {
                    let meant = self.instead_of(name);
                    format!("{} names unknown function {} in `{key}`{meant}", title(), quoted(name))
                });
                continue;
            };
            if std::mem::replace(&mut seen[to], true) {
                report.add(*at, || {
                    format!("{} names {} twice in `{key}`; remove one", title(), quoted(name))
                });
            } else if key == "next" && *name == from.name.value {
                report.add(*at, || {
                    format!("{} names itself in `next`; remove it (a function may name itself in `calls`)", title())
                });
            } else {
                edges.push(At { at: *at, value: to });
            }
        }
        edges
    }
}

fn placement(report: &mut Report, function: &Declared, nodes: &[(String, String)]) -> Placement {
    let At { at, value: node } = match &function.placement {
        DeclaredPlacement::Local => return Placement::Local,
        DeclaredPlacement::Process(name) => return Placement::Process(name.clone()),
        DeclaredPlacement::Node(node) => node,
    };
    if let Some(index) = nodes.iter().position(|(name, _)| name == node) {
        return Placement::Node(NodeIndex(index));
    }
    report.add(*at, || {
        let mut meant = did_you_mean(node, nodes.iter().map(|(name, _)| name.as_str()), quoted);
        if meant.is_empty() {
            meant = format!("; add [nodes.{}] with its `address`", header(node));
        }
        format!(
            "function {} is placed on unknown node {}{meant}",
            quoted(&function.name.value),
            quoted(node)
        )
    });
    Placement::Local
}

/// Sources of each function, in the order of the file.
fn previous(next: &Edges) -> Vec<Vec<usize>> {
    let mut previous = vec![Vec::new(); next.len()];
    for (from, edges) in next.iter().enumerate() {
        for edge in edges {
            previous[edge.value].push(from);
        }
    }
    previous
}

fn check_fan_in(report: &mut Report, functions: &[Declared], previous: &[Vec<usize>]) {
    const MOST: usize = roadrunner_abi::limit::INPUTS;
    for (function, sources) in functions.iter().zip(previous) {
        if sources.len() > MOST {
            report.add(function.name.at, || {
                format!(
                    "function {} is the next of {} functions, but {MOST} inputs are the limit; join them in several steps",
                    quoted(&function.name.value),
                    sources.len()
                )
            });
        }
    }
}

/// Reports one cycle of the flow, if there is any.
fn check_cycles(report: &mut Report, functions: &[Declared], next: &Edges) {
    let Some(cycle) = find_cycle(next) else {
        return;
    };
    let name = |index: usize| functions[index].name.value.as_str();
    let (first, last) = (cycle[0], cycle[cycle.len() - 1]);
    let at = next[last]
        .iter()
        .find(|edge| edge.value == first)
        .map_or(functions[last].name.at, |edge| edge.at);
    report.add(at, || {
        let mut path: Vec<_> = cycle.iter().take(CYCLE_SHOWN).map(|&index| name(index)).collect();
        if cycle.len() > CYCLE_SHOWN {
            path.extend(["...", name(last)]);
        }
        path.push(name(first));
        format!(
            "the flow runs in a cycle: {}; remove {} from the `next` of {}",
            path.join(" -> "),
            quoted(name(first)),
            quoted(name(last))
        )
    });
}

/// A cycle in the order of its edges, beginning with its first function in the file.
fn find_cycle(next: &Edges) -> Option<Vec<usize>> {
    let mut waiting: Vec<usize> = previous(next).iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..next.len()).filter(|&index| waiting[index] == 0).collect();
    while let Some(from) = ready.pop() {
        for edge in &next[from] {
            waiting[edge.value] -= 1;
            if waiting[edge.value] == 0 {
                ready.push(edge.value);
            }
        }
    }
    // Whoever still waits has a source that still waits: following those must come around.
    let sources = previous(next);
    let mut at = waiting.iter().position(|&count| count > 0)?;
    let mut path = Vec::new();
    let mut place = vec![None; next.len()];
    while place[at].is_none() {
        place[at] = Some(path.len());
        path.push(at);
        at = sources[at].iter().copied().find(|&source| waiting[source] > 0)?;
    }
    let mut cycle = path.split_off(place[at]?);
    cycle.reverse();
    let first = cycle
        .iter()
        .enumerate()
        .min_by_key(|&(_, function)| function)
        .map_or(0, |(position, _)| position);
    cycle.rotate_left(first);
    Some(cycle)
}

/// Reports functions that nothing reaches, `next` of functions that are only called, and a flow
/// with several ends. Gives the last function of the flow.
fn check_reach(
    report: &mut Report,
    functions: &[Declared],
    entry: usize,
    next: &Edges,
    calls: &Edges,
) -> Option<usize> {
    let in_flow = reached(&[entry], next);
    let flow: Vec<usize> = (0..functions.len()).filter(|&index| in_flow[index]).collect();
    let called = reached(&flow, calls);
    for (index, function) in functions.iter().enumerate() {
        let name = quoted(&function.name.value);
        if !called[index] {
            report.add(function.name.at, || {
                format!("function {name} is never reached; name it in the `next` or `calls` of one that is, or remove it")
            });
        } else if let (false, Some(edge)) = (in_flow[index], next[index].first()) {
            report.add(edge.at, || {
                format!("function {name} is only called, so its `next` is never followed; remove `next`, or name {name} in the `next` of another")
            });
        }
    }
    let ends: Vec<usize> = flow.into_iter().filter(|&index| next[index].is_empty()).collect();
    if let [_, second, ..] = ends[..] {
        report.add(functions[second].name.at, || {
            let shown = ends.iter().take(CYCLE_SHOWN).map(|&index| quoted(&functions[index].name.value));
            let mut shown = shown.collect::<Vec<_>>().join(", ");
            if ends.len() > CYCLE_SHOWN {
                shown.push_str(", ...");
            }
            format!(
                "the workflow ends in {} functions ({shown}), but it has one result; add a function that joins them and name it in the `next` of each",
                ends.len()
            )
        });
    }
    ends.first().copied()
}

/// Who is reached from `start`, which is part of it.
fn reached(start: &[usize], edges: &Edges) -> Vec<bool> {
    let mut reached = vec![false; edges.len()];
    let mut todo = start.to_vec();
    while let Some(from) = todo.pop() {
        if !std::mem::replace(&mut reached[from], true) {
            todo.extend(edges[from].iter().map(|edge| edge.value));
        }
    }
    reached
}
