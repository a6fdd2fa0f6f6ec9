//! The block that is gathered in memory before it is written.

use gapless_shm::Flags;

use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Kind, record_bytes, write_record};

/// Messages that wait to be written together.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Bytes in use, the header's among them.
    length: usize,
    count: u32,
    kind: Kind,
    first_sequence: u64,
    first_ns: u64,
}

impl Block {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity],
            length: BLOCK_HEADER_BYTES,
            count: 0,
            kind: Kind::Records,
            first_sequence: 0,
            first_ns: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a message of `len` bytes goes with what is there already.
    #[inline]
    pub(super) fn takes(&self, len: usize) -> bool {
        self.count == 0 || self.length + record_bytes(len) <= self.bytes.len()
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn clear(&mut self) {
        (self.length, self.count, self.kind) = (BLOCK_HEADER_BYTES, 0, Kind::Records);
    }

    /// Adds a record behind others. False if there are none, or if it does not fit.
    #[inline]
    pub(super) fn push(&mut self, sequence: u64, payload: &[u8], flags: Flags) -> bool {
        let end = self.length + record_bytes(payload.len());
        let Some(room) = self.bytes.get_mut(self.length..end) else { return false };
        if self.count == 0 || self.kind != Kind::Records {
            return false;
        }
        write_record(room, sequence, payload, flags);
        self.length = end;
        self.count += 1;
        true
    }

    /// Begins with a record, whatever its length.
    pub(super) fn begin(&mut self, sequence: u64, payload: &[u8], flags: Flags, now_ns: u64) {
        let end = BLOCK_HEADER_BYTES + record_bytes(payload.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0); // kept: there may be more of that length
        }
        write_record(&mut self.bytes[BLOCK_HEADER_BYTES..end], sequence, payload, flags);
        (self.length, self.count, self.kind) = (end, 1, Kind::Records);
        (self.first_sequence, self.first_ns) = (sequence, now_ns);
    }

    /// Is a block that says that messages are lost.
    pub(super) fn say_lost(&mut self, first_sequence: u64, count: u32, now_ns: u64) {
        (self.length, self.count, self.kind) = (BLOCK_HEADER_BYTES, count, Kind::Lost);
        (self.first_sequence, self.first_ns) = (first_sequence, now_ns);
    }

    /// Puts the header on it.
    pub(super) fn finish(
        &mut self,
        session: u64,
        last_ns: u64,
        durable_end: u64,
    ) -> (BlockHeader, &[u8]) {
        let header = BlockHeader {
            length: self.length as u32,
            count: self.count,
            first_sequence: self.first_sequence,
            first_ns: self.first_ns,
            last_ns,
            session,
            kind: self.kind,
            durable_end,
        };
        header.finish(&mut self.bytes[..self.length]);
        (header, &self.bytes[..self.length])
    }
}
