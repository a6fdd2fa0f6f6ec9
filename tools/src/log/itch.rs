//! Nasdaq TotalView-ITCH 5.0, decoded for people: one line of names and values a message.
//!
//! A message is a type (one character), the stock's number, a tracking number, the time since
//! midnight, and fields by the type, all big-endian and of fixed length. Prices have four decimals,
//! or eight.

use std::fmt::Write as _;

/// How a field is written.
#[derive(Clone, Copy)]
enum Kind {
    /// So many characters, space padded to the right.
    Text(usize),
    /// A number of so many bytes.
    Number(usize),
    /// Four bytes, four decimals.
    Price4,
    /// Eight bytes, eight decimals.
    Price8,
    /// Seconds since midnight, four bytes.
    Clock,
}

use Kind::{Clock, Number, Price4, Price8, Text};

impl Kind {
    const fn bytes(self) -> usize {
        match self {
            Text(bytes) | Number(bytes) => bytes,
            Price4 | Clock => 4,
            Price8 => 8,
        }
    }
}

type Fields = &'static [(&'static str, Kind)];

/// Bytes in front of the fields: type, locate, tracking, time.
const HEAD_BYTES: usize = 11;

const STOCK: (&str, Kind) = ("stock", Text(8));
const ORDER: (&str, Kind) = ("order", Number(8));
const SHARES: (&str, Kind) = ("shares", Number(4));
const PRICE: (&str, Kind) = ("price", Price4);
const SIDE: (&str, Kind) = ("side", Text(1));
const MATCH: (&str, Kind) = ("match", Number(8));

/// Type, name and fields of each message.
const LAYOUTS: &[(u8, &str, Fields)] = &[
    (b'S', "system event", &[("event", Text(1))]),
    (
        b'R',
        "stock directory",
        &[
            STOCK,
            ("market", Text(1)),
            ("financial", Text(1)),
            ("round_lot", Number(4)),
            ("round_lots_only", Text(1)),
            ("class", Text(1)),
            ("subtype", Text(2)),
            ("authenticity", Text(1)),
            ("short_sale_threshold", Text(1)),
            ("ipo", Text(1)),
            ("luld_tier", Text(1)),
            ("etp", Text(1)),
            ("etp_leverage", Number(4)),
            ("inverse", Text(1)),
        ],
    ),
    (
        b'H',
        "trading action",
        &[STOCK, ("state", Text(1)), ("reserved", Text(1)), ("reason", Text(4))],
    ),
    (b'Y', "short sale restriction", &[STOCK, ("action", Text(1))]),
    (
        b'L',
        "market participant",
        &[("mpid", Text(4)), STOCK, ("primary", Text(1)), ("mode", Text(1)), ("state", Text(1))],
    ),
    (b'V', "circuit breaker levels", &[("level1", Price8), ("level2", Price8), ("level3", Price8)]),
    (b'W', "circuit breaker", &[("level", Text(1))]),
    (b'K', "ipo quoting", &[STOCK, ("release", Clock), ("qualifier", Text(1)), PRICE]),
    (
        b'J',
        "auction collar",
        &[
            STOCK,
            ("reference", Price4),
            ("upper", Price4),
            ("lower", Price4),
            ("extension", Number(4)),
        ],
    ),
    (b'h', "operational halt", &[STOCK, ("market", Text(1)), ("action", Text(1))]),
    (b'A', "add", &[ORDER, SIDE, SHARES, STOCK, PRICE]),
    (b'F', "add attributed", &[ORDER, SIDE, SHARES, STOCK, PRICE, ("mpid", Text(4))]),
    (b'E', "executed", &[ORDER, SHARES, MATCH]),
    (b'C', "executed at", &[ORDER, SHARES, MATCH, ("printable", Text(1)), PRICE]),
    (b'X', "cancel", &[ORDER, SHARES]),
    (b'D', "delete", &[ORDER]),
    (b'U', "replace", &[ORDER, ("new", Number(8)), SHARES, PRICE]),
    (b'P', "trade", &[ORDER, SIDE, SHARES, STOCK, PRICE, MATCH]),
    (b'Q', "cross", &[("shares", Number(8)), STOCK, PRICE, MATCH, ("cross", Text(1))]),
    (b'B', "broken trade", &[MATCH]),
    (
        b'I',
        "imbalance",
        &[
            ("paired", Number(8)),
            ("imbalance", Number(8)),
            ("direction", Text(1)),
            STOCK,
            ("far", Price4),
            ("near", Price4),
            ("reference", Price4),
            ("cross", Text(1)),
            ("variation", Text(1)),
        ],
    ),
    (b'N', "retail interest", &[STOCK, ("interest", Text(1))]),
    (
        b'O',
        "direct listing",
        &[
            STOCK,
            ("open_eligible", Text(1)),
            ("min", Price4),
            ("max", Price4),
            ("near", Price4),
            ("near_time", Number(8)),
            ("lower", Price4),
            ("upper", Price4),
        ],
    ),
];

/// Name and fields of a type of message.
fn layout(kind: u8) -> Option<(&'static str, Fields)> {
    let found = LAYOUTS.iter().find(|(known, ..)| *known == kind);
    found.map(|(_, name, fields)| (*name, *fields))
}

/// Bytes of a message with these fields.
fn length(fields: Fields) -> usize {
    HEAD_BYTES + fields.iter().map(|(_, kind)| kind.bytes()).sum::<usize>()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One message as a line, or why it is none.
pub(super) fn decode(message: &[u8]) -> Result<String, String> {
    let Some(&kind) = message.first() else { return Err("no ITCH 5.0: empty".into()) };
    let Some((name, fields)) = layout(kind) else {
        return Err(format!("no ITCH 5.0: type {:?} is not known", char::from(kind)));
    };
    let (len, expected) = (message.len(), length(fields));
    if len != expected {
        let kind = char::from(kind);
        return Err(format!("no ITCH 5.0: type {kind:?} has {expected} bytes, this has {len}"));
    }
    let (head, mut rest) = message.split_at(HEAD_BYTES);
    let (locate, tracking, ns) = (number(&head[1..3]), number(&head[3..5]), number(&head[5..]));
    let mut text = format!("{} {} {name}", char::from(kind), time_of_day(ns));
    // Writing to a string cannot fail.
    let _ = write!(text, " locate={locate} tracking={tracking}");
    for (name, kind) in fields {
        let (field, behind) = rest.split_at(kind.bytes());
        rest = behind;
        let value = match kind {
            Text(_) => field.trim_ascii_end().escape_ascii().to_string(),
            Number(_) => number(field).to_string(),
            Price4 => decimal(number(field), 4),
            Price8 => decimal(number(field), 8),
            Clock => time_of_day(number(field) * 1_000_000_000),
        };
        let _ = write!(text, " {name}={value}");
    }
    Ok(text)
}

fn decimal(number: u64, decimals: u32) -> String {
    let unit = 10u64.pow(decimals);
    format!("{}.{:0width$}", number / unit, number % unit, width = decimals as usize)
}

fn time_of_day(ns: u64) -> String {
    let (seconds, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
    format!("{:02}:{:02}:{:02}.{ns:09}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths as the specification gives them.
    const LENGTHS: &str = "S12 R39 H25 Y20 L26 V35 W12 K28 J35 h21 A36 F40 E31 C36 X23 D19 U35 P44 \
                           Q40 B19 I50 N20 O48";

    #[test]
    fn every_type_has_its_length() {
        for entry in LENGTHS.split_whitespace() {
            let (kind, bytes) = entry.split_at(1);
            let bytes: usize = bytes.parse().expect("a number");
            let (_, fields) = layout(kind.as_bytes()[0]).expect("known");
            assert_eq!(length(fields), bytes, "{kind}");
        }
        let known = (0..=u8::MAX).filter(|&kind| layout(kind).is_some()).count();
        assert_eq!(known, LENGTHS.split_whitespace().count());
    }

    #[test]
    fn an_order_is_read_as_it_was_meant() {
        let mut message = b"A\0\x07\0\x02".to_vec();
        message.extend(&(34_200_000_000_123_u64.to_be_bytes()[2..]));
        message.extend(4321_u64.to_be_bytes());
        message.extend(b"B");
        message.extend(100_u32.to_be_bytes());
        message.extend(b"AAPL    ");
        message.extend(1_234_567_u32.to_be_bytes());
        assert_eq!(
            decode(&message).expect("an order"),
            "A 09:30:00.000000123 add locate=7 tracking=2 order=4321 side=B shares=100 stock=AAPL \
             price=123.4567"
        );
        message.push(0);
        assert!(decode(&message).expect_err("too long").contains("36 bytes, this has 37"));
        assert!(decode(b"").is_err() && decode(b"z").is_err());
    }

    #[test]
    fn whatever_the_bytes_are_they_are_shown() {
        for kind in LENGTHS.split_whitespace().map(|entry| entry.as_bytes()[0]) {
            let (_, fields) = layout(kind).expect("known");
            for byte in [0, b' ', 0xFF] {
                let mut message = vec![byte; length(fields)];
                message[0] = kind;
                let text = decode(&message).expect("decoded");
                assert!(text.is_ascii() && !text.contains('\0'), "{text}");
                assert_eq!(text.matches('=').count(), 2 + fields.len(), "{text}");
            }
        }
    }
}
