//! gapless: every consumer sees the same messages, in the same order, without a gap.
//!
//! A **stream** is one totally ordered sequence of messages written by one publisher. On one host
//! it lives in a shared-memory ring: [`Publisher::open`] and [`Subscriber::open`] with the same
//! address, in any two processes (or threads), in any order of start.
//!
//! ```
//! use gapless::{Publisher, Subscriber};
//! # let dir = tempfile::tempdir()?;
//! # let address = format!("shm:orders?capacity=64K&dir={}", dir.path().display());
//! // let address = "shm:orders";
//! let mut publisher = Publisher::open(&address)?;
//! let mut subscriber = Subscriber::open(&address)?;
//!
//! publisher.try_publish(b"buy 100 SBER")?;
//! let handled = subscriber.poll(64, |message| {
//!     assert_eq!((message.sequence, message.payload), (1, &b"buy 100 SBER"[..]));
//! })?;
//! assert_eq!(handled, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | write a stream | [`Publisher`]; larger messages as [`Fragments`] |
//! | read a stream | [`Subscriber`]; whole large messages by a [`Reassembler`] |
//! | read many streams fairly | [`Merge`] |
//! | name a stream and its options | [`Address`] |
//! | run a duty cycle on a pinned, named thread | [`Agent`], [`AgentRunner`] |
//! | measure time across processes | [`TscClock`] |
//! | move datagrams: sockets, multicast, floods | [`net`] |
//! | record a stream, and replay it | [`log`] |
//! | make many streams one, in a total order, with a hot standby | [`sequencer`] |
//! | take orders: validate, check risk, match, fold positions, audit | [`order`] |
//! | everything about the ring itself | [`shm`] |
//!
//! Not here: brokers, daemons, background threads. Nothing on the path of a message allocates,
//! locks, logs or makes a system call.

#![deny(unsafe_code)] // `net`, which talks to the kernel, says where it expects it

mod address;
mod agent;
mod clock;
mod cpu;
mod durable;
mod error;
mod fragment;
mod joining;
pub mod log;
mod merge;
pub mod net;
pub mod order;
pub mod protocol;
mod publisher;
mod recorder_page;
mod revival;
pub mod sequencer;
mod subscriber;
pub mod wire;

pub use address::{Address, AddressError, LogAddress, ShmAddress, UdpAddress};
pub use agent::{Agent, AgentRunner, Ended, RunnerOptions};
pub use clock::{Calibration, Clock, ManualClock, TscClock, UnixClock};
pub use cpu::{PinError, available_cores, pin_current_thread};
pub use durable::DurableError;
pub use error::{Error, PollError};
pub use fragment::{Fragments, Part, Reassembler};
/// The ring itself, for those who want more of it than [`Publisher`] and [`Subscriber`] offer.
pub use gapless_shm as shm;
pub use gapless_shm::{Flags, Message, PublishError, WaitStrategy, Waiter};
pub use merge::{Merge, MergeError};
pub use publisher::{Batch, Claim, Publisher};
pub use subscriber::Subscriber;
