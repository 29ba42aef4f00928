//! Where the workspace is, and how other programs are started in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The directories that every step works in.
pub(crate) struct Workspace {
    /// The repository's root, which holds the workspace manifest.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, honouring `CARGO_TARGET_DIR`.
    pub(crate) target: PathBuf,
    /// `PATH` with the tools of `target/tools` in front.
    path: OsString,
}

impl Workspace {
    /// Finds the workspace from this program's own place in it.
    pub(crate) fn locate() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .context("start this as `cargo xtask`: cargo tells it where the workspace is")?;
        let root = Path::new(&manifest_dir)
            .parent()
            .context("xtask/ lies directly in the repository's root")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(
            std::iter::once(target.join("tools/bin")).chain(env::split_paths(&inherited)),
        )
        .context(
            "the target directory's path has a colon in it; set CARGO_TARGET_DIR to one without",
        )?;
        Ok(Self { root, target, path })
    }

    /// A command that runs in the repository's root, without standard input.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Shell {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", &self.path).stdin(Stdio::null());
        Shell { command, shown: String::new() }
    }

    /// `cargo` with these arguments, in the repository's root.
    pub(crate) fn cargo(&self, args: &[&str]) -> Shell {
        self.command("cargo").args(args)
    }
}

/// One program to start. What differs from a plain call in the root is shown when it runs, so that a line can be copied.
pub(crate) struct Shell {
    command: Command,
    shown: String,
}

impl Shell {
    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        self.shown += &format!("{key}={} ", quoted(value));
        self.command.env(key, value);
        self
    }

    /// Removes a variable of the environment.
    pub(crate) fn env_remove(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Runs it in another directory.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.shown.insert_str(0, &format!("cd {} && ", quoted(dir.as_os_str())));
        self.command.current_dir(dir);
        self
    }

    /// Shows the command, lets its output through, and fails unless it succeeds.
    pub(crate) fn run(mut self) -> Result<()> {
        let line = self.line();
        println!("$ {line}");
        let status = self.command.status().with_context(|| format!("could not start `{line}`"))?;
        if !status.success() {
            bail!("`{line}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it silently; says whether it succeeded. A program that is not there did not.
    pub(crate) fn succeeds(mut self) -> bool {
        let silent = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        silent.status().is_ok_and(|status| status.success())
    }

    /// Runs it silently and returns what it printed on standard output; an error carries what it printed on the other.
    pub(crate) fn output(mut self) -> Result<String> {
        let line = self.line();
        let output = self.command.output().with_context(|| format!("could not start `{line}`"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`{line}` failed ({}): {}", output.status, complaint.trim());
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("`{line}` printed something that is not UTF-8"))
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<String> = words.map(quoted).collect();
        self.shown.clone() + &words.join(" ")
    }
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::quoted;

    #[test]
    fn shown_commands_can_be_copied() {
        let cases = [
            ("--locked", "--locked"),
            ("", "''"),
            ("-D warnings", "'-D warnings'"),
            ("it's", r"'it'\''s'"),
        ];
        for (word, shown) in cases {
            assert_eq!(quoted(OsStr::new(word)), shown);
        }
    }
}
