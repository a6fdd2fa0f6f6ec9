//! How both sides of a run find each other: what one tells under a name, the other asks for.
//!
//! Texts are small files in the run's directory, renamed into place, so that a text is either not
//! there or whole.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::scenario::Session;

/// Leaves `text` for the other side.
pub(crate) fn tell(dir: &Path, name: &str, text: &str) -> Result<()> {
    let draft = dir.join(format!("{name}.draft"));
    fs::write(&draft, text).with_context(|| format!("write {name}"))?;
    fs::rename(&draft, dir.join(name)).with_context(|| format!("tell {name}"))
}

/// What the other side has told; `None` if it has not yet.
pub(crate) fn told(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok()
}

/// Waits until the other side has told.
///
/// # Errors
/// If the other side has failed, or the run has taken too long.
pub(crate) fn ask(session: &Session<'_>, name: &str) -> Result<String> {
    loop {
        if let Some(text) = told(session.dir, name) {
            return Ok(text);
        }
        session.control.check().with_context(|| format!("wait for {name}"))?;
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_heard_and_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(told(dir.path(), "address"), None);
        tell(dir.path(), "address", "127.0.0.1:9").unwrap();
        assert_eq!(told(dir.path(), "address").as_deref(), Some("127.0.0.1:9"));
    }
}
