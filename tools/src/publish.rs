//! `gapless pub`: messages from lines, records of a file, or a generator into a stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use gapless::shm::{Inspector, ring_path};
use gapless::{Address, Fragments, Publisher, WaitStrategy, Waiter};

use crate::digest::Digest;
use crate::exit::Outcome;
use crate::progress;
use crate::records::{Prefix, RecordReader};
use crate::stop::{LOOK_INTERVAL, Stop, StoppableFile};
use crate::table::{Cell, Facts, bytes_text, messages_text, per_second, print_json, rate_text};

/// A full ring is nothing to talk about until it has lasted this long.
const STALL_TOLD_AFTER: Duration = Duration::from_secs(1);
/// Messages between two looks at what need not be looked at for each.
const HOUSEKEEPING_MESSAGES: u64 = 1024;
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Publish messages: lines of standard input, records of a file, or generated ones
///
/// Creates the stream, or carries on where its last publisher ended. Lines lose their line feed. A
/// message longer than the ring's largest record travels in fragments, which `gapless sub` puts
/// together again. On a full ring it waits, and names the subscriber that it waits for. Ctrl-c ends
/// it in order: the stream is closed.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  echo hello | gapless pub shm:greetings
  tail -f app.log | gapless pub 'shm:log?mode=lossy&capacity=1M'
  gapless pub shm:feed --file capture.binfile --wait-for 1 --digest
  gapless pub shm:load --generate --size 48 --rate 1000000 --count 10000000

The digest is XXH3-128 over the length (4 bytes, little-endian) and the bytes of each message, in
order: `gapless sub --hash` prints the same one if it saw the same messages.")]
pub(crate) struct Args {
    /// The stream, as shm:NAME or shm:NAME?capacity=64M&mode=lossy
    address: Address,
    /// Read length-prefixed records from FILE (`-`: standard input) instead of lines
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    file: Option<PathBuf>,
    /// How the lengths in FILE are written
    #[arg(long, value_enum, default_value_t = Prefix::Be16)]
    prefix: Prefix,
    /// Generate messages; the same ones each time
    #[arg(long)]
    generate: bool,
    /// Bytes of a generated message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=1 << 28))]
    size: u32,
    /// Stop after N messages [default: at the end of the input; generated: never]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Messages a second; 0: as fast as they go
    #[arg(long, value_name = "R", default_value_t = 0)]
    rate: u64,
    /// Wait until N subscribers are attached
    #[arg(long, value_name = "N", default_value_t = 0)]
    wait_for: usize,
    /// Print the digest of all messages
    #[arg(long)]
    digest: bool,
    /// Summary as one JSON object on standard output, instead of text on standard error
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let mut source = Source::open(args, &stop)?;
    let mut sender = Sender {
        publisher: Publisher::open_at(&args.address)?,
        stop: stop.clone(),
        digest: args.digest.then(Digest::new),
        messages: 0,
        bytes: 0,
        waits: 0,
    };
    sender.heartbeat();
    await_subscribers(args, &stop)?;
    let start = Instant::now();
    let progress = match args.count.filter(|_| args.generate) {
        Some(count) => progress::bar(count, "publishing"),
        None => progress::spinner("publishing"),
    };
    let mut message = Vec::new();
    while sender.messages < args.count.unwrap_or(u64::MAX) && source.next(&mut message, &stop)? {
        if args.rate > 0 {
            sender.await_due(start, args.rate);
        }
        if stop.asked() || !sender.send(&message)? {
            break;
        }
        if sender.messages.is_multiple_of(HOUSEKEEPING_MESSAGES) {
            progress.set_position(sender.messages);
            sender.heartbeat();
        }
    }
    progress.finish_and_clear();
    summarise(args, sender, start.elapsed())?;
    Ok(Outcome::Sound)
}

fn summarise(args: &Args, sender: Sender, elapsed: Duration) -> io::Result<()> {
    let Sender { publisher, digest, messages, bytes, waits, .. } = sender;
    let next = publisher.next_sequence();
    drop(publisher); // the stream is closed before it is said to be
    let mut facts = Facts::default();
    facts.add("messages", "messages", Cell::count(messages));
    facts.add("bytes", "bytes", Cell::bytes(bytes));
    facts.add("elapsed_s", "seconds", Cell::seconds(elapsed));
    let rate = per_second(messages, elapsed);
    facts.add("messages_per_second", "rate", Cell::with(rate_text(rate, "msg"), rate));
    facts.add("next_sequence", "next sequence", Cell::count(next));
    facts.add("backpressure_waits", "waits for room", Cell::count(waits));
    let digest = digest.map(|mut digest| digest.text());
    if let Some(digest) = &digest {
        facts.add("digest", "digest", Cell::text(digest));
    }
    if args.json {
        return print_json(&facts.json().into());
    }
    eprintln!(
        "published {}, {}, {}; next sequence {next}",
        messages_text(messages),
        bytes_text(bytes),
        rate_text(rate, "msg")
    );
    if let Some(digest) = digest {
        eprintln!("digest {digest}");
    }
    Ok(())
}

/// Returns when as many subscribers are attached as are to be waited for.
fn await_subscribers(args: &Args, stop: &Stop) -> anyhow::Result<()> {
    if args.wait_for == 0 {
        return Ok(());
    }
    let inspector = match &args.address {
        Address::Shm(shm) => Inspector::open_file(&ring_path(shm.directory(), shm.name())?)?,
        _ => anyhow::bail!("--wait-for needs a ring"),
    };
    let spinner = progress::spinner("waiting for subscribers");
    loop {
        let consumers = inspector.snapshot().consumers;
        if stop.asked() || consumers.iter().filter(|c| c.alive).count() >= args.wait_for {
            spinner.finish_and_clear();
            return Ok(());
        }
        sleep(Duration::from_millis(1));
    }
}

/// Where messages come from.
enum Source {
    Lines(BufReader<StoppableFile>),
    Records(RecordReader<BufReader<StoppableFile>>),
    Generator { number: u64, size: usize, pattern: Vec<u8> },
}

impl Source {
    fn open(args: &Args, stop: &Stop) -> anyhow::Result<Self> {
        if args.generate {
            return Ok(Self::generator(args.size as usize));
        }
        let standard_input =
            || -> io::Result<File> { Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?)) };
        let open = |file| {
            BufReader::with_capacity(READ_BUFFER_BYTES, StoppableFile::new(file, stop.clone()))
        };
        match &args.file {
            None => Ok(Self::Lines(open(standard_input()?))),
            Some(path) if path.as_os_str() == "-" => {
                Ok(Self::Records(RecordReader::new(open(standard_input()?), args.prefix)))
            }
            Some(path) => {
                let file = File::open(path).with_context(|| path.display().to_string())?;
                Ok(Self::Records(RecordReader::new(open(file), args.prefix)))
            }
        }
    }

    /// Message n is its number n, little-endian, and behind that bytes of a fixed pattern.
    fn generator(size: usize) -> Self {
        const SHIFTS: usize = 256;
        let mut state = 0u64;
        let pattern = (0..size + SHIFTS).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        Self::Generator { number: 0, size, pattern: pattern.collect() }
    }

    /// Puts the next message into `message`; false at the end, or when asked to stop.
    fn next(&mut self, message: &mut Vec<u8>, stop: &Stop) -> anyhow::Result<bool> {
        message.clear();
        match self {
            Self::Lines(input) => {
                let read = input.read_until(b'\n', message).context("read a line")?;
                if message.last() == Some(&b'\n') {
                    message.pop();
                } else if stop.asked() {
                    return Ok(false); // the rest of the line may still be on its way
                }
                Ok(read > 0)
            }
            Self::Records(reader) => match reader.next(message) {
                Err(_) if stop.asked() => Ok(false),
                result => result,
            },
            Self::Generator { number, size, pattern } => {
                let shift = *number as usize % 256;
                message.extend_from_slice(&pattern[shift..shift + *size]);
                let label = number.to_le_bytes();
                let labelled = label.len().min(*size);
                message[..labelled].copy_from_slice(&label[..labelled]);
                *number += 1;
                Ok(!stop.asked())
            }
        }
    }
}

/// The publisher, and what it has sent.
struct Sender {
    publisher: Publisher,
    stop: Stop,
    digest: Option<Digest>,
    messages: u64,
    bytes: u64,
    waits: u64,
}

impl Sender {
    /// Publishes one message, however long the ring is full. False if asked to stop meanwhile; a
    /// message that was begun is then left without its end, which readers are told.
    fn send(&mut self, message: &[u8]) -> anyhow::Result<bool> {
        let mut fragments = Fragments::new(message);
        let mut stall: Option<Stall> = None;
        loop {
            match fragments.try_publish(self.publisher.producer()) {
                Ok(_) => break,
                Err(error) if error.is_backpressure() => {
                    if stall.is_none() {
                        self.waits += 1;
                    }
                    stall.get_or_insert_with(Stall::new).wait(&mut self.publisher);
                    if self.stop.asked() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(digest) = &mut self.digest {
            digest.add(message);
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        Ok(true)
    }

    /// Waits until the next message is due, or a stop is asked.
    fn await_due(&mut self, start: Instant, rate: u64) {
        let due = start + Duration::from_secs_f64(self.messages as f64 / rate as f64);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.asked() {
                return;
            }
            if left > Duration::from_millis(2) {
                self.heartbeat();
                sleep((left - Duration::from_millis(1)).min(LOOK_INTERVAL));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn heartbeat(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.publisher.producer().heartbeat(now.as_nanos() as u64);
    }
}

/// A full ring: how long already, and whether that was told.
struct Stall {
    since: Instant,
    told: bool,
    waiter: Waiter,
}

impl Stall {
    fn new() -> Self {
        let waiter = Waiter::new(WaitStrategy::SpinYield);
        Self { since: Instant::now(), told: false, waiter }
    }

    fn wait(&mut self, publisher: &mut Publisher) {
        if self.since.elapsed() < STALL_TOLD_AFTER {
            self.waiter.idle();
            return;
        }
        if !self.told {
            self.told = true;
            if let Some(slow) = publisher.slowest() {
                eprintln!(
                    "gapless: the ring is full, waiting for subscriber {:?} (pid {}, slot {}), {} \
                     messages behind",
                    slow.name, slow.pid, slow.slot, slow.lag_messages
                );
            }
        }
        sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_messages_are_numbered_and_the_same_each_time() {
        let stop = Stop::on_signals().expect("signals can be had");
        for size in [0, 3, 8, 500] {
            let (mut a, mut b) = (Source::generator(size), Source::generator(size));
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for number in 0..1000u64 {
                assert!(a.next(&mut x, &stop).expect("a") && b.next(&mut y, &stop).expect("b"));
                assert_eq!((&x, x.len()), (&y, size));
                let labelled = size.min(8);
                assert_eq!(x[..labelled], number.to_le_bytes()[..labelled]);
            }
        }
    }
}
