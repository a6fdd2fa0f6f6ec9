//! Records that are to be written to the stream.

/// Where records wait, in order, until the stream has room for them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<usize>,
    /// How many have been written.
    written: usize,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(1 << 16), ends: Vec::with_capacity(1 << 10), written: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, stamp: &[u8], payload: &[u8]) {
        self.bytes.extend_from_slice(stamp);
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// The records that have not been written.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (self.written..self.ends.len()).map(|index| {
            let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[begin..self.ends[index]]
        })
    }

    /// Takes the first `count` of them as written.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.ends.len() {
            self.bytes.clear();
            self.ends.clear();
            self.written = 0;
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many have not been written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.ends.len() - self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_goes_and_the_rest_stays() {
        let mut outbox = Outbox::new();
        for n in 0..4_u8 {
            outbox.push(&[n], &vec![n; usize::from(n)]);
        }
        outbox.advance(3);
        assert_eq!((outbox.len(), outbox.iter().collect::<Vec<_>>()), (1, vec![&[3; 4][..]]));
        outbox.push(&[], b"x");
        outbox.advance(2);
        assert!(outbox.is_empty() && outbox.iter().next().is_none());
    }
}
