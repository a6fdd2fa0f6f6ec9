//! `gapless pub`: messages from lines, records of a file, or a generator into a stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use gapless::Address;

use crate::digest::Digest;
use crate::exit::Outcome;
use crate::progress;
use crate::records::{Prefix, RecordReader};
use crate::sending::Sending;
use crate::stop::{Stop, StoppableFile};
use crate::table::{Cell, Facts, bytes_text, messages_text, per_second, print_json, rate_text};

/// Messages between two looks at what need not be looked at for each.
const HOUSEKEEPING_MESSAGES: u64 = 1024;
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Publish messages: lines of standard input, records of a file, or generated ones
///
/// Creates the stream, or carries on where its last publisher ended. Lines lose their line feed. A
/// message longer than the ring's largest record travels in fragments, which `gapless sub` puts
/// together again; over datagrams only on an enveloped stream. On a full ring it waits, and names
/// the subscriber that it waits for. Ctrl-c ends it in order: the stream is closed, and what
/// receivers of datagrams lack is repeated before it ends.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  echo hello | gapless pub shm:greetings
  tail -f app.log | gapless pub 'shm:log?mode=lossy&capacity=1M'
  gapless pub shm:feed --file capture.binfile --wait-for 1 --digest
  gapless pub shm:load --generate --size 48 --rate 1000000 --count 10000000
  gapless pub 'udp:239.1.2.3:9000?iface=eth0&flow=slowest' --file capture.binfile --wait-for 2

The digest is XXH3-128 over the length (4 bytes, little-endian) and the bytes of each message, in
order: `gapless sub --hash` prints the same one if it saw the same messages.")]
pub(crate) struct Args {
    /// The stream, as shm:NAME?capacity=64M&mode=lossy or udp:239.1.2.3:9000?iface=eth0
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
    /// Put each message into an envelope, as `envelope=yes` in the address does
    #[arg(long)]
    envelope: bool,
    /// Wait until N subscribers are attached, or receivers of datagrams have reported
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
    let input = args.open_input()?;
    let mut sending = Sending::open(&args.address, args.envelope, &stop)?;
    sending.digest = args.digest.then(Digest::new);
    let input = input.map(|file| {
        let file = StoppableFile::new(file, stop.clone()).tending(sending.shared());
        BufReader::with_capacity(READ_BUFFER_BYTES, file)
    });
    let mut source = Source::new(args, input);
    sending.heartbeat();
    sending.await_subscribers(&args.address, args.wait_for)?;
    let start = Instant::now();
    let progress = match args.count.filter(|_| args.generate) {
        Some(count) => progress::bar(count, "publishing"),
        None => progress::spinner("publishing"),
    };
    let mut message = Vec::new();
    while sending.messages < args.count.unwrap_or(u64::MAX) && source.next(&mut message, &stop)? {
        if args.rate > 0 {
            sending.await_due(start, args.rate)?;
        }
        let more = args.rate == 0 && source.has_more();
        if stop.asked() || !sending.send(&message, more)? {
            break;
        }
        if sending.messages.is_multiple_of(HOUSEKEEPING_MESSAGES) {
            progress.set_position(sending.messages);
            sending.heartbeat();
        }
    }
    progress.finish_and_clear();
    let elapsed = start.elapsed();
    drop(source);
    summarise(args, sending, elapsed)?;
    Ok(Outcome::Sound)
}

fn summarise(args: &Args, mut sending: Sending, elapsed: Duration) -> anyhow::Result<()> {
    let (messages, bytes, next) = (sending.messages, sending.bytes, sending.next_sequence());
    let (waits, digest) = (sending.waits, sending.digest.take());
    sending.close()?; // the stream is closed before it is said to be
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
        return Ok(print_json(&facts.json().into())?);
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

/// Where messages come from.
enum Source {
    Lines(BufReader<StoppableFile>),
    Records(RecordReader<BufReader<StoppableFile>>),
    Generator { number: u64, size: usize, pattern: Vec<u8> },
}

impl Args {
    /// What messages are read from; `None`: they are generated.
    fn open_input(&self) -> anyhow::Result<Option<File>> {
        if self.generate {
            return Ok(None);
        }
        let file = match self.file.as_deref().filter(|path| path.as_os_str() != "-") {
            Some(path) => File::open(path).with_context(|| path.display().to_string())?,
            None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        };
        Ok(Some(file))
    }
}

impl Source {
    fn new(args: &Args, input: Option<BufReader<StoppableFile>>) -> Self {
        match input {
            None => Self::generator(args.size as usize),
            Some(input) if args.file.is_some() => {
                Self::Records(RecordReader::new(input, args.prefix))
            }
            Some(input) => Self::Lines(input),
        }
    }

    /// Whether another message can be had without waiting.
    fn has_more(&self) -> bool {
        match self {
            Self::Lines(input) => input.buffer().contains(&b'\n'),
            Self::Records(reader) => reader.has_whole(),
            Self::Generator { .. } => true,
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
