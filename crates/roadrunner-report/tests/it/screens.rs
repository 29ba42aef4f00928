//! The page in a browser, on a phone and on a desk, light and dark.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::browser::Browser;
use crate::made_up::Evaluation;

/// Elements that end beyond this width: what scrolls inside itself may. A phone's window would grow with them, so it is
/// not asked how wide it is.
fn too_wide(width: u32) -> String {
    format!(
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > {width} + 0.5 \
         && !e.closest('.scroll > *')).map(e => e.outerHTML.slice(0, 80))"
    )
}

#[test]
fn the_page_fits_every_screen_and_asks_nobody() {
    let Some(mut browser) = Browser::start() else {
        eprintln!(
            "skipped: no Chromium here; `apt-get install chromium-headless-shell` brings one"
        );
        return;
    };
    let evaluation = Evaluation::made_up();
    evaluation.reported(&[]);
    let page = evaluation.path("results/index.html");
    let screens = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screens");
    fs::create_dir_all(&screens).expect("a directory");
    let mut papers = Vec::new();
    for width in [360, 1280] {
        for scheme in ["light", "dark"] {
            let events = browser.load(&page, width, scheme);
            assert_eq!(requests(&events), [format!("file://{}", page.display())]);
            assert_eq!(complaints(&events), [""; 0]);
            for opened in [false, true] {
                browser.evaluate(&format!(
                    "document.querySelectorAll('details').forEach(d => d.open = {opened})"
                ));
                let at = format!("{width} px, {scheme}, details open: {opened}");
                assert_eq!(browser.evaluate(&too_wide(width)), Value::Array(Vec::new()), "{at}");
                let fits = format!("document.documentElement.scrollWidth <= {width}");
                assert_eq!(browser.evaluate(&fits), true, "{at}: the page scrolls sideways");
                let name = if opened { "-all" } else { "" };
                let screen = screens.join(format!("{width}-{scheme}{name}.png"));
                fs::write(screen, browser.screenshot()).expect("a file");
            }
            papers.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
            let unnamed = "[...document.querySelectorAll('svg')].filter(s => !s.getAttribute('aria-label')).length";
            assert_eq!(browser.evaluate(unnamed), 0, "a figure without words");
            let ink = "[...document.querySelectorAll('svg')].filter(s => s.innerHTML.includes('#0')).length";
            assert_eq!(
                browser.evaluate(ink),
                0,
                "a figure with a colour that does not follow the mode"
            );
        }
    }
    assert_eq!(papers[0], papers[2]);
    assert_ne!(papers[0], papers[1], "dark is as light");
    println!("screenshots: {}", screens.display());
}

/// A figure's own file follows the mode as well.
#[test]
fn a_figure_alone_is_readable() {
    let Some(mut browser) = Browser::start() else {
        eprintln!(
            "skipped: no Chromium here; `apt-get install chromium-headless-shell` brings one"
        );
        return;
    };
    let evaluation = Evaluation::made_up();
    evaluation.reported(&[]);
    let figure = evaluation.path("results/plots/transfer-same-host-latency.svg");
    let mut inks = Vec::new();
    for scheme in ["light", "dark"] {
        let events = browser.load(&figure, 480, scheme);
        assert_eq!(requests(&events).len(), 1);
        inks.push(browser.evaluate("getComputedStyle(document.querySelector('text')).fill"));
        let sizes = "[...document.querySelectorAll('text')].every(t => t.getBBox().width > 0)";
        assert_eq!(browser.evaluate(sizes), true, "text that is not drawn");
        let outside = "[...document.querySelectorAll('text')].filter(t => { const b = t.getBBox(); \
            return b.x < 0 || b.x + b.width > 481; }).map(t => t.textContent.trim())";
        if scheme == "light" {
            assert_eq!(browser.evaluate(outside), Value::Array(Vec::new()), "text is cut off");
        }
    }
    assert_ne!(inks[0], inks[1], "dark is as light");
}

fn requests(events: &[Value]) -> Vec<String> {
    let requests = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let url =
        |event: &Value| event["params"]["request"]["url"].as_str().unwrap_or_default().to_owned();
    // The icon is a part of the page.
    requests.map(url).filter(|url| !url.starts_with("data:")).collect()
}

fn complaints(events: &[Value]) -> Vec<String> {
    let methods = ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"];
    let complaint = |event: &&Value| methods.iter().any(|method| event["method"] == *method);
    events.iter().filter(complaint).map(ToString::to_string).collect()
}
