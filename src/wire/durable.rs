//! What a ring's recorder says is on disk, read from its counters page.
//!
//! The page has the ring's name with `.recorder` behind it, stands in the ring's directory, and has
//! these counters:
//!
//! | label | what |
//! |---|---|
//! | `durable-sequence` | last message that is on disk, 0 if there is none |
//! | `session` | session of the ring that is recorded, as a number; set behind the first |
//! | `first-sequence`, if there is one | first message of the unbroken run in the log that ends with `durable-sequence`; set before that |
//!
//! What is said of another session counts for nothing; nor does anything before the ring's own
//! first message. Without `first-sequence` all from there on is taken to be in the log.
//!
//! A look is a few loads, once in a millisecond. Whether the page is still the one of its name is
//! asked ten times a second, by system calls; and as often one is looked for while there is none.
//! What a page said stays true when its recorder has gone.

use std::path::{Path, PathBuf};

use gapless_shm::CountersReader;

/// Time between two looks, ns.
const LOOK_NS: u64 = 1_000_000;
/// Time between two looks for a page that is not there, or a new one, ns.
const OPEN_NS: u64 = 100_000_000;

/// A page, and where its counters stand.
struct Page {
    reader: CountersReader,
    durable: usize,
    session: usize,
    first: Option<usize>,
}

/// The page of a ring's recorder, whether or not there is one yet.
pub(super) struct Recorder {
    directory: PathBuf,
    name: String,
    page: Option<Page>,
    look_at: u64,
    open_at: u64,
}

impl Recorder {
    /// Of the ring of that name.
    pub(super) fn of(directory: &Path, ring: &str) -> Self {
        let (directory, name) = (directory.to_owned(), format!("{ring}.recorder"));
        Self { directory, name, page: None, look_at: 0, open_at: 0 }
    }

    /// Whether it is time to look.
    #[inline(always)]
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.look_at
    }

    /// First and last message of the run that is durable, of the ring of that session, which began
    /// with message `first`.
    #[cold]
    pub(super) fn look(&mut self, session: u64, first: u64, now: u64) -> Option<(u64, u64)> {
        self.look_at = now + LOOK_NS;
        if now >= self.open_at {
            self.open_at = now + OPEN_NS;
            if !self.page.as_ref().is_some_and(|page| page.reader.is_current()) {
                self.page = self.open().or(self.page.take());
            }
        }
        let page = self.page.as_ref()?;
        let value = |index| page.reader.value(index);
        let begin = || Some((value(page.session)?, page.first.map_or(Some(first), value)?));
        let before = begin()?;
        let last = value(page.durable).filter(|last| *last > 0)?;
        if begin()? != before || before.0 != session {
            return None; // it was changed meanwhile
        }
        let first = before.1.max(first);
        (first <= last).then_some((first, last))
    }

    fn open(&self) -> Option<Page> {
        let reader = CountersReader::open(&self.directory, &self.name).ok()?;
        let (durable, session) =
            (reader.index_of("durable-sequence")?, reader.index_of("session")?);
        let first = reader.index_of("first-sequence");
        Some(Page { reader, durable, session, first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_shm::{Counters, CountersOptions};

    const STEP: u64 = OPEN_NS;

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
        let mut recorder = Recorder::of(dir.path(), "orders");
        assert!(recorder.is_due(0));
        assert_eq!(recorder.look(7, 1, 0), None, "there is none");
        assert!(!recorder.is_due(LOOK_NS - 1) && recorder.is_due(LOOK_NS));
        // In another order than it is documented, among others.
        let labels = ["blocks", "first-sequence", "session", "durable-sequence"];
        let mut written = page(dir.path(), &labels, &[1, 5, 7, 90]);
        assert_eq!(recorder.look(7, 1, STEP), Some((5, 90)));
        assert_eq!(recorder.look(8, 1, STEP), None, "another session's");
        assert_eq!(recorder.look(7, 10, STEP), Some((10, 90)), "the ring began there");
        assert_eq!(recorder.look(7, 91, STEP), None);
        written.set(3, 91);
        assert_eq!(recorder.look(7, 1, STEP), Some((5, 91)));
        for nothing in [0, 4] {
            written.set(3, nothing);
            assert_eq!(recorder.look(7, 0, STEP), None);
        }
        written.set(3, 92);
        drop(written);
        assert_eq!(recorder.look(7, 1, 2 * STEP), Some((5, 92)), "what is on disk stays there");
        // Another recorder's, of another kind, and one that comes back and says less.
        drop(page(dir.path(), &["durable-sequence"], &[1000]));
        assert_eq!(recorder.look(7, 1, 3 * STEP), Some((5, 92)));
        let _written = page(dir.path(), &["durable-sequence", "session"], &[99, 7]);
        assert_eq!(recorder.look(7, 1, 4 * STEP), Some((1, 99)));
    }
}
