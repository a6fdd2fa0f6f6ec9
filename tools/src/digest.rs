//! One number for a whole stream: XXH3-128 over the length (4 bytes, little-endian) and the bytes
//! of every message, in order. Two sides have equal digests if, and (but for one chance in 2^64 or
//! so) only if, they saw the same messages with the same borders in the same order.

use xxhash_rust::xxh3::Xxh3;

/// Bytes collected before they are hashed: short messages one by one cost three times as much.
const BUFFER_BYTES: usize = 16 * 1024;

/// The digest of the messages seen so far.
pub(crate) struct Digest {
    hash: Xxh3,
    buffer: Vec<u8>,
    messages: u64,
    bytes: u64,
}

impl Digest {
    /// Of no messages.
    pub(crate) fn new() -> Self {
        Self { hash: Xxh3::new(), buffer: Vec::with_capacity(BUFFER_BYTES), messages: 0, bytes: 0 }
    }

    /// Takes the next message.
    #[inline]
    pub(crate) fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
        let length = (message.len() as u32).to_le_bytes();
        if self.buffer.len() + length.len() + message.len() > BUFFER_BYTES {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(&length);
        if message.len() <= BUFFER_BYTES - length.len() {
            self.buffer.extend_from_slice(message);
        } else {
            self.hash.update(&self.buffer);
            self.buffer.clear();
            self.hash.update(message);
        }
    }

    /// Messages taken.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes in them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest as 32 hexadecimal digits.
    pub(crate) fn text(&mut self) -> String {
        self.hash.update(&self.buffer);
        self.buffer.clear();
        format!("{:032x}", self.hash.digest128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: &[&[u8]]) -> String {
        let mut digest = Digest::new();
        messages.iter().for_each(|message| digest.add(message));
        digest.text()
    }

    #[test]
    fn borders_order_and_bytes_all_count() {
        let all = [of(&[]), of(&[b""]), of(&[b"ab"]), of(&[b"a", b"b"]), of(&[b"b", b"a"])];
        for (index, digest) in all.iter().enumerate() {
            assert_eq!(all.iter().filter(|other| *other == digest).count(), 1, "{index}");
        }
    }

    #[test]
    fn collecting_changes_nothing() {
        let long = vec![7; 3 * BUFFER_BYTES];
        let just = vec![8; BUFFER_BYTES - 4];
        let messages: [&[u8]; 6] = [b"x", &long, b"", &just, &long[..BUFFER_BYTES - 3], b"y"];
        let mut plain = Xxh3::new();
        for message in messages {
            plain.update(&(message.len() as u32).to_le_bytes());
            plain.update(message);
        }
        assert_eq!(of(&messages), format!("{:032x}", plain.digest128()));
    }
}
