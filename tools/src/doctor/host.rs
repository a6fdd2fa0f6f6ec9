//! Reading what the kernel tells in files; whatever cannot be read is a reason, never a failure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Whether it does not exist, rather than may not be read.
    pub(super) absent: bool,
    pub(super) reason: String,
}

impl Missing {
    /// What was tried, and what the system said.
    pub(super) fn new(what: &str, error: &io::Error) -> Self {
        let absent = error.kind() == io::ErrorKind::NotFound;
        Self { absent, reason: format!("{what}: {error}") }
    }
}

/// What was read, or why it was not.
pub(super) type Reading<T> = Result<T, Missing>;
/// A file's text, without white space around it.
pub(super) type Text = Reading<String>;

/// Where the kernel's files are: `/`, or a copy of them in a test.
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text; bytes that are none are replaced.
    pub(super) fn read(&self, path: &str) -> Text {
        let bytes = fs::read(self.at(path)).map_err(|error| Missing::new(path, &error))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The names in a directory, in order.
    pub(super) fn names(&self, path: &str) -> Reading<Vec<String>> {
        let entries = fs::read_dir(self.at(path)).map_err(|error| Missing::new(path, &error))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.sort();
        Ok(names)
    }

    /// The last part of what a link points to.
    pub(super) fn link(&self, path: &str) -> Text {
        let target = fs::read_link(self.at(path)).map_err(|error| Missing::new(path, &error))?;
        Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// A path as the system sees it, for calls that take one.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.at(path)
    }
}

/// Whether a name may stand in a path: no way out of the directory.
pub(super) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_)))
        && parts.next().is_none()
        && !name.contains('/')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a check is given when a file is not there.
    pub(in super::super) fn absent<T>() -> Reading<T> {
        Err(Missing { absent: true, reason: "it is not there".into() })
    }

    /// What a check is given when a file may not be read.
    pub(in super::super) fn forbidden<T>() -> Reading<T> {
        Err(Missing { absent: false, reason: "permission denied".into() })
    }

    /// What a check is given.
    pub(in super::super) fn text(text: &str) -> Text {
        Ok(text.to_owned())
    }

    #[test]
    fn what_is_not_there_is_a_reason() {
        let root = tempfile::tempdir().expect("a directory");
        let host = Host::new(root.path());
        fs::write(root.path().join("a"), b"  one\xff\n").expect("written");
        assert_eq!(host.read("/a"), text("one\u{fffd}"));
        let missing = host.read("/proc/none").expect_err("it is not there");
        assert!(missing.absent && missing.reason.starts_with("/proc/none: "), "{missing:?}");
        assert_eq!(host.names("/"), Ok(vec!["a".to_owned()]));
        assert!(host.link("/a").is_err_and(|missing| !missing.absent));
    }

    #[test]
    fn names_do_not_leave_their_directory() {
        assert!(is_plain("eth0") && is_plain("eth0.7"));
        for bad in ["", ".", "..", "a/b", "/", "/etc", "a/"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
