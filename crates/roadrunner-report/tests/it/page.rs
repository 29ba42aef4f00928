//! What the page says.

use crate::made_up::Evaluation;

fn page() -> String {
    let evaluation = Evaluation::made_up();
    let said = evaluation.reported(&[]);
    assert!(said.contains("results/index.html"), "{said}");
    evaluation.read("results/index.html")
}

#[test]
fn nothing_comes_from_elsewhere() {
    let page = page();
    for way in [" src=", "@import", "url(", "<script", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(way), "{way}");
    }
}

#[test]
fn every_miss_has_its_reason_or_says_that_it_has_none() {
    let page = page();
    let faster = "latency of one transfer on one host, at 1, 10, 60, 100, 500 MB.";
    assert!(page.contains(&format!("<b>Roadrunner, user space beside iceoryx2:</b> {faster}")));
    assert!(page.contains("Why: Made up: it has no sandbox &amp; shares its memory."));
    assert!(page.contains("Unexplained."), "the network against bare TCP has no note");
    assert!(page.contains("target: at least 95 % (link)."), "a target that was missed");
}

#[test]
fn what_was_skipped_is_there_with_its_reason() {
    let page = page();
    assert!(page.contains("no &lt;node&gt; here, and none could be installed"));
    assert!(page.contains("Made-up CPU that nobody sells, 2 cores, Linux 0.0-made-up"));
}

#[test]
fn words_from_files_are_no_markup() {
    let evaluation = Evaluation::made_up();
    let evil = "</style></svg><script>alert(1)</script>";
    evaluation
        .write("results/machine.json", &format!("{{\"cpu\": \"{evil}\", \"mode\": \"{evil}\"}}"));
    let row = format!("coldstart,same-host,runc,{evil},0,1,,,,,,,,,made up\n");
    evaluation.write("results/runs.csv", &format!("{}{row}", evaluation.read("results/runs.csv")));
    evaluation.reported(&[]);
    let page = evaluation.read("results/index.html");
    assert!(!page.contains("<script"), "a file's text became markup");
    assert!(page.contains("&lt;script&gt;"), "and it is shown");
    let figure = evaluation.read("results/plots/cold-start-same-host-latency.svg");
    assert_eq!(figure.matches("<style>").count(), 1);
    let (open, _) = figure.split_once('>').expect("a tag");
    assert!(
        open.ends_with('"') && open.contains("aria-label"),
        "a file's text ended the tag: {open}"
    );
}

/// What a file may say at its most: figures are drawn of it all the same.
#[test]
fn extremes_are_drawn() {
    let evaluation = Evaluation::made_up();
    let header = evaluation.read("results/runs.csv");
    let header = header.lines().next().expect("a header");
    let mut rows = format!("{header}\n");
    for (experiment, x) in
        [("transfer", "1e-12"), ("transfer", "1e9"), ("fanout", "1e9"), ("compute", "nbody")]
    {
        for (run, value) in ["0", "1e-12", "1e15"].iter().enumerate() {
            for system in ["roadrunner-user", "wasmtime-http-json", "iceoryx2"] {
                let cells =
                    format!("{value},{value},{value},{value},{value},{value},{value},{value}");
                rows += &format!(
                    "{experiment},same-host,{system},{x},{run},{cells},4294967295,made up\n"
                );
            }
        }
    }
    evaluation.write("results/runs.csv", &rows);
    evaluation.reported(&[]);
    let nothing =
        format!("{header}\ntransfer,same-host,roadrunner-user,1,0,0,0,0,0,0,0,0,0,0,made up\n");
    evaluation.write("results/runs.csv", &nothing);
    evaluation.reported(&[]);
    assert!(evaluation.read("results/index.html").contains("Roadrunner, user space: zero"));
}
