//! The demo's sending process: the sample as a multicast stream, or both lines of the feed as two.
//!
//! A message of the stream is what it is in the ring's acts: the time at which it was due and
//! behind that the market data. The lines are sent as they were captured, under their own numbers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use gapless::shm::{ConsumerOptions, Producer, RingOptions};
use gapless::wire::SenderAgent;
use gapless::{Address, Agent, Publisher, TscClock, UdpAddress, pin_current_thread};

use super::wire::{Sent, Told};
use super::{hosts, sample, troupe};
use crate::digest::Digest;
use crate::exit::Outcome;

/// Somebody has to listen within this.
const RECEIVER_LIMIT: Duration = Duration::from_secs(10);
/// Messages that leave together, flat out.
const BATCH_MESSAGES: u64 = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    /// Line B; then both lines are sent, each once.
    #[arg(long)]
    line_b: Option<Address>,
    #[arg(long)]
    namespace: Option<String>,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 0)]
    messages: u64,
    #[arg(long)]
    rate: Option<u64>,
    /// Give the core away while waiting.
    #[arg(long = "yield")]
    yields: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    hosts::enter(args.namespace.as_deref())?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let clock = TscClock::new();
    let ticks_per_second = clock.calibration(Duration::from_millis(20)).ticks_per_second;
    let ticks_per_message = args.rate.map(|rate| ticks_per_second / rate as f64);
    let sent = match &args.line_b {
        Some(b) => send_lines(args, b, &clock, ticks_per_message.unwrap_or(0.0))?,
        None => send_stream(args, &clock, ticks_per_message)?,
    };
    troupe::tell(&Told::Sent(sent))?;
    Ok(Outcome::Sound)
}

fn send_stream(args: &Args, clock: &TscClock, pace: Option<f64>) -> anyhow::Result<Sent> {
    let sample = sample::messages();
    let mut publisher = Publisher::open_at(&args.address)?;
    let from = Instant::now();
    while publisher.sender().is_some_and(|sender| sender.receivers().next().is_none()) {
        publisher.poll()?;
        told_off(from)?;
    }
    let mut digest = Digest::new();
    let mut message = Vec::new();
    let start_ticks = clock.ticks();
    for (number, body) in (0..args.messages).zip(sample.iter().cycle()) {
        let due_ticks = start_ticks + pace.map_or(0, |ticks| (number as f64 * ticks) as u64);
        while pace.is_some() && clock.ticks() < due_ticks {
            publisher.poll()?;
            pause(args.yields);
        }
        message.clear();
        message.extend_from_slice(&due_ticks.to_le_bytes());
        message.extend_from_slice(body);
        digest.add(&message);
        loop {
            match publisher.producer().try_publish(&message) {
                Ok(_) => break,
                Err(error) if error.is_backpressure() => {
                    publisher.poll()?;
                    pause(args.yields);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if pace.is_some() || number % BATCH_MESSAGES == BATCH_MESSAGES - 1 {
            publisher.poll()?;
        }
    }
    while publisher.sender().is_some_and(|sender| sender.next_sequence() <= args.messages) {
        publisher.poll()?;
    }
    // What is asked for while the stream ends is counted as far as it goes.
    let counts = publisher.sender().map(|sender| *sender.counts()).unwrap_or_default();
    publisher.close()?;
    Ok(Sent {
        messages: digest.messages(),
        bytes: digest.bytes(),
        digest: digest.text(),
        start_ticks,
        packets: counts.packets,
    })
}

/// One line of the feed.
struct Line {
    producer: Producer,
    agent: SenderAgent,
    messages: Vec<&'static [u8]>,
    first: u64,
}

impl Line {
    fn open(
        args: &Args,
        address: &Address,
        session: u64,
        (messages, first): (Vec<&'static [u8]>, u64),
    ) -> anyhow::Result<Self> {
        let Address::Udp(udp) = address else { bail!("{address}: a line is sent by udp") };
        let udp: &UdpAddress = udp;
        let name = format!("line-{}", udp.lines()[0].port());
        let options = RingOptions::new().directory(&args.dir).session(session);
        let producer = options.first_sequence(first).create(&name)?;
        let ring = ConsumerOptions::new().directory(&args.dir).name("sender").attach(&name)?;
        Ok(Self { producer, agent: SenderAgent::open(udp, ring)?, messages, first })
    }

    /// Publishes the message of this number, if the line has it.
    fn publish(&mut self, sequence: u64) -> anyhow::Result<()> {
        let index = sequence.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        if let Some(message) = index.and_then(|index| self.messages.get(index)) {
            self.producer.try_publish(message)?; // the ring holds all of it
        }
        Ok(())
    }
}

fn send_lines(args: &Args, b: &Address, clock: &TscClock, pace: f64) -> anyhow::Result<Sent> {
    let session = clock.ticks() % 36_u64.pow(10);
    let mut lines = [
        Line::open(args, &args.address, session, (sample::messages(), sample::FIRST_A))?,
        Line::open(args, b, session, (sample::messages_b(), sample::FIRST_B))?,
    ];
    let from = Instant::now();
    while lines.iter().all(|line| line.agent.receivers().next().is_none()) {
        for line in &mut lines {
            line.agent.duty_cycle()?;
        }
        told_off(from)?;
    }
    let mut digest = Digest::new();
    let start_ticks = clock.ticks();
    for (number, message) in (0..).zip(sample::both_lines()) {
        let due_ticks = start_ticks + (number as f64 * pace) as u64;
        loop {
            for line in &mut lines {
                line.agent.duty_cycle()?;
            }
            if clock.ticks() >= due_ticks {
                break;
            }
            pause(args.yields);
        }
        digest.add(message);
        for line in &mut lines {
            line.publish(sample::FIRST_A + number)?;
        }
    }
    for line in &mut lines {
        line.agent.send()?;
        line.agent.end();
    }
    // Only one of them is reported to; what counts is the one that goes on for longest.
    let end = lines.iter().map(|line| line.producer.next_sequence()).max();
    let is_longest = |line: &&Line| Some(line.producer.next_sequence()) == end;
    while !lines.iter().filter(is_longest).any(|line| line.agent.is_confirmed())
        && !lines.iter().all(|line| line.agent.is_done())
    {
        for line in &mut lines {
            line.agent.duty_cycle()?;
        }
        pause(args.yields);
    }
    Ok(Sent {
        messages: digest.messages(),
        bytes: digest.bytes(),
        digest: digest.text(),
        start_ticks,
        packets: lines.iter().map(|line| line.agent.counts().packets).sum(),
    })
}

fn told_off(from: Instant) -> anyhow::Result<()> {
    if from.elapsed() > RECEIVER_LIMIT {
        let seconds = RECEIVER_LIMIT.as_secs();
        bail!("no receiver has reported for {seconds} s: does multicast pass here?");
    }
    Ok(())
}

#[inline]
fn pause(yields: bool) {
    if yields {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
