//! An entry of the audit: one record of the stream, read, with what became of it.
//!
//! As text it is one line; as bytes, for whoever chains or signs entries, it is the record itself,
//! so that nothing which this version cannot read is lost.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::field::Reason;
use super::messages::{Message, MessageError};
use crate::sequencer::{ClientId, Kind, Leaving, Record, Refusal, Role};

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Of a command or an event.
    Message(Message),
    /// Of a command or an event that is no message.
    Unreadable {
        /// How many bytes it has.
        bytes: usize,
        /// Why it is none.
        error: MessageError,
    },
    /// A command was not sequenced; `None`: for a reason that this version does not know.
    Refused(Option<Refusal>),
    /// Time passes.
    Time,
    /// A client was heard of.
    Connected,
    /// A client is gone; `None`: for a reason that this version does not know.
    Disconnected(Option<Leaving>),
    /// A sequencer begins to write.
    Term,
    /// A hash of the application's state.
    Checkpoint,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing has been said of it; of what is no command, nothing ever is.
    #[default]
    Open,
    /// It was not rejected: it was carried out, or its venue was asked to.
    Taken,
    /// It was not carried out.
    Rejected(Reason),
}

/// One record of the stream, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the stream.
    pub sequence: u64,
    /// What kind of record it is.
    pub kind: Kind,
    /// Sequenced time, Unix ns.
    pub time_ns: u64,
    /// Of a command, when the client sent it, Unix ns by the client's own clock; else see [`Kind`].
    pub sent_ns: u64,
    /// Who sent it, or whom it concerns.
    pub client: ClientId,
    /// Of a command, the client's role, if this version knows it.
    pub role: Option<Role>,
    /// The term of the sequencer that wrote it.
    pub term: u32,
    /// A number that depends on the kind: see [`Kind`].
    pub reference: u64,
    /// What it says.
    pub what: What,
    /// Of a command, what became of it.
    pub outcome: Outcome,
}

impl Entry {
    /// Reads a record. What became of it is not known yet.
    pub fn of(record: &Record<'_>) -> Self {
        let what = match record.kind {
            Kind::Command | Kind::Event => match Message::decode(record.payload) {
                Ok(message) => What::Message(message),
                Err(error) => What::Unreadable { bytes: record.payload.len(), error },
            },
            Kind::Refused => What::Refused(Refusal::of(record.code)),
            Kind::Time => What::Time,
            Kind::Connected => What::Connected,
            Kind::Disconnected => What::Disconnected(Leaving::of(record.code)),
            Kind::Term => What::Term,
            Kind::Checkpoint => What::Checkpoint,
        };
        let role = (record.kind == Kind::Command).then(|| Role::of(record.code)).flatten();
        let Record { sequence, kind, client, term, reference, sent_ns, time_ns, .. } = *record;
        let outcome = Outcome::Open;
        Self { sequence, kind, time_ns, sent_ns, client, role, term, reference, what, outcome }
    }

    /// Of an event, the sequence number of the record that caused it.
    pub fn cause(&self) -> Option<u64> {
        (self.kind == Kind::Event).then_some(self.reference)
    }

    /// Its message, if it is a command or an event that can be read.
    pub fn message(&self) -> Option<&Message> {
        match &self.what {
            What::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Appends the bytes of a record in their one form, for hashes and signatures over entries:
    /// the sequence number (8 bytes), the stamp (32), the payload's length (4), the payload; all
    /// little-endian.
    ///
    /// ```
    /// use gapless::order::Entry;
    /// use gapless::sequencer::Record;
    ///
    /// let message = [&[4][..], &[0; 31]].concat(); // time passes
    /// let mut bytes = Vec::new();
    /// Entry::canonical(&Record::read(7, &message)?, &mut bytes);
    /// assert_eq!(bytes, [&[7, 0, 0, 0, 0, 0, 0, 0], &message[..], &[0; 4]].concat());
    /// # Ok::<(), gapless::sequencer::RecordError>(())
    /// ```
    pub fn canonical(record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&record.sequence.to_le_bytes());
        out.extend_from_slice(&record.stamp());
        out.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(record.payload);
    }
}

/// A time as text: UTC by ISO 8601, to the nanosecond.
fn utc(time_ns: u64) -> impl fmt::Display {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(time_ns))
}

/// In one line: time, sequence number, kind, client, and what it says.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, client, reference, .. } = self;
        write!(f, "{} #{sequence} ", utc(self.time_ns))?;
        match self.kind {
            Kind::Command => {
                write!(f, "command client={client} own={reference}")?;
                match self.role {
                    Some(role) => write!(f, " role={role:?}")?,
                    None => f.write_str(" role=?")?,
                }
                if self.sent_ns != 0 {
                    write!(f, " sent={}", utc(self.sent_ns))?;
                }
                f.write_str(" ")?;
            }
            Kind::Event => write!(f, "event of #{reference} client={client} ")?,
            _ => {}
        }
        match &self.what {
            What::Message(message) => message.fmt(f)?,
            What::Unreadable { bytes, error } => write!(f, "unreadable ({bytes} bytes): {error}")?,
            What::Refused(why) => {
                let what = match why {
                    Some(Refusal::Gap) => "wanted",
                    Some(Refusal::WrongOwner) => "user",
                    _ => "own",
                };
                write!(f, "refused client={client} {what}={reference}: ")?;
                told(f, why)?;
            }
            What::Time => f.write_str("time")?,
            What::Connected => write!(f, "connected client={client} used={reference}")?,
            What::Disconnected(why) => {
                write!(f, "disconnected client={client}: ")?;
                told(f, why)?;
            }
            What::Term => write!(f, "term {} layout={reference}", self.term)?,
            What::Checkpoint => write!(f, "checkpoint hash={reference:016x}")?,
        }
        match self.outcome {
            Outcome::Rejected(reason) => write!(f, " -> rejected: {reason}"),
            Outcome::Taken | Outcome::Open => Ok(()),
        }
    }
}

fn told(f: &mut fmt::Formatter<'_>, why: &Option<impl fmt::Display>) -> fmt::Result {
    match why {
        Some(why) => why.fmt(f),
        None => f.write_str("why, this version does not know"),
    }
}
