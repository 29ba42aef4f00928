//! The command line, which containerd decides: Go's style, with the action behind the flags.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say where the pod's process listens; start it where there is none.
    Start,
    /// Clean up after a container whose process is gone.
    Delete,
    /// Be the pod's process. Only `start` asks for it.
    #[default]
    Serve,
    /// Say which version this is.
    Version,
    /// Say it in containerd's format.
    Info,
}

/// What containerd says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) action: Action,
    /// containerd's namespace, within which identifiers are unique.
    pub(crate) namespace: String,
    /// The container.
    pub(crate) id: String,
    /// containerd's own socket.
    pub(crate) address: String,
    /// The container's directory; without, the current one.
    pub(crate) bundle: PathBuf,
    pub(crate) debug: bool,
}

impl Flags {
    /// Reads the arguments behind the program's name.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut flags, mut args) = (Self::default(), args);
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-') else {
                flags.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    "serve" => Action::Serve,
                    other => bail!("unknown action {other:?}; containerd gives start or delete"),
                };
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut text = || match value.clone().or_else(|| args.next()) {
                Some(value) => Ok(value),
                None => bail!("-{name} needs a value"),
            };
            match name {
                "namespace" => flags.namespace = text()?,
                "id" => flags.id = text()?,
                "address" => flags.address = text()?,
                "bundle" => flags.bundle = text()?.into(),
                // How shims published events before they had a socket for it.
                "publish-binary" => drop(text()?),
                "debug" => flags.debug = value.is_none_or(|value| value != "false"),
                "v" | "version" => flags.action = Action::Version,
                "info" => flags.action = Action::Info,
                other => bail!("unknown flag -{other}"),
            }
        }
        flags.checked()
    }

    fn checked(self) -> Result<Self> {
        let acts = !matches!(self.action, Action::Version | Action::Info);
        if acts && (self.namespace.is_empty() || self.id.is_empty()) {
            bail!("-namespace and -id are needed; containerd starts this program, nobody else");
        }
        // They become parts of paths.
        if [&self.namespace, &self.id].iter().any(|name| name.contains('/') || *name == "..") {
            bail!("namespace {:?} or identifier {:?} is a path", self.namespace, self.id);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        Flags::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn what_containerd_says_is_understood() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id abc -debug start";
        let flags = parse(line).unwrap();
        let expected = Flags {
            action: Action::Start,
            namespace: "k8s.io".into(),
            id: "abc".into(),
            address: "/run/c.sock".into(),
            bundle: PathBuf::new(),
            debug: true,
        };
        assert_eq!(flags, expected);
        let flags = parse("--namespace=n -id=i -bundle /b delete").unwrap();
        assert_eq!((flags.action, flags.bundle), (Action::Delete, "/b".into()));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_it_would_not_say_is_refused() {
        for line in ["start", "-namespace n start", "-namespace n -id i stop", "-id", "-what"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for id in ["../x", "a/b", ".."] {
            assert!(parse(&format!("-namespace n -id {id} start")).is_err(), "{id}");
        }
    }
}
