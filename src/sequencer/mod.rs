//! The sequencer: the streams of many clients become one stream, in one total order.
//!
//! Each [`Client`] writes a stream of its own. A [`Sequencer`] reads them all, in turn, and writes
//! one stream of [`Record`]s: each command with its client, the time, and behind it the events that
//! an [`Application`] answers with. Everybody reads that one stream: clients, standbys, risk,
//! audit. A client knows that its command is in when it sees it there.
//!
//! - **Exactly once.** Commands have numbers of their client's; each is sequenced once and in
//!   order, whatever is sent again, by whichever run of the client, to whichever sequencer.
//! - **Deterministic.** The application sees the stream and nothing else. Its time is the records'.
//! - **Hot standby.** A second sequencer follows the stream with an application of its own,
//!   compares each event byte by byte, and goes on when the kernel says that the first one's lease
//!   fell. The lease is the fence: it is that of the stream's ring, so two never both write.
//! - **Nothing but the stream.** What a sequencer knows, it knows from its own output: a restart
//!   reads it again, from the ring, a log or a snapshot.
//!
//! ```
//! use gapless::Agent;
//! use gapless::sequencer::{
//!     Application, Client, ClientId, ClientOptions, Events, Kind, LoadError, Record, Sequencer,
//!     SequencerOptions,
//! };
//!
//! /// Counts commands, and says to each client the how-manieth its command was.
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl Application for Counter {
//!     fn apply(&mut self, record: &Record<'_>, events: &mut Events) {
//!         if record.kind == Kind::Command {
//!             self.0 += 1;
//!             events.push(record.client, &self.0.to_le_bytes());
//!         }
//!     }
//!     fn save(&self, out: &mut Vec<u8>) {
//!         out.extend_from_slice(&self.0.to_le_bytes());
//!     }
//!     fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
//!         let bytes = saved.try_into().map_err(|_| LoadError { what: "a count of 8 bytes" })?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! # let at = |name: &str| format!("shm:{name}?capacity=64K&dir={}", dir.path().display());
//! let options = SequencerOptions::new(at("sequenced"))
//!     .client(ClientOptions::new(ClientId(7), at("client-7")));
//! let mut sequencer = Sequencer::open(options, Counter::default())?;
//! sequencer.duty_cycle()?; // leads: nobody else does
//!
//! let mut client = Client::open(ClientId(7), &at("client-7"), &at("sequenced"))?;
//! while !client.is_ready() {
//!     sequencer.duty_cycle()?;
//!     client.poll(64, |_| ())?;
//! }
//! let number = client.submit(b"buy")?;
//! let mut answer = None;
//! while answer.is_none() {
//!     sequencer.duty_cycle()?;
//!     client.poll(64, |record| {
//!         if record.kind == Kind::Event && record.client == ClientId(7) {
//!             answer = Some(record.payload.to_vec());
//!         }
//!     })?;
//! }
//! assert_eq!((number, answer), (1, Some(1_u64.to_le_bytes().to_vec())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod application;
mod client;
mod client_stream;
mod core;
mod divergence;
mod error;
mod frame;
mod image;
mod ledger;
mod node;
mod options;
mod outbox;
mod record;
mod replica;
#[cfg(test)]
pub(crate) mod simulation;
mod snapshot;
mod standing;
#[cfg(test)]
mod tests;
mod window;

pub use self::core::Admission;
pub use application::{Application, EVENT_BYTES_MAX, Events, LoadError};
pub use client::Client;
pub use divergence::Divergence;
pub use error::{ClientError, SequencerError, SnapshotError, SubmitError};
pub use image::{ImageReader, ImageWriter};
pub use ledger::Rate;
pub use node::Sequencer;
pub use options::{ClientOptions, SequencerOptions};
pub use record::{ClientId, Kind, Leaving, Record, RecordError, Refusal, Role, STAMP_BYTES};
pub use replica::Replica;
pub use snapshot::snapshot_streams;
pub use standing::{Election, KernelLease, SequencerStats, Standing};
