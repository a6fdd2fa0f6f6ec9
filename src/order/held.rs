//! When a command counts for those who only read the stream.
//!
//! What a command was answered stands right behind it. A command that is answered by nothing but a
//! rejection (a definition, a reference price) is in force as soon as there is a record that is no
//! answer to it, and none before that was its rejection; until then it is held.

use super::field::Reason;
use super::messages::{CancelRejected, Message, Rejected};
use crate::sequencer::{ImageReader, ImageWriter, Kind, LoadError, Record};

/// Why `record` says that the command `sequence` was not carried out; `None` if it does not say so.
/// What a command sets in motion may be the rejection of an older order: that has another order id.
#[inline]
pub(super) fn rejection(record: &Record<'_>, sequence: u64) -> Option<Reason> {
    let template = Message::template_of(record.payload)?;
    let answers = record.kind == Kind::Event && record.reference == sequence;
    if !answers || ![Rejected::TEMPLATE_ID, CancelRejected::TEMPLATE_ID].contains(&template) {
        return None;
    }
    match Message::decode(record.payload).ok()? {
        Message::Rejected(rejected) => {
            let own = [0, sequence].contains(&rejected.order_id.0);
            own.then_some(rejected.reason)
        }
        Message::CancelRejected(rejected) => Some(rejected.reason),
        _ => None,
    }
}

/// At most one command that nobody has rejected yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held(Option<(u64, Message)>);

impl Held {
    /// Takes the next record, and gives back what was held, with its sequence number, if the
    /// record is none of its answers any more.
    #[inline]
    pub(super) fn settle(&mut self, record: &Record<'_>) -> Option<(u64, Message)> {
        let (sequence, _) = self.0?;
        if record.kind != Kind::Event || record.reference != sequence {
            return self.0.take();
        }
        if rejection(record, sequence).is_some() {
            self.0 = None;
        }
        None
    }

    /// Holds a command until the next record.
    pub(super) fn hold(&mut self, sequence: u64, message: Message) {
        self.0 = Some((sequence, message));
    }

    pub(super) fn save(&self, image: &mut ImageWriter<'_>) {
        let mut bytes = Vec::new();
        let sequence = self.0.map_or(0, |(sequence, message)| {
            message.encode_to(&mut bytes);
            sequence
        });
        image.u64(sequence);
        image.u32(bytes.len() as u32);
        image.bytes(&bytes);
    }

    pub(super) fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        let what = "a command that may yet be rejected";
        let sequence = image.u64(what)?;
        let length = image.count(1, what)?;
        let bytes = image.bytes(length, what)?;
        if length == 0 {
            return Ok(Self(None));
        }
        let message = Message::decode(bytes).map_err(|_| LoadError { what })?;
        Ok(Self(Some((sequence, message))))
    }
}
