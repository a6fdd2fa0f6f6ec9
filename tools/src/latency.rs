//! Latency as it is shown: percentiles of an HDR histogram of nanoseconds.

use hdrhistogram::{CreationError, Histogram};
use serde::{Deserialize, Serialize};

use crate::table::{Cell, ns_text};

/// Longest latency that is told apart: a minute.
const MAX_NS: u64 = 60_000_000_000;

/// JSON keys and headings of [`Latency::cells`].
pub(crate) const COLUMNS: [(&str, &str); 7] = [
    ("min_ns", "min"),
    ("p50_ns", "p50"),
    ("p90_ns", "p90"),
    ("p99_ns", "p99"),
    ("p999_ns", "p99.9"),
    ("p9999_ns", "p99.99"),
    ("max_ns", "max"),
];

/// Collects latencies, to three digits.
pub(crate) struct Recorder(Histogram<u64>);

impl Recorder {
    /// Empty.
    pub(crate) fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, MAX_NS, 3).map(Self)
    }

    /// Takes one; more than a minute counts as a minute.
    #[inline]
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.0.saturating_record(latency_ns.max(1));
    }

    /// What was collected.
    pub(crate) fn latency(&self) -> Latency {
        let histogram = &self.0;
        Latency {
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.50),
            p90_ns: histogram.value_at_quantile(0.90),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            p9999_ns: histogram.value_at_quantile(0.9999),
            max_ns: histogram.max(),
        }
    }
}

/// Percentiles, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) min_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) p9999_ns: u64,
    pub(crate) max_ns: u64,
}

impl Latency {
    /// A cell for each of [`COLUMNS`].
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let values = [
            self.min_ns,
            self.p50_ns,
            self.p90_ns,
            self.p99_ns,
            self.p999_ns,
            self.p9999_ns,
            self.max_ns,
        ];
        values.iter().map(|&ns| Cell::with(ns_text(ns), ns)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut recorder = Recorder::new().expect("bounds are fixed");
        (0..=1000).for_each(|ns| recorder.record(ns));
        recorder.record(u64::MAX);
        let latency = recorder.latency();
        assert_eq!((latency.min_ns, latency.p50_ns, latency.p90_ns), (1, 500, 901));
        assert!(latency.max_ns >= MAX_NS, "{latency:?}");
        assert_eq!(latency.cells().len(), COLUMNS.len());
    }
}
