//! `machine.json`: what the figures were measured on, and with what.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use roadrunner_evaluation::{CLANG, RUNS, Results};
use serde_json::{Value, json};

use crate::Run;

/// The peers' programs and how they say their version.
const PEERS: [(&str, &[&str]); 6] = [
    ("runc", &["runc", "--version"]),
    ("redis-server", &["redis-server", "--version"]),
    ("gcc", &["gcc", "--version"]),
    ("clang", &[CLANG, "--version"]),
    ("node", &["node", "--version"]),
    ("rustc", &["rustc", "--version"]),
];

/// The project's own results, in the repository.
const OWN: &str = "evaluation/results";

/// The file's name.
const FILE: &str = "machine.json";

/// What all rows of a folder must have in common: medians of several of them would be of nothing.
const IN_COMMON: [&str; 6] = ["mode", "profile", "commit", "cpu", "cores", "kernel"];

/// What is not built: changes there are none of the programs. The evaluation itself writes the results and the README.
const NOT_BUILT: [&str; 2] = [":(top,exclude)evaluation/results", ":(top,exclude,glob)**/*.md"];

/// Opens a folder's results and says what makes them. Where it is the project's own and has rows that were made otherwise, these
/// are kept, with all that is in the folder, under another name; that name, and how they were made. A folder that somebody
/// named may have more in it than results: there it fails.
pub(crate) fn open(options: &Run) -> Result<(Results, Option<String>)> {
    let mode = options
        .mode
        .to_possible_value()
        .map_or_else(String::new, |mode| mode.get_name().to_owned());
    let now = description(options, &mode);
    let is_own = options.results == options.repository.join(OWN);
    let aside = set_aside(&options.results, &now, is_own)?;
    let results = Results::open(&options.results)?;
    let path = options.results.join(FILE);
    if results.has_rows() && !path.exists() {
        let folder = options.results.display();
        bail!("{folder} has rows and no {FILE} that says what made them; {ELSEWHERE}");
    }
    let text = serde_json::to_string_pretty(&now)? + "\n";
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok((results, aside))
}

/// Gives a folder another name whose rows would not go with those to come.
fn set_aside(folder: &Path, now: &Value, is_own: bool) -> Result<Option<String>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    let earlier = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; {ELSEWHERE}", path.display()))?;
    let Some(difference) = difference(&earlier, now) else { return Ok(None) };
    // The first line has the names of the columns.
    if !fs::read_to_string(folder.join(RUNS)).is_ok_and(|text| text.lines().nth(1).is_some()) {
        return Ok(None);
    }
    if !is_own {
        bail!("{} has rows of {difference}; {ELSEWHERE}", folder.display());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = (1..u32::MAX).map(|number| folder.with_file_name(format!("{name}.{number}")));
    let other = other.into_iter().find(|other| !other.exists());
    let other = other.with_context(|| format!("{} has no other name left", folder.display()))?;
    fs::rename(folder, &other).with_context(|| {
        format!(
            "{} has rows of {difference}, and can't be given another name; {ELSEWHERE}",
            folder.display()
        )
    })?;
    let (folder, other) = (folder.display(), other.display());
    Ok(Some(format!("{folder} had rows of {difference}: they are in {other} now")))
}

/// What to do then.
const ELSEWHERE: &str = "name another folder with --results, or remove that one";

/// The first thing in which new rows would be other than those that are there.
fn difference(earlier: &Value, now: &Value) -> Option<String> {
    let name = IN_COMMON.iter().find(|name| earlier[**name] != now[**name])?;
    Some(format!("{name} {}, and this is {}", earlier[*name], now[*name]))
}

/// What the sources are: a commit, with `-dirty` behind it where what is built has been changed since. Nothing where
/// there is no repository.
fn commit(repository: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        first_line(git.args(args).current_dir(repository))
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let [results, texts] = NOT_BUILT;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", results, texts]);
    Some(if changed.is_some() { commit + "-dirty" } else { commit })
}

fn description(options: &Run, mode: &str) -> Value {
    let read = |path: &str| {
        fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
    };
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(String::new, |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kib = field(&memory, "MemTotal").trim_end_matches(" kB").parse::<u64>();
    let thp = |file| read(&format!("/sys/kernel/mm/transparent_hugepage/{file}"));
    let peers: BTreeMap<_, _> =
        PEERS.iter().filter_map(|(name, command)| Some((*name, said(command, options)?))).collect();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": field(&cpus, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": kib.unwrap_or(0) * 1024,
        "thp_enabled": thp("enabled"),
        "thp_shmem_enabled": thp("shmem_enabled"),
        "mode": mode,
        "profile": options.profile,
        "date": said(&["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"], options),
        "commit": commit(&options.repository),
        "peers": peers,
    })
}

/// The first line that a program prints; nothing where there is no such program.
fn said(command: &[&str], options: &Run) -> Option<String> {
    let (program, args) = command.split_first()?;
    let own = options.target.join("tools/containerd/bin").join(program);
    let program = if own.exists() { own.as_path() } else { Path::new(program) };
    first_line(Command::new(program).args(args).current_dir(&options.repository))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).filter(|_| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_another_machine_or_commit_are_not_mixed() {
        let now = json!({
            "mode": "quick", "profile": "evaluation", "commit": "abc", "cpu": "one", "cores": 2,
            "kernel": "6", "date": "today",
        });
        assert_eq!(difference(&now, &now), None);
        for name in ["mode", "profile", "commit", "cpu", "cores", "kernel"] {
            let mut earlier = now.clone();
            earlier[name] = json!("another");
            let said = difference(&earlier, &now).expect(name);
            assert_eq!(said, format!("{name} \"another\", and this is {}", now[name]));
        }
        let mut earlier = now.clone();
        earlier["date"] = json!("yesterday");
        assert_eq!(difference(&earlier, &now), None, "an interrupted run goes on");
    }

    #[test]
    fn rows_that_were_made_otherwise_are_kept_under_another_name() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("results");
        let now = json!({ "commit": "abc" });
        assert_eq!(set_aside(&folder, &now, true).expect("there is nothing"), None);
        for number in 1..3 {
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join(FILE), now.to_string()).expect("a file");
            fs::write(folder.join(RUNS), format!("columns\n{number}\n")).expect("a file");
            assert_eq!(set_aside(&folder, &now, true).expect("they go together"), None);
            let other = json!({ "commit": "def" });
            let refused = set_aside(&folder, &other, false).expect_err("somebody named it");
            assert!(refused.to_string().contains("--results"), "{refused}");
            assert!(folder.exists(), "whatever else is in it stays");
            let said = set_aside(&folder, &other, true).expect("another name");
            let said = said.expect("they were made otherwise");
            assert!(said.contains("\"abc\", and this is \"def\""), "{said}");
            let kept = parent.path().join(format!("results.{number}"));
            assert!(said.contains(&kept.display().to_string()), "{said}");
            let rows = fs::read_to_string(kept.join(RUNS)).expect("it is there");
            assert_eq!((rows, folder.exists()), (format!("columns\n{number}\n"), false));
        }
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join(FILE), "{").expect("a file");
        assert!(set_aside(&folder, &now, true).is_err(), "nobody knows what they are");
    }

    #[test]
    fn changed_sources_are_not_their_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(args);
            git.current_dir(folder.path()).output().is_ok_and(|output| output.status.success())
        };
        // In a git hook the variable names another repository, which is not this test's.
        if std::env::var_os("GIT_DIR").is_some() || !git(&["init", "--quiet"]) {
            return println!("skipped: there is no git here, or this is a hook of it");
        }
        assert_eq!(commit(folder.path()), None);
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a file");
        };
        fs::create_dir_all(folder.path().join("evaluation/results")).expect("a folder");
        let (source, rows, readme) = ("source.rs", "evaluation/results/runs.csv", "README.md");
        for name in [source, rows, readme] {
            write(name, "before");
        }
        assert!(git(&["add", "."]) && git(&["commit", "--quiet", "-m", "all"]));
        let clean = commit(folder.path()).expect("there is a commit");
        assert!(clean.bytes().all(|byte| byte.is_ascii_hexdigit()), "{clean}");
        for name in [rows, readme] {
            write(name, "after");
        }
        assert_eq!(commit(folder.path()).as_ref(), Some(&clean), "the evaluation writes these");
        write(source, "after");
        assert_eq!(commit(folder.path()), Some(clean + "-dirty"));
    }
}
