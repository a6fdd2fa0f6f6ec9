//! `gapless ping` and `gapless pong`: the round trip between two processes over two rings,
//! `NAME.ping` there and `NAME.pong` back, or over datagrams there and back.
//!
//! Each side creates its stream and joins the other's at its newest message, so neither order of
//! start nor what an earlier run left behind matters: ping greets until pong answers, and both know
//! this run's messages by its number.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gapless::shm::{ProducerStatus, RingError};
use gapless::{Address, Error, PollError, Publisher, Subscriber, TscClock, pin_current_thread};

use crate::exit::{Outcome, Usage};
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
/// Options of a `udp:` address that cannot serve both directions.
const ONE_WAY_OPTIONS: [&str; 7] = ["b", "ifaceb", "also", "bind", "ring", "stats", "session"];

/// Measure the round trip to a `gapless pong`
///
/// Sends a message, waits for its echo, sends the next. Uses the rings NAME.ping and NAME.pong of
/// the ADDRESS's name; of datagrams, ADDRESS and, for the way back, the next port of the same group
/// or host, or whatever --back says. Pong may be started before or after. Options in the address
/// apply to both ways: with fewer than two free cores use `wait=yield`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless pong shm:echo --core 1 & gapless ping shm:echo --core 0
  gapless ping shm:echo --size 1024 --count 1000000
  gapless ping shm:echo --rate 1000 --json
  gapless ping udp:239.1.2.3:9000?iface=eth0           there on port 9000, back on 9001
  gapless ping udp:10.0.0.2:9000 --back udp:10.0.0.1:9000    each to the other's own address

With --rate or --interval-us each round trip counts from the time its message was due, so that one
slow answer does not hide those that it made late.")]
pub(crate) struct PingArgs {
    /// The pair of streams, as shm:NAME or udp:239.1.2.3:9000
    address: Address,
    /// Where echoes go, if not where ADDRESS implies; the same for ping and pong
    #[arg(long, value_name = "ADDRESS")]
    back: Option<Address>,
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
  gapless pong 'shm:echo?wait=yield' --core 1 --forever
  gapless pong udp:10.0.0.2:9000 --back udp:10.0.0.1:9000    the same two as ping's")]
pub(crate) struct PongArgs {
    /// The pair of streams, as shm:NAME or udp:239.1.2.3:9000
    address: Address,
    /// Where echoes go, if not where ADDRESS implies; the same for ping and pong
    #[arg(long, value_name = "ADDRESS")]
    back: Option<Address>,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Answer one ping after the other, until ctrl-c
    #[arg(long)]
    forever: bool,
}

/// Our stream to write, the other's to read.
struct Link {
    publisher: Publisher,
    subscriber: Subscriber,
}

impl Link {
    /// `None` if asked to stop before the other side came.
    fn open(core: Option<usize>, ours: &str, theirs: &str, stop: &Stop) -> Result<Option<Self>> {
        if let Some(core) = core {
            pin_current_thread(core)?;
        }
        let theirs: Address = theirs.parse()?;
        let publisher = Publisher::open(ours)?;
        let spinner = progress::spinner(format!("waiting for {}", theirs.name()));
        loop {
            match Subscriber::open_at(&theirs) {
                Ok(subscriber) => {
                    spinner.finish_and_clear();
                    return Ok(Some(Self { publisher, subscriber }));
                }
                Err(Error::Ring(RingError::NotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
            if stop.asked() {
                return Ok(None);
            }
            sleep(ATTACH_INTERVAL);
        }
    }

    /// Publishes; a full ring is waited out (its reader lives, or loses its slot).
    fn send(&mut self, message: &[u8], stop: &Stop) -> Result<()> {
        loop {
            match self.publisher.try_publish(message) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_backpressure() && !stop.asked() => {
                    self.publisher.poll()?;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The two streams: there, and back.
fn streams(address: &Address, back: Option<&Address>) -> Result<[String; 2]> {
    let text = address.to_string();
    let (place, options) = text.split_once('?').unwrap_or((&text, ""));
    match (address, back) {
        (_, Some(back)) => Ok([text.clone(), back.to_string()]),
        (Address::Udp(udp), None) => {
            let of_one = |option: &&str| {
                let key = option.split('=').next().unwrap_or_default();
                ONE_WAY_OPTIONS.contains(&key)
            };
            if let Some(option) = options.split('&').find(of_one) {
                let text = format!("{option} is for one direction: give --back as well");
                return Err(Usage(text).into());
            }
            let mut back = udp.lines()[0];
            let Some(port) = back.port().checked_add(1) else {
                let text = "there is no port behind 65535 for the way back: give --back as well";
                return Err(Usage(text.into()).into());
            };
            back.set_port(port);
            Ok([text.clone(), format!("udp:{back}?{options}")])
        }
        _ => {
            // Whatever an earlier run left in a ring is passed over.
            let kept = options.split('&').filter(|option| !option.starts_with("from="));
            let options = kept.chain(["from=now"]).collect::<Vec<_>>().join("&");
            Ok(["ping", "pong"].map(|suffix| format!("{place}.{suffix}?{options}")))
        }
    }
}

fn label(run: u64, number: u64) -> [u8; LABEL_BYTES as usize] {
    let mut label = [0; LABEL_BYTES as usize];
    let (run_bytes, number_bytes) = label.split_at_mut(8);
    run_bytes.copy_from_slice(&run.to_le_bytes());
    number_bytes.copy_from_slice(&number.to_le_bytes());
    label
}

pub(crate) fn ping(args: &PingArgs) -> Result<Outcome> {
    let stop = Stop::on_signals()?;
    let clock = TscClock::new();
    let [there, back] = streams(&args.address, args.back.as_ref())?;
    let Some(mut link) = Link::open(args.core, &there, &back, &stop)? else {
        bail!("interrupted");
    };
    if let Some(sender) = link.publisher.sender()
        && args.size as usize > sender.max_message_bytes()
    {
        let max = sender.max_message_bytes();
        bail!("--size {}: a datagram takes {max} bytes (datagram=BYTES for more)", args.size);
    }
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
                pinger.link.publisher.poll()?;
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
    pinger.link.publisher.close()?; // pong ends with it
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
    fn greet(&mut self) -> Result<()> {
        let spinner = progress::spinner("waiting for an answer");
        loop {
            self.send(GREETING)?;
            let sent = Instant::now();
            while sent.elapsed() < GREETING_INTERVAL {
                if self.heard(GREETING)? {
                    spinner.finish_and_clear();
                    return Ok(());
                }
            }
            if self.stop.asked() {
                bail!("interrupted");
            }
        }
    }

    /// Sends one message and waits for its echo.
    #[inline]
    fn round_trip(&mut self, number: u64) -> Result<()> {
        self.send(number)?;
        let mut empty_polls = 0u32;
        let mut quiet_since = None;
        while !self.heard(number)? {
            empty_polls += 1;
            // The clock is read seldom, so that it does not delay the next poll.
            if empty_polls.is_multiple_of(256) {
                self.check_partner(quiet_since.get_or_insert_with(Instant::now))?;
            }
        }
        Ok(())
    }

    fn check_partner(&self, quiet_since: &mut Instant) -> Result<()> {
        if quiet_since.elapsed() < STATUS_INTERVAL {
            return Ok(());
        }
        *quiet_since = Instant::now();
        if self.stop.asked() {
            bail!("interrupted");
        }
        if self.link.subscriber.publisher_status() != ProducerStatus::Alive {
            bail!("pong has gone");
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        self.message[..LABEL_BYTES as usize].copy_from_slice(&label(self.run, number));
        self.link.send(&self.message, &self.stop)
    }

    /// Whether the echo of `number` is among what has come. Waits a step if nothing has.
    #[inline]
    fn heard(&mut self, number: u64) -> Result<bool> {
        let expected = label(self.run, number);
        let mut heard = false;
        self.link.publisher.poll()?;
        let polled = self.link.subscriber.poll_or_wait(POLL_LIMIT, |message| {
            heard |= message.payload.starts_with(&expected);
        });
        match polled {
            // The pong of an earlier run was heard first.
            Err(PollError::NewSession { .. }) => {}
            polled => drop(polled?),
        }
        Ok(heard)
    }
}

pub(crate) fn pong(args: &PongArgs) -> Result<Outcome> {
    let stop = Stop::on_signals()?;
    let [there, back] = streams(&args.address, args.back.as_ref())?;
    let Some(link) = Link::open(args.core, &back, &there, &stop)? else {
        bail!("interrupted");
    };
    let Link { mut publisher, mut subscriber } = link;
    let mut answered = 0u64;
    let mut bytes = 0u64;
    let mut quiet_since: Option<Instant> = None;
    let mut status = ProducerStatus::Alive;
    while !stop.asked() {
        let mut failed = None;
        publisher.poll()?;
        let polled = subscriber.poll_or_wait(POLL_LIMIT, |message| {
            let on_backpressure = || {
                std::thread::yield_now();
                !stop.asked()
            };
            failed = publisher.publish(message.payload, on_backpressure).err().or(failed);
            bytes += message.payload.len() as u64;
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let polled = match polled {
            Err(PollError::NewSession { .. }) => 0, // the next ping
            polled => polled?,
        };
        if polled > 0 {
            answered += polled as u64;
            (quiet_since, status) = (None, ProducerStatus::Alive);
            continue;
        }
        if status != ProducerStatus::Alive {
            break; // and nothing has come since it was asked
        }
        let quiet = quiet_since.get_or_insert_with(Instant::now);
        // Before the first message the ring may be one that an earlier ping left behind.
        if quiet.elapsed() >= STATUS_INTERVAL && answered > 0 && !args.forever {
            *quiet = Instant::now();
            status = subscriber.publisher_status();
        }
    }
    drop(subscriber);
    publisher.close()?;
    let text = format!("answered {}, {}", messages_text(answered), bytes_text(bytes));
    writeln!(io::stderr(), "{text}")?;
    Ok(Outcome::wrong_if(status == ProducerStatus::Dead))
}
