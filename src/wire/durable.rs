//! What a ring's recorder says is on disk, looked at from time to time.
//!
//! A look is a few loads, once in a millisecond. Whether the page is still the one of its name is
//! asked ten times a second, by system calls; and as often one is looked for while there is none.
//! What a page said stays true when its recorder has gone.

use std::path::{Path, PathBuf};

use crate::recorder_page::RecorderPage;

/// Time between two looks, ns.
const LOOK_NS: u64 = 1_000_000;
/// Time between two looks for a page that is not there, or a new one, ns.
const OPEN_NS: u64 = 100_000_000;

/// The page of a ring's recorder, whether or not there is one yet.
pub(super) struct Recorder {
    directory: PathBuf,
    ring: String,
    page: Option<RecorderPage>,
    look_at: u64,
    open_at: u64,
}

impl Recorder {
    /// Of the ring of that name.
    pub(super) fn of(directory: &Path, ring: &str) -> Self {
        let (directory, ring) = (directory.to_owned(), ring.to_owned());
        Self { directory, ring, page: None, look_at: 0, open_at: 0 }
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
            if !self.page.as_ref().is_some_and(RecorderPage::is_current) {
                let opened = RecorderPage::open(&self.directory, &self.ring).ok().flatten();
                self.page = opened.or(self.page.take());
            }
        }
        self.page.as_ref()?.run(session, first)
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
        let labels = ["first-sequence", "session", "durable-sequence"];
        let mut written = page(dir.path(), &labels, &[5, 7, 90]);
        assert_eq!(recorder.look(7, 1, STEP), Some((5, 90)));
        assert_eq!(recorder.look(8, 1, STEP), None, "another session's");
        written.set(2, 92);
        drop(written);
        assert_eq!(recorder.look(7, 1, 2 * STEP), Some((5, 92)), "what is on disk stays there");
        // Another recorder's, of another kind, and one that comes back and says less.
        drop(page(dir.path(), &["durable-sequence"], &[1000]));
        assert_eq!(recorder.look(7, 1, 3 * STEP), Some((5, 92)));
        let _written = page(dir.path(), &["durable-sequence", "session"], &[99, 7]);
        assert_eq!(recorder.look(7, 1, 4 * STEP), Some((1, 99)));
    }
}
