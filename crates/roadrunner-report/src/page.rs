//! `index.html`: one page without a script and without anything from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::context::Kind;
use crate::figures::Figure;
use crate::headline::Headline;
use crate::names::{Metric, X};
use crate::report::{Report, Worse};
use crate::targets::{self, Target, Verdict};
use crate::units;

/// The colours of the page and its figures, light and dark.
pub(crate) const COLOURS: &str = include_str!("colours.css");
const STYLE: &str = include_str!("page.css");

/// Whatever the page would load, a browser refuses.
const NOTHING_FROM_ELSEWHERE: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let (shown, hidden): (Vec<_>, Vec<_>) = report.figures.iter().partition(|figure| figure.first);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(NOTHING_FROM_ELSEWHERE);
                link rel="icon" href="data:,";
                title { "Roadrunner beside its peers" }
                style { (PreEscaped(COLOURS)) (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Roadrunner beside its peers" }
                    @if let Some(lead) = report.lead() { p.lead { (lead) } }
                    p.soft { (report.origin()) }
                }
                main {
                    section aria-labelledby="numbers" {
                        h2 #numbers { "The numbers" }
                        @for headline in &report.headlines { (headline_table(headline)) }
                        p.soft {
                            "Medians, with the middle half of the runs. “Faster” is the peer's median by ours; “paper” is the same "
                            "ratio of the prototype in " a href="https://arxiv.org/abs/2511.01888" { "the paper" }
                            " to its peer of that kind (its Wasm functions ran on WasmEdge), on its machines."
                        }
                    }
                    (checklist(&report.targets))
                    section aria-labelledby="figures" {
                        h2 #figures { "The paper's figures, with our lines" }
                        p.soft {
                            "Thick lines are Roadrunner, thin ones peers measured here, dashed ones what the paper published "
                            "for its own machines."
                        }
                        div.figures { @for figure in shown { (figure_of(figure)) } }
                        @if !hidden.is_empty() {
                            details {
                                summary { "All other figures (" (hidden.len()) ")" }
                                div.figures { @for figure in hidden { (figure_of(figure)) } }
                            }
                        }
                    }
                    (footprint(report))
                    (worse(&report.worse))
                    (skipped(report))
                    (how(report))
                }
            }
        }
    };
    page.into_string()
}

fn headline_table(headline: &Headline) -> Markup {
    let several = headline.ours.len() > 1;
    html! {
        h3 { (headline.title) }
        div.scroll tabindex="0" role="region" aria-label=(headline.title) {
            table {
                thead {
                    tr {
                        th scope="col" { "system" }
                        th.number scope="col" { "latency" }
                        @for (system, _) in &headline.ours {
                            th.number scope="col" {
                                @if several { (system.way()) " " br; }
                                "faster"
                            }
                            th.number scope="col" { "paper" }
                        }
                        th.number scope="col" { "middle half" }
                    }
                }
                tbody {
                    @for (system, latency) in &headline.ours {
                        tr.ours {
                            th scope="row" { (system) }
                            td.number { (units::seconds(latency.median)) }
                            @for _ in &headline.ours { td {} td {} }
                            td.number.spread { (middle_half(*latency)) }
                        }
                    }
                    @for row in &headline.peers {
                        tr {
                            th scope="row" { (row.system) }
                            td.number { (units::seconds(row.latency.median)) }
                            @for gain in &row.gains { (gain_cells(*gain)) }
                            td.number.spread { (middle_half(row.latency)) }
                        }
                    }
                }
            }
        }
    }
}

/// How many times ours is faster, and the paper's number.
fn gain_cells(gain: Option<(f64, Option<f64>)>) -> Markup {
    html! {
        td.number.missed[gain.is_some_and(|(gain, _)| gain < 1.0)] {
            @if let Some((gain, _)) = gain { (units::gain(gain)) }
        }
        td.number.spread { @if let Some((_, Some(paper))) = gain { (units::gain(paper)) } }
    }
}

fn middle_half(spread: crate::spread::Spread) -> String {
    if spread.runs == 1 {
        return "one run".to_owned();
    }
    format!("{} – {}", units::seconds(spread.low), units::seconds(spread.high))
}

fn checklist(targets: &[Target]) -> Markup {
    html! {
        section aria-labelledby="targets" {
            h2 #targets { "The targets: " (targets::tally(targets)) }
            p.soft { "Set before anything was measured." }
            div.scroll tabindex="0" role="region" aria-label="The targets" {
                table.wide {
                    thead { tr {
                        th scope="col" { "verdict" }
                        th scope="col" { "what" }
                        th scope="col" { "target" }
                        th scope="col" { "measured" }
                    } }
                    tbody {
                        @for target in targets {
                            tr {
                                td.verdict.met[target.verdict == Verdict::Met].missed[target.verdict == Verdict::Missed] {
                                    (target.verdict.word())
                                }
                                th scope="row" { (target.what) }
                                td { (target.wanted) }
                                td { (target.measured) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn figure_of(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption {
                b { (figure.title) } " "
                a href={ "plots/" (figure.id) ".svg" } { "SVG" }
                @if let Some(table) = figure.table { " " a href=(table) { "CSV" } }
            }
            (PreEscaped(&figure.svg))
        }
    }
}

fn footprint(report: &Report) -> Markup {
    html! {
        @if !report.footprint.is_empty() {
            section aria-labelledby="footprint" {
                h2 #footprint { "Footprint" }
                div.scroll tabindex="0" role="region" aria-label="Footprint" {
                    table {
                        thead { tr {
                            th scope="col" { "system" }
                            th scope="col" { "what" }
                            th.number scope="col" { "median" }
                        } }
                        tbody {
                            @for (system, x, value) in &report.footprint {
                                tr {
                                    th scope="row" { (system) }
                                    td { (footprint_name(x)) }
                                    td.number { (footprint_value(x, *value)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

const FUNCTIONS_PER_GIB: &str = "functions-per-gib";

fn footprint_name(x: &X) -> String {
    match x.to_string().as_str() {
        "binary-bytes" => "the program's file".to_owned(),
        "idle-function-bytes" => "memory of an idle function".to_owned(),
        FUNCTIONS_PER_GIB => "functions per GiB of memory".to_owned(),
        other => other.replace('-', " "),
    }
}

fn footprint_value(x: &X, value: f64) -> String {
    if x.to_string() == FUNCTIONS_PER_GIB { units::plain(value) } else { units::bytes(value) }
}

fn worse(all: &[Worse]) -> Markup {
    let unexplained = all.iter().filter(|worse| worse.reason.is_none()).count();
    html! {
        section aria-labelledby="worse" {
            h2 #worse { "What is worse, and why" }
            @if all.is_empty() {
                p { "No target is missed, no peer is faster anywhere, and no ratio is below the paper's." }
            } @else {
                p {
                    "Found in the runs, not chosen: every target missed, every peer that is faster, and every ratio below the paper's. "
                    @if unexplained > 0 { span.unexplained { (unexplained) " of " (all.len()) " unexplained." } }
                    @else { "All " (all.len()) " are explained." }
                }
            }
            @for (kind, title) in [
                (Kind::Target, "Targets missed"),
                (Kind::Slower, "Slower than a peer"),
                (Kind::BelowPaper, "Below the paper's own ratio"),
            ] {
                @let of_kind: Vec<_> = all.iter().filter(|worse| worse.kind() == kind).collect();
                @if !of_kind.is_empty() {
                    h3 { (title) " (" (of_kind.len()) ")" }
                    ul.worse { @for worse in of_kind { li {
                        p { b { (worse.head) } " " (worse.detail) }
                        @match &worse.reason {
                            Some(reason) => p.soft { "Why: " (reason) },
                            None => p.unexplained { "Unexplained." },
                        }
                        @if !worse.profile.is_empty() {
                            details {
                                summary { "Profile" }
                                @for line in &worse.profile { p.soft { (line) } }
                            }
                        }
                    } } }
                }
            }
        }
    }
}

fn skipped(report: &Report) -> Markup {
    html! {
        section aria-labelledby="skipped" {
            h2 #skipped { "Skipped" }
            @if report.skipped.is_empty() {
                p { "Nothing: every peer could be measured." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Skipped" {
                    table {
                        thead { tr {
                            th scope="col" { "system" }
                            th scope="col" { "experiment" }
                            th scope="col" { "reason" }
                        } }
                        tbody {
                            @for skipped in &report.skipped {
                                tr {
                                    th scope="row" { (skipped.system) }
                                    td { (skipped.experiment) ", " (skipped.place) }
                                    td { (skipped.reason) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn how(report: &Report) -> Markup {
    let (runs, fewest, most) = report.count;
    html! {
        section aria-labelledby="how" {
            h2 #how { "How it was measured" }
            p {
                (units::count(runs)) " runs, " (fewest) " to " (most)
                " of each system at each size, systems in turn within a round. Every run is a row of "
                a href="runs.csv" { "runs.csv" } "; the tables beside it hold medians in the columns of the paper's own files. "
                "What a row's columns mean, and how to run it all again, is in the folder's README."
            }
            @if let Some((middle, worst, ((experiment, place, system), x))) = report.runs.noise() {
                p {
                    "The middle half of a point's runs is as wide as " (units::percent(middle)) " of their median in the middle case, and "
                    (units::percent(worst)) " at most: " (experiment) ", " (place) ", " (system) " at " (x) "."
                }
            }
            p {
                "A fan-out's latency is divided by its transfers, as in the paper. Memory and processor time are those of all "
                "processes of the system under test. The paper publishes processor time only as a part of the largest in each "
                "figure, so ours is drawn in the same way. Its break-down adds up to its latency between two hosts. Its hosts reached each other at about 0.75 Gbit/s; they stand beside "
                "our link of 1 Gbit/s. The paper's machines were others: its ratios compare, its seconds do not."
            }
            p {
                "A profile is of whole runs, with the producer's writing of the payload in processor time, page faults and "
                "memory; the clock starts after it."
            }
            dl {
                @for (name, value) in report.machine.facts() { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// How a metric's value reads.
pub(crate) fn value(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Memory => units::bytes(value),
        Metric::Throughput | Metric::SerializationThroughput => units::plain(value),
        Metric::PageFaults => units::whole(value),
        _ => units::seconds(value),
    }
}
