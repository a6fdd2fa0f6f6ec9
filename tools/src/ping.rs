//! `gapless ping` and `gapless pong`: the round trip between two processes over two rings,
//! `NAME.ping` there and `NAME.pong` back.
//!
//! Each side creates its ring and joins the other's at its newest message, so neither order of
//! start nor what an earlier run left behind matters: ping greets until pong answers, and both know
//! this run's messages by its number.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use gapless::shm::{Consumer, ProducerStatus, RingError, Start};
use gapless::{Address, Publisher, ShmAddress, TscClock, Waiter, pin_current_thread};

use crate::exit::Outcome;
use crate::latency::{self, Recorder};
use crate::progress;
use crate::stop::Stop;
use crate::table::{Cell, Table, bytes_text, messages_text, print_json};

/// Run and number of the message, 8 bytes each.
const LABEL_BYTES: u32 = 16;
/// Number of a greeting.
const GREETING: u64 = u64::MAX;
/// Greetings follow each other at this interval until one is answered.
const GREETING_INTERVAL: Duration = Duration::from_millis(10);
/// How often to look for a ring that does not exist yet.
const ATTACH_INTERVAL: Duration = Duration::from_millis(2);
/// A quiet partner is asked whether it lives after this often.
const STATUS_INTERVAL: Duration = Duration::from_millis(1);
/// Messages of one poll.
const POLL_LIMIT: usize = 64;

/// Measure the round trip to a `gapless pong`
///
/// Sends a message, waits for its echo, sends the next. Uses the rings NAME.ping and NAME.pong of
/// the ADDRESS's name; pong may be started before or after. Options in the address apply to both
/// rings: with fewer than two free cores use `wait=yield`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless pong shm:echo --core 1 & gapless ping shm:echo --core 0
  gapless ping shm:echo --size 1024 --count 1000000
  gapless ping shm:echo --rate 1000 --json

With --rate or --interval-us each round trip counts from the time its message was due, so that one
slow answer does not hide those that it made late.")]
pub(crate) struct PingArgs {
    /// The pair of streams, as shm:NAME
    address: Address,
    /// Round trips to measure
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 48)]
    #[arg(value_parser = clap::value_parser!(u32).range(i64::from(LABEL_BYTES)..=1 << 20))]
    size: u32,
    /// Round trips a second [default: one after the other]
    #[arg(long, value_name = "R", conflicts_with = "interval_us")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Microseconds from one message to the next, instead of a rate
    #[arg(long, value_name = "US")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=60_000_000))]
    interval_us: Option<u64>,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Answer a `gapless ping`: send every message back as it is
///
/// Ends when the ping that it answered has ended.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless pong shm:echo
  gapless pong 'shm:echo?wait=yield' --core 1 --forever")]
pub(crate) struct PongArgs {
    /// The pair of streams, as shm:NAME
    address: Address,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Answer one ping after the other, until ctrl-c
    #[arg(long)]
    forever: bool,
}

/// Our ring to write, the other's to read.
struct Link {
    publisher: Publisher,
    consumer: Consumer,
    waiter: Waiter,
}

impl Link {
    /// `None` if asked to stop before the other side came.
    fn open(
        address: &Address,
        core: Option<usize>,
        ours: &str,
        theirs: &str,
        stop: &Stop,
    ) -> anyhow::Result<Option<Self>> {
        if let Some(core) = core {
            pin_current_thread(core)?;
        }
        let Address::Shm(shm) = address else {
            bail!("ping and pong need rings");
        };
        let publisher = Publisher::open(&address_of(shm, address, ours))?;
        let name = format!("{}.{theirs}", shm.name());
        let options = shm.consumer_options().clone().start(Start::Now);
        let spinner = progress::spinner(format!("waiting for {name}"));
        loop {
            match options.attach(&name) {
                Ok(consumer) => {
                    spinner.finish_and_clear();
                    let waiter = Waiter::new(shm.wait_strategy());
                    return Ok(Some(Self { publisher, consumer, waiter }));
                }
                Err(RingError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if stop.asked() {
                return Ok(None);
            }
            sleep(ATTACH_INTERVAL);
        }
    }

    /// Publishes; a full ring is waited out (its reader lives, or loses its slot).
    fn send(&mut self, message: &[u8], stop: &Stop) -> anyhow::Result<()> {
        loop {
            match self.publisher.try_publish(message) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_backpressure() && !stop.asked() => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The same address with `.suffix` behind its name.
fn address_of(shm: &ShmAddress, address: &Address, suffix: &str) -> String {
    let text = address.to_string();
    let options = text.split_once('?').map_or(String::new(), |(_, options)| format!("?{options}"));
    format!("shm:{}.{suffix}{options}", shm.name())
}

fn label(run: u64, number: u64) -> [u8; LABEL_BYTES as usize] {
    let mut label = [0; LABEL_BYTES as usize];
    let (run_bytes, number_bytes) = label.split_at_mut(8);
    run_bytes.copy_from_slice(&run.to_le_bytes());
    number_bytes.copy_from_slice(&number.to_le_bytes());
    label
}

pub(crate) fn ping(args: &PingArgs) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let clock = TscClock::new();
    let Some(link) = Link::open(&args.address, args.core, "ping", "pong", &stop)? else {
        bail!("interrupted");
    };
    // Two runs with the same number would have to start in the same tick.
    let mut pinger =
        Pinger { link, stop, run: clock.ticks(), message: vec![0; args.size as usize] };
    pinger.greet()?;
    let interval_ns = match (args.rate, args.interval_us) {
        (Some(rate), _) => 1e9 / rate as f64,
        (None, Some(us)) => us as f64 * 1e3,
        (None, None) => 0.0,
    };
    let warm_up = (args.count / 10).min(10_000);
    for number in 0..warm_up {
        pinger.round_trip(number)?;
    }
    let mut recorder = Recorder::new()?;
    let bar = progress::bar(args.count, "pinging");
    let start = clock.ticks();
    for number in 0..args.count {
        let due_ns = (number as f64 * interval_ns) as u64;
        let mut sent = clock.ticks();
        let mut late_ns = 0;
        if interval_ns > 0.0 {
            while clock.ns_between(start, sent) < due_ns {
                if pinger.stop.asked() {
                    bail!("interrupted");
                }
                std::hint::spin_loop();
                sent = clock.ticks();
            }
            late_ns = clock.ns_between(start, sent) - due_ns;
        }
        pinger.round_trip(warm_up + number)?;
        recorder.record(late_ns + clock.ns_between(sent, clock.ticks()));
        if number % 65_536 == 0 {
            bar.set_position(number);
        }
    }
    bar.finish_and_clear();
    print(args, &recorder)?;
    Ok(Outcome::Sound)
}

fn print(args: &PingArgs, recorder: &Recorder) -> io::Result<()> {
    let mut columns = vec![("round_trips", "round trips"), ("message_bytes", "message")];
    columns.extend(latency::COLUMNS);
    let mut table = Table::new(&columns);
    let mut row = vec![Cell::count(args.count), Cell::bytes(args.size.into())];
    row.extend(recorder.latency().cells());
    table.row(row);
    if args.json { print_json(&table.json()[0]) } else { table.print() }
}

struct Pinger {
    link: Link,
    stop: Stop,
    run: u64,
    message: Vec<u8>,
}

impl Pinger {
    /// Greets until there is an answer.
    fn greet(&mut self) -> anyhow::Result<()> {
        let spinner = progress::spinner("waiting for an answer");
        loop {
            self.send(GREETING)?;
            let sent = Instant::now();
            while sent.elapsed() < GREETING_INTERVAL {
                if self.heard(GREETING)? {
                    spinner.finish_and_clear();
                    return Ok(());
                }
                self.link.waiter.wait(&self.link.consumer);
            }
            if self.stop.asked() {
                bail!("interrupted");
            }
        }
    }

    /// Sends one message and waits for its echo.
    #[inline]
    fn round_trip(&mut self, number: u64) -> anyhow::Result<()> {
        self.send(number)?;
        self.link.waiter.reset();
        let mut empty_polls = 0u32;
        let mut quiet_since = None;
        while !self.heard(number)? {
            self.link.waiter.wait(&self.link.consumer);
            empty_polls += 1;
            // The clock is read seldom, so that it does not delay the next poll.
            if empty_polls.is_multiple_of(256) {
                self.check_partner(quiet_since.get_or_insert_with(Instant::now))?;
            }
        }
        Ok(())
    }

    fn check_partner(&self, quiet_since: &mut Instant) -> anyhow::Result<()> {
        if quiet_since.elapsed() < STATUS_INTERVAL {
            return Ok(());
        }
        *quiet_since = Instant::now();
        if self.stop.asked() {
            bail!("interrupted");
        }
        if self.link.consumer.producer_status() != ProducerStatus::Alive {
            bail!("pong has gone");
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        self.message[..LABEL_BYTES as usize].copy_from_slice(&label(self.run, number));
        self.link.send(&self.message, &self.stop)
    }

    /// Whether the echo of `number` is among what has come.
    #[inline]
    fn heard(&mut self, number: u64) -> anyhow::Result<bool> {
        let expected = label(self.run, number);
        let mut heard = false;
        self.link.consumer.poll(POLL_LIMIT, |message| {
            heard |= message.payload.starts_with(&expected);
        })?;
        Ok(heard)
    }
}

pub(crate) fn pong(args: &PongArgs) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let Some(mut link) = Link::open(&args.address, args.core, "pong", "ping", &stop)? else {
        bail!("interrupted");
    };
    let mut answered = 0u64;
    let mut bytes = 0u64;
    let mut quiet_since: Option<Instant> = None;
    let mut status = ProducerStatus::Alive;
    while !stop.asked() {
        let Link { publisher, consumer, waiter } = &mut link;
        let mut failed = None;
        let polled = consumer.poll(POLL_LIMIT, |message| {
            let on_backpressure = || {
                std::thread::yield_now();
                !stop.asked()
            };
            failed = publisher.publish(message.payload, on_backpressure).err().or(failed);
            bytes += message.payload.len() as u64;
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if polled > 0 {
            answered += polled as u64;
            (quiet_since, status) = (None, ProducerStatus::Alive);
            waiter.reset();
            continue;
        }
        if status != ProducerStatus::Alive {
            break; // and nothing has come since it was asked
        }
        waiter.wait(consumer);
        let quiet = quiet_since.get_or_insert_with(Instant::now);
        // Before the first message the ring may be one that an earlier ping left behind.
        if quiet.elapsed() >= STATUS_INTERVAL && answered > 0 && !args.forever {
            *quiet = Instant::now();
            status = consumer.producer_status();
        }
    }
    let text = format!("answered {}, {}", messages_text(answered), bytes_text(bytes));
    writeln!(io::stderr(), "{text}")?;
    Ok(Outcome::wrong_if(status == ProducerStatus::Dead))
}
