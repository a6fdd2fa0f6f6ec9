//! Log-linear histograms: which count a value belongs to, and what the counts say.
//!
//! A count's width is at most 1/16 of its smallest value, so a quantile is never below the exact
//! one and at most 1/16 above it. Spans from 1 ns to 2^42 ns (73 minutes) are told apart.

use crate::layout::HISTOGRAM_BUCKETS;

/// Every power of two is cut into 2^4 counts.
const PRECISION_BITS: u32 = 4;
/// Counts of each power of two.
const STEPS: u64 = 1 << PRECISION_BITS;
/// Values from here on share the last count.
const VALUE_END: u64 = 1 << 42;
const _: () = assert!(bucket_of(VALUE_END - 1) == HISTOGRAM_BUCKETS - 1);

/// The count that a value belongs to.
#[inline(always)]
pub(crate) const fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let value = if value < VALUE_END { value } else { VALUE_END - 1 };
    let exponent = value.ilog2();
    let step = (value >> (exponent - PRECISION_BITS)) & (STEPS - 1);
    ((exponent - PRECISION_BITS + 1) as u64 * STEPS + step) as usize
}

/// The largest value of a count, leaving the shared last one aside.
const fn largest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((STEPS + bucket % STEPS + 1) << shift) - 1
}

/// A histogram at one moment, ns. The counts are read one by one: of a live page they may be a few
/// values apart from each other, from the sum and from the largest value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramSnapshot {
    /// What is measured.
    pub label: String,
    /// How many values there are.
    pub count: u64,
    /// Sum of all values, ns; wraps beyond 2^64.
    pub sum_ns: u64,
    /// The largest value, ns, exactly; 0 if there is none.
    pub max_ns: u64,
    buckets: Vec<u64>,
}

impl HistogramSnapshot {
    pub(crate) fn new(label: String, sum_ns: u64, max_ns: u64, buckets: Vec<u64>) -> Self {
        // Saturating: the counts may be anybody's bytes.
        let count = buckets.iter().fold(0, |sum: u64, bucket| sum.saturating_add(*bucket));
        Self { label, count, sum_ns, max_ns, buckets }
    }

    /// The value that a share (0 to 1, taken into that range) of all values does not exceed, ns:
    /// exact below 16 ns, otherwise at most 1/16 too high, never above the largest. `None` if
    /// there is no value.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = (share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let rank = rank.clamp(1, self.count);
        let mut passed: u64 = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            passed = passed.saturating_add(*count);
            if passed >= rank {
                let shared = bucket == HISTOGRAM_BUCKETS - 1;
                return Some(if shared {
                    self.max_ns
                } else {
                    largest_of(bucket).min(self.max_ns)
                });
            }
        }
        Some(self.max_ns)
    }

    /// The mean of all values, ns; `None` if there is none.
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> HistogramSnapshot {
        let mut buckets = vec![0; HISTOGRAM_BUCKETS];
        for value in values {
            buckets[bucket_of(*value)] += 1;
        }
        let largest = values.iter().max().copied().unwrap_or(0);
        HistogramSnapshot::new("x".into(), values.iter().sum(), largest, buckets)
    }

    #[test]
    fn counts_follow_each_other_and_are_narrow_enough() {
        let mut smallest = 0;
        for bucket in 0..HISTOGRAM_BUCKETS {
            let largest = largest_of(bucket);
            assert_eq!((bucket_of(smallest), bucket_of(largest)), (bucket, bucket));
            assert!((largest - smallest) * 16 <= smallest, "{bucket}: {smallest} to {largest}");
            smallest = largest + 1;
        }
        assert_eq!(smallest, VALUE_END);
        for value in [VALUE_END, VALUE_END + 1, u64::MAX] {
            assert_eq!(bucket_of(value), HISTOGRAM_BUCKETS - 1);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_within_a_sixteenth() {
        // Powers of a ratio near one: from 1 ns to an hour, in 4,000 values.
        let values: Vec<u64> = (0..4000).map(|i| 1.0072f64.powi(i) as u64).collect();
        let histogram = of(&values);
        for share in [0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((share * 4000.0f64).ceil() as usize).max(1);
            let (exact, found) = (values[rank - 1], histogram.quantile_ns(share).unwrap());
            assert!(exact <= found && found <= exact + exact / 16, "{share}: {exact} {found}");
        }
        assert_eq!(histogram.quantile_ns(1.0), values.last().copied());
        assert_eq!(histogram.mean_ns(), Some(values.iter().sum::<u64>() / 4000));
    }

    #[test]
    fn nothing_and_too_much_are_told() {
        assert_eq!((of(&[]).quantile_ns(0.5), of(&[]).mean_ns()), (None, None));
        let beyond = of(&[1, VALUE_END * 100]);
        assert_eq!(beyond.quantile_ns(0.5), Some(1));
        assert_eq!(beyond.quantile_ns(1.0), Some(VALUE_END * 100));
        let hostile = HistogramSnapshot::new("x".into(), 1, 0, vec![u64::MAX; HISTOGRAM_BUCKETS]);
        assert_eq!((hostile.count, hostile.quantile_ns(f64::NAN)), (u64::MAX, Some(0)));
    }
}
