//! Where a recorder enters a ring: in front of the last message that its log has, to see that both
//! go on from the same one.
//!
//! A ring can be behind its log, in the same session: a receiver that begins with the stream's
//! first message makes one, and so does a publisher that goes on from a log, for as long as it
//! fills the ring. What such a ring brings is in the log already, and is passed over. But whoever
//! went on from a shorter log uses numbers a second time, and what has them is in no log: so what
//! is passed over is compared, and another message is an error. That is each message that comes
//! while the recorder looks, and the one in front of them.

use gapless_shm::{Consumer, ConsumerOptions, Message, RingError, Start};

use super::disk::Disk;
use super::error::LogError;
use super::reader::LogReader;
use super::writer::LogWriter;
use crate::address::{ReadFrom, ShmAddress};
use crate::protocol::Session;

/// Attaches to the ring in front of the log's last message, or as near to that as the ring goes.
pub(super) fn attach(
    ring: &ShmAddress,
    observer: bool,
    position: Option<(u64, u64)>,
) -> Result<Consumer, LogError> {
    let options = ConsumerOptions::new().directory(ring.directory()).name("recorder");
    let options = options.observer(observer);
    let at = |start| options.clone().start(start).attach(ring.name());
    let Some((session, next)) = position else { return Ok(at(Start::Oldest)?) };
    let before = |next: u64| {
        for wanted in [next.saturating_sub(1), next] {
            match at(Start::Sequence(wanted)) {
                Ok(attached) if attached.session() == session => return Ok(attached),
                Ok(_) => break, // another session, whose numbers mean something else
                Err(RingError::SequenceGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        at(Start::Oldest)
    };
    let attached = before(next)?;
    let come = attached.place().sequence();
    if attached.session() != session || come >= attached.next_sequence() {
        return Ok(attached);
    }
    drop(attached); // the ring is behind: what it brings is to be seen
    Ok(before(come)?)
}

/// The messages that a log has, and its ring brings once more.
pub(super) struct Overlap<D: Disk> {
    session: u64,
    end: u64,
    reader: Option<LogReader<D>>,
}

impl<D: Disk> Overlap<D> {
    /// Of the messages of `session` from `from` to `end`, where the log goes on.
    pub(super) fn open(writer: &LogWriter<D>, session: u64, from: u64, end: u64) -> Self {
        let (disk, from) = (writer.disk.clone(), ReadFrom::Sequence(from));
        let reader = LogReader::open_on(disk, writer.directory(), Some(session), from);
        // What cannot be read cannot be compared: it was never written, or is trimmed or damaged.
        Self { session, end, reader: reader.ok() }
    }

    /// Sequence of the message with which the log goes on.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the log has this message; later ones than the last.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if it has another one of that number.
    pub(super) fn has(&mut self, message: &Message<'_>) -> Result<bool, LogError> {
        let (sequence, mut same) = (message.sequence, true);
        if sequence >= self.end {
            return Ok(false);
        }
        let Some(reader) = &mut self.reader else { return Ok(true) };
        while reader.next_sequence() <= sequence {
            let polled = reader.poll_while(usize::MAX, |recorded, _| {
                if recorded.sequence == sequence {
                    let lost = recorded.flags.is_lost() || message.flags.is_lost();
                    same = lost || recorded.payload == message.payload;
                }
                same && recorded.sequence <= sequence // another one is told again
            });
            match polled {
                Ok(handled) if handled > 0 => {}
                Err(error) if error.is_told() => {} // it goes on behind that
                Ok(_) | Err(_) => break,
            }
        }
        let session = Session::from_number(self.session);
        if same { Ok(true) } else { Err(LogError::Conflict { session, sequence }) }
    }
}
