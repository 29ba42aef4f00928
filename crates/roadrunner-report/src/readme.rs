//! The README's numbers: what stands between two comments of it is written here and nowhere else.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::headline::Headline;
use crate::report::Report;
use crate::targets;
use crate::units;

const BEGIN: &str = "<!-- evaluation:begin -->";
const END: &str = "<!-- evaluation:end -->";

/// The README with these numbers in the place of the old ones, or with none where nothing was measured.
pub(crate) fn updated(readme: &str, numbers: Option<&str>) -> Result<String> {
    let place = readme.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    match (place, numbers) {
        (Some((before, after)), numbers) => {
            let numbers = numbers.map_or(String::new(), |numbers| format!("{numbers}\n"));
            Ok(format!("{before}{BEGIN}\n{numbers}{END}{after}"))
        }
        (None, None) if !readme.contains(BEGIN) => Ok(readme.to_owned()),
        (None, _) => bail!(
            "the README has no place for the numbers; write `{BEGIN}` and below it `{END}` where they should stand"
        ),
    }
}

/// What stands there. `report` is where the README finds the page.
pub(crate) fn numbers(report: &Report, page: &str) -> String {
    let mut text = String::new();
    for headline in &report.headlines {
        text += &table(headline);
        text.push('\n');
    }
    let (_, fewest, most) = report.count;
    let runs = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    // Writing to a string doesn't fail.
    let _ = write!(
        text,
        "Medians of {runs} runs: {}\nIn brackets the ratio in the paper. Targets: {}. [The report]({page}) has them, the figures, the\n\
         spread, and what is worse than a peer and why.",
        plain(&report.origin()),
        targets::tally(&report.targets),
    );
    text
}

/// Words of a file as Markdown that is words: on one line, and neither a tag nor one of our comments.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "&lt;")
}

fn table(headline: &Headline) -> String {
    let mut text = format!("| {} | latency |", headline.title);
    let mut rule = "|---|---:|".to_owned();
    for (system, _) in &headline.ours {
        text += &format!(" {} is faster |", system.way());
        rule += "---:|";
    }
    text += &format!("\n{rule}\n");
    for (system, latency) in &headline.ours {
        let empty = " |".repeat(headline.ours.len());
        text += &format!("| **{system}** | {} |{empty}\n", units::seconds(latency.median));
    }
    for row in &headline.peers {
        text += &format!("| {} | {} |", row.system, units::seconds(row.latency.median));
        for gain in &row.gains {
            text += &match gain {
                Some((gain, Some(paper))) => {
                    format!(" {} ({}) |", units::gain(*gain), units::gain(*paper))
                }
                Some((gain, None)) => format!(" {} |", units::gain(*gain)),
                None => " |".to_owned(),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_comments_changes() {
        let readme = format!("# A\n{BEGIN}\nold\n{END}\nrest\n");
        let new = updated(&readme, Some("new")).expect("there is a place");
        assert_eq!(new, format!("# A\n{BEGIN}\nnew\n{END}\nrest\n"));
        assert_eq!(updated(&new, Some("new")).expect("again"), new);
        let none = updated(&new, None).expect("nothing measured");
        assert_eq!(none, format!("# A\n{BEGIN}\n{END}\nrest\n"));
    }

    #[test]
    fn a_readme_without_a_place_is_fine_until_there_are_numbers() {
        assert_eq!(updated("# A\n", None).expect("nothing to place"), "# A\n");
        assert!(updated("# A\n", Some("new")).is_err());
        let open = format!("# A\n{BEGIN}\nold\n");
        assert!(updated(&open, None).is_err(), "an end is missing");
    }
}
