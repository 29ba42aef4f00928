//! What is in `deploy/`: the objects are such as Kubernetes' published schemas allow, and the installer changes a containerd's
//! configuration once and loses nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell::Workspace;
use crate::test::Outcome;

/// The versions of Kubernetes that the objects are checked for: one that is out of support by now, and the newest of the
/// validator's.
const VERSIONS: [&str; 2] = ["1.28", "1.37"];

/// Where the validator with the schemas is, from the repository's root.
const VALIDATOR: &str = "target/tools/kubernetes";

/// What stands in a configuration that has the runtime.
const ENTRY: &str = "containerd.runtimes.roadrunner]";

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    for version in ["2", "3"] {
        installs_once(workspace, version)?;
    }
    refuses_what_it_does_not_know(workspace)?;
    let there = workspace.command("python3").args(["-m", "kubernetes_validate", "--version"]);
    if !there.env("PYTHONPATH", VALIDATOR).succeeds() {
        let reason = "the schemas of Kubernetes are not here; pip brings them (`cargo xtask test --only setup`)";
        return Ok(Outcome::Skipped(reason.into()));
    }
    for version in VERSIONS {
        let validate = workspace.command("python3").args(["-m", "kubernetes_validate", "--strict"]);
        let validate = validate.args(["--quiet", "--kubernetes-version", version]);
        let objects = ["runtime-class.yaml", "installer.yaml", "thumbnail.yaml"];
        let objects = objects.map(|name| format!("deploy/{name}"));
        validate.args(objects).env("PYTHONPATH", VALIDATOR).run()?;
    }
    Ok(Outcome::Passed)
}

/// A host's root directory with this configuration, and the installer beside a shim.
fn host(workspace: &Workspace, config: &str) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for file in ["installer/install.sh", "containerd-1.toml", "containerd-2.toml"] {
        let from = workspace.root.join("deploy").join(file);
        let name = Path::new(file).file_name().context("they have names")?;
        fs::copy(&from, dir.path().join(name))?;
    }
    fs::write(dir.path().join("containerd-shim-roadrunner-v1"), "the shim")?;
    let etc = dir.path().join("root/etc/containerd");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("config.toml"), config)?;
    Ok(dir)
}

fn install(workspace: &Workspace, dir: &Path) -> Result<String> {
    // Nothing that could be asked to restart anything: this machine's own containerd is none of this.
    let nobody = dir.join("nobody");
    fs::create_dir_all(&nobody)?;
    fs::write(nobody.join("nsenter"), "#!/bin/sh\nexit 1\n")?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(nobody.join("nsenter"), executable)?;
    let path = format!("{}:/usr/bin:/bin", nobody.display());
    let install = workspace.command(dir.join("install.sh")).env("PATH", path);
    install.args([dir.join("root")]).output()
}

fn installs_once(workspace: &Workspace, version: &str) -> Result<()> {
    let before = format!("version = {version}\n[grpc]\n  address = \"/run/c.sock\"\n");
    let dir = host(workspace, &before)?;
    let root = dir.path().join("root");
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    install(workspace, dir.path())?;
    ensure!(read("usr/local/bin/containerd-shim-roadrunner-v1")? == "the shim");
    let config = read("etc/containerd/config.toml")?;
    let plugin =
        if version == "2" { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    ensure!(config.starts_with(&before) && config.contains(plugin), "version {version}:\n{config}");
    ensure!(read("etc/containerd/config.toml.before-roadrunner")? == before);
    install(workspace, dir.path())?;
    let again = read("etc/containerd/config.toml")?;
    ensure!(again == config && again.matches(ENTRY).count() == 1, "it was added twice:\n{again}");
    dumped(workspace, version, &root.join("etc/containerd/config.toml"))
}

/// containerd reads what was written. The one that is here knows version 2.
fn dumped(workspace: &Workspace, version: &str, config: &Path) -> Result<()> {
    let containerd = workspace.root.join("target/tools/containerd/bin/containerd");
    if version != "2" || !containerd.exists() {
        println!("not read by a containerd: the configuration of version {version}");
        return Ok(());
    }
    let dump = workspace.command(containerd).args(["--config"]).args([config]);
    let dump = dump.args(["config", "dump"]).output()?;
    let runtime = dump.split(ENTRY).nth(1).context("containerd knows no such runtime")?;
    let runtime = runtime.split("\n\n").next().unwrap_or_default();
    ensure!(runtime.contains("runtime_type = \"io.containerd.roadrunner.v1\""), "{runtime}");
    ensure!(runtime.contains("pod_annotations = [\"dev.roadrunner/*\"]"), "{runtime}");
    Ok(())
}

fn refuses_what_it_does_not_know(workspace: &Workspace) -> Result<()> {
    let dir = host(workspace, "[plugins.cri]\n")?;
    let refused = install(workspace, dir.path()).err().context("it changed an unknown version")?;
    ensure!(format!("{refused:#}").contains("says no version"), "{refused:#}");
    let left = fs::read_to_string(dir.path().join("root/etc/containerd/config.toml"))?;
    ensure!(left == "[plugins.cri]\n", "it was changed:\n{left}");
    Ok(())
}

/// The validator, for the table of tools.
pub(crate) const INSTALL: &[&str] = &[
    "python3",
    "-m",
    "pip",
    "install",
    "--quiet",
    "--root-user-action=ignore",
    "--target",
    VALIDATOR,
    "kubernetes-validate==1.37.0",
];

/// How to see that it is there.
pub(crate) const PROBE: &[&str] = &["test", "-d", "target/tools/kubernetes/kubernetes_validate"];

#[cfg(test)]
mod tests {
    /// Everything that Kubernetes gives to the shim is for it, in either containerd's words.
    #[test]
    fn both_configurations_say_the_same() {
        let [one, two] = [
            include_str!("../../deploy/containerd-1.toml"),
            include_str!("../../deploy/containerd-2.toml"),
        ]
        .map(|text| text.lines().skip(2).map(str::trim).collect::<Vec<_>>());
        assert_eq!(one, two);
        assert!(one.contains(&"runtime_type = \"io.containerd.roadrunner.v1\""), "{one:?}");
    }
}
