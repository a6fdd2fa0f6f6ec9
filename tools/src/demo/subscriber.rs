//! A subscribing process of the demo: reads to the end of the stream, in place, and accounts for
//! every message.

use gapless::shm::ProducerStatus;
use gapless::{Address, PollError, Subscriber, TscClock, pin_current_thread};

use super::publisher::STAMP_BYTES;
use super::ring::{Received, Told};
use super::troupe;
use crate::digest::Digest;
use crate::exit::Outcome;
use crate::latency::Recorder;

/// Messages of one poll.
const POLL_LIMIT: usize = 256;
/// Empty polls between two questions about the publisher, each of which is a system call.
const EMPTY_POLLS: u32 = 1_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long)]
    name: String,
    /// Read the clock at each message.
    #[arg(long)]
    latency: bool,
    /// Give the core away at each empty poll.
    #[arg(long = "yield")]
    yields: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let clock = TscClock::new();
    let mut subscriber = Subscriber::open_at(&args.address)?;
    troupe::tell(&Told::Ready)?;

    let mut account = Account::new(subscriber.next_sequence())?;
    read_to_end(&mut subscriber, args, &clock, &mut account)?;
    troupe::tell(&Told::Received(Received {
        name: args.name.clone(),
        core: args.core,
        messages: account.digest.messages(),
        bytes: account.digest.bytes(),
        gaps: account.gaps,
        digest: account.digest.text(),
        end_ticks: account.end_ticks,
        latency: args.latency.then(|| account.recorder.latency()),
    }))?;
    Ok(Outcome::Sound)
}

struct Account {
    digest: Digest,
    next_sequence: u64,
    gaps: u64,
    /// When the last poll that found messages was through with them.
    end_ticks: u64,
    recorder: Recorder,
}

impl Account {
    fn new(next_sequence: u64) -> anyhow::Result<Self> {
        Ok(Self {
            digest: Digest::new(),
            next_sequence,
            gaps: 0,
            end_ticks: 0,
            recorder: Recorder::new()?,
        })
    }

    /// Takes a message; with a clock, its age as well.
    #[inline]
    fn take(&mut self, sequence: u64, payload: &[u8], clock: Option<&TscClock>) {
        self.gaps += sequence.abs_diff(self.next_sequence);
        self.next_sequence = sequence + 1;
        if let (Some(clock), Some(stamp)) = (clock, payload.first_chunk::<STAMP_BYTES>()) {
            let due_ticks = u64::from_le_bytes(*stamp);
            self.recorder.record(clock.ns_between(due_ticks, clock.ticks()));
        }
        self.digest.add(payload);
    }
}

fn read_to_end(
    subscriber: &mut Subscriber,
    args: &Args,
    clock: &TscClock,
    account: &mut Account,
) -> anyhow::Result<()> {
    let mut empty_polls = 0;
    let mut ended = false;
    loop {
        let polled = subscriber.poll(POLL_LIMIT, |message| {
            account.take(message.sequence, message.payload, args.latency.then_some(clock));
        });
        match polled {
            Ok(0) if ended => return Ok(()),
            Ok(0) => {
                empty_polls += 1;
                if empty_polls % EMPTY_POLLS == 0 {
                    // Asked before the last poll, so that nothing published before the end is left.
                    ended = subscriber.publisher_status() != ProducerStatus::Alive;
                } else if args.yields {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
            Ok(_) => {
                empty_polls = 0;
                account.end_ticks = clock.ticks();
            }
            // The jump in the sequence numbers is counted above.
            Err(PollError::Lapped { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_does_not_come_is_a_gap() {
        let mut account = Account::new(5).expect("an account");
        for sequence in [5, 6, 9, 10] {
            account.take(sequence, b"x", None);
        }
        assert_eq!((account.gaps, account.digest.messages()), (2, 4));
        account.take(10, b"x", None); // one that comes twice is no better
        assert_eq!(account.gaps, 3);
    }
}
