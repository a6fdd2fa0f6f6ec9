//! What a ring's recorder says is on disk, read from its counters page.
//!
//! The page has the ring's name with `.recorder` behind it, stands in the ring's directory, and has
//! at least these counters:
//!
//! | label | what |
//! |---|---|
//! | `session` | session of the ring that is recorded, as a number |
//! | `first-sequence` | first message of the unbroken run in the log that ends with the next |
//! | `durable-sequence` | last message that is on disk |
//!
//! A recorder that changes one of the first two, for another session or behind a hole, sets
//! `durable-sequence` to 0 before and to its new value afterwards. So a run is seen whole or not at
//! all, and none is taken for another session's. A page without these counters says nothing.
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
const LABELS: [&str; 3] = ["session", "first-sequence", "durable-sequence"];

/// The page of a ring's recorder, whether or not there is one yet.
pub(super) struct Recorder {
    directory: PathBuf,
    name: String,
    page: Option<(CountersReader, [usize; 3])>,
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

    /// First and last message of the run of that session that is durable.
    #[cold]
    pub(super) fn look(&mut self, session: u64, now: u64) -> Option<(u64, u64)> {
        self.look_at = now + LOOK_NS;
        if now >= self.open_at {
            self.open_at = now + OPEN_NS;
            if !self.page.as_ref().is_some_and(|(page, _)| page.is_current()) {
                self.page = self.open().or(self.page.take());
            }
        }
        let (page, [of, first, last]) = self.page.as_ref()?;
        let begins = || Some((page.value(*of)?, page.value(*first)?));
        let before = begins()?;
        let last = page.value(*last)?;
        let is_whole = begins()? == before && before.0 == session && before.1 <= last;
        is_whole.then_some((before.1, last))
    }

    fn open(&self) -> Option<(CountersReader, [usize; 3])> {
        let page = CountersReader::open(&self.directory, &self.name).ok()?;
        let [of, first, last] = LABELS.map(|label| page.index_of(label));
        let indices = [of?, first?, last?];
        Some((page, indices))
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
        assert_eq!(recorder.look(7, 0), None, "there is none");
        assert!(!recorder.is_due(LOOK_NS - 1) && recorder.is_due(LOOK_NS));
        // In another order than it is documented, among others.
        let labels = ["blocks", "durable-sequence", "session", "first-sequence"];
        let mut written = page(dir.path(), &labels, &[1, 90, 7, 5]);
        assert_eq!(recorder.look(7, STEP), Some((5, 90)));
        assert_eq!(recorder.look(8, STEP), None, "another session's");
        written.set(1, 91);
        assert_eq!(recorder.look(7, STEP), Some((5, 91)));
        written.set(1, 0);
        assert_eq!(recorder.look(7, STEP), None, "about to change");
        written.set(1, 92);
        drop(written);
        assert_eq!(recorder.look(7, 2 * STEP), Some((5, 92)), "what is on disk stays there");
        // Another recorder's, of another kind, and one that comes back.
        drop(page(dir.path(), &["durable-sequence"], &[1000]));
        assert_eq!(recorder.look(7, 3 * STEP), Some((5, 92)));
        let _written = page(dir.path(), &LABELS, &[7, 1, 99]);
        assert_eq!(recorder.look(7, 4 * STEP), Some((1, 99)));
    }
}
