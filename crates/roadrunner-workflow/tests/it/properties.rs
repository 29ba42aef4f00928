//! No text makes the parser panic, and what it accepts is what it promises.

use std::collections::BTreeSet;

use proptest::prelude::*;
use roadrunner_workflow::{Backing, Workflow};

use crate::parse;

const VALID: &str = include_str!("../../../../docs/manifest.md");

fn valid() -> impl Strategy<Value = String> {
    let examples: Vec<_> = VALID
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect();
    prop::sample::select(examples)
}

/// Pieces that mean something in a manifest, so that mutations get past the TOML parser.
fn piece() -> impl Strategy<Value = String> {
    let meaningful = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "\"\"\"",
        "#",
        "0",
        "-1",
        "true",
        "1979-05-27",
        "nan",
        "workflow",
        "functions",
        "functions.a",
        "name",
        "entry",
        "module",
        "next",
        "calls",
        "placement",
        "memory",
        "timeout",
        "wasi",
        "env",
        "dirs",
        "write",
        "nodes",
        "\"process:\"",
        "\"node:edge-1\"",
        "\"99999999999999999999 GiB\"",
        "\"0s\"",
        "\"oci://x\"",
        "\"\\u0000\"",
        "\"\\n\"",
        "\u{feff}",
        "é",
        "[\"decode\"]",
        "[\"resize\", \"sheet\"]",
        "next = [\"decode\"]\n",
        "\"\"",
    ];
    prop_oneof![4 => prop::sample::select(meaningful.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// A flow of up to eight functions with any edges between them.
fn edges() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    (1_usize..8).prop_flat_map(|count| {
        prop::collection::vec(prop::collection::btree_set(0..count, 0..3), count)
    })
}

/// Fewer edges that go backwards than `edges` has, so that many of the flows are right.
fn forward_edges() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    edges().prop_map(|edges| {
        let count = edges.len();
        let ahead = |(from, to): (usize, BTreeSet<usize>)| {
            let mut ahead: BTreeSet<_> = to.into_iter().filter(|&to| to > from).collect();
            if ahead.is_empty() && from + 1 < count {
                ahead.insert(from + 1);
            }
            ahead
        };
        edges.into_iter().enumerate().map(ahead).collect()
    })
}

fn text_of(edges: &[BTreeSet<usize>]) -> String {
    let mut text = "workflow = { name = 'w', entry = 'f0' }\n".to_owned();
    for (from, to) in edges.iter().enumerate() {
        let next: Vec<_> = to.iter().map(|to| format!("f{to}")).collect();
        text += &format!("[functions.f{from}]\nmodule = 'm.wasm'\nnext = {next:?}\n");
    }
    text
}

/// The rules of the flow by brute force: `closure[a][b]` if there is a path from a to b.
fn is_right(edges: &[BTreeSet<usize>]) -> bool {
    let all = 0..edges.len();
    let mut closure: Vec<Vec<bool>> =
        edges.iter().map(|to| all.clone().map(|index| to.contains(&index)).collect()).collect();
    for via in all.clone() {
        for from in all.clone() {
            for to in all.clone() {
                closure[from][to] |= closure[from][via] && closure[via][to];
            }
        }
    }
    let acyclic = all.clone().all(|index| !closure[index][index]);
    let reached = all.into_iter().all(|index| index == 0 || closure[0][index]);
    acyclic && reached && edges.iter().filter(|to| to.is_empty()).count() == 1
}

fn check_plan(workflow: &Workflow, edges: &[BTreeSet<usize>]) -> Result<(), TestCaseError> {
    let plan = workflow.plan();
    prop_assert_eq!(plan.steps().len(), edges.len());
    let mut done = BTreeSet::new();
    for step in plan.steps() {
        prop_assert!(
            step.inputs.iter().all(|input| done.contains(input)),
            "an input is not there yet"
        );
        prop_assert!(step.inputs.is_sorted(), "edge order is the order of the file");
        let consumers: BTreeSet<_> = step.consumers.iter().map(|edge| edge.to.get()).collect();
        prop_assert_eq!(&consumers, &edges[step.function.get()]);
        for edge in &step.consumers {
            prop_assert_eq!(workflow[edge.to].previous[edge.input], step.function);
        }
        let backing = if step.consumers.len() > 1 { Backing::Shared } else { Backing::Private };
        prop_assert_eq!(step.backing, backing);
        prop_assert!(done.insert(step.function), "a function runs twice");
    }
    prop_assert_eq!(plan.steps().first().map(|step| step.function), Some(workflow.entry()));
    prop_assert_eq!(plan.steps().last().map(|step| step.function), Some(workflow.last()));
    Ok(())
}

/// Every problem stands on one line that begins with its place.
fn check_message(message: &str) -> Result<(), TestCaseError> {
    for line in message.lines() {
        prop_assert!(line.starts_with("flow/r.toml:"), "{}", line);
        prop_assert!(!line.contains(|c: char| c.is_control()), "{:?}", line);
        prop_assert!(line.len() < 1500, "{}", line.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_in_readable_lines(text: String) {
        if let Err(message) = parse(&text) {
            check_message(&message)?;
        }
    }

    #[test]
    fn any_bytes_of_a_file_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &bytes)?;
        prop_assert!(Workflow::load(file.path()).is_err());
    }

    #[test]
    fn mutated_manifests_are_survived(
        text in valid(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, piece()), 1..5),
    ) {
        let mut text = text;
        for (place, length, piece) in cuts {
            let start = text.floor_char_boundary(place.index(text.len() + 1));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &piece);
        }
        match parse(&text) {
            Ok(workflow) => prop_assert!(!workflow.plan().steps().is_empty()),
            Err(message) => check_message(&message)?,
        }
    }

    #[test]
    fn exactly_the_right_flows_are_accepted(edges in prop_oneof![edges(), forward_edges()]) {
        match parse(&text_of(&edges)) {
            Ok(workflow) => {
                prop_assert!(is_right(&edges), "accepted: {}", text_of(&edges));
                check_plan(&workflow, &edges)?;
            }
            Err(message) => {
                prop_assert!(!is_right(&edges), "refused: {}\n{}", message, text_of(&edges));
                check_message(&message)?;
            }
        }
    }
}
