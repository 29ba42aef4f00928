//! `roadrunner doctor`: what this machine offers, and what to change.

mod checks;

use std::fmt::Write as _;

use serde::Serialize;

use crate::args::Doctor;
use crate::exit::{Exit, Failure};
use crate::{output, report};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// It works, but slower or less of it.
    Warn,
    /// It does not work.
    Fail,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    /// What to change, and what for.
    advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    /// The check ends badly where `wrong`.
    fn unless(self, wrong: bool, status: Status, advice: impl Into<String>) -> Self {
        if wrong { Self { status, advice: Some(advice.into()), ..self } } else { self }
    }
}

#[derive(Serialize)]
struct Checks {
    checks: Vec<Check>,
}

pub(crate) fn run(options: &Doctor) -> Result<Exit, Failure> {
    let found = Checks { checks: checks::all() };
    let text = if options.json { report::line(&found) } else { as_text(&found.checks) };
    output::print(&text)?;
    let failed = found.checks.iter().any(|check| check.status == Status::Fail);
    Ok(if failed { Exit::Host } else { Exit::Success })
}

fn as_text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, status, found, advice } in checks {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{:<4}  {name:<width$}  {found}", status.name());
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:<4}  {:<width$}  -> {advice}", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_under_what_was_found() {
        let checks = [
            Check::new("cores", "2").unless(false, Status::Fail, "never"),
            Check::new("huge pages", "never").unless(true, Status::Warn, "turn them on"),
        ];
        assert_eq!(
            as_text(&checks),
            "ok    cores       2\nwarn  huge pages  never\n                  -> turn them on\n"
        );
    }
}
