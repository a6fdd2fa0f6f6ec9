//! `log/seek` and its kind: from anywhere in a large log to a message anywhere else, by number or
//! by time; over when the message is there.

use anyhow::{Context, Result, ensure};
use gapless::log::{LogReader, ReadFrom};
use hdrhistogram::Histogram;

use super::library::{INDEX, Library};
use crate::clock::ticks;
use crate::control::Word;
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Seeks of a run for which the page cache is emptied each time.
const COLD_SEEKS: usize = 20;
/// Places that the others go to, again and again, in random order.
const PLACES: usize = 500;
/// Messages that a seek by time may miss by: times within a block are interpolated.
const TIME_ERROR: u64 = 1;

/// What is sought by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Sequence,
    Time,
}

/// What of the log is in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heat {
    /// All that is needed; the reader has been in use.
    Warm,
    /// All but the index; the reader is opened there.
    ColdIndex,
    /// Nothing; the reader is opened there.
    Cold,
}

/// Seeks to random messages.
pub(crate) struct Seek {
    pub(crate) key: Key,
    pub(crate) heat: Heat,
}

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    /// One from 1 to `most`.
    fn next(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.0 >> 16) % most
    }
}

impl Seek {
    fn target(&self, sequence: u64) -> ReadFrom {
        match self.key {
            Key::Sequence => ReadFrom::Sequence(sequence),
            Key::Time => ReadFrom::UnixNs(Library::time_of(sequence)),
        }
    }

    /// Takes the message that was sought.
    fn take(&self, reader: &mut LogReader, wanted: u64) -> Result<u64> {
        let mut found = 0;
        reader.poll(1, |message, _| found = message.sequence).context("read")?;
        let error = if self.key == Key::Time { TIME_ERROR } else { 0 };
        ensure!(found.abs_diff(wanted) <= error, "message {found} was found, not {wanted}");
        Ok(ticks())
    }

    /// Opens a reader at each place, with less in the page cache than it needs.
    fn cold(&self, place: &Place, library: Library, places: &[u64]) -> Result<Histogram<u64>> {
        let mut samples = histogram();
        place.settle()?; // what is not on the disk would stay
        for &wanted in places.iter().take(COLD_SEEKS) {
            library.forget(place, if self.heat == Heat::ColdIndex { INDEX } else { "" })?;
            let from = ticks();
            let reader = LogReader::open(library.dir(place), self.target(wanted));
            let now = self.take(&mut reader.context("open the log")?, wanted)?;
            samples.saturating_record(now - from);
        }
        Ok(samples)
    }

    /// Goes from place to place with one reader.
    fn warm(
        &self,
        session: &Session<'_>,
        reader: &mut LogReader,
        places: &[u64],
    ) -> Result<Histogram<u64>> {
        let mut samples = histogram();
        let (_, end) = session.schedule();
        for &wanted in places.iter().cycle() {
            let from = ticks();
            reader.seek(self.target(wanted)).context("seek")?;
            let now = self.take(reader, wanted)?;
            samples.saturating_record(now - from);
            if now > end {
                break;
            }
        }
        Ok(samples)
    }
}

impl Scenario for Seek {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        Library::large(place).obstacle(place)
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        Library::large(place).make(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let place = session.place()?;
        let library = Library::large(place);
        let mut random = Random(1);
        let places: Vec<u64> = (0..PLACES).map(|_| random.next(library.messages())).collect();
        let reader = LogReader::open(library.dir(place), ReadFrom::Oldest);
        let mut reader = reader.context("open the log")?;
        for &wanted in &places {
            reader.seek(self.target(wanted)).context("seek")?;
            self.take(&mut reader, wanted)?; // from here on it is in the page cache
        }
        let samples = if self.heat == Heat::Warm {
            self.warm(session, &mut reader, &places)?
        } else {
            drop(reader); // what it maps would stay
            self.cold(place, library, &places)?
        };
        session.control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples).with_detail("log_bytes", library.bytes as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
