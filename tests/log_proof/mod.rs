//! What the proofs of the log share: messages that can be told apart, and what a log should hold.

use gapless::protocol::Random;

/// Writes the payload of `key` over `bytes`.
pub(crate) fn payload(key: u64, len: usize, bytes: &mut Vec<u8>) {
    let mut random = Random::new(key);
    bytes.clear();
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
}

/// A length as streams have them: most are short, a few are longer than a block.
pub(crate) fn length(random: &mut Random) -> usize {
    let end = match random.below(40) {
        0 => 64 << 10,
        1..4 => 8 << 10,
        4..12 => 1000,
        _ => 100,
    };
    random.below(end) as usize
}

/// The number in a variable of the environment.
pub(crate) fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
