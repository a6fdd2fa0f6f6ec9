//! `gapless sub`: a stream to standard output, to a file, or only counted and digested.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use gapless::protocol::{ReceiverCounts, Session};
use gapless::shm::{ProducerStatus, RingError};
use gapless::{Address, Error, Message, Part, PollError, Reassembler, Subscriber};

use indicatif::ProgressBar;

use crate::digest::Digest;
use crate::enveloped::unwrapped;
use crate::exit::{Outcome, Usage};
use crate::notes;
use crate::progress;
use crate::records::Prefix;
use crate::stop::{LOOK_INTERVAL, Stop};
use crate::table::{Cell, Facts, bytes_text, messages_text, per_second, print_json, rate_text};

/// Messages of one poll.
const POLL_LIMIT: usize = 256;
/// Longest message that is put together from fragments.
const MESSAGE_MAX_BYTES: usize = 1 << 28;
/// A quiet stream's publisher is asked after this often: each time is a system call.
const STATUS_INTERVAL: Duration = Duration::from_millis(1);
/// How often to look for a ring that does not exist yet.
const ATTACH_INTERVAL: Duration = Duration::from_millis(2);

/// Read a stream: to standard output, to a file, or only to count it
///
/// Starts at the oldest message still in the ring (`from=now` or `from=1000` in the address starts
/// elsewhere) and ends when the publisher has closed the stream, or died, and everything is read.
/// On a lossless ring the publisher waits for this subscriber if it is slow (`observe=yes` in the
/// address: it does not, and what was missed is told).
///
/// Of datagrams it waits for the stream, starts at the first message that it sees (`from=oldest` or
/// `from=1000` asks the sender for what went before) and takes a publisher that has not been heard
/// of for 3 s for dead.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless sub shm:greetings                       messages as lines
  gapless sub 'shm:feed?from=now&wait=yield' --hex --max 10
  gapless sub shm:feed --output copy.binfile      length-prefixed records
  gapless sub shm:feed --hash --wait-for-publisher --json
  gapless sub 'udp:239.1.2.3:9000?iface=eth0&from=oldest&wait=park' --count
  gapless sub 'shm:orders?from=1&log=/var/log/orders'   from the log, and on in the ring
  gapless sub 'log:/var/log/orders?from=1000&pace=2x' --hex

Whatever is missed (overwritten on a lossy ring before it was read; lost on a network, and nobody
has it any more; messages of several fragments that lack one) is told on standard error with its
sequence numbers, and the exit code is 3. It is 3 as well if the publisher died instead of closing
the stream.")]
pub(crate) struct Args {
    /// The stream, as shm:NAME?from=now&wait=yield or udp:239.1.2.3:9000?iface=eth0
    address: Address,
    #[command(flatten)]
    output: Output,
    /// Go on when the publisher has gone: another one may take the stream over
    #[arg(long)]
    follow: bool,
    /// Wait for the ring to be created
    #[arg(long)]
    wait_for_publisher: bool,
}

/// What becomes of the messages.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Lines of hexadecimal digits instead of the bytes as they are
    #[arg(long, conflicts_with_all = ["output", "count", "hash"])]
    hex: bool,
    /// Write length-prefixed records to FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "hash"])]
    output: Option<PathBuf>,
    /// How lengths are written in FILE
    #[arg(long, value_enum, default_value_t = Prefix::Be16)]
    prefix: Prefix,
    /// Only count
    #[arg(long)]
    count: bool,
    /// Only count, and digest all messages
    #[arg(long)]
    hash: bool,
    /// End after N messages
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Take messages out of their envelopes, as `envelope=yes` in the address does
    #[arg(long)]
    envelope: bool,
    /// Take fragments of long messages as they are, instead of putting them together
    #[arg(long)]
    fragments: bool,
    /// Summary as one JSON object on standard output (not with messages there)
    #[arg(long, conflicts_with = "hex")]
    json: bool,
}

impl Output {
    /// After how many messages to end.
    pub(crate) fn max(&self) -> Option<u64> {
        self.max
    }

    /// Whether the summary is JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }
}

impl Args {
    /// Reads the stream of `address`, and waits for nobody.
    pub(crate) fn of(address: Address, output: Output) -> Self {
        Self { address, output, follow: false, wait_for_publisher: false }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let output = &args.output;
    if output.json && !(output.count || output.hash || output.output.is_some()) {
        let text = "--json prints a summary: give --count, --hash or --output as well";
        return Err(Usage(text.into()).into());
    }
    let stop = Stop::on_signals()?;
    let sink = Sink::open(output)?;
    let Some(mut subscriber) = attach(args, &stop)? else {
        anyhow::bail!("interrupted");
    };
    let mut reader = Reader {
        sink,
        reassembler: (!output.fragments).then(|| Reassembler::new(MESSAGE_MAX_BYTES)),
        digest: Digest::new(),
        failed: None,
        messages: 0,
        bytes: 0,
        missed: 0,
        incomplete: 0,
        next_sequence: subscriber.next_sequence(),
        sums: output.hash,
        // Where the address says so, the subscriber takes envelopes off by itself.
        enveloped: output.envelope && !args.address.is_enveloped(),
    };
    let start = Instant::now();
    let end = read(args, &stop, &mut subscriber, &mut reader)?;
    let wire = subscriber.inlet().map(|inlet| *inlet.counts());
    drop(subscriber);
    reader.finish()?;
    summarise(args, &mut reader, &end, start.elapsed(), wire)?;
    Ok(Outcome::wrong_if(reader.missed + reader.incomplete > 0 || end.is_wrong()))
}

/// Why reading ended.
enum End {
    Closed,
    /// Of a replay.
    Replayed,
    Died,
    Enough,
    Stopped,
    /// The stream cannot be read any further.
    Broken(PollError),
}

impl End {
    fn is_wrong(&self) -> bool {
        matches!(self, Self::Died | Self::Broken(_))
    }

    fn text(&self) -> String {
        match self {
            Self::Closed => "the publisher closed the stream".into(),
            Self::Replayed => "the end of the replay".into(),
            Self::Died => "the publisher died without closing the stream".into(),
            Self::Enough => "as many messages as asked for".into(),
            Self::Stopped => "interrupted".into(),
            Self::Broken(error) => error.to_string(),
        }
    }
}

fn attach(args: &Args, stop: &Stop) -> anyhow::Result<Option<Subscriber>> {
    let spinner = progress::spinner("waiting for the stream to be created");
    loop {
        match Subscriber::open_at(&args.address) {
            Err(Error::Ring(RingError::NotFound { .. })) if args.wait_for_publisher => {}
            result => {
                spinner.finish_and_clear();
                let mut subscriber = result?;
                if let Some(inlet) = subscriber.inlet() {
                    notes::tell(inlet.network());
                }
                return Ok(Some(subscriber));
            }
        }
        if stop.asked() {
            return Ok(None);
        }
        sleep(ATTACH_INTERVAL);
    }
}

fn read(
    args: &Args,
    stop: &Stop,
    subscriber: &mut Subscriber,
    reader: &mut Reader,
) -> anyhow::Result<End> {
    let bar = progress_of(args, subscriber);
    let mut status = ProducerStatus::Alive;
    let mut quiet_since: Option<Instant> = None;
    loop {
        let left = args.output.max.map_or(u64::MAX, |max| max.saturating_sub(reader.messages));
        if left == 0 {
            return Ok(End::Enough);
        }
        if stop.asked() {
            return Ok(End::Stopped);
        }
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(POLL_LIMIT);
        match subscriber.poll_or_wait(limit, |message| reader.take(message)) {
            Ok(0) if status != ProducerStatus::Alive && !args.follow => {
                // The status is older than this empty poll: nothing is left.
                return Ok(match status {
                    ProducerStatus::Closed if subscriber.replay().is_some() => End::Replayed,
                    ProducerStatus::Closed => End::Closed,
                    _ => End::Died,
                });
            }
            Ok(0) => {
                if quiet_since.is_none() {
                    reader.flush()?;
                }
                if quiet_since.get_or_insert_with(Instant::now).elapsed() >= STATUS_INTERVAL {
                    quiet_since = Some(Instant::now());
                    status = subscriber.publisher_status();
                    if status != ProducerStatus::Alive && args.follow {
                        sleep(LOOK_INTERVAL); // nobody is there who could be in a hurry
                    }
                }
            }
            Ok(_) => {
                (quiet_since, status) = (None, ProducerStatus::Alive);
                if let Some(bar) = &bar {
                    bar.set_position(reader.messages);
                }
            }
            Err(PollError::Lapped { missed, resumed_at }) => reader.missed(missed, resumed_at),
            Err(PollError::Lost { first, count }) => reader.missed(count, first + count),
            Err(PollError::NewSession { session, next }) => reader.begin(session, next),
            Err(PollError::Unsteady) => {}
            Err(error) => return Ok(End::Broken(error)),
        }
        if let Some(error) = reader.failed.take() {
            return Err(error);
        }
    }
}

/// How far a replay has come, where its messages do not go to the terminal themselves.
fn progress_of(args: &Args, subscriber: &mut Subscriber) -> Option<Progress> {
    let Output { count, hash, output, .. } = &args.output;
    let replay = subscriber.replay().filter(|_| *count || *hash || output.is_some())?;
    let total = replay.end_sequence()?.saturating_sub(replay.next_sequence());
    Some(Progress(progress::bar(total.min(args.output.max.unwrap_or(u64::MAX)), "replaying")))
}

/// A bar that goes when it is dropped.
struct Progress(ProgressBar);

impl std::ops::Deref for Progress {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn summarise(
    args: &Args,
    reader: &mut Reader,
    end: &End,
    elapsed: Duration,
    wire: Option<ReceiverCounts>,
) -> io::Result<()> {
    let args = &args.output;
    let rate = per_second(reader.messages, elapsed);
    let mut facts = Facts::default();
    facts.add("messages", "messages", Cell::count(reader.messages));
    facts.add("bytes", "bytes", Cell::bytes(reader.bytes));
    facts.add("missed", "missed", Cell::count(reader.missed));
    facts.add("incomplete", "incomplete", Cell::count(reader.incomplete));
    facts.add("next_sequence", "next sequence", Cell::count(reader.next_sequence));
    facts.add("elapsed_s", "seconds", Cell::seconds(elapsed));
    facts.add("messages_per_second", "rate", Cell::with(rate_text(rate, "msg"), rate));
    if let Some(counts) = wire {
        facts.add("sessions", "sessions", Cell::count(counts.sessions));
        facts.add("gaps", "gaps", Cell::count(counts.gaps));
        facts.add("repaired", "repaired", Cell::count(counts.repaired));
        facts.add("reordered", "reordered", Cell::count(counts.reordered));
        facts.add("duplicates", "duplicates", Cell::count(counts.duplicates));
    }
    facts.add("end", "ended by", Cell::text(end.text()));
    if args.hash {
        facts.add("digest", "digest", Cell::text(reader.digest.text()));
    }
    if args.json {
        return print_json(&facts.json().into());
    }
    if args.count || args.hash {
        return writeln!(io::stdout(), "{facts}");
    }
    eprintln!("read {} messages, {}; {}", reader.messages, bytes_text(reader.bytes), end.text());
    Ok(())
}

/// Where messages go.
enum Sink {
    Lines { out: Box<dyn Write>, hex: bool },
    Records { out: Box<dyn Write>, prefix: Prefix },
    Nowhere,
}

impl Sink {
    fn open(args: &Output) -> anyhow::Result<Self> {
        if args.count || args.hash {
            return Ok(Self::Nowhere);
        }
        if let Some(path) = &args.output {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            let out = Box::new(BufWriter::new(file));
            return Ok(Self::Records { out, prefix: args.prefix });
        }
        let out = Box::new(BufWriter::new(io::stdout()));
        Ok(Self::Lines { out, hex: args.hex })
    }

    fn put(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Records { out, prefix } => prefix.write(out, message),
            Self::Lines { out, hex: false } => {
                out.write_all(message)?;
                out.write_all(b"\n")
            }
            Self::Lines { out, hex: true } => {
                for byte in message {
                    write!(out, "{byte:02x}")?;
                }
                out.write_all(b"\n")
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Records { out, .. } | Self::Lines { out, .. } => out.flush(),
        }
    }
}

/// Takes messages, and keeps account of them.
struct Reader {
    sink: Sink,
    reassembler: Option<Reassembler>,
    digest: Digest,
    /// The first error, of the sink or an envelope: nothing is put there any more.
    failed: Option<anyhow::Error>,
    messages: u64,
    bytes: u64,
    /// Records overwritten unread, or lost on a network.
    missed: u64,
    /// Messages of which only a part was seen.
    incomplete: u64,
    next_sequence: u64,
    sums: bool,
    enveloped: bool,
}

impl Reader {
    fn take(&mut self, mut message: Message<'_>) {
        self.next_sequence = message.sequence + 1;
        if self.enveloped {
            message = match unwrapped(message) {
                Ok(message) => message,
                Err(error) => {
                    let place = format!("message {}", message.sequence);
                    self.failed = self.failed.take().or(Some(anyhow!(error).context(place)));
                    return;
                }
            };
        }
        let Some(mut reassembler) = self.reassembler.take() else {
            return self.put(message.payload);
        };
        reassembler.accept(message, |part| match part {
            Part::Whole { payload, .. } => self.put(payload),
            Part::Abandoned { first, last } => self.abandoned(first, last),
        });
        self.reassembler = Some(reassembler);
    }

    fn put(&mut self, payload: &[u8]) {
        self.messages += 1;
        self.bytes += payload.len() as u64;
        if self.sums {
            self.digest.add(payload);
        }
        if self.failed.is_none() {
            let put = self.sink.put(payload).context("write the messages");
            self.failed = put.err();
        }
    }

    fn abandoned(&mut self, first: u64, last: u64) {
        self.incomplete += 1;
        eprintln!(
            "gapless: sequence {first} to {last}: part of a message whose rest was not seen, or \
             longer than {}",
            bytes_text(MESSAGE_MAX_BYTES as u64)
        );
    }

    /// Another session of the stream: sequence numbers begin anew.
    fn begin(&mut self, session: Session, next: u64) {
        self.next_sequence = next;
        eprintln!("gapless: the publisher began a new session, {session}, at sequence {next}");
    }

    fn missed(&mut self, missed: u64, resumed_at: u64) {
        self.missed += missed;
        self.next_sequence = resumed_at;
        if missed > 0 {
            let first = resumed_at - missed;
            let last = resumed_at - 1;
            eprintln!("gapless: missed {}: sequence {first} to {last}", messages_text(missed));
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.sink.flush().context("write the messages")
    }

    /// The stream has ended.
    fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(mut reassembler) = self.reassembler.take() {
            reassembler.finish(|part| {
                if let Part::Abandoned { first, last } = part {
                    self.abandoned(first, last);
                }
            });
        }
        self.flush()
    }
}
