//! When a command counts for those who only read the stream.
//!
//! What a command was answered stands right behind it. A command that is answered by nothing but a
//! rejection (a definition, a reference price) is in force as soon as there is a record that is no
//! answer to it, and none before that was its rejection; until then it is held.

use super::field::{ClientOrderId, OrderId, Reason};
use super::messages::{
    CancelOrder, CancelRejected, Message, NewOrder, Rejected, ReplaceOrder, VenueReport,
};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, Kind, LoadError, Record};

/// A command whose answers are awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its place in the stream.
    pub(super) sequence: u64,
    /// Who sent it.
    pub(super) client: ClientId,
    /// What it is, as its rejection would name it: 0 if it is no message of this schema.
    pub(super) template: u16,
    /// What its rejection calls the order, of a cancel or a replacement.
    name: ClientOrderId,
    /// The order that it is about, if it says so.
    order: OrderId,
}

impl Asked {
    /// Of a command's record; `message` is what it says, if it can be read.
    pub(super) fn of(record: &Record<'_>, message: Option<&Message>) -> Self {
        let Record { sequence, client, .. } = *record;
        let template = Message::template_of(record.payload).unwrap_or(0);
        let (name, order) = message.map_or_else(Default::default, |m| named(sequence, m));
        Self { sequence, client, template, name, order }
    }

    /// The rejection of this very command that `record` is, if it is one.
    ///
    /// What a command sets in motion, and what was due when it came, are answers to older commands:
    /// they stand behind it as well, but name another command, client or order.
    #[inline]
    pub(super) fn rejection(&self, record: &Record<'_>) -> Option<Rejection> {
        let template = Message::template_of(record.payload)?;
        let answers = record.kind == Kind::Event && record.reference == self.sequence;
        let rejects = [Rejected::TEMPLATE_ID, CancelRejected::TEMPLATE_ID].contains(&template);
        if !answers || !rejects || record.client != self.client {
            return None;
        }
        let (command, order, reason, fits) = match Message::decode(record.payload).ok()? {
            Message::Rejected(event) => {
                let known =
                    [NewOrder::TEMPLATE_ID, VenueReport::TEMPLATE_ID].contains(&self.template);
                let fits = event.order_id.0 == 0 || known && event.order_id == self.order;
                (event.command, event.order_id, event.reason, fits)
            }
            Message::CancelRejected(event) => {
                let asks = [CancelOrder::TEMPLATE_ID, ReplaceOrder::TEMPLATE_ID];
                let meant = self.order.0 == 0 || [OrderId(0), self.order].contains(&event.order_id);
                let fits =
                    asks.contains(&self.template) && event.client_order_id == self.name && meant;
                (event.command, event.order_id, event.reason, fits)
            }
            _ => return None,
        };
        (fits && command == self.template).then_some(Rejection { order, reason })
    }
}

/// What the rejection of a command may call the order, and which order the command says it means.
fn named(sequence: u64, message: &Message) -> (ClientOrderId, OrderId) {
    let none = (ClientOrderId(0), OrderId(0));
    match message {
        Message::NewOrder(_) => (none.0, OrderId(sequence)),
        Message::CancelOrder(cancel) => (cancel.client_order_id, cancel.order_id),
        Message::ReplaceOrder(replace) => (replace.client_order_id, none.1),
        Message::VenueReport(report) => (none.0, report.order_id),
        _ => none,
    }
}

/// That a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// Which order it was about; 0: none.
    pub(super) order: OrderId,
    /// Why.
    pub(super) reason: Reason,
}

/// At most one command that nobody has rejected yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held(Option<(Asked, Message)>);

impl Held {
    /// Takes the next record, and gives back what was held, with its sequence number, if the
    /// record is none of its answers any more.
    #[inline]
    pub(super) fn settle(&mut self, record: &Record<'_>) -> Option<(u64, Message)> {
        let (asked, _) = self.0.as_ref()?;
        if record.kind != Kind::Event || record.reference != asked.sequence {
            return self.0.take().map(|(asked, message)| (asked.sequence, message));
        }
        if asked.rejection(record).is_some() {
            self.0 = None;
        }
        None
    }

    /// Holds the command `record`, which says `message`, until the next record.
    pub(super) fn hold(&mut self, record: &Record<'_>, message: Message) {
        self.0 = Some((Asked::of(record, Some(&message)), message));
    }

    pub(super) fn save(&self, image: &mut ImageWriter<'_>) {
        let mut bytes = Vec::new();
        let (sequence, client) = self.0.as_ref().map_or((0, 0), |(asked, message)| {
            message.encode_to(&mut bytes);
            (asked.sequence, asked.client.0)
        });
        image.u64(sequence);
        image.u16(client);
        image.u32(bytes.len() as u32);
        image.bytes(&bytes);
    }

    pub(super) fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        let what = "a command that may yet be rejected";
        let (sequence, client) = (image.u64(what)?, ClientId(image.u16(what)?));
        let length = image.count(1, what)?;
        let bytes = image.bytes(length, what)?;
        if length == 0 {
            return Ok(Self(None));
        }
        let message = Message::decode(bytes).map_err(|_| LoadError { what })?;
        let template = Message::template_of(bytes).unwrap_or(0);
        let (name, order) = named(sequence, &message);
        Ok(Self(Some((Asked { sequence, client, template, name, order }, message))))
    }
}
