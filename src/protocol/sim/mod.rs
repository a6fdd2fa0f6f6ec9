//! Simulation: senders and receivers on a bad network, in virtual time, all of it from one seed.
//!
//! A [`Scenario`] says what happens: loss of every kind, reordering, duplicates, damage, delay,
//! partitions, slow and dead receivers, senders that restart with their ring and without, servers
//! that die, storms of requests, forged packets. [`run`] plays it with the very state machines that
//! run in production, and checks after every step that
//!
//! 1. each receiver hands over contiguous sequences from where it joined, and names each exception;
//! 2. the bytes are those that were published;
//! 3. what is said to be lost is not held by any server, or was asked for in vain for as long as
//!    the options say, or the session is over;
//! 4. no publisher is held up by a receiver that is dead, for longer than the timeout;
//! 5. memory stays within the options, nobody sends without end or is due without doing anything;
//!
//! and, after the last fault, that every living receiver catches up and hears of the end.
//!
//! The same seed gives the same events, so a seed that failed is a test.
//!
//! ```
//! use gapless::protocol::sim::{Sabotage, Scenario, run};
//! let report = run(Scenario::random(7))?;
//! assert_eq!(report, run(Scenario::random(7))?);
//!
//! // And it does look: a receiver that swallows a message is found.
//! let sabotage = Some(Sabotage::Swallow);
//! assert!(run(Scenario { sabotage, ..Scenario::random(7) }).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The [`Network`] alone serves to test other protocols, or handlers, in the same way.

mod hostile;
mod network;
mod node;
mod scenario;
mod stream;
mod watch;
mod world;

pub use network::{Faults, Network, NetworkCounts};
pub use scenario::{Action, Place, Sabotage, Scenario};

use thiserror::Error;

/// How a simulation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Differs if any event differed.
    pub digest: u64,
    /// Datagrams that arrived somewhere.
    pub datagrams: u64,
    /// Datagrams that did not.
    pub lost: u64,
    /// Messages handed over, by all receivers.
    pub messages: u64,
    /// Losses told, by all receivers.
    pub losses: u64,
    /// Instants at which something happened.
    pub steps: u64,
}

/// Something happened that must not.
#[derive(Clone, Debug, Error)]
#[error("seed {seed}, {at_ns} ns from the start, step {steps}: {what}\n{scenario:#?}")]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub what: String,
    /// When, ns from the start.
    pub at_ns: u64,
    /// In which step.
    pub steps: u64,
    /// The scenario.
    pub scenario: Box<Scenario>,
}

/// Plays a scenario to its end.
///
/// # Errors
/// [`Violation`] says what happened that must not.
///
/// # Panics
/// If the scenario's options are out of their ranges, or it speaks of a host that it does not have.
pub fn run(scenario: Scenario) -> Result<Report, Violation> {
    world::World::new(scenario).run()
}
