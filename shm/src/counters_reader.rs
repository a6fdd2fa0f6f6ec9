//! Reading counters pages: read-only, holding nobody up, and without trust in a single byte.
//!
//! As everywhere, whoever can write the file could truncate it under the reader (`SIGBUS`): file
//! modes say who that is. A file that is found short when it is looked at is an error.

use std::path::{Path, PathBuf};

use crate::directory;
use crate::error::{CountersError, RingError};
use crate::histogram::HistogramSnapshot;
use crate::layout::{
    COUNTERS_STATE, HISTOGRAM_BUCKETS, HISTOGRAM_COUNTS, HISTOGRAM_LARGEST, HISTOGRAM_SUM,
};
use crate::lease;
use crate::page::{PageHeader, STATE_CLOSED, Words, counter_offset, histogram_offset};
use crate::region::Mapped;

/// A read-only view of one counters page.
///
/// A writer that starts makes a new page in place of the old one; this view stays with the old.
/// Open again to follow the name, or ask [`is_current`](Self::is_current).
///
/// ```
/// use gapless_shm::{CountersOptions, CountersReader};
/// # let dir = tempfile::tempdir()?;
/// let options = CountersOptions::new().directory(dir.path());
/// let mut counters = options.open("prices", "sender", &["messages"], &["repair_ns"])?;
/// counters.add(0, 3);
/// counters.record(0, 40_000);
///
/// let snapshot = CountersReader::open(dir.path(), "prices")?.snapshot()?;
/// assert!(snapshot.alive && snapshot.kind == "sender");
/// assert_eq!(snapshot.counter("messages"), Some(3));
/// assert_eq!(snapshot.histogram("repair_ns").map(|h| h.max_ns), Some(40_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CountersReader {
    path: PathBuf,
    header: PageHeader,
    file: std::fs::File,
    words: Words,
}

/// A counters page at one moment. The numbers are read one by one: of a live page they may be a few
/// events apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// What kind of agent writes it: `sender`, `receiver`.
    pub kind: String,
    /// The stream it works for.
    pub name: String,
    /// Process id of the writer, as it saw itself.
    pub pid: u32,
    /// Whether the writer lives, by the kernel's word.
    pub alive: bool,
    /// Whether the writer has ended in order. Neither alive nor closed: it died.
    pub closed: bool,
    /// When the writer opened the page, ns since the Unix epoch.
    pub started_unix_ns: u64,
    /// Label and value of each counter, in the writer's order.
    pub counters: Vec<(String, u64)>,
    /// The histograms, in the writer's order.
    pub histograms: Vec<HistogramSnapshot>,
}

impl CountersSnapshot {
    /// The counter of that label.
    pub fn counter(&self, label: &str) -> Option<u64> {
        self.counters.iter().find(|(found, _)| found == label).map(|(_, value)| *value)
    }

    /// The histogram of that label.
    pub fn histogram(&self, label: &str) -> Option<&HistogramSnapshot> {
        self.histograms.iter().find(|histogram| histogram.label == label)
    }

    pub(crate) fn take(header: &PageHeader, words: &Words, alive: bool) -> Self {
        let counters = header.counters.iter().enumerate();
        let histograms = header.histograms.iter().enumerate().map(|(index, label)| {
            let start = histogram_offset(index);
            let count = |bucket| words.load(start + HISTOGRAM_COUNTS + bucket * 8);
            HistogramSnapshot::new(
                label.clone(),
                words.load(start + HISTOGRAM_SUM),
                words.load(start + HISTOGRAM_LARGEST),
                (0..HISTOGRAM_BUCKETS).map(count).collect(),
            )
        });
        Self {
            kind: header.kind.clone(),
            name: header.name.clone(),
            pid: header.pid,
            alive,
            closed: !alive && words.load(COUNTERS_STATE) == STATE_CLOSED,
            started_unix_ns: header.started_unix_ns,
            counters: counters
                .map(|(index, label)| (label.clone(), words.load(counter_offset(index))))
                .collect(),
            histograms: histograms.collect(),
        }
    }
}

impl CountersReader {
    /// Opens the page `name` in `directory` (see [`default_directory`](crate::default_directory)).
    ///
    /// # Errors
    /// [`CountersError::NotFound`], [`CountersError::Denied`], and one error for each kind of
    /// damage.
    pub fn open(directory: &Path, name: &str) -> Result<Self, CountersError> {
        let path = directory::counters_path(directory, name)?;
        let file = directory::open(&path, false)?;
        let header = PageHeader::read(&file, &path)?;
        let failed = |source| RingError::System { what: "open", path: path.clone(), source };
        let mapped = file.try_clone().map_err(failed)?;
        let mapped = Mapped::whole(mapped, &path, header.file_bytes as usize, false)?;
        Ok(Self { path, header, file, words: Words::Mapped(mapped) })
    }

    /// The page's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the page is still the one of its name: not removed, and not replaced by a new
    /// writer's.
    pub fn is_current(&self) -> bool {
        directory::is_current(&self.file, &self.path)
    }

    /// Index of the counter of that label.
    pub fn index_of(&self, label: &str) -> Option<usize> {
        self.header.counters.iter().position(|found| found == label)
    }

    /// The value of a counter, for who looks often: no allocation, no system call. `None` if there
    /// is no counter `index`. Whatever the writer [set](crate::Counters::set) before it set the
    /// value seen is seen by later calls, too.
    ///
    /// ```
    /// use gapless_shm::{CountersOptions, CountersReader};
    /// # let dir = tempfile::tempdir()?;
    /// let options = CountersOptions::new().directory(dir.path());
    /// let mut counters = options.open("prices", "sender", &["messages"], &[])?;
    /// let reader = CountersReader::open(dir.path(), "prices")?;
    /// let index = reader.index_of("messages").ok_or("no such counter")?;
    /// counters.set(0, 3);
    /// assert_eq!(reader.value(index), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn value(&self, index: usize) -> Option<u64> {
        (index < self.header.counters.len()).then(|| self.words.seen(counter_offset(index)))
    }

    /// The page as it is now.
    ///
    /// # Errors
    /// [`CountersError::BadLength`] if the file has been truncated since it was opened.
    pub fn snapshot(&self) -> Result<CountersSnapshot, CountersError> {
        let failed =
            |source| RingError::System { what: "look at", path: self.path.clone(), source };
        let found = self.file.metadata().map_err(failed)?.len();
        let expected = self.header.file_bytes;
        if found < expected {
            return Err(CountersError::BadLength { path: self.path.clone(), found, expected });
        }
        // Before the state: a writer says that it closes, and then gives its lease back.
        let alive = lease::held_by_another(&self.file, COUNTERS_STATE);
        Ok(CountersSnapshot::take(&self.header, &self.words, alive))
    }
}
