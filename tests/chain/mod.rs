//! What the tests of sequencers share: an application, streams in a directory, and turns.

use std::path::Path;
use std::time::{Duration, Instant};

use gapless::Agent;
use gapless::sequencer::{
    Application, Client, ClientId, ClientOptions, Events, ImageReader, ImageWriter, Kind,
    LoadError, Record, Sequencer, SequencerOptions,
};

/// A sum that depends on the order of all commands; each is answered with it.
#[derive(Default)]
pub(crate) struct Chain {
    sum: u64,
    pub(crate) commands: u64,
}

impl Application for Chain {
    fn apply(&mut self, record: &Record<'_>, events: &mut Events) {
        if record.kind != Kind::Command {
            return;
        }
        self.commands += 1;
        for &byte in record.payload {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        for _ in 0..self.sum % 3 + 1 {
            events.push(record.client, &self.sum.to_le_bytes());
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u64(self.sum);
        image.u64(self.commands);
    }

    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let mut image = ImageReader::new(saved);
        *self = Self { sum: image.u64("the sum")?, commands: image.u64("the count")? };
        image.finish("nothing more")
    }
}

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn at(dir: &Path, name: &str) -> String {
    let capacity = if name == "sequenced" { "4M" } else { "256K" };
    format!("shm:{name}?capacity={capacity}&dir={}", dir.display())
}

pub(crate) fn options(dir: &Path, clients: u16) -> SequencerOptions {
    options_of(at(dir, "sequenced"), dir, clients)
}

pub(crate) fn options_of(stream: String, dir: &Path, clients: u16) -> SequencerOptions {
    (1..=clients).fold(SequencerOptions::new(stream), |options, id| {
        options.client(ClientOptions::new(ClientId(id), at(dir, &format!("client-{id}"))))
    })
}

pub(crate) fn open(options: SequencerOptions) -> Sequencer<Chain> {
    Sequencer::open(options, Chain::default()).unwrap()
}

/// Opens a client while a sequencer in the same thread goes on.
pub(crate) fn join(dir: &Path, id: u16, sequencer: &mut Sequencer<Chain>) -> Client {
    sequencer.duty_cycle().unwrap();
    let (commands, sequenced) = (at(dir, &format!("client-{id}")), at(dir, "sequenced"));
    let mut client = Client::open(ClientId(id), &commands, &sequenced).unwrap();
    until(|| {
        sequencer.duty_cycle().unwrap();
        client.poll(100, |_| ()).unwrap();
        client.is_ready()
    });
    client
}

pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "this takes too long");
    }
}

/// All records that a sequencer and a client come to in some duty cycles without end.
pub(crate) fn settle(
    sequencer: &mut Sequencer<Chain>,
    client: &mut Client,
) -> Vec<(Kind, u8, u64)> {
    let mut seen = Vec::new();
    let mut idle = 0;
    until(|| {
        sequencer.duty_cycle().unwrap();
        let polled = client
            .poll(1000, |record| {
                if record.client == ClientId(1) {
                    seen.push((record.kind, record.code, record.reference));
                }
            })
            .unwrap();
        idle = if polled == 0 && client.unconfirmed() == 0 { idle + 1 } else { 0 };
        idle > 100
    });
    seen
}
