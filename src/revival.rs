//! A publisher's ring, made again from its stream's log.

use gapless_shm::{Flags, Producer, RingError, RingOptions, remove};

use crate::address::ShmAddress;
use crate::error::Error;
use crate::log::{self, LogError, LogReader, ReadFrom};
use crate::protocol::Session;

/// Opens the ring of an address: the one that is there, the one that its log describes, or a new
/// one.
pub(crate) fn open_ring(address: &ShmAddress, ring: RingOptions) -> Result<Producer, Error> {
    let name = address.name();
    if address.past.log().is_none() {
        return Ok(ring.open(name)?);
    }
    match ring.attach(name) {
        Ok(producer) if !address.past.fresh => return Ok(producer),
        Ok(producer) => {
            drop(producer);
            remove(address.directory(), name, false)?;
        }
        Err(RingError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match from_log(address, &ring, name)? {
        Some(producer) => Ok(producer),
        None => Ok(ring.create(name)?),
    }
}

/// Makes a ring that goes on where the log ends, with the log's last messages in it. `None` if
/// there is nothing to go on from.
pub(crate) fn from_log(
    address: &ShmAddress,
    ring: &RingOptions,
    name: &str,
) -> Result<Option<Producer>, Error> {
    let Some(directory) = address.past.log().filter(|_| !address.past.fresh) else {
        return Ok(None);
    };
    let Some((session, end)) = log::end(directory)? else { return Ok(None) };
    let Some(number) = session.number() else { return Ok(None) };
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
