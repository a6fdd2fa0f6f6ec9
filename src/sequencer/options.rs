//! What a sequencer is told before it begins.

use std::path::PathBuf;
use std::time::Duration;

use super::core::Admission;
use super::error::SequencerError;
use super::ledger::Rate;
use super::record::{ClientId, Role};
use crate::address::{Address, ShmAddress};
use crate::error::Error;

/// One client of a sequencer.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub(crate) id: ClientId,
    pub(crate) address: String,
    pub(crate) admission: Admission,
    pub(crate) silence: Option<Duration>,
    pub(crate) owner: Option<u32>,
}

impl ClientOptions {
    /// A trader whose stream is at `address`, without limits.
    pub fn new(id: ClientId, address: impl Into<String>) -> Self {
        let admission = Admission::default();
        Self { id, address: address.into(), admission, silence: None, owner: None }
    }

    /// What it may do; [`Role::Trader`] by default.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.admission.role = role;
        self
    }

    /// How often it may send commands; more are refused. Without limit by default.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.admission.rate = Some(rate);
        self
    }

    /// It counts as gone if nothing is heard of it for so long, be it a heartbeat. By default only
    /// its lease counts (`shm:`), or three seconds' silence of its stream (`udp:`).
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    /// The user id that has to own its ring; anybody's by default. Of `shm:` addresses only.
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }
}

/// How a sequencer works; the same for all that stand by for one stream.
#[derive(Clone, Debug)]
pub struct SequencerOptions {
    pub(crate) output: String,
    pub(crate) clients: Vec<ClientOptions>,
    pub(crate) tick: Duration,
    pub(crate) quota: usize,
    pub(crate) patience: Duration,
    pub(crate) checkpoint_records: u64,
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) snapshot_records: u64,
}

impl SequencerOptions {
    /// Writes the stream at `output`: a lossless `shm:` address, or a `udp:` one with a named
    /// `ring` (which is what stands by on this host follows).
    pub fn new(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            clients: Vec::new(),
            tick: Duration::from_millis(1),
            quota: 32,
            patience: Duration::from_secs(1),
            checkpoint_records: 1 << 20,
            snapshots: None,
            snapshot_records: 1 << 16,
        }
    }

    /// One more client.
    #[must_use]
    pub fn client(mut self, client: ClientOptions) -> Self {
        self.clients.push(client);
        self
    }

    /// After so long without a record, one is written to say what time it is; 1 ms by default, at
    /// least 1 µs. Clients take a sequencer that says nothing for a second for gone.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick.max(Duration::from_micros(1));
        self
    }

    /// How many frames a client may bring in its turn, at least 1; 32 by default. A flood of one
    /// client so holds the others up by no more than that many commands a turn.
    #[must_use]
    pub fn quota(mut self, frames: usize) -> Self {
        self.quota = frames.max(1);
        self
    }

    /// A reader that holds the stream up for so long is thrown out, if the output is an
    /// `evictable=yes` ring: a standby that was stopped, a client that does not poll. One second by
    /// default. Other rings wait for it.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A hash of the whole state is written each so many records, for followers to compare;
    /// 1,048,576 by default, 0 for never. It takes as long as saving the state does.
    #[must_use]
    pub fn checkpoint_records(mut self, records: u64) -> Self {
        self.checkpoint_records = records;
        self
    }

    /// The directory of snapshots: the newest is begun with, and one is written each so many
    /// records ([`snapshot_records`](Self::snapshot_records)) while following. None by default.
    #[must_use]
    pub fn snapshots(mut self, directory: impl Into<PathBuf>) -> Self {
        self.snapshots = Some(directory.into());
        self
    }

    /// Records between two snapshots; 65,536 by default, 0 to write none. The stream's ring, or its
    /// log, has to hold more than that for a start to find the rest.
    #[must_use]
    pub fn snapshot_records(mut self, records: u64) -> Self {
        self.snapshot_records = records;
        self
    }
}

/// The output's address, and that of its ring.
pub(super) fn output(text: &str) -> Result<(Address, ShmAddress), SequencerError> {
    let unusable = |reason| SequencerError::Unusable { stream: text.to_owned(), reason };
    let address: Address = text.parse().map_err(|error| SequencerError::Open {
        stream: text.to_owned(),
        error: Error::from(error),
    })?;
    if address.is_enveloped() {
        return Err(unusable("records travel without envelopes"));
    }
    let ring = match &address {
        Address::Shm(shm) => shm.clone(),
        Address::Udp(udp) if udp.ring_name().is_some() => udp.ring.clone(),
        Address::Udp(_) => return Err(unusable("name its ring, as in udp:…?ring=NAME")),
        Address::Log(_) => return Err(unusable("a log cannot be written to: record the stream")),
    };
    if ring.ring.is_lossy() {
        return Err(unusable("a lossy stream has gaps"));
    }
    Ok((address, ring))
}
