//! Reading block by block: for who sends blocks on as they stand, and asks where a log is.

use super::{Bytes, LogReader, Rest, SUSPECT_POLLS};
use crate::log::disk::Disk;
use crate::log::error::LogError;
use crate::log::format::BlockHeader;

impl<D: Disk> LogReader<D> {
    /// The block that has the next message, whole and checked, as it stands in the segment; `None`
    /// if there is none yet. It comes again until it is [passed](Self::pass).
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    pub(in crate::log) fn block(&mut self) -> Result<Option<(BlockHeader, &[u8])>, LogError> {
        loop {
            while self.rest.at >= self.rest.end {
                if !self.next_block()? {
                    return Ok(None);
                }
            }
            let header = BlockHeader::peek(self.rest_bytes(self.rest.start));
            match header {
                Some(header) if header.end_sequence() > self.wanted => break,
                Some(header) => self.pass(&header),
                None => self.rest = Rest::default(), // checked before: cannot be
            }
        }
        let bytes = self.rest_bytes(self.rest.start);
        Ok(BlockHeader::peek(bytes).map(|header| (header, bytes)))
    }

    /// Goes behind a block.
    pub(in crate::log) fn pass(&mut self, header: &BlockHeader) {
        self.rest.at = self.rest.end;
        self.next_sequence = header.end_sequence();
    }

    /// Behind the last message that was handed out or passed over.
    pub(in crate::log) fn reached(&self) -> u64 {
        self.next_sequence
    }

    /// Oldest message of the session, as far as is known.
    pub(in crate::log) fn oldest_sequence(&self) -> u64 {
        let mut names = self.names.iter().filter(|name| name.session == self.session);
        names.next().map_or(self.next_sequence, |name| name.first_sequence)
    }

    /// More is known to stand here than was found: the next poll looks for damage.
    pub(in crate::log) fn suspect(&mut self) {
        self.empty_polls = SUSPECT_POLLS - 1;
    }

    /// From `at` to the end of the block that is read.
    #[inline]
    fn rest_bytes(&self, at: u64) -> &[u8] {
        match &self.segment.bytes {
            Bytes::Mapped(map) => map.get(at as usize..self.rest.end as usize),
            Bytes::Read(window) => window.at(at).get(..(self.rest.end - at) as usize),
        }
        .unwrap_or_default()
    }
}
