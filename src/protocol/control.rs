//! The control protocol, version 1: what our own peers say to each other beside the data, on the
//! request port. Optional: a peer that knows none of it still gets every message and any repair.
//!
//! Every control packet starts alike, big-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic: FE 'G' 'A' 'P' |
//! | 4 | 1 | version: 1 |
//! | 5 | 1 | kind: 1 solicit, 2 advertisement, 3 request, 4 report, 5 gone |
//! | 6 | 2 | bytes of the whole packet |
//! | 8 | 10 | session; ten zero bytes in a solicit that takes any |
//! | 18 | 2 | zero |
//!
//! and is never 20 bytes long, which a MoldUDP64 request always is. Behind that stands, by kind:
//!
//! | kind | offset | bytes | what |
//! |---|---|---|---|
//! | solicit, by a receiver | 20 | 8 | receiver's id |
//! | | 28 | 196 | zero: the answer is never longer than the question |
//! | advertisement, the answer | 20 | 8 | oldest sequence that is held |
//! | | 28 | 8 | next sequence |
//! | | 36 | 1 | 1 if the session has ended |
//! | | 37 | 1 | n, at most 8 |
//! | | 38 | 2 | zero |
//! | | 40 | 20 n | further request servers: IPv6 address (IPv4 mapped), port, 2 zero bytes |
//! | request, by a receiver | 20 | 8 | receiver's id |
//! | | 28 | 8 | first sequence wanted |
//! | | 36 | 4 | n, how many from there on are meant, at least 1 |
//! | | 40 | 0 or n/8 rounded up, at most 1,280 | bit i % 8 (from the lowest) of byte i / 8: message first + i is wanted; without a bitmap, all are |
//! | report, by a receiver | 20 | 8 | receiver's id |
//! | | 28 | 8 | next sequence it waits for: it has all below |
//! | | 36 | 8 | next sequence by the newest packet it saw |
//! | | 44 | 8 | messages that it missed at first, ever |
//! | | 52 | 4 | window: how many bytes behind the first number it can take |
//! | | 56 | 24 | receiver's name, UTF-8, padded with zeros |
//! | | 80 | 0 or 8 | first message of an unbroken run that is durable on the receiver's host |
//! | | 88 | 0 or 8 | last message of it; both numbers are left out if none is durable |
//! | gone, the answer to a request for what is not held | 20 | 8 | first sequence that was asked for |
//! | | 28 | 4 | how many |
//! | | 32 | 8 | oldest sequence that is held |
//! | | 40 | 8 | next sequence |
//!
//! A request is answered by ordinary MoldUDP64 packets. Reserved bytes are written as zero and not
//! looked at.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::mold::Session;

/// First bytes of every control packet.
pub const MAGIC: [u8; 4] = [0xfe, b'G', b'A', b'P'];
/// Version of everything this module describes.
pub const VERSION: u8 = 1;
/// Longest bitmap, bytes: with its header it fits an Ethernet frame.
pub const BITMAP_MAX_BYTES: usize = 1280;
/// Longest control packet, bytes.
pub const CONTROL_MAX_BYTES: usize = REQUEST_BYTES + BITMAP_MAX_BYTES;
/// Most request servers in an advertisement.
pub const SERVERS_MAX: usize = 8;
/// Longest name of a receiver, bytes.
pub const NAME_MAX_BYTES: usize = 24;

const HEADER_BYTES: usize = 20;
const SERVER_BYTES: usize = 20;
const SOLICIT_BYTES: usize = 224;
const ADVERTISEMENT_BYTES: usize = 40;
const REQUEST_BYTES: usize = 40;
const REPORT_BYTES: usize = 80;
const REPORT_DURABLE_BYTES: usize = 96;
const GONE_BYTES: usize = 48;
const _: () = assert!(ADVERTISEMENT_BYTES + SERVERS_MAX * SERVER_BYTES <= SOLICIT_BYTES);
const _: () = assert!(GONE_BYTES > HEADER_BYTES && REQUEST_BYTES > HEADER_BYTES);

/// A control packet, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// The session it is about; all zero in a solicit that takes any.
    pub session: Session,
    /// What it says.
    pub body: Body<'a>,
}

/// What a control packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A receiver asks what there is.
    Solicit {
        /// Its id.
        receiver: u64,
    },
    /// A sender says what there is.
    Advertisement(Advertisement),
    /// A receiver asks for messages.
    Request(Request<'a>),
    /// A receiver says how far it is.
    Report(Report),
    /// A sender does not have what was asked for.
    Gone(Gone),
}

/// What a sender has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Oldest sequence that it can repeat.
    pub oldest: u64,
    /// The next sequence of the stream.
    pub next: u64,
    /// Whether the session has ended.
    pub ended: bool,
    /// Other servers to ask, the first `None` behind the last.
    pub servers: [Option<SocketAddr>; SERVERS_MAX],
}

/// Messages that a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The receiver's id.
    pub receiver: u64,
    /// First sequence.
    pub first: u64,
    /// How many are meant from there on; at least 1.
    pub span: u32,
    /// Which of them; empty: all.
    pub bitmap: &'a [u8],
}

impl Request<'_> {
    /// Behind the last message meant.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.span)
    }

    /// Whether message `first + index` is wanted.
    #[inline]
    pub fn wants(&self, index: u32) -> bool {
        index < self.span && (self.bitmap.is_empty() || bit(self.bitmap, index))
    }
}

/// Bit `index` of a bitmap, counted from the lowest of the first byte; false behind its end.
#[inline]
pub fn bit(bitmap: &[u8], index: u32) -> bool {
    bitmap.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 != 0)
}

/// How far a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The receiver's id.
    pub receiver: u64,
    /// It has every message below this.
    pub next: u64,
    /// Next sequence by the newest packet it saw.
    pub newest: u64,
    /// Messages that it missed at first, ever.
    pub missed: u64,
    /// How many bytes from `next` on it can take.
    pub window_bytes: u32,
    /// Its name, padded with zeros.
    pub name: [u8; NAME_MAX_BYTES],
    /// What is durable on its host, as far as it knows.
    pub durable: Option<Durable>,
}

/// An unbroken run of messages that is on a host's disk, and would be there after a power cut as
/// far as that host's recorder was told to care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Sequence of the first.
    pub first: u64,
    /// Sequence of the last.
    pub last: u64,
}

impl Durable {
    /// Whether message `sequence` is one of them.
    #[inline]
    pub fn contains(&self, sequence: u64) -> bool {
        (self.first..=self.last).contains(&sequence)
    }

    /// Those before message `end`.
    pub(super) fn below(self, end: u64) -> Option<Self> {
        let last = self.last.min(end.checked_sub(1)?);
        (self.first <= last).then_some(Self { last, ..self })
    }
}

/// Messages that a sender does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// First sequence asked for.
    pub first: u64,
    /// How many.
    pub span: u32,
    /// Oldest sequence that it can repeat.
    pub oldest: u64,
    /// The next sequence of the stream.
    pub next: u64,
}

/// Bytes that are no control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Does not start with the magic.
    #[error("not a control packet")]
    NotControl,
    /// Another version.
    #[error("control protocol version {found}; this build speaks {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Unknown kind.
    #[error("unknown kind of control packet: {found}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// Shorter or longer than its kind says.
    #[error("a control packet of kind {kind} with {len} bytes")]
    Length {
        /// Its kind.
        kind: u8,
        /// Its length.
        len: usize,
    },
    /// A request for nothing, or past the largest sequence.
    #[error("a request for {span} messages from {first} on")]
    Range {
        /// First sequence.
        first: u64,
        /// How many.
        span: u32,
    },
}

/// Whether a datagram on a request port is a control packet rather than a MoldUDP64 request.
#[inline]
pub fn is_control(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) && bytes.len() != HEADER_BYTES
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl<'a> Control<'a> {
    /// Reads a control packet.
    ///
    /// # Errors
    /// [`ControlError`] says why the bytes are none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ControlError> {
        if bytes.len() <= HEADER_BYTES || !is_control(bytes) {
            return Err(ControlError::NotControl);
        }
        let (version, kind, len) = (bytes[4], bytes[5], bytes.len());
        if version != VERSION {
            return Err(ControlError::Version { found: version });
        }
        let exactly = |expected: usize| {
            if len == expected { Ok(()) } else { Err(ControlError::Length { kind, len }) }
        };
        exactly(u16_at(bytes, 6).into())?;
        let mut session = Session([0; 10]);
        session.0.copy_from_slice(&bytes[8..18]);
        let body = match kind {
            1 => {
                exactly(SOLICIT_BYTES)?;
                Body::Solicit { receiver: u64_at(bytes, 20) }
            }
            2 if len >= ADVERTISEMENT_BYTES => {
                let count = usize::from(bytes[37]);
                exactly(ADVERTISEMENT_BYTES + count.min(SERVERS_MAX) * SERVER_BYTES)?;
                Body::Advertisement(read_advertisement(bytes))
            }
            3 if len >= REQUEST_BYTES => Body::Request(read_request(bytes)?),
            4 => {
                let longer = len > REPORT_BYTES;
                exactly(if longer { REPORT_DURABLE_BYTES } else { REPORT_BYTES })?;
                Body::Report(read_report(bytes))
            }
            5 => {
                exactly(GONE_BYTES)?;
                Body::Gone(Gone {
                    first: u64_at(bytes, 20),
                    span: u32_at(bytes, 28),
                    oldest: u64_at(bytes, 32),
                    next: u64_at(bytes, 40),
                })
            }
            2 | 3 => return Err(ControlError::Length { kind, len }),
            _ => return Err(ControlError::Kind { found: kind }),
        };
        Ok(Self { session, body })
    }

    /// Writes the packet to the front of `buffer` and returns its length. A request's bitmap must
    /// be empty or have one bit for each message meant.
    ///
    /// # Panics
    /// If the buffer is shorter than [`CONTROL_MAX_BYTES`], or a bitmap is too long.
    pub fn write(&self, buffer: &mut [u8]) -> usize {
        let (kind, len) = match &self.body {
            Body::Solicit { .. } => (1, SOLICIT_BYTES),
            Body::Advertisement(advertisement) => {
                let count = advertisement.servers.iter().flatten().count();
                (2, ADVERTISEMENT_BYTES + count * SERVER_BYTES)
            }
            Body::Request(request) => (3, REQUEST_BYTES + request.bitmap.len()),
            // The short form is all that some senders know.
            Body::Report(report) if report.durable.is_none() => (4, REPORT_BYTES),
            Body::Report(_) => (4, REPORT_DURABLE_BYTES),
            Body::Gone(_) => (5, GONE_BYTES),
        };
        let packet = &mut buffer[..CONTROL_MAX_BYTES][..len];
        packet.fill(0);
        packet[..4].copy_from_slice(&MAGIC);
        (packet[4], packet[5]) = (VERSION, kind);
        packet[6..8].copy_from_slice(&(len as u16).to_be_bytes());
        packet[8..18].copy_from_slice(&self.session.0);
        let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
        match &self.body {
            Body::Solicit { receiver } => put(20, &receiver.to_be_bytes()),
            Body::Advertisement(advertisement) => {
                put(20, &advertisement.oldest.to_be_bytes());
                put(28, &advertisement.next.to_be_bytes());
                let count = advertisement.servers.iter().flatten().count();
                put(36, &[advertisement.ended.into(), count as u8]);
                for (i, server) in advertisement.servers.iter().flatten().enumerate() {
                    let at = ADVERTISEMENT_BYTES + i * SERVER_BYTES;
                    let ip = match server.ip() {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    put(at, &ip.octets());
                    put(at + 16, &server.port().to_be_bytes());
                }
            }
            Body::Request(request) => {
                put(20, &request.receiver.to_be_bytes());
                put(28, &request.first.to_be_bytes());
                put(36, &request.span.to_be_bytes());
                put(40, request.bitmap);
            }
            Body::Report(report) => {
                put(20, &report.receiver.to_be_bytes());
                put(28, &report.next.to_be_bytes());
                put(36, &report.newest.to_be_bytes());
                put(44, &report.missed.to_be_bytes());
                put(52, &report.window_bytes.to_be_bytes());
                put(56, &report.name);
                if let Some(durable) = &report.durable {
                    put(80, &durable.first.to_be_bytes());
                    put(88, &durable.last.to_be_bytes());
                }
            }
            Body::Gone(gone) => {
                put(20, &gone.first.to_be_bytes());
                put(28, &gone.span.to_be_bytes());
                put(32, &gone.oldest.to_be_bytes());
                put(40, &gone.next.to_be_bytes());
            }
        }
        len
    }
}

fn read_advertisement(bytes: &[u8]) -> Advertisement {
    let mut servers = [None; SERVERS_MAX];
    let entries = bytes[ADVERTISEMENT_BYTES..].chunks_exact(SERVER_BYTES);
    for (server, entry) in servers.iter_mut().zip(entries) {
        let mut ip = [0; 16];
        ip.copy_from_slice(&entry[..16]);
        let ip = Ipv6Addr::from(ip).to_canonical();
        *server = Some(SocketAddr::new(ip, u16_at(entry, 16)));
    }
    Advertisement {
        oldest: u64_at(bytes, 20),
        next: u64_at(bytes, 28),
        ended: bytes[36] != 0,
        servers,
    }
}

fn read_request(bytes: &[u8]) -> Result<Request<'_>, ControlError> {
    let (first, span) = (u64_at(bytes, 28), u32_at(bytes, 36));
    let bitmap = &bytes[REQUEST_BYTES..];
    let fits = bitmap.is_empty()
        || (bitmap.len() <= BITMAP_MAX_BYTES && bitmap.len() == (span as usize).div_ceil(8));
    if span == 0 || first.checked_add(span.into()).is_none() {
        return Err(ControlError::Range { first, span });
    }
    if !fits {
        return Err(ControlError::Length { kind: 3, len: bytes.len() });
    }
    Ok(Request { receiver: u64_at(bytes, 20), first, span, bitmap })
}

fn read_report(bytes: &[u8]) -> Report {
    let mut name = [0; NAME_MAX_BYTES];
    name.copy_from_slice(&bytes[56..80]);
    let durable = (bytes.len() == REPORT_DURABLE_BYTES)
        .then(|| Durable { first: u64_at(bytes, 80), last: u64_at(bytes, 88) });
    Report {
        receiver: u64_at(bytes, 20),
        next: u64_at(bytes, 28),
        newest: u64_at(bytes, 36),
        missed: u64_at(bytes, 44),
        window_bytes: u32_at(bytes, 52),
        name,
        durable: durable.filter(|run| run.first <= run.last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> [Body<'static>; 7] {
        let mut servers = [None; SERVERS_MAX];
        servers[0] = Some("10.1.2.3:4567".parse().unwrap());
        servers[1] = Some("[2001:db8::1]:89".parse().unwrap());
        let name = *b"book\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let report = Report {
            receiver: 1,
            next: 2,
            newest: 3,
            missed: 4,
            window_bytes: 5,
            name,
            durable: None,
        };
        [
            Body::Solicit { receiver: 1 },
            Body::Advertisement(Advertisement { oldest: 2, next: 3, ended: true, servers }),
            Body::Request(Request { receiver: 1, first: 9, span: 70_000, bitmap: &[] }),
            Body::Request(Request { receiver: 1, first: 9, span: 12, bitmap: &[0b101, 0b1000] }),
            Body::Report(report),
            Body::Report(Report { durable: Some(Durable { first: 6, last: 7 }), ..report }),
            Body::Gone(Gone { first: 1, span: 2, oldest: 3, next: 4 }),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for body in bodies() {
            let mut buffer = [0xaa; CONTROL_MAX_BYTES];
            let control = Control { session: Session(*b"0123456789"), body };
            let len = control.write(&mut buffer);
            assert_eq!(Control::read(&buffer[..len]), Ok(control));
            assert_ne!(len, HEADER_BYTES);
            // No byte more or less is taken.
            for wrong in [len - 1, len + 1] {
                assert!(Control::read(&buffer[..wrong]).is_err(), "{body:?} {wrong}");
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let body = Body::Request(Request { receiver: 7, first: 9, span: 12, bitmap: &[5, 8] });
        let mut buffer = [0; CONTROL_MAX_BYTES];
        let len = Control { session: Session(*b"0123456789"), body }.write(&mut buffer);
        let golden = b"\xfeGAP\x01\x03\0\x2a0123456789\0\0\
            \0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\x0c\x05\x08";
        assert_eq!(&buffer[..len], golden);
        let Body::Request(request) = body else { unreachable!() };
        let wanted: Vec<_> = (0..40).filter(|&i| request.wants(i)).collect();
        assert_eq!((wanted, request.end()), (vec![0, 2, 11], 21));
    }

    /// A report as it was before it could say what is durable, and as it is with that.
    const REPORT: &[u8; 80] = b"\xfeGAP\x01\x04\0\x500123456789\0\0\
        \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\
        \0\0\0\x05book\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn golden_bytes_of_a_report_in_both_lengths() {
        let (session, bodies) = (Session(*b"0123456789"), bodies());
        let mut buffer = [0; CONTROL_MAX_BYTES];
        let len = Control { session, body: bodies[4] }.write(&mut buffer);
        assert_eq!(&buffer[..len], REPORT);
        let mut longer = [&REPORT[..], b"\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x07"].concat();
        longer[7] = 96;
        let len = Control { session, body: bodies[5] }.write(&mut buffer);
        assert_eq!(&buffer[..len], longer);
        // An older peer's says nothing of it; nor does a run that ends before it begins.
        let read = |bytes: &[u8]| match Control::read(bytes).unwrap().body {
            Body::Report(report) => report.durable,
            other => panic!("{other:?}"),
        };
        assert_eq!((read(REPORT), read(&longer)), (None, Some(Durable { first: 6, last: 7 })));
        longer[95] = 5;
        assert_eq!(read(&longer), None);
        longer.truncate(88);
        longer[7] = 88;
        let cut = ControlError::Length { kind: 4, len: 88 };
        assert_eq!(Control::read(&longer), Err(cut));
    }

    #[test]
    fn every_kind_of_damage_has_its_own_error() {
        let mut good = [0; CONTROL_MAX_BYTES];
        let body = Body::Request(Request { receiver: 7, first: 9, span: 12, bitmap: &[] });
        let len = Control { session: Session([0; 10]), body }.write(&mut good);
        let damaged = |damage: &dyn Fn(&mut [u8])| {
            let mut bytes = good[..len].to_vec();
            damage(&mut bytes);
            Control::read(&bytes).unwrap_err()
        };
        assert_eq!(damaged(&|b| b[0] = 0), ControlError::NotControl);
        assert_eq!(damaged(&|b| b[4] = 2), ControlError::Version { found: 2 });
        assert_eq!(damaged(&|b| b[5] = 9), ControlError::Kind { found: 9 });
        assert_eq!(damaged(&|b| b[7] += 1), ControlError::Length { kind: 3, len: 40 });
        assert_eq!(damaged(&|b| b[39] = 0), ControlError::Range { first: 9, span: 0 });
        let far = u64::MAX - 3;
        let over = damaged(&|b| b[28..36].copy_from_slice(&far.to_be_bytes()));
        assert_eq!(over, ControlError::Range { first: far, span: 12 });
        assert_eq!(Control::read(&good[..20]), Err(ControlError::NotControl));
    }

    #[test]
    fn no_bytes_panic() {
        let mut random = 1_u64;
        for round in 0..20_000_usize {
            let mut buffer = [0; CONTROL_MAX_BYTES];
            let body = bodies()[round % 7];
            let len = Control { session: Session([0; 10]), body }.write(&mut buffer);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            buffer[4 + (random >> 33) as usize % (len - 4)] = (random >> 25) as u8;
            let cut = if round % 3 == 0 { (random >> 40) as usize % (len + 1) } else { len };
            let _ = Control::read(&buffer[..cut]);
        }
    }
}
