//! An engine that is made again from the stream, and held against it event by event.

use std::collections::VecDeque;
use std::path::Path;

use gapless::order::{Engine, Exchange};
use gapless::sequencer::{
    Application, ClientId, Events, Kind, Record, Sequencer, SequencerOptions, snapshot_streams,
};

use super::config::Plan;
use super::engine::Tables;
use super::state::State;

/// Differences that are told one by one.
const TOLD_MAX: usize = 20;

/// The engine as the stream makes it.
pub(crate) struct Replica {
    engine: Engine<Exchange>,
    clients: u16,
    events: Events,
    /// What the engine answered, and the stream has not said yet.
    due: VecDeque<(ClientId, Vec<u8>)>,
    cause: u64,
    next: u64,
    /// How the stream's events differ from this engine's.
    pub(crate) wrong: Vec<String>,
    pub(crate) left_out: u64,
}

impl Replica {
    /// At the stream's beginning, or where the newest of these snapshots was taken.
    pub(crate) fn begin(tables: &Tables, snapshots: Option<&Path>) -> anyhow::Result<Self> {
        let plan = tables.plan()?;
        let mut engine = tables.engine(&plan, &plan.clients)?;
        let mut next = 1;
        if let Some(directory) = snapshots {
            let (loaded, at) = loaded(tables, &plan, directory)?;
            engine.load(&loaded)?;
            next = at;
        }
        Ok(Self {
            engine,
            clients: tables.clients(&plan),
            events: Events::new(),
            due: VecDeque::new(),
            cause: 0,
            next,
            wrong: Vec::new(),
            left_out: 0,
        })
    }

    /// Where the snapshot was taken: 1 if there was none.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next record of the stream; those in front of the snapshot are passed over.
    pub(crate) fn take(&mut self, record: &Record<'_>) {
        if record.sequence < self.next {
            return;
        }
        self.next = record.sequence + 1;
        match record.kind {
            Kind::Event => self.compare(record),
            Kind::Term | Kind::Checkpoint => {}
            _ => {
                self.settle(record.sequence);
                self.events.clear();
                self.engine.apply(record, &mut self.events);
                self.cause = record.sequence;
                let answers = self.events.iter();
                self.due.extend(answers.map(|(client, event)| (client, event.to_vec())));
            }
        }
    }

    fn compare(&mut self, record: &Record<'_>) {
        let due = self.due.pop_front();
        let equal = due.is_some_and(|(client, event)| {
            client == record.client && event == record.payload && self.cause == record.reference
        });
        if !equal {
            let (sequence, cause) = (record.sequence, record.reference);
            self.differ(format!("event #{sequence} is not what #{cause} leads to in an engine"));
        }
    }

    /// All answers must have been there.
    fn settle(&mut self, sequence: u64) {
        if !self.due.is_empty() {
            let (missing, cause) = (self.due.len(), self.cause);
            self.due.clear();
            self.differ(format!(
                "in front of #{sequence}, {missing} events of #{cause} are missing"
            ));
        }
    }

    fn differ(&mut self, what: String) {
        match self.wrong.len() < TOLD_MAX {
            true => self.wrong.push(what),
            false => self.left_out += 1,
        }
    }

    /// Its state behind all that it took.
    pub(crate) fn finish(&mut self) -> State {
        self.settle(self.next);
        State::of(&self.engine, self.next, self.clients)
    }
}

/// The engine of the newest snapshot, saved, and the record behind it.
fn loaded(tables: &Tables, plan: &Plan, directory: &Path) -> anyhow::Result<(Vec<u8>, u64)> {
    // The stream is not opened before the first duty cycle, and there is none.
    let streams = snapshot_streams(directory)?;
    let [stream] = &streams[..] else {
        anyhow::ensure!(!streams.is_empty(), "{}: no snapshot", directory.display());
        anyhow::bail!("{}: snapshots of {}: of one only", directory.display(), streams.join(", "));
    };
    let address = format!("shm:{stream}?dir={}", directory.display());
    let options = SequencerOptions::new(address).snapshots(directory);
    let sequencer = Sequencer::open(options, tables.engine(plan, &plan.clients)?)?;
    let next = sequencer.next_sequence();
    anyhow::ensure!(next > 1, "{}: no snapshot that is sound", directory.display());
    let mut image = Vec::new();
    sequencer.application().save(&mut image);
    Ok((image, next))
}
