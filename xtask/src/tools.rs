//! The tools that the suite needs beside the compiler: what is missing is installed, and said.
//!
//! Cargo subcommands go to `target/tools`, never into the user's own `~/.cargo/bin`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::deploy;
use crate::guests::toolchain;
use crate::shell::{Shell, Workspace};

/// The other architecture that the code must compile for.
pub(crate) const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// Downloads that hang are given up after this: an unreachable server must cost a skipped step, not the whole run.
const DOWNLOAD_LIMIT_S: u32 = 240;

/// Something that a step calls.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) probe: Probe,
    pub(crate) install: Install,
    /// Without it the suite fails; the steps of the others are skipped with a reason.
    pub(crate) required: bool,
}

/// How to see that a tool is there. A probe changes nothing.
pub(crate) enum Probe {
    /// This command succeeds.
    Runs(&'static [&'static str]),
    /// This command prints the tool's name and at least this `(major, minor)` version.
    Prints(&'static [&'static str], (u32, u32)),
    /// The compiler has a standard library for this target.
    HasStd(&'static str),
}

/// Where a tool comes from.
pub(crate) enum Install {
    /// One command, typically of rustup or of Debian's package manager.
    Command(&'static [&'static str]),
    /// A crate of this version, built without optimizations because it runs for seconds.
    Crate { name: &'static str, version: &'static str },
}

/// Prepares the system library of Miri; it is quick when that is done already.
pub(crate) const MIRI_SETUP: &[&str] = &["cargo", "+nightly", "miri", "setup"];

/// Succeeds where clang compiles and links C for WASI.
pub(crate) const HAS_C_FOR_WASI: [&str; 3] = [
    "sh",
    "-c",
    "echo 'int main(void) { return 0; }' | clang --target=wasm32-wasi -xc -o /dev/null -",
];

/// What makes and limits links between network namespaces.
pub(crate) const LINK: Tool = Tool {
    name: "ip and tc, for a link between two nodes",
    probe: Probe::Runs(&["tc", "-V"]),
    install: Install::Command(&[
        "sh",
        "-c",
        "apt-get update -qq && apt-get install -qq --no-install-recommends iproute2",
    ]),
    required: false,
};

/// What runs containers, unpacked and not installed.
pub(crate) const CONTAINERD: Tool = Tool {
    name: "containerd and runc, unpacked",
    probe: Probe::Runs(&["target/tools/containerd/bin/containerd", "--version"]),
    install: Install::Command(&["scripts/containerd.sh", "target/tools/containerd"]),
    required: false,
};

const TOOLS: [Tool; 15] = [
    Tool {
        name: "rustfmt",
        probe: Probe::Runs(&["cargo", "fmt", "--version"]),
        install: Install::Command(&["rustup", "component", "add", "rustfmt"]),
        required: true,
    },
    Tool {
        name: "clippy",
        probe: Probe::Runs(&["cargo", "clippy", "--version"]),
        install: Install::Command(&["rustup", "component", "add", "clippy"]),
        required: true,
    },
    Tool {
        name: "cargo-nextest",
        probe: Probe::Runs(&["cargo", "nextest", "--version"]),
        install: Install::Crate { name: "cargo-nextest", version: "0.9.143" },
        required: true,
    },
    Tool {
        name: "cargo-deny",
        probe: Probe::Prints(&["cargo", "deny", "--version"], (0, 18)),
        install: Install::Crate { name: "cargo-deny", version: "0.20.2" },
        required: true,
    },
    Tool {
        name: "a C++ compiler, for libFuzzer",
        probe: Probe::Runs(&["c++", "--version"]),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends g++",
        ]),
        required: false,
    },
    LINK,
    CONTAINERD,
    Tool {
        name: "headless Chromium, for the evaluation's page",
        probe: Probe::Runs(&[
            "sh",
            "-c",
            "chromium-headless-shell --version || chromium --version",
        ]),
        // 87 MB to fetch, ten seconds: the smaller of Debian's two builds, with the fonts that it would show.
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core",
        ]),
        required: false,
    },
    Tool {
        name: "C for WASI, for programs in containers",
        probe: Probe::Runs(&HAS_C_FOR_WASI),
        install: Install::Command(&[
            "sh",
            "-c",
            "apt-get update -qq && apt-get install -qq --no-install-recommends clang lld wasi-libc libclang-rt-dev-wasm32",
        ]),
        required: false,
    },
    Tool {
        name: "Go, for programs in containers",
        probe: Probe::Runs(&["target/tools/go/bin/go", "version"]),
        install: Install::Command(&["scripts/go.sh", "target/tools/go"]),
        required: false,
    },
    Tool {
        name: "a registry, unpacked for images",
        probe: Probe::Runs(&["target/tools/registry/bin/docker-registry", "--version"]),
        install: Install::Command(&["scripts/registry.sh", "target/tools/registry"]),
        required: false,
    },
    Tool {
        name: "the schemas of Kubernetes, with their validator",
        probe: Probe::Runs(deploy::PROBE),
        install: Install::Command(deploy::INSTALL),
        required: false,
    },
    Tool {
        name: "a nightly toolchain, for Miri",
        probe: Probe::Runs(&["cargo", "+nightly", "--version"]),
        install: Install::Command(&[
            "rustup",
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
        ]),
        required: false,
    },
    Tool {
        name: "Miri",
        probe: Probe::Runs(MIRI_SETUP),
        install: Install::Command(&[
            "rustup",
            "component",
            "add",
            "--toolchain",
            "nightly",
            "miri",
            "rust-src",
        ]),
        required: false,
    },
    Tool {
        name: "the standard library for 64-bit ARM",
        probe: Probe::HasStd(AARCH64),
        install: Install::Command(&["rustup", "target", "add", AARCH64]),
        required: false,
    },
];

/// Installs what is missing of all tools and of the guest toolchain; fails if a required one can't be had.
pub(crate) fn set_up(workspace: &Workspace) -> Result<()> {
    provide(workspace, &TOOLS)?;
    println!("guests: {}", toolchain::find(workspace)?);
    Ok(())
}

/// Installs what is missing of these; fails if a required one can't be had.
pub(crate) fn provide(workspace: &Workspace, tools: &[Tool]) -> Result<()> {
    for tool in tools {
        if tool.is_there(workspace) {
            println!("have {}", tool.name);
            continue;
        }
        println!("installing {}", tool.name);
        match tool.install(workspace) {
            Ok(()) => {}
            Err(error) if tool.required => {
                return Err(
                    error.context(format!("{} is needed and could not be installed", tool.name))
                );
            }
            Err(error) => println!("going on without {}: {error:#}", tool.name),
        }
    }
    Ok(())
}

/// Whether a program runs, for the steps that can be skipped.
pub(crate) fn works(workspace: &Workspace, probe: &[&str]) -> bool {
    command(workspace, probe).succeeds()
}

/// Whether the compiler has a standard library for this target.
pub(crate) fn has_std(workspace: &Workspace, target: &str) -> bool {
    let where_it_lies = ["--print", "target-libdir", "--target", target];
    let Ok(printed) = workspace.command("rustc").args(where_it_lies).output() else {
        return false;
    };
    let libraries = fs::read_dir(printed.trim()).into_iter().flatten().flatten();
    libraries
        .map(|library| library.file_name())
        .any(|name| name.to_string_lossy().starts_with("libstd-"))
}

/// A download that ends: with what it fetched, with its error, or after [`DOWNLOAD_LIMIT_S`].
pub(crate) fn download(workspace: &Workspace, words: &[&str]) -> Shell {
    let limit = DOWNLOAD_LIMIT_S.to_string();
    workspace.command("timeout").args([limit.as_str()]).args(words)
}

impl Tool {
    fn is_there(&self, workspace: &Workspace) -> bool {
        match self.probe {
            Probe::Runs(words) => works(workspace, words),
            Probe::Prints(words, least) => {
                let printed = command(workspace, words).output();
                printed.is_ok_and(|line| version(&line).is_some_and(|found| found >= least))
            }
            Probe::HasStd(target) => has_std(workspace, target),
        }
    }

    fn install(&self, workspace: &Workspace) -> Result<()> {
        match self.install {
            Install::Command(words) => download(workspace, words).run()?,
            Install::Crate { name, version } => install_crate(workspace, name, version)?,
        }
        if !self.is_there(workspace) {
            bail!(
                "{} was installed but is not found; see that PATH has cargo's own bin directory",
                self.name
            );
        }
        Ok(())
    }
}

fn command(workspace: &Workspace, words: &[&str]) -> Shell {
    let (program, args) = words.split_first().expect("no probe in the table is empty");
    workspace.command(program).args(args)
}

/// Reads `(major, minor)` from a line like `cargo-deny 0.20.2`.
fn version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Builds a cargo subcommand into `target/tools` and removes what only its build needed.
fn install_crate(workspace: &Workspace, name: &str, version: &str) -> Result<()> {
    let tools = workspace.target.join("tools");
    let build: PathBuf = tools.join("build");
    let cargo = workspace.cargo(&[
        "install",
        name,
        "--version",
        version,
        "--locked",
        "--debug",
        "--quiet",
        "--root",
    ]);
    cargo
        .args([&tools])
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .run()?;
    fs::remove_dir_all(&build).with_context(|| format!("could not remove {}", build.display()))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_from_what_tools_print() {
        assert_eq!(version("cargo-deny 0.20.2"), Some((0, 20)));
        assert!(version("cargo-deny 0.14.2") < Some((0, 18)));
        assert_eq!(version("cargo-deny"), None);
        assert_eq!(version(""), None);
    }
}
