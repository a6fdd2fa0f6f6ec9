//! The ring of gapless: one producer, any number of consumers, variable-length messages, in shared
//! memory.
//!
//! * **One cache line.** A message of up to 56 bytes shares its line with the commit word that
//!   publishes it: reading it costs one transfer between two cores.
//! * **Broadcast.** Every consumer sees every message, in order, with its sequence number. A
//!   lossless ring makes the producer wait for its consumers (it is told, never blocked); a lossy
//!   one laps the slow and tells them exactly what they missed.
//! * **Crash-safe.** Kill any process at any instant: what was committed stays, what was not is
//!   never seen, a dead consumer holds nobody up, and a new producer carries on with the next
//!   sequence number. Who is alive is the kernel's word (open-file-description locks), not a
//!   timeout's.
//! * **Little trust.** Consumers map the data read-only, observers need only read permission, and
//!   every number read from shared memory is checked before it is used: a damaged file gives an
//!   error. Whoever has *write* permission to the file is trusted to keep to the protocol: he could
//!   move another consumer's cursor and so have bytes overwritten that it is reading, or truncate
//!   the file. Give that permission to those you would let stop the stream.
//!
//! What it deliberately is not: there is no multi-producer ring (give every writer a stream of its
//! own and merge), no allocation or system call per message, no thread, no daemon.
//!
//! ```
//! use gapless_shm::{ConsumerOptions, RingOptions, Start};
//! # let dir = tempfile::tempdir()?;
//! let mut producer = RingOptions::new().directory(dir.path()).open("prices")?;
//! let mut consumer = ConsumerOptions::new().directory(dir.path()).name("book").attach("prices")?;
//!
//! producer.try_publish(b"EURUSD 1.0832")?;
//! let read = consumer.poll(64, |message| {
//!     assert_eq!(message.sequence, 1);
//!     assert_eq!(message.payload, b"EURUSD 1.0832");
//! })?;
//! assert_eq!(read, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Beside the rings live **counters pages**: what an agent counts ([`Counters`]), for tools to read
//! without disturbing it ([`CountersReader`]).
//!
//! Both files are described byte by byte in [`layout`].

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "gapless-shm needs 64-bit little-endian Linux: its layout and leases are built on it"
);

mod checkpoint;
mod claim;
mod consumer;
mod copying;
#[cfg(not(loom))]
mod counters;
#[cfg(not(loom))]
mod counters_reader;
#[cfg(not(loom))]
mod directory;
mod error;
#[cfg(not(loom))]
mod file_map;
mod gate;
mod header;
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod histogram;
#[cfg(not(loom))]
mod inspect;
pub mod layout;
#[cfg(not(loom))]
mod lease;
mod lookback;
mod memory;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod page;
mod producer;
mod record;
#[cfg(not(loom))]
mod region;
mod slot;
mod stride;
mod sync;
mod wait;

#[cfg(loom)]
use model as region; // the memory that a ring lives in by default

pub use checkpoint::Place;
pub use claim::{Batch, Claim};
pub use consumer::{Consumer, Message, ProducerStatus, Start};
#[cfg(not(loom))]
pub use counters::{Counters, CountersOptions};
#[cfg(not(loom))]
pub use counters_reader::{CountersReader, CountersSnapshot};
#[cfg(not(loom))]
pub use directory::{
    DEFAULT_DIRECTORY, counters_path, default_directory, list, list_counters, remove,
    remove_counters, ring_path,
};
pub use error::{CountersError, PollError, PublishError, RingError};
#[cfg(not(loom))]
pub use file_map::FileMap;
pub use header::{Header, Mode, session_text};
#[cfg(not(loom))]
pub use heap::Heap;
#[cfg(not(loom))]
pub use histogram::HistogramSnapshot;
#[cfg(not(loom))]
pub use inspect::{ConsumerInfo, Inspector, Record, Snapshot, Verified};
pub use lookback::LookBack;
pub use memory::Memory;
#[cfg(not(loom))]
pub use options::{ConsumerOptions, HeapRing, RingOptions};
pub use producer::{ConsumerView, Producer};
pub use record::{CommitWord, Flags};
#[cfg(not(loom))]
pub use region::{HugePages, LockMemory, Mapped, Residency};
pub use wait::{WaitStrategy, Waiter};
