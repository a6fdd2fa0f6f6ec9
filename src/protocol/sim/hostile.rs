//! Packets from somebody who means ill, from an address of his own.
//!
//! What nobody can defend against without signatures is left out: to write messages in the name of
//! a sender that happens to be silent, or to be first to name a session's place to who joins.

use std::net::SocketAddr;

use super::stream::Book;
use crate::protocol::control::{
    Advertisement, Body, CONTROL_MAX_BYTES, Control, Durable, Gone, Report, Request, SERVERS_MAX,
};
use crate::protocol::{Header, Random, Session};

/// Which port a packet comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Line,
    Answers,
    Requests,
}

/// What the attacker has found out: the stream, how far a receiver is, and what it believes.
pub(super) struct Target<'a> {
    pub(super) book: &'a Book,
    /// Whether the receiver has joined this session.
    pub(super) is_joined: bool,
    /// Whether reports count.
    pub(super) has_flow: bool,
}

pub(super) fn address(random: &mut Random) -> SocketAddr {
    // One address for all would be taken for one host, and believed more: no two are alike.
    let [a, b, c, d, e, f, ..] = random.next().to_le_bytes();
    ([a | 128, b, c, d], u16::from_le_bytes([e, f]) | 1).into()
}

/// A packet that may do harm.
pub(super) fn packet(random: &mut Random, target: &Target<'_>) -> (Port, Vec<u8>) {
    let book = target.book;
    let session = book.session;
    let near = book.first.saturating_add(random.below(book.next - book.first + 20));
    let far = book.next + (1 << 20) + random.below(1 << 33);
    let r = random.next();
    let ports = [Port::Line, Port::Answers, Port::Requests];
    match r % 8 {
        0 => (ports[(r >> 8) as usize % 3], noise(random)),
        1 if target.is_joined => {
            let count = [0, 1, 50, 0xffff][(r >> 8) as usize % 4];
            let mut bytes = Header { session, sequence: far, count }.to_bytes().to_vec();
            bytes.extend(noise(random));
            (ports[(r >> 16) as usize % 2], bytes)
        }
        2 => {
            let session = Session::from_number(random.below(1 << 40));
            let mut bytes =
                Header { session, sequence: near, count: r as u16 >> 8 }.to_bytes().to_vec();
            bytes.extend(noise(random));
            (ports[(r >> 40) as usize % 3], bytes)
        }
        3 => {
            let gone = Gone { first: near, span: r as u32 >> 8, oldest: far, next: far };
            (Port::Answers, control(session, Body::Gone(gone)))
        }
        4 => {
            let servers = [Some(address(random)); SERVERS_MAX];
            let ended = r & 256 == 0;
            let body = Advertisement { oldest: near, next: far, ended, servers };
            (Port::Answers, control(session, Body::Advertisement(body)))
        }
        5 => {
            let odd = [0, 1, near, far, u64::MAX];
            let counts = [0, 1, 10, 0xfffe, 0xffff];
            let session = if r & 256 == 0 { session } else { Session(*b"          ") };
            let (sequence, count) = (odd[(r >> 16) as usize % 5], counts[(r >> 24) as usize % 5]);
            (Port::Requests, Header { session, sequence, count }.to_bytes().to_vec())
        }
        6 if !target.has_flow => {
            let report = Report {
                receiver: r >> 60,
                next: [0, near, u64::MAX][(r >> 8) as usize % 3],
                newest: random.next(),
                missed: random.next(),
                window_bytes: random.next() as u32,
                name: [r as u8; 24],
                durable: (r & 1 == 0).then_some(Durable { first: near, last: far }),
            };
            (Port::Requests, control(session, Body::Report(report)))
        }
        _ => (Port::Requests, request(random, book)),
    }
}

/// A request for something.
pub(super) fn request(random: &mut Random, book: &Book) -> Vec<u8> {
    let first = book.first.saturating_add(random.below(book.next - book.first + 2));
    let span = match random.below(4) {
        0 => 1,
        1 => u32::MAX,
        _ => 1 + random.below(1000) as u32,
    };
    let mut bitmap = Vec::new();
    if span <= 1000 && random.chance(0.5) {
        bitmap.resize_with((span as usize).div_ceil(8), || random.next() as u8);
    }
    let body = Request { receiver: random.next(), first, span, bitmap: &bitmap };
    control(book.session, Body::Request(body))
}

fn control(session: Session, body: Body<'_>) -> Vec<u8> {
    let mut buffer = vec![0; CONTROL_MAX_BYTES];
    let len = Control { session, body }.write(&mut buffer);
    buffer.truncate(len);
    buffer
}

fn noise(random: &mut Random) -> Vec<u8> {
    (0..random.below(100)).map(|_| random.next() as u8).collect()
}
