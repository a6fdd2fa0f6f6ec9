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

/// The feed's other line: the same messages, captured from the other network.
const FILE_B: &[u8] = include_bytes!("../../../data/moex-forts-2013/increment_b.binfile");
/// MsgSeqNum of the first message of each line.
pub(super) const FIRST_A: u64 = 482_727;
pub(super) const FIRST_B: u64 = 482_751;
/// How many messages the two lines have together.
pub(super) const MESSAGES_OF_BOTH: u64 = 8_112;

/// The messages of line A in order.
pub(super) fn messages() -> Vec<&'static [u8]> {
    split(FILE)
}

/// The messages of line B in order.
pub(super) fn messages_b() -> Vec<&'static [u8]> {
    split(FILE_B)
}

/// The messages that at least one line has, in order.
pub(super) fn both_lines() -> Vec<&'static [u8]> {
    let mut messages = messages();
    let known = messages.len() - (FIRST_B - FIRST_A) as usize;
    messages.extend(messages_b().drain(known..));
    messages
}

fn split(mut rest: &'static [u8]) -> Vec<&'static [u8]> {
    let mut messages = Vec::with_capacity(MESSAGES_OF_BOTH as usize);
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
        let b = messages_b();
        assert_eq!((b.len(), FILE_B.len()), (8_088, 702_835));
        let numbers = b.iter().map(|message| msg_seq_num(message));
        assert!(numbers.eq(FIRST_B..=490_838), "MsgSeqNum without a gap");
        let both = both_lines();
        assert_eq!(both.len() as u64, MESSAGES_OF_BOTH);
        let numbers = both.iter().map(|message| msg_seq_num(message));
        assert!(numbers.eq(FIRST_A..=490_838), "MsgSeqNum without a gap");
        assert_eq!(both[(FIRST_B - FIRST_A) as usize..], b, "what both have is the same");
    }
}
