//! Messages as JSON lines: what `log dump` and `log export` write, and `log import` reads.
//!
//! One line each, broken here:
//!
//! ```text
//! {"session":"000000000Z","sequence":7,"unix_ns":1763788800250000000,"flags":"whole",
//!  "payload":"68690a"}
//! {"session":"000000000Z","sequence":8,"lost":3}
//! ```

use std::io::{self, Write};

use anyhow::{Context, bail};
use gapless::protocol::Session;
use gapless::shm::session_text;
use gapless::{Flags, Message};
use serde::{Deserialize, Serialize};

/// One line: a message, or messages that are lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    session: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<String>,
    /// Hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

const WORDS: [(&str, Flags); 5] = [
    ("whole", Flags::WHOLE),
    ("begin", Flags::BEGIN),
    ("middle", Flags::MIDDLE),
    ("end", Flags::END),
    ("lost", Flags::LOST),
];

/// A record's flags in a word.
pub(super) fn flags_word(flags: Flags) -> &'static str {
    WORDS.iter().find(|(_, known)| *known == flags).map_or("odd", |(word, _)| word)
}

/// Writes a message as a line.
pub(super) fn write_message(
    out: &mut dyn Write,
    session: u64,
    message: Message<'_>,
    unix_ns: u64,
) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    let bytes = message.payload.iter();
    let payload = bytes.flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    let line = Line {
        session: session_text(session),
        sequence: message.sequence,
        unix_ns: Some(unix_ns),
        flags: Some(flags_word(message.flags).into()),
        payload: Some(payload),
        lost: None,
    };
    write_line(out, &line)
}

/// Writes in a line that messages are lost.
pub(super) fn write_lacking(
    out: &mut dyn Write,
    session: u64,
    first: u64,
    count: u64,
) -> io::Result<()> {
    let session = session_text(session);
    let (unix_ns, flags, payload) = (None, None, None);
    write_line(out, &Line { session, sequence: first, unix_ns, flags, payload, lost: Some(count) })
}

fn write_line(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Message { session: u64, sequence: u64, unix_ns: Option<u64>, flags: Flags, payload: Vec<u8> },
    Lost { session: u64, first: u64, count: u64 },
}

/// Reads a line.
pub(super) fn read(text: &str) -> anyhow::Result<Read> {
    let line: Line = serde_json::from_str(text)?;
    let session = line.session.as_bytes().try_into().ok().and_then(|name| Session(name).number());
    let session = session.with_context(|| format!("{:?} is no session", line.session))?;
    let sequence = line.sequence;
    if let Some(count) = line.lost {
        return Ok(Read::Lost { session, first: sequence, count });
    }
    let word = line.flags.as_deref().unwrap_or("whole");
    let known = WORDS.iter().find(|(known, _)| *known == word);
    let (_, flags) = known.with_context(|| format!("flags {word:?} are not known"))?;
    let Some(digits) = line.payload else { bail!("neither payload nor lost") };
    let payload = bytes(&digits).context("the payload is not pairs of hexadecimal digits")?;
    Ok(Read::Message { session, sequence, unix_ns: line.unix_ns, flags: *flags, payload })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let half = |digit: u8| char::from(digit).to_digit(16).map(|half| half as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(half(*high)? << 4 | half(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (_, flags) in WORDS {
            let mut out = Vec::new();
            let payload = [0, 1, 0xAB, 0xFF];
            let message = Message { sequence: 7, payload: &payload, flags };
            write_message(&mut out, 35, message, 9).expect("written");
            let text = String::from_utf8(out).expect("text");
            let (session, unix_ns) = (35, Some(9));
            let payload = payload.to_vec();
            let expected = Read::Message { session, sequence: 7, unix_ns, flags, payload };
            assert_eq!(read(&text).expect("readable"), expected);
        }
        let mut out = Vec::new();
        write_lacking(&mut out, 35, 8, 3).expect("written");
        assert_eq!(out, b"{\"session\":\"000000000Z\",\"sequence\":8,\"lost\":3}\n");
        let lost = Read::Lost { session: 35, first: 8, count: 3 };
        assert_eq!(read(str::from_utf8(&out).expect("text")).expect("readable"), lost);
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"session":"x","sequence":1,"payload":""}"#,
            r#"{"session":"000000000Z","sequence":1}"#,
            r#"{"session":"000000000Z","sequence":1,"payload":"abc"}"#,
            r#"{"session":"000000000Z","sequence":1,"payload":"é0"}"#,
            r#"{"session":"000000000Z","sequence":1,"payload":"","flags":"none"}"#,
            r#"{"session":"000000000Z","sequence":1,"payload":"","colour":"red"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
