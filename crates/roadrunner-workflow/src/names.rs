//! Which texts may be names, addresses and guest paths.

use crate::error::{Report, quoted};

/// Names are parts of paths, labels and socket names elsewhere.
pub(crate) fn check_name(report: &mut Report, what: &str, at: usize, name: &str) {
    const LONGEST: usize = roadrunner_abi::limit::NAME_BYTES as usize;
    let first_is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() > LONGEST {
        report.add(at, || {
            format!(
                "{what} has a name of {} bytes, {}; write one of at most {LONGEST}",
                name.len(),
                quoted(name)
            )
        });
    } else if !first_is_plain || !name.chars().all(is_name_character) {
        report.add(at, || {
            let instead = plain_name(name);
            let instead = if instead.is_empty() { String::new() } else { format!(", such as {instead:?}") };
            format!(
                "{what} has the name {}; write one of a-z, 0-9, \"-\", \"_\" and \".\" that begins with a letter or digit{instead}",
                quoted(name)
            )
        });
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
}

/// The nearest name that is allowed; empty if nothing is left of it.
fn plain_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let plain = lower.replace(|c: char| !is_name_character(c), "-");
    plain.trim_matches(['-', '_', '.']).to_owned()
}

/// A name as it stands in a table's header: bare where TOML allows it.
pub(crate) fn header(name: &str) -> String {
    let bare = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.to_owned() } else { quoted(name) }
}

/// Where a guest sees a folder: absolute, and spelled in one way only, so that no two keys of
/// the manifest can mean the same place.
pub(crate) fn is_plain_absolute(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    !path.contains('\0')
        && (rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// An IP address or host name with a port; it is looked up when the node is first needed.
pub(crate) fn is_address(address: &str) -> bool {
    if let Ok(socket) = address.parse::<std::net::SocketAddr>() {
        return socket.port() != 0;
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let all_digits = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    host.len() <= 253
        && !all_digits
        && host.split('.').all(label)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// An image with its registry, and a tag or a digest: nothing that depends on who reads it. Whether it can be is for
/// whoever pulls it to say.
pub(crate) fn is_image(image: &str) -> bool {
    let Some((registry, name)) = image.split_once('/') else {
        return false;
    };
    let is_registry = registry == "localhost" || registry.contains(['.', ':']);
    let is_pinned = name.rsplit('/').next().is_some_and(|last| {
        last.split_once([':', '@'])
            .is_some_and(|(name, which)| !name.is_empty() && !which.is_empty())
    });
    is_registry && is_pinned && image.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["10.0.0.7:7400", "[::1]:1", "localhost:7400", "edge-1.lan:65535", "a.b.c:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "10.0.0.7",
            "10.0.0.7:0",
            "10.0.0.7:+1",
            "1.2.3:4",
            "host:65536",
            "a..b:1",
            "::1:7400",
            "a b:1",
            "x:",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn images() {
        for good in ["ghcr.io/x/y:1", "localhost:5000/x@sha256:00", "localhost/a:latest"] {
            assert!(is_image(good), "{good}");
        }
        for bad in [
            "",
            "x",
            "x:1",
            "x/y:1",
            "ghcr.io/",
            "ghcr.io/x",
            "ghcr.io/x:",
            "ghcr.io/:1",
            "a.b/x y:1",
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }

    #[test]
    fn guest_paths() {
        for good in ["/", "/models", "/a/b.c"] {
            assert!(is_plain_absolute(good), "{good}");
        }
        for bad in ["", "models", "./models", "/models/", "//", "/a/../b", "/.", "/a\0"] {
            assert!(!is_plain_absolute(bad), "{bad}");
        }
    }

    #[test]
    fn names_that_are_refused_come_with_one_that_is_allowed() {
        assert_eq!(plain_name("Re Size"), "re-size");
        assert_eq!(plain_name("_x"), "x");
        assert_eq!(plain_name("..."), "");
        assert_eq!(plain_name("größe"), "gr--e");
    }
}
