//! The process that joins the demo's far host to the near one, over a bad line: the sequenced
//! stream comes in by multicast and goes into a ring there, a client's commands go out of a ring
//! and leave by multicast. What is lost either way is repaired.

use std::sync::atomic::Ordering;

use anyhow::bail;
use gapless::net::{Backend, Direction, FaultCounters, Faulty, Network, SocketSet};
use gapless::shm::{ConsumerOptions, RingError};
use gapless::wire::{ReceiverAgent, SenderAgent};
use gapless::{Address, Agent};

use super::receiver::{FAULTS, SEED};
use super::trading::{Bridged, Told};
use super::wire::Injected;
use super::{hosts, troupe};
use crate::exit::Outcome;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The sequenced stream: from the group, into the ring.
    #[arg(long, num_args = 2)]
    stream: Vec<Address>,
    /// A client's commands: out of the ring, to the group.
    #[arg(long, num_args = 2)]
    commands: Vec<Address>,
    #[arg(long)]
    namespace: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    hosts::enter(args.namespace.as_deref())?;
    let [Address::Udp(from), Address::Shm(to)] = &args.stream[..] else {
        bail!("--stream: a group, and a ring");
    };
    let [Address::Shm(ring), Address::Udp(out)] = &args.commands[..] else {
        bail!("--commands: a ring, and a group");
    };
    let network = Faulty::new(Network::open(Backend::Socket)?, SEED);
    let mut receiver = ReceiverAgent::open_over(network, from, to)?;
    receiver.inlet().network().set(Direction::Receive, SocketSet::all(), FAULTS);
    let mut sender: Option<SenderAgent<Faulty<Network>>> = None;
    let cued = troupe::cue_of(true);
    let mut ready = false;
    while !cued.load(Ordering::Relaxed) {
        let mut work = receiver.duty_cycle()?;
        if !ready && receiver.producer().is_some() {
            ready = true;
            troupe::tell(&Told::Ready)?;
        }
        match &mut sender {
            Some(sender) => work += sender.duty_cycle()?,
            None => {
                let attach = ConsumerOptions::new().directory(ring.directory()).name("bridge");
                match attach.attach(ring.name()) {
                    Ok(consumer) => {
                        let network = Faulty::new(Network::open(Backend::Socket)?, SEED + 1);
                        let mut opened = SenderAgent::open_over(network, out, consumer)?;
                        opened.network().set(Direction::Send, SocketSet::all(), FAULTS);
                        sender = Some(opened);
                    }
                    Err(RingError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if work == 0 {
            std::thread::yield_now();
        }
    }
    let (counts, inlet) = (*receiver.inlet().counts(), from.lines().len());
    let injected = |network: &Faulty<Network>, direction, sockets: usize| {
        let all = (0..=sockets).map(|socket| network.counters(direction, socket));
        all.fold(Injected::default(), |sum, line: FaultCounters| sum.plus(line))
    };
    let inward = injected(receiver.inlet().network(), Direction::Receive, inlet);
    let outward = sender.as_mut().map(|sender| injected(sender.network(), Direction::Send, 1));
    troupe::tell(&Told::Bridged(Bridged {
        inward,
        outward: outward.unwrap_or_default(),
        gaps: counts.gaps,
        repaired: counts.repaired,
    }))?;
    Ok(Outcome::Sound)
}
