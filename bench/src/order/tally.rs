//! The least that an application can be: it counts, and answers if it is to.

use gapless::sequencer::{Application, Events, ImageReader, ImageWriter, Kind, LoadError, Record};

/// Counts commands; its state depends on the order of all their bytes' first words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Whether each command is answered by an event.
    answers: bool,
    commands: u64,
    sum: u64,
}

impl Tally {
    /// One that answers each command with its sum.
    pub(super) fn answering() -> Self {
        Self { answers: true, ..Self::default() }
    }
}

impl Application for Tally {
    #[inline]
    fn apply(&mut self, record: &Record<'_>, events: &mut Events) {
        if record.kind != Kind::Command {
            return;
        }
        let word = record.payload.first_chunk::<8>().copied().unwrap_or_default();
        self.commands += 1;
        self.sum = self.sum.rotate_left(5) ^ u64::from_le_bytes(word);
        if self.answers {
            events.push(record.client, &self.sum.to_le_bytes());
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u64(self.commands);
        image.u64(self.sum);
    }

    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let mut image = ImageReader::new(saved);
        let (commands, sum) = (image.u64("a count")?, image.u64("a sum")?);
        image.finish("nothing more")?;
        (self.commands, self.sum) = (commands, sum);
        Ok(())
    }
}
