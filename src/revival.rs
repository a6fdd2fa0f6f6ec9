//! A publisher's ring, made again from its stream's log.

use std::time::{SystemTime, UNIX_EPOCH};

use gapless_shm::{Flags, Producer, RingError, RingOptions, remove};

use crate::address::ShmAddress;
use crate::error::Error;
use crate::log::{self, LogEnd, LogError, LogReader, ReadFrom};
use crate::protocol::Session;

/// Opens the ring of an address: the one that is there, the one that its log describes, or a new
/// one.
///
/// `sent`: whether what is published leaves the host.
pub(crate) fn open_ring(
    address: &ShmAddress,
    ring: RingOptions,
    sent: bool,
) -> Result<Producer, Error> {
    let name = address.name();
    let Some(directory) = address.past.log() else { return Ok(ring.open(name)?) };
    match ring.attach(name) {
        Ok(producer) if !address.past.fresh => return Ok(producer),
        Ok(producer) => {
            drop(producer);
            remove(address.directory(), name, false)?;
        }
        Err(RingError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(producer) = from_log(address, &ring, name, sent)? {
        return Ok(producer);
    }
    // A session is a time: a clock that was set back must not make one that is older than the
    // log's, which no recorder would take.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = log::end(directory)?.and_then(|end| end.session.number());
    match last {
        Some(last) if last >= now.as_micros() as u64 => {
            Ok(ring.clone().session(last + 1).create(name)?)
        }
        _ => Ok(ring.create(name)?),
    }
}

/// Makes a ring that goes on where the log ends, with the log's last messages in it. `None` if
/// there is nothing to go on from.
pub(crate) fn from_log(
    address: &ShmAddress,
    ring: &RingOptions,
    name: &str,
    sent: bool,
) -> Result<Option<Producer>, Error> {
    let Some(directory) = address.past.log().filter(|_| !address.past.fresh) else {
        return Ok(None);
    };
    if log::has_writer(directory)? {
        // It may know of messages that are not in the log yet.
        let directory = directory.to_path_buf();
        return Err(LogError::WriterAlive { directory }.into());
    }
    let Some(LogEnd { session, next_sequence: end, is_finished }) = log::end(directory)? else {
        return Ok(None);
    };
    let Some(number) = session.number() else { return Ok(None) };
    if sent && !is_finished && !address.past.resume_durable {
        let directory = directory.to_path_buf();
        return Err(Error::Unsettled { directory, session, next: end });
    }
    let mut reader = LogReader::open_session(directory, session, ReadFrom::Now)?;
    reader.seek_back(ring.capacity())?;
    let first = reader.next_sequence().min(end);
    let ring = ring.clone().session(number).first_sequence(first);
    let mut producer = ring.create(name)?;
    match refill(&mut producer, &mut reader, session, end) {
        Ok(()) => Ok(Some(producer)),
        Err(error) => {
            drop(producer);
            remove(address.directory(), name, false)?; // half a ring is worse than none
            Err(error)
        }
    }
}

/// Publishes what the log has from the ring's next message to `end`.
fn refill(
    producer: &mut Producer,
    reader: &mut LogReader,
    session: Session,
    end: u64,
) -> Result<(), Error> {
    while producer.next_sequence() < end {
        let mut refused = None;
        let polled = reader.poll_while(usize::MAX, |message, _| {
            let next = producer.next_sequence();
            if message.sequence >= end || message.sequence != next {
                return false;
            }
            let published = producer.try_publish_flagged(message.payload, message.flags);
            refused = published.err();
            refused.is_none()
        });
        if let Some(error) = refused {
            return Err(Error::Refill { sequence: producer.next_sequence(), error });
        }
        let lost_end = match polled {
            Ok(handled) if handled > 0 => continue,
            // It ends here, or goes on with another session: what should follow is not there.
            Ok(_) => end,
            Err(LogError::Missing { first, count } | LogError::Damaged { first, count, .. }) => {
                (first + count).min(end)
            }
            Err(LogError::NewSession { .. }) => {
                return Err(LogError::SessionUnknown { session }.into());
            }
            Err(error) => return Err(error.into()),
        };
        while producer.next_sequence() < lost_end {
            let sequence = producer.next_sequence();
            let published = producer.try_publish_flagged(&[], Flags::LOST);
            published.map_err(|error| Error::Refill { sequence, error })?;
        }
    }
    Ok(())
}
