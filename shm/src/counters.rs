//! Counters of an agent, on a page of shared memory that tools read without disturbing it.
//!
//! One writer a page, held by a lease as a ring's producer is: the kernel says whether the writer
//! lives. Counting is a relaxed load and a relaxed store of a word that nobody else writes: no
//! locked instruction, no system call, no allocation. A page is made whole before it gets its name,
//! and its header never changes: a new writer puts a new page, counting from zero, in the place of
//! one whose writer has died or closed.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::counters_reader::CountersSnapshot;
use crate::directory::{self, Unnamed};
use crate::error::{CountersError, RingError};
use crate::histogram::bucket_of;
use crate::layout::{
    COUNTERS_BYTES, COUNTERS_MAX, COUNTERS_PID, COUNTERS_STATE, HISTOGRAM_COUNTS,
    HISTOGRAM_LARGEST, HISTOGRAM_SUM, HISTOGRAMS_MAX,
};
use crate::lease;
use crate::memory::Access;
use crate::page::{
    PageHeader, STATE_CLOSED, STATE_WRITING, Words, counter_offset, histogram_offset, is_label,
};
use crate::region::Mapped;

/// How often a writer tries to name its page, where others take, give back and remove the name.
const NAMING_ATTEMPTS: usize = 64;

/// Where a counters page goes, and who may read it.
///
/// | option | default |
/// |---|---|
/// | `directory` | `GAPLESS_DIR` or `/dev/shm/gapless` |
/// | `file_mode` | 0600 |
#[derive(Clone, Debug, Default)]
pub struct CountersOptions {
    directory: Option<PathBuf>,
    file_mode: Option<u32>,
}

impl CountersOptions {
    /// The defaults of the table above.
    pub fn new() -> Self {
        Self::default()
    }

    /// Directory the page lives in: that of the rings.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// File mode of the page, whatever the umask: 0600 the owner alone, 0640 lets a group read.
    #[must_use]
    pub fn file_mode(mut self, file_mode: u32) -> Self {
        self.file_mode = Some(file_mode);
        self
    }

    /// Makes the page `name` for an agent of some `kind`, all counts zero, in the place of one
    /// whose writer lives no more. Labels, and the kind, are 1 to 32 printable ASCII characters
    /// without spaces; the labels of counters all differ, and those of histograms.
    ///
    /// # Errors
    /// [`CountersError::WriterAlive`] if somebody writes a page of that name;
    /// [`CountersError::BadText`] and [`CountersError::TooMany`] (64 counters, 4 histograms) for
    /// what a page cannot hold; [`CountersError::ForeignOwner`] for another user's page in the way;
    /// [`CountersError::File`] for a bad name or no room. Nothing is left behind.
    pub fn open(
        &self,
        name: &str,
        kind: &str,
        counters: &[&str],
        histograms: &[&str],
    ) -> Result<Counters, CountersError> {
        let mut header = header(kind, counters, histograms)?;
        let directory = self.directory.clone().unwrap_or_else(directory::default_directory);
        let path = directory::counters_path(&directory, name)?;
        directory::ensure(&directory)?;
        let (granule, _) = directory::granule(&directory)?;
        header.name = name.to_owned();
        header.file_bytes = (COUNTERS_BYTES as u64).next_multiple_of(granule);
        let failed = |what| {
            let path = path.clone();
            move |source| RingError::System { what, path, source }
        };
        let unnamed = Unnamed::create(&directory, &format!("{name}.counters")).map_err(
            |error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    CountersError::Denied { path: path.clone(), what: "create it" }
                }
                _ => failed("create")(error).into(),
            },
        )?;
        let file = unnamed.file.try_clone().map_err(failed("open"))?;
        directory::allocate(&file, &path, header.file_bytes)?;
        let mode = Permissions::from_mode(self.file_mode.unwrap_or(0o600));
        file.set_permissions(mode).map_err(failed("set the mode of"))?;
        // Nobody else knows the file: it cannot be refused.
        lease::acquire(&file, COUNTERS_STATE).map_err(failed("lock"))?;
        let mapped = Mapped::whole(file, &path, header.file_bytes as usize, true)?;
        let counters = Counters::start(header, Words::Mapped(mapped));
        name_page(&unnamed, &path)?;
        Ok(counters)
    }
}

/// Checks the texts, and makes a header of them that has no name yet.
fn header(kind: &str, counters: &[&str], histograms: &[&str]) -> Result<PageHeader, CountersError> {
    let refuse = |what, text: &str, expected| {
        Err(CountersError::BadText { what, text: text.to_owned(), expected })
    };
    let printable = "1 to 32 printable ASCII characters without spaces are accepted";
    if !is_label(kind) {
        return refuse("kind", kind, printable);
    }
    for (what, labels, max) in
        [("counters", counters, COUNTERS_MAX), ("histograms", histograms, HISTOGRAMS_MAX)]
    {
        if labels.len() > max {
            return Err(CountersError::TooMany { what, count: labels.len(), max });
        }
        for (index, label) in labels.iter().enumerate() {
            if !is_label(label) {
                return refuse("label", label, printable);
            }
            if labels[..index].contains(label) {
                return refuse("label", label, "it is there twice");
            }
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let owned = |labels: &[&str]| labels.iter().map(|&label| label.to_owned()).collect();
    Ok(PageHeader {
        kind: kind.to_owned(),
        name: String::new(),
        pid: std::process::id(),
        started_unix_ns: now.as_nanos() as u64,
        file_bytes: 0,
        counters: owned(counters),
        histograms: owned(histograms),
    })
}

/// Gives the finished page its name, clearing away one whose writer lives no more.
fn name_page(unnamed: &Unnamed, path: &Path) -> Result<(), CountersError> {
    let system = |what, source| RingError::System { what, path: path.to_path_buf(), source };
    let mut pid = 0;
    for _ in 0..NAMING_ATTEMPTS {
        match unnamed.publish(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(system("name", error).into()),
        }
        let old = match directory::open(path, true) {
            Ok(old) => old,
            Err(RingError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        if let Some(owner) = directory::foreign_owner(&old) {
            return Err(CountersError::ForeignOwner { path: path.to_path_buf(), owner });
        }
        // Held until the old name is gone: of two that start at once, one clears it away.
        if !lease::acquire(&old, COUNTERS_STATE).map_err(|error| system("lock", error))? {
            // By its writer; or for a moment by another that starts, or by whoever removes it.
            pid = directory::pid_at(&old, COUNTERS_PID);
            std::thread::yield_now();
        } else if directory::is_current(&old, path) {
            std::fs::remove_file(path).map_err(|error| system("replace", error))?;
        }
    }
    Err(CountersError::WriterAlive { path: path.to_path_buf(), pid })
}

/// Counters and histograms of one agent: the writing end of a page, or private ones.
///
/// ```
/// use gapless_shm::Counters;
/// let mut counters = Counters::heap(&["messages", "gaps"], &["repair_ns"]);
/// counters.add(0, 2);
/// counters.set(1, 7);
/// counters.record(0, 125_000);
/// assert_eq!((counters.get(0), counters.get(1)), (2, 7));
/// ```
pub struct Counters {
    /// Offset behind the last counter's word, and behind the last histogram.
    counters_end: usize,
    histograms_end: usize,
    words: Words,
    header: PageHeader,
}

impl Counters {
    /// Counters that are published nowhere: the same to their writer, at the same cost.
    ///
    /// # Panics
    /// On labels that a page could not hold; see [`CountersOptions::open`].
    pub fn heap(counters: &[&str], histograms: &[&str]) -> Self {
        match header("private", counters, histograms) {
            Ok(header) => Self::start(header, Words::private()),
            Err(error) => panic!("{error}"),
        }
    }

    fn start(header: PageHeader, words: Words) -> Self {
        for (index, chunk) in header.encode().chunks_exact(8).enumerate() {
            words.store(index * 8, u64::from_le_bytes(std::array::from_fn(|i| chunk[i])));
        }
        words.store(COUNTERS_STATE, STATE_WRITING);
        let counters_end = counter_offset(header.counters.len());
        let histograms_end = histogram_offset(header.histograms.len());
        Self { counters_end, histograms_end, words, header }
    }

    #[inline(always)]
    fn counter(&self, index: usize) -> usize {
        let offset = counter_offset(index);
        assert!(index < COUNTERS_MAX && offset < self.counters_end, "no counter {index}");
        offset
    }

    /// Adds to a counter; wraps beyond 2^64.
    ///
    /// # Panics
    /// If there is no counter `index`.
    #[inline]
    pub fn add(&mut self, index: usize, n: u64) {
        self.words.add(self.counter(index), n);
    }

    /// Sets a counter, as a gauge: queue lengths, sequence numbers. Who sees the value by
    /// [`CountersReader::value`](crate::CountersReader::value) sees all that were set before it.
    ///
    /// # Panics
    /// If there is no counter `index`.
    #[inline]
    pub fn set(&mut self, index: usize, value: u64) {
        self.words.show(self.counter(index), value);
    }

    /// The value of a counter.
    ///
    /// # Panics
    /// If there is no counter `index`.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        self.words.load(self.counter(index))
    }

    /// Records a span of time in a histogram.
    ///
    /// # Panics
    /// If there is no histogram `index`.
    #[inline]
    pub fn record(&mut self, index: usize, ns: u64) {
        let start = histogram_offset(index);
        let there = index < HISTOGRAMS_MAX && start < self.histograms_end;
        assert!(there, "no histogram {index}");
        self.words.add(start + HISTOGRAM_COUNTS + bucket_of(ns) * 8, 1);
        self.words.add(start + HISTOGRAM_SUM, ns);
        if ns > self.words.load(start + HISTOGRAM_LARGEST) {
            self.words.store(start + HISTOGRAM_LARGEST, ns);
        }
    }

    /// All values as a reader sees them. Allocates.
    pub fn snapshot(&self) -> CountersSnapshot {
        CountersSnapshot::take(&self.header, &self.words, true)
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("Counters")
            .field("name", &snapshot.name)
            .field("counters", &snapshot.counters)
            .finish_non_exhaustive()
    }
}

impl Drop for Counters {
    /// Leaves the page, closed in order, for tools to read the last values.
    fn drop(&mut self) {
        if let Words::Mapped(mapped) = &self.words
            && mapped.is_own()
        {
            self.words.store(COUNTERS_STATE, STATE_CLOSED);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn private_counters_count() {
        let mut counters = Counters::heap(&["a", "b"], &["t", "u"]);
        counters.add(0, 2);
        counters.add(0, 3);
        counters.set(1, u64::MAX);
        counters.add(1, 2);
        for ns in [5, 9, 1_000_000] {
            counters.record(1, ns);
        }
        assert_eq!((counters.get(0), counters.get(1)), (5, 1));
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.counters, [("a".to_owned(), 5), ("b".to_owned(), 1)]);
        assert_eq!(snapshot.histogram("t").map(|h| h.count), Some(0));
        let used = snapshot.histogram("u").unwrap();
        assert_eq!((used.count, used.sum_ns, used.max_ns), (3, 1_000_014, 1_000_000));
        assert_eq!(used.quantile_ns(0.5), Some(9));
        assert!(snapshot.alive && !snapshot.closed);
    }

    #[test]
    fn the_last_word_of_a_full_page_is_its_own() {
        let labels: Vec<String> = (0..COUNTERS_MAX).map(|i| format!("c{i}")).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let mut counters = Counters::heap(&labels, &["a", "b", "c", "d"]);
        counters.set(COUNTERS_MAX - 1, 7);
        counters.record(0, 0);
        counters.record(HISTOGRAMS_MAX - 1, u64::MAX);
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.counters.iter().map(|(_, value)| value).sum::<u64>(), 7);
        let counts: Vec<u64> = snapshot.histograms.iter().map(|h| h.count).collect();
        assert_eq!(counts, [1, 0, 0, 1]);
    }

    #[test]
    fn what_a_page_cannot_hold_is_refused() {
        for label in ["", "two words", "caf\u{e9}", "\u{1b}[31m", &"x".repeat(33)] {
            let error = header("sender", &[label], &[]).unwrap_err();
            assert!(matches!(error, CountersError::BadText { what: "label", .. }), "{label:?}");
        }
        assert!(matches!(header("", &[], &[]), Err(CountersError::BadText { what: "kind", .. })));
        assert!(header("sender", &["a"], &["a"]).is_ok());
        let twice = header("sender", &["a", "b", "a"], &[]).unwrap_err();
        assert!(twice.to_string().contains("twice"), "{twice}");
        let many = header("sender", &["a"; 65], &[]).unwrap_err();
        assert!(matches!(many, CountersError::TooMany { count: 65, max: 64, .. }), "{many}");
        let many = header("sender", &[], &["a"; 5]).unwrap_err();
        assert!(matches!(many, CountersError::TooMany { count: 5, max: 4, .. }), "{many}");
    }

    #[test]
    #[should_panic(expected = "no counter 1")]
    fn a_counter_that_is_not_there_is_a_mistake() {
        Counters::heap(&["a"], &[]).add(1, 1);
    }

    #[test]
    #[should_panic(expected = "no histogram 0")]
    fn a_histogram_that_is_not_there_is_a_mistake() {
        Counters::heap(&["a"], &[]).record(0, 1);
    }
}
