//! What answers are made from: a sender's ring, or a log.

use std::net::SocketAddr;

use gapless_shm::{Consumer, LookBack, Memory, Place};

use super::history::History;
use super::mold::{self, Session};
pub(crate) use super::repair::Pending;

/// What an answer says of its stream besides messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) session: Session,
    /// Largest datagram payload, bytes.
    pub(crate) datagram_bytes: usize,
    /// Whether the session has ended.
    pub(crate) ended: bool,
    /// Further request servers.
    pub(crate) servers: &'a [SocketAddr],
}

/// Messages that were put into a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packed {
    /// Bytes of the packet, its header among them, which is not written yet.
    pub(crate) used: usize,
    pub(crate) count: u16,
    /// Whether the message behind them is wanted and not held (any more).
    pub(crate) gone: bool,
}

/// Messages of one session by their sequence.
pub(crate) trait Shelf {
    fn terms(&self) -> Terms<'_>;

    /// Oldest message that may be held.
    fn oldest_sequence(&mut self) -> u64;

    /// Behind the newest message: what has this sequence, or a later one, is not there yet.
    fn next_sequence(&mut self) -> u64;

    /// Packs messages that follow each other, from `sequence` on, behind the header of `packet`,
    /// while the request [wants](Pending::wants_next) them and they fit; passes each.
    fn pack(&mut self, sequence: u64, pending: &mut Pending, packet: &mut [u8]) -> Packed;

    /// Behind the last message that is gone together with `first`, or `limit` if that comes sooner.
    fn gone_end(&mut self, first: u64, limit: u64) -> u64;
}

/// The ring of a sender.
pub(crate) struct RingShelf<'a, M: Memory> {
    pub(crate) consumer: &'a Consumer<M>,
    pub(crate) history: &'a History,
    pub(crate) terms: Terms<'a>,
}

impl<M: Memory> Shelf for RingShelf<'_, M> {
    fn terms(&self) -> Terms<'_> {
        self.terms
    }

    fn oldest_sequence(&mut self) -> u64 {
        self.consumer.oldest_sequence()
    }

    fn next_sequence(&mut self) -> u64 {
        self.consumer.next_sequence()
    }

    fn pack(&mut self, sequence: u64, pending: &mut Pending, packet: &mut [u8]) -> Packed {
        let known = pending.place.filter(|place| place.sequence() == sequence);
        let Some(mut place) = known.or_else(|| self.find(sequence)) else {
            return Packed { gone: true, ..Packed::default() };
        };
        let mut packed = Packed { used: mold::HEADER_BYTES, ..Packed::default() };
        while packed.count < mold::COUNT_MAX && pending.wants_next() {
            let Some((header, body)) = packet[packed.used..].split_first_chunk_mut() else { break };
            match self.consumer.look_back(place, body) {
                LookBack::Record { len, flags, next } if !flags.is_lost() => {
                    *header = (len as u16).to_be_bytes();
                    packed.used += mold::BLOCK_HEADER_BYTES + len;
                    packed.count += 1;
                    place = next;
                    pending.pass();
                }
                LookBack::TooLong { .. } | LookBack::NotYet => break,
                _ => {
                    packed.gone = true;
                    break;
                }
            }
        }
        pending.place = Some(place);
        packed
    }

    fn gone_end(&mut self, first: u64, limit: u64) -> u64 {
        let mut end = first;
        let Some(mut place) = self.find(first) else { return end };
        // Lost before they came here: the records that stand for them may be many.
        while let LookBack::Record { flags, next, .. } = self.consumer.look_back(place, &mut [])
            && flags.is_lost()
            && next.sequence() <= limit
        {
            (place, end) = (next, next.sequence());
        }
        end
    }
}

impl<M: Memory> RingShelf<'_, M> {
    /// The place of a message, by the packet that it left in or by the ring's index.
    fn find(&self, sequence: u64) -> Option<Place> {
        if sequence >= self.consumer.next_sequence() {
            return None;
        }
        let Some(sent) = self.history.find(sequence) else {
            return self.consumer.find(sequence);
        };
        let mut place = sent.place;
        while place.sequence() < sequence {
            match self.consumer.look_back(place, &mut []) {
                LookBack::Record { next, .. } | LookBack::TooLong { next, .. } => place = next,
                // The packet's first messages are overwritten; this one need not be.
                LookBack::NotYet | LookBack::Gone => return self.consumer.find(sequence),
            }
        }
        (place.sequence() == sequence).then_some(place)
    }
}
