//! Where a node listens, and where its callers look for it when nothing is said: a socket in a folder
//! into which only its user can look, so that nobody else can put a socket of the same name there.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// The usual socket's name in its folder.
const SOCKET: &str = "roadrunner.sock";

/// Whether the usual socket's folder is made where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    Make,
    Find,
}

/// The usual socket: in `$XDG_RUNTIME_DIR` where that is this user's alone, else in `/tmp/roadrunner-UID`.
pub(crate) fn usual_socket(folder: Folder) -> Result<PathBuf, Failure> {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    in_folder(given, Path::new("/tmp"), roadrunner_sys::user(), folder)
}

fn in_folder(
    given: Option<PathBuf>,
    base: &Path,
    user: u32,
    folder: Folder,
) -> Result<PathBuf, Failure> {
    // A user who became another one may still have the first one's variable.
    let theirs = |path: &PathBuf| path.is_absolute() && is_private(path, user).unwrap_or(false);
    if let Some(given) = given.filter(theirs) {
        return Ok(given.join(SOCKET));
    }
    let own = base.join(format!("roadrunner-{user}"));
    let refused = |reason: &str| {
        let own = own.display();
        let what = format!("{own} {reason}; remove it, or name another place with --socket");
        Failure::new(Exit::Host, what)
    };
    let unusable = |error: &io::Error| refused(&format!("can't be used: {error}"));
    if folder == Folder::Make
        && let Err(error) = DirBuilder::new().mode(0o700).create(&own)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(unusable(&error));
    }
    match is_private(&own, user) {
        Ok(true) => Ok(own.join(SOCKET)),
        Ok(false) => Err(refused("is not a folder into which only this user can look")),
        // Nobody listens there, as the call will find.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder == Folder::Find => {
            Ok(own.join(SOCKET))
        }
        Err(error) => Err(unusable(&error)),
    }
}

/// Whether a path is a folder, and no link to one, that belongs to this user and is closed to all others.
fn is_private(path: &Path, user: u32) -> io::Result<bool> {
    let closed =
        |found: Metadata| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0;
    fs::symlink_metadata(path).map(closed)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn usual(given: Option<&Path>, base: &Path, folder: Folder) -> Result<PathBuf, String> {
        let given = given.map(Path::to_path_buf);
        in_folder(given, base, roadrunner_sys::user(), folder).map_err(|it| it.to_string())
    }

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn the_users_own_folder_has_the_socket() {
        let (given, base) = (folder(0o700), folder(0o755));
        let found = usual(Some(given.path()), base.path(), Folder::Make).unwrap();
        assert_eq!(found, given.path().join(SOCKET));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_of_the_nodes_own_is_made_private() {
        let (open, base) = (folder(0o755), folder(0o777));
        let own = base.path().join(format!("roadrunner-{}", roadrunner_sys::user()));
        for given in [None, Some(open.path()), Some(Path::new("relative")), Some(Path::new("/no"))]
        {
            assert_eq!(usual(given, base.path(), Folder::Find).unwrap(), own.join(SOCKET));
            assert!(!own.exists(), "callers make nothing");
        }
        for _ in 0..2 {
            assert_eq!(usual(None, base.path(), Folder::Make).unwrap(), own.join(SOCKET));
            assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        }
        assert_eq!(usual(None, base.path(), Folder::Find).unwrap(), own.join(SOCKET));
    }

    #[test]
    fn a_folder_that_others_may_have_prepared_is_refused() {
        let base = folder(0o777);
        let own = base.path().join(format!("roadrunner-{}", roadrunner_sys::user()));
        let refused = |what: &str| {
            for folder in [Folder::Make, Folder::Find] {
                let said = usual(None, base.path(), folder).unwrap_err();
                assert!(said.contains("into which only this user can look"), "{what}: {said}");
            }
        };
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, Permissions::from_mode(0o711)).unwrap();
        refused("others may look in");
        fs::remove_dir(&own).unwrap();
        symlink(folder(0o700).path(), &own).unwrap();
        refused("a link");
        fs::remove_file(&own).unwrap();
        fs::write(&own, "").unwrap();
        refused("a file");
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
        assert!(!is_private(&own, roadrunner_sys::user() + 1).unwrap(), "somebody else's");
    }
}
