//! Messages of enveloped streams: cut into records with an envelope each, and taken out of them.

use std::time::{SystemTime, UNIX_EPOCH};

use gapless::protocol::envelope::{ENVELOPE_BYTES, Envelope, EnvelopeError};
use gapless::shm::Producer;
use gapless::{Fragments, Message, PublishError};

/// The record without its envelope, flagged as the envelope says.
///
/// # Errors
/// If it has none.
pub(crate) fn unwrapped(message: Message<'_>) -> Result<Message<'_>, EnvelopeError> {
    let (envelope, payload) = Envelope::split(message.payload)?;
    Ok(Message { payload, flags: envelope.record_flags(), ..message })
}

/// Who publishes, and how much it has published: what its envelopes say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    publisher: u32,
    published: u64,
}

impl Origin {
    /// This process, which has published nothing yet.
    pub(crate) fn this_process() -> Self {
        Self { publisher: std::process::id(), published: 0 }
    }

    fn next(&mut self, message: &[u8]) -> Envelope {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.published += 1;
        Envelope {
            flags: Envelope::BEGIN,
            topic: 0,
            publisher: self.publisher,
            publisher_sequence: self.published,
            send_time_unix_ns: now.as_nanos() as u64,
            message_bytes: message.len() as u32, // commands take no more than a length can say
        }
    }
}

/// A message on its way into a ring, in as many records as it needs.
pub(crate) enum Pieces<'a> {
    /// As it is.
    Plain(Fragments<'a>),
    /// With an envelope in front of each piece.
    Enveloped { rest: &'a [u8], envelope: Envelope, record: &'a mut Vec<u8>, max_bytes: usize },
}

impl<'a> Pieces<'a> {
    /// All of `message` is still to be published. `record` is a buffer; no record is longer than
    /// `max_bytes`.
    pub(crate) fn enveloped(
        message: &'a [u8],
        origin: &mut Origin,
        record: &'a mut Vec<u8>,
        max_bytes: usize,
    ) -> Self {
        record.clear();
        Self::Enveloped { rest: message, envelope: origin.next(message), record, max_bytes }
    }

    /// Publishes as much as there is room for; called again, it goes on where it stopped.
    ///
    /// # Errors
    /// Why not all is published, above all that the ring is full.
    pub(crate) fn try_publish(&mut self, producer: &mut Producer) -> Result<(), PublishError> {
        let (rest, envelope, record, max_bytes) = match self {
            Self::Plain(fragments) => return fragments.try_publish(producer).map(drop),
            Self::Enveloped { rest, envelope, record, max_bytes } => {
                (rest, envelope, record, *max_bytes)
            }
        };
        loop {
            if record.is_empty() {
                let room = max_bytes.saturating_sub(ENVELOPE_BYTES).max(1);
                let (now, later) = rest.split_at(rest.len().min(room));
                envelope.flags |= if later.is_empty() { Envelope::END } else { 0 };
                let mut head = [0; ENVELOPE_BYTES];
                envelope.write(&mut head);
                record.extend_from_slice(&head);
                record.extend_from_slice(now);
                *rest = later;
            }
            producer.try_publish_flagged(record, envelope.record_flags())?;
            if envelope.ends() {
                return Ok(());
            }
            record.clear();
            (envelope.flags, envelope.message_bytes) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use gapless::shm::{RingOptions, Start};
    use gapless::{Part, Reassembler};

    use super::*;

    #[test]
    fn pieces_become_their_message() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = RingOptions::new().directory(directory.path()).capacity_bytes(1 << 16);
        let mut producer = options.create("pieces").expect("a ring");
        let reader = gapless::shm::ConsumerOptions::new().directory(directory.path());
        let mut consumer = reader.start(Start::Oldest).attach("pieces").expect("a reader");
        let messages = [vec![], vec![1; 68], vec![2; 69], vec![3; 5000]];
        let mut origin = Origin::this_process();
        let mut record = Vec::new();
        for message in &messages {
            let mut pieces = Pieces::enveloped(message, &mut origin, &mut record, 100);
            pieces.try_publish(&mut producer).expect("room");
        }
        let mut reassembler = Reassembler::new(10_000);
        let (mut records, mut whole) = (0, Vec::new());
        let take = |message: Message<'_>| {
            records += 1;
            assert!(message.payload.len() <= 100);
            let flags = message.flags;
            let message = unwrapped(message).expect("an envelope");
            assert_eq!(message.flags, flags, "the ring's reader sees the same borders");
            reassembler.accept(message, |part| match part {
                Part::Whole { payload, .. } => whole.push(payload.to_vec()),
                Part::Abandoned { .. } => panic!("{part:?}"),
            });
        };
        consumer.poll(1000, take).expect("readable");
        assert_eq!((records, whole.as_slice()), (1 + 1 + 2 + 74, &messages[..]));
        let plain = Message { sequence: 1, payload: b"x", flags: gapless::Flags::WHOLE };
        assert!(unwrapped(plain).is_err());
    }
}
