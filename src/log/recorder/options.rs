//! How a stream is recorded.

use std::time::Duration;

use crate::address::PastSource;
use crate::log::LogOptions;
use crate::recorder_page;

/// What happens when the disk is slower than the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenSlow {
    /// The publisher is told to wait (`Backpressure`) before anything is overwritten that is not
    /// in the log. On a lossy ring nobody waits: there this is as `Refill`. A recorder that comes
    /// back to a ring that has gone on without it first gets what it lacks from elsewhere; the
    /// publisher may have to wait for that, but no longer than `patience` once nothing comes.
    #[default]
    Gate,
    /// Nobody waits: the recorder is overrun, and gets what it missed from elsewhere.
    Refill,
}

/// How a stream is recorded.
///
/// | option | default |
/// |---|---|
/// | `log` | [`LogOptions`], with the stream's name |
/// | `when_slow` | [`WhenSlow::Gate`] |
/// | `refill` | nowhere: what was missed is put on record as lost |
/// | `patience` | 5 s: how long places to refill from may have nothing |
/// | `counters` | yes: page `NAME.recorder` beside the ring, see [`page_name`](Self::page_name) |
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    pub(super) log: LogOptions,
    pub(super) when_slow: WhenSlow,
    pub(super) refill: Vec<PastSource>,
    pub(super) patience: Duration,
    pub(super) counters: bool,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            log: LogOptions::new(),
            when_slow: WhenSlow::Gate,
            refill: Vec::new(),
            patience: Duration::from_secs(5),
            counters: true,
        }
    }
}

impl RecorderOptions {
    /// The defaults of the table above.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the log is written.
    #[must_use]
    pub fn log(mut self, options: LogOptions) -> Self {
        self.log = options;
        self
    }

    /// What happens when the disk is slower than the stream.
    #[must_use]
    pub fn when_slow(mut self, when_slow: WhenSlow) -> Self {
        self.when_slow = when_slow;
        self
    }

    /// Where to get what was missed, in this order.
    #[must_use]
    pub fn refill(mut self, sources: impl Into<Vec<PastSource>>) -> Self {
        self.refill = sources.into();
        self
    }

    /// How long the places to refill from may have nothing, before what was missed is put on record
    /// as lost.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether there is a counters page, which says what is durable.
    #[must_use]
    pub fn counters(mut self, counters: bool) -> Self {
        self.counters = counters;
        self
    }

    /// Name of the counters page of a stream's recorder.
    pub fn page_name(stream: &str) -> String {
        recorder_page::name(stream)
    }

    /// Whether the recorder holds nobody up.
    pub(super) fn observes(&self) -> bool {
        self.when_slow == WhenSlow::Refill
    }
}
