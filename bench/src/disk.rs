//! The floors that logs are judged by: what this disk, through the page cache or around it, and
//! this memory do by themselves. Nothing of the library is in them.

mod memory;
mod segments;
mod write;

pub(crate) use memory::{Copy, Read};
pub(crate) use write::{Burst, Write};

/// Bytes of a record in a log: a word in front, and the payload rounded up to whole words.
pub(crate) const fn record_bytes(payload_bytes: usize) -> usize {
    8 + payload_bytes.next_multiple_of(8)
}
