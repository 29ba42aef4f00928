//! What is written, and what a check finds.

use crate::made_up::Evaluation;

const README: &str = "# Made up\n<!-- evaluation:begin -->\n<!-- evaluation:end -->\nThe rest.\n";
const BOTH: [&str; 2] = ["--readme", "README.md"];
const CHECK: [&str; 3] = ["--readme", "README.md", "--check"];

fn reported() -> Evaluation {
    let evaluation = Evaluation::made_up();
    evaluation.write("README.md", README);
    evaluation.reported(&BOTH);
    evaluation
}

#[test]
fn a_report_is_what_its_runs_give() {
    let evaluation = reported();
    assert!(evaluation.reported(&CHECK).contains("is what its runs give"));
    let readme = evaluation.read("README.md");
    assert!(readme.starts_with("# Made up\n<!-- evaluation:begin -->\n|"), "{readme}");
    assert!(readme.ends_with("<!-- evaluation:end -->\nThe rest.\n"), "{readme}");
    let page = evaluation.read("results/index.html");
    evaluation.reported(&BOTH);
    assert_eq!(evaluation.read("results/index.html"), page, "the same runs, the same bytes");
}

#[test]
fn the_readmes_numbers_are_pinned() {
    let evaluation = reported();
    insta::assert_snapshot!(evaluation.read("README.md"));
}

#[test]
fn a_table_in_the_papers_columns_is_pinned() {
    let evaluation = reported();
    let tables = [
        "sequential__intra-node__intra-node-total-latency.csv",
        "parallel__intra-node__intra-node-ram.csv",
        "sequential__inter-node__inter-node-total-cpu.csv",
        "sequential__intra-node__latency-breakdown.csv",
        "motivation__transfer.csv",
        "motivation__motivation.csv",
    ];
    let all = tables.map(|name| format!("{name}\n{}", evaluation.read(&format!("results/{name}"))));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn whatever_was_changed_by_hand_is_found() {
    let tables = [
        "index.html",
        "sequential__intra-node__intra-node-total-latency.csv",
        "plots/transfer-same-host-latency.svg",
    ];
    for name in tables {
        let evaluation = reported();
        let path = format!("results/{name}");
        evaluation.write(&path, &evaluation.read(&path).replacen('1', "2", 1));
        let said = evaluation.refused(&CHECK);
        assert!(said.contains(name) && said.contains("without --check"), "{said}");
        assert!(!said.contains(".csv, "), "only the one that was changed: {said}");
    }
    let evaluation = reported();
    evaluation.write("README.md", &evaluation.read("README.md").replacen("Redis |", "Redis! |", 1));
    assert!(evaluation.refused(&CHECK).contains("README.md: its numbers"));
}

/// A machine may say what it wants: the README's comments stay where they are.
#[test]
fn a_machines_words_stay_between_the_comments() {
    let evaluation = reported();
    let evil = r#"{"cpu": "x\n# y <!-- evaluation:end --> <b>"}"#;
    evaluation.write("results/machine.json", evil);
    evaluation.reported(&BOTH);
    evaluation.reported(&CHECK);
    let readme = evaluation.read("README.md");
    assert_eq!(readme.matches("<!-- evaluation:end -->").count(), 1, "{readme}");
    assert!(readme.contains("x # y &lt;!-- evaluation:end --> &lt;b>."), "{readme}");
}

#[test]
fn a_run_more_makes_the_report_stale() {
    let evaluation = reported();
    let runs = evaluation.read("results/runs.csv");
    let more = "transfer,same-host,redis,100,99,9,,,,,,,,1,made up\n";
    evaluation.write("results/runs.csv", &format!("{runs}{more}"));
    let said = evaluation.refused(&CHECK);
    assert!(said.contains("index.html") && said.contains("intra-node-total-latency.csv"), "{said}");
}

#[test]
fn without_results_there_are_no_numbers() {
    let evaluation = Evaluation::empty();
    evaluation.write("README.md", README);
    assert!(evaluation.reported(&CHECK).contains("no results in results"));
    evaluation.write("README.md", &README.replace("begin -->\n", "begin -->\n| 2 ms |\n"));
    assert!(evaluation.refused(&CHECK).contains("its numbers are not what the runs give"));
    assert!(evaluation.refused(&BOTH).contains("cargo xtask evaluate"), "nothing to report");
    evaluation.write("README.md", README);
    evaluation.write("results/index.html", "an old report");
    assert!(evaluation.refused(&CHECK).contains("index.html"));
}

#[test]
fn what_an_earlier_report_had_goes_away() {
    let evaluation = reported();
    evaluation.write("results/plots/old.svg", "<svg/>");
    assert!(evaluation.refused(&CHECK).contains("plots/old.svg"));
    evaluation.reported(&BOTH);
    assert!(!evaluation.path("results/plots/old.svg").exists());
    evaluation.reported(&CHECK);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let evaluation = reported();
    evaluation
        .write("results/skipped.csv", "experiment,place,system,reason\ntransfer,mars,redis,far\n");
    let said = evaluation.refused(&CHECK);
    assert!(said.contains("results/skipped.csv:2:") && said.contains("mars"), "{said}");
    let evaluation = reported();
    std::fs::write(evaluation.path("results/runs.csv"), [0xff, 0xfe]).expect("a file");
    assert!(evaluation.refused(&[]).contains("could not read results/runs.csv"));
}
