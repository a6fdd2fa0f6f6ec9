//! What a stream's recorder says is on disk: its counters page, for those who look at it.
//!
//! The page has the ring's name with `.recorder` behind it, stands in the ring's directory, and has
//! these counters:
//!
//! | label | what |
//! |---|---|
//! | `durable-sequence` | last message that is on disk, 0 if there is none |
//! | `session` | session of the ring that is recorded, as a number; 0 while it changes, set behind these others |
//! | `first-sequence`, if there is one | first message of the unbroken run in the log that ends with `durable-sequence`; set before that |
//!
//! What is said of another session counts for nothing. A look is a few loads.

use std::path::Path;

use gapless_shm::{CountersError, CountersReader};

/// Label of the last message that is on disk.
pub(crate) const DURABLE: &str = "durable-sequence";
/// Label of the session.
pub(crate) const SESSION: &str = "session";
/// Label of the first message of the unbroken run.
pub(crate) const FIRST: &str = "first-sequence";

/// Name of the page of a stream's recorder.
pub(crate) fn name(stream: &str) -> String {
    format!("{stream}.recorder")
}

/// A page, and where its counters stand.
pub(crate) struct RecorderPage {
    reader: CountersReader,
    durable: usize,
    session: usize,
    first: Option<usize>,
}

impl RecorderPage {
    /// Of the stream of that name; `None` if the page of that name is not a recorder's.
    pub(crate) fn open(directory: &Path, stream: &str) -> Result<Option<Self>, CountersError> {
        let reader = CountersReader::open(directory, &name(stream))?;
        let (durable, session) = (reader.index_of(DURABLE), reader.index_of(SESSION));
        let first = reader.index_of(FIRST);
        let found = durable.zip(session);
        Ok(found.map(|(durable, session)| Self { reader, durable, session, first }))
    }

    /// Whether it is still the page of its name. System calls.
    pub(crate) fn is_current(&self) -> bool {
        self.reader.is_current()
    }

    /// Whether the recorder lives. System calls.
    pub(crate) fn is_alive(&self) -> Result<bool, CountersError> {
        Ok(self.reader.snapshot()?.alive)
    }

    /// Last message of `session` that is on disk, 0 if there is none; `None` if the page speaks of
    /// another session.
    pub(crate) fn durable(&self, session: u64) -> Option<u64> {
        let is_of_it = || self.reader.value(self.session) == Some(session);
        // Before and after: what stands between is of that session.
        let durable = is_of_it().then(|| self.reader.value(self.durable))?;
        durable.filter(|_| is_of_it())
    }

    /// First and last message of the unbroken run of `session` that is on disk, none of it before
    /// `ring_first`, with which the ring began. `None` if there is none, or if that has just
    /// changed.
    pub(crate) fn run(&self, session: u64, ring_first: u64) -> Option<(u64, u64)> {
        let first = || self.first.map_or(Some(ring_first), |index| self.reader.value(index));
        let before = first()?;
        let last = self.durable(session).filter(|last| *last > 0)?;
        if first()? != before {
            return None;
        }
        let first = before.max(ring_first);
        (first <= last).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_shm::{Counters, CountersOptions};

    fn page(directory: &Path, labels: &[&str], values: &[u64]) -> Counters {
        let options = CountersOptions::new().directory(directory);
        let mut page = options.open("orders.recorder", "recorder", labels, &[]).unwrap();
        for (index, value) in values.iter().enumerate() {
            page.set(index, *value);
        }
        page
    }

    #[test]
    fn says_what_the_page_says_of_that_session() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RecorderPage::open(dir.path(), "orders").is_err(), "there is none");
        // In another order than it is documented, among others.
        let labels = ["blocks", FIRST, SESSION, DURABLE];
        let mut written = page(dir.path(), &labels, &[1, 5, 7, 90]);
        let found = RecorderPage::open(dir.path(), "orders").unwrap().unwrap();
        assert_eq!((found.run(7, 1), found.durable(7)), (Some((5, 90)), Some(90)));
        assert_eq!((found.run(8, 1), found.durable(8)), (None, None), "another session's");
        assert_eq!(found.run(7, 10), Some((10, 90)), "the ring began there");
        assert_eq!(found.run(7, 91), None);
        for nothing in [0, 4] {
            written.set(3, nothing);
            assert_eq!((found.run(7, 0), found.durable(7)), (None, Some(nothing)));
        }
        written.set(2, 0);
        assert_eq!((found.run(7, 0), found.durable(7)), (None, None), "it is changing");
        assert!(found.is_current());
        drop(written);
        assert!(!found.is_alive().unwrap());
        let written = page(dir.path(), &[DURABLE, SESSION], &[99, 7]);
        assert!(!found.is_current());
        let found = RecorderPage::open(dir.path(), "orders").unwrap().unwrap();
        assert_eq!((found.run(7, 1), found.durable(7)), (Some((1, 99)), Some(99)));
        drop(written);
        drop(page(dir.path(), &[DURABLE], &[1000]));
        assert!(RecorderPage::open(dir.path(), "orders").unwrap().is_none());
    }
}
