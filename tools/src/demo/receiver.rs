//! The demo's receiving process: the stream through a bad line, to its end, every message accounted
//! for.

use anyhow::bail;
use gapless::net::SocketSet;
use gapless::net::{Backend, Datagrams, Direction, FaultCounters, Faults, Faulty, Network};
use gapless::protocol::Event;
use gapless::wire::Inlet;
use gapless::{Address, TscClock, pin_current_thread};

use super::publisher::STAMP_BYTES;
use super::wire::{Injected, Received, Told};
use super::{hosts, troupe};
use crate::digest::Digest;
use crate::exit::Outcome;
use crate::latency::Recorder;

/// Datagrams of one poll.
const POLL_LIMIT: usize = 256;
/// The line is as bad in every run.
pub(super) const SEED: u64 = 20_130_801;
pub(super) const FAULTS: Faults = Faults {
    loss: 0.01,
    burst: 0.0,
    burst_datagrams: 0,
    duplicate: 0.01,
    reorder: 0.01,
    reorder_by: 3,
    corrupt: 0.0,
};
/// A sender that has not been heard of for so long is gone, ns.
const SILENCE_NS: u64 = 5_000_000_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    #[arg(long)]
    namespace: Option<String>,
    #[arg(long)]
    core: Option<usize>,
    /// Read the clock at each message.
    #[arg(long)]
    latency: bool,
    /// The stream ends in front of this, whatever a line says.
    #[arg(long)]
    until: Option<u64>,
    /// Give the core away at each empty poll.
    #[arg(long = "yield")]
    yields: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    hosts::enter(args.namespace.as_deref())?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let Address::Udp(address) = &args.address else { bail!("{}: not udp", args.address) };
    let network = Faulty::new(Network::open(Backend::Socket)?, SEED);
    let mut inlet = Inlet::open_over(network, address)?;
    inlet.network().set(Direction::Receive, SocketSet::all(), FAULTS);
    troupe::tell(&Told::Ready)?;

    let mut account = Account::new(args.latency)?;
    account.read_to_end(&mut inlet, args)?;
    let counts = *inlet.counts();
    let next_sequence = inlet.next_sequence();
    let wins = [0, 1].map(|line| inlet.line(line).map_or(0, |line| line.wins));
    let sockets = address.lines().len();
    let injected = (0..=sockets).map(|s| inlet.network().counters(Direction::Receive, s));
    let injected = injected.fold(Injected::default(), Injected::plus);
    report_for_a_while(&mut inlet)?;
    troupe::tell(&Told::Received(Box::new(Received {
        first_sequence: account.first,
        next_sequence,
        messages: account.digest.messages(),
        bytes: account.digest.bytes(),
        digest: account.digest.text(),
        end_ticks: account.end_ticks,
        lost: account.lost,
        gaps: counts.gaps,
        missed: counts.missed,
        reordered: counts.reordered,
        repaired: counts.repaired,
        duplicates: counts.duplicates,
        requests: counts.requests,
        wins,
        injected,
        repairs: account.repairs,
        repair: (account.repairs > 0).then(|| account.repair.latency()),
        latency: args.latency.then(|| account.latency.latency()),
    })))?;
    Ok(Outcome::Sound)
}

struct Account {
    clock: TscClock,
    digest: Digest,
    stamped: bool,
    latency: Recorder,
    repair: Recorder,
    repairs: u64,
    first: u64,
    lost: u64,
    /// When the last poll that found something was through with it.
    end_ticks: u64,
}

impl Account {
    fn new(stamped: bool) -> anyhow::Result<Self> {
        Ok(Self {
            clock: TscClock::new(),
            digest: Digest::new(),
            stamped,
            latency: Recorder::new()?,
            repair: Recorder::new()?,
            repairs: 0,
            first: 0,
            lost: 0,
            end_ticks: 0,
        })
    }

    #[inline]
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Message { payload, .. } => {
                let stamp = payload.first_chunk::<STAMP_BYTES>().filter(|_| self.stamped);
                if let Some(stamp) = stamp {
                    let due_ticks = u64::from_le_bytes(*stamp);
                    self.latency.record(self.clock.ns_between(due_ticks, self.clock.ticks()));
                }
                self.digest.add(payload);
            }
            Event::Joined { next, .. } => self.first = next,
            Event::Lost { count, .. } => self.lost += count,
            _ => {}
        }
    }

    fn read_to_end<D: Datagrams>(
        &mut self,
        inlet: &mut Inlet<D>,
        args: &Args,
    ) -> anyhow::Result<()> {
        loop {
            let taken = inlet.poll(POLL_LIMIT, |event| {
                self.take(event);
                true
            })?;
            for ns in inlet.receiver().take_repairs() {
                self.repair.record(ns);
                self.repairs += 1;
            }
            if taken > 0 {
                self.end_ticks = self.clock.ticks();
            } else if args.yields {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            let ended = inlet.has_ended();
            if args.until.map_or(ended, |until| inlet.next_sequence() >= until) {
                return Ok(());
            }
            if inlet.silent_ns().is_some_and(|ns| ns >= SILENCE_NS) {
                bail!("the sender has fallen silent at {}", inlet.next_sequence());
            }
        }
    }
}

/// The sender ends when it has heard that all has come, which may be lost like anything else.
fn report_for_a_while<D: Datagrams>(inlet: &mut Inlet<D>) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(5) {
        inlet.poll(POLL_LIMIT, |_| true)?;
    }
    Ok(())
}

impl Injected {
    pub(super) fn plus(self, line: FaultCounters) -> Self {
        Self {
            datagrams: self.datagrams + line.entered,
            lost: self.lost + line.lost,
            duplicated: self.duplicated + line.duplicated,
            reordered: self.reordered + line.reordered,
        }
    }
}
