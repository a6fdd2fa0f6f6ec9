//! The market data that the demo replays, built into the program.

/// What it is.
pub(super) const TITLE: &str =
    "MOEX FORTS order feed, FAST 1.1, incremental A line, 2013-08-01 14:24:37 to 14:31:00";
/// Where it comes from.
pub(super) const ORIGIN: &str =
    "real exchange data: 8,101 messages of 45 to 428 bytes, from libtrading (BSD 2-clause)";
/// How many messages it has.
pub(super) const MESSAGES: u64 = 8_101;

/// 2-byte big-endian length, message, repeated.
const FILE: &[u8] = include_bytes!("../../../data/moex-forts-2013/increment_a.binfile");

/// The messages in order.
pub(super) fn messages() -> Vec<&'static [u8]> {
    let mut rest = FILE;
    let mut messages = Vec::with_capacity(MESSAGES as usize);
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (message, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
        messages.push(message);
        rest = tail;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MsgSeqNum: the stop-bit coded number behind two presence maps and two template numbers.
    fn msg_seq_num(message: &[u8]) -> u64 {
        assert_eq!(message[..2], [0xc0, 0xf8], "template reset");
        let digits = message[4..].iter();
        let end = digits.clone().position(|byte| byte & 0x80 != 0).expect("a stop bit");
        digits.take(end + 1).fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
    }

    #[test]
    fn it_is_the_feed_that_it_says() {
        let messages = messages();
        assert_eq!(messages.len() as u64, MESSAGES);
        let mut sizes: Vec<usize> = messages.iter().map(|message| message.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 688_083);
        assert_eq!(FILE.len(), 688_083 + 2 * messages.len());
        sizes.sort_unstable();
        assert_eq!((sizes[0], sizes[sizes.len() / 2], sizes[sizes.len() - 1]), (45, 69, 428));
        let numbers = messages.iter().map(|message| msg_seq_num(message));
        assert!(numbers.eq(482_727..=490_827), "MsgSeqNum without a gap");
    }
}
