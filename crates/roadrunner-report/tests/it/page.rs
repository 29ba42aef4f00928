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
    assert!(page.contains("Why: Made up: it has no sandbox &amp; waits busily."));
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
}
