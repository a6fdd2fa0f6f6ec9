//! `gapless order client`: sends commands, by hand or from a script, and tells what comes of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, bail};
use gapless::order::messages::{ListOrders, Message};
use gapless::order::{Direction, Entry, InstrumentId, OwnReader, OwnRecord, OwnWriter};
use gapless::sequencer::{Client, ClientError, ClientId, Kind, Record, Refusal};
use gapless::{Address, WaitStrategy};

use super::config::Plan;
use super::desk::Desk;
use super::generate::{self, Generation};
use super::{market, script, words};
use crate::exit::Outcome;
use crate::stop::Stop;
use crate::table::print_json;

/// Records of one poll.
const POLL_LIMIT: usize = 256;
/// A client that waits for somebody to type sleeps so long.
const REST: Duration = Duration::from_millis(1);
/// So often it is looked for a stream that is not there yet.
const RETRY: Duration = Duration::from_millis(5);

/// Send orders, see what becomes of them
///
/// Commands come from standard input, a file, or a set-up; each is sent when the one before it was
/// answered, and the answers are told as they come, a line each. Ends with the input.
#[derive(clap::Args)]
#[command(after_long_help = script::HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    seat: Seat,
    /// Send what FILE (TOML) defines: its tables `instrument` and `limits`, as an operator
    #[arg(long, value_name = "FILE")]
    setup: Option<PathBuf>,
    /// Define the instruments of a feed as --data takes it, as an operator
    #[arg(long, value_name = "FILE")]
    setup_data: Option<PathBuf>,
    /// Say what FILE says, instead of standard input; behind a set-up, nothing by default
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    #[command(flatten)]
    generation: Generation,
    /// Answers as JSON objects, one a line
    #[arg(long)]
    json: bool,
}

/// A client's number and streams.
#[derive(clap::Args)]
pub(crate) struct Seat {
    /// Its number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) id: u16,
    /// Its own stream, as shm:client-2
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: String,
    /// The sequenced stream, as shm:sequenced
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: String,
    /// Keep a record of one's own in FILE, for `gapless order reconcile`
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let mut setup = match &args.setup {
        Some(path) => Plan::read(path)?.commands()?,
        None => Vec::new(),
    };
    if let Some(path) = &args.setup_data {
        let defined = market::definitions(&market::read_file(path)?);
        setup.extend(defined.into_iter().map(Message::from));
    }
    let is_setup = args.setup.is_some() || args.setup_data.is_some();
    let lines = match &args.script {
        None if is_setup || args.generation.generate.is_some() => None,
        script => Some(input(script.as_deref())?),
    };
    let mut trader = Trader::join(&args.seat, args.json, &stop)?;
    trader.set_up(&setup, &stop)?;
    if args.generation.generate.is_some() {
        let feed = generate::feed(&args.generation)?;
        let generated = trader.generate(feed, &args.generation, &stop, || Ok(()))?;
        trader.leave()?;
        generated.tell(args.json)?;
        return Ok(Outcome::Sound);
    }
    if let Some(lines) = lines {
        trader.obey(&lines, &stop)?;
    }
    let wrong = trader.nonsense > 0;
    trader.leave()?;
    Ok(Outcome::wrong_if(wrong))
}

/// Lines of a file, or of standard input, read by a thread: nobody waits for them.
fn input(path: Option<&Path>) -> anyhow::Result<Receiver<io::Result<String>>> {
    let from: Box<dyn BufRead + Send> = match path {
        Some(path) => {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(BufReader::new(io::stdin())),
    };
    let (sender, lines) = sync_channel(64);
    spawn(move || {
        for line in from.lines() {
            if sender.send(line).is_err() {
                return; // nobody wants more
            }
        }
    });
    Ok(lines)
}

/// The command that is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// None.
    #[default]
    Nothing,
    /// It has this number of the client's own.
    Sent(u64),
    /// It is this record of the stream; its answers stand right behind it.
    Sequenced(u64),
}

/// A client of the stream, and what it knows.
pub(crate) struct Trader {
    pub(super) client: Client,
    pub(super) desk: Desk,
    pub(super) own: Own,
    /// How it waits where every microsecond counts.
    pub(super) wait: WaitStrategy,
    /// Whether answers are told.
    pub(super) silent: bool,
    asked: Asked,
    answered: bool,
    /// What the last command was, for those that nothing but silence answers.
    last: String,
    json: bool,
    /// Lines that made no sense.
    nonsense: u64,
}

impl Trader {
    /// Opens the streams, once the sequenced one is there.
    pub(crate) fn join(seat: &Seat, json: bool, stop: &Stop) -> anyhow::Result<Self> {
        let id = ClientId(seat.id);
        let wait = match seat.from.parse() {
            Ok(Address::Shm(shm)) => shm.wait_strategy(),
            Ok(Address::Udp(udp)) => udp.wait_strategy(),
            _ => WaitStrategy::default(),
        };
        let client = loop {
            match Client::open(id, &seat.to, &seat.from) {
                Ok(client) => break client,
                Err(gapless::Error::Ring(gapless::shm::RingError::NotFound { .. })) => {
                    if stop.asked() {
                        bail!("interrupted");
                    }
                    sleep(RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Self {
            client,
            desk: Desk::new(id),
            own: Own::open(seat.record.as_deref(), id)?,
            wait,
            silent: false,
            asked: Asked::Nothing,
            answered: false,
            last: String::new(),
            json,
            nonsense: 0,
        })
    }

    /// Tells nobody what it is answered.
    pub(crate) fn in_silence(self) -> Self {
        Self { silent: true, ..self }
    }

    /// Waits until the sequencer has said how far this client had come, and sends these.
    pub(crate) fn set_up(&mut self, messages: &[Message], stop: &Stop) -> anyhow::Result<()> {
        while !self.client.is_ready() {
            self.go_on(stop)?;
        }
        if self.desk.names().is_late() {
            // Which numbers it has used, and what it has open, stands where it cannot look.
            self.send(&ListOrders { instrument: InstrumentId(0) }.into())?;
            self.await_answer(stop)?;
        }
        for message in messages {
            self.send(message)?;
            self.await_answer(stop)?;
        }
        Ok(())
    }

    /// Waits until the last command was answered.
    pub(super) fn await_answer(&mut self, stop: &Stop) -> anyhow::Result<()> {
        while self.asked != Asked::Nothing {
            self.go_on(stop)?;
        }
        Ok(())
    }

    /// Polls, and rests if there is nothing.
    fn go_on(&mut self, stop: &Stop) -> anyhow::Result<()> {
        if stop.asked() {
            bail!("interrupted");
        }
        if self.poll()? == 0 {
            sleep(REST);
        }
        Ok(())
    }

    /// Does what the lines say, one after the other.
    fn obey(&mut self, lines: &Receiver<io::Result<String>>, stop: &Stop) -> anyhow::Result<()> {
        loop {
            match lines.try_recv() {
                Ok(line) => {
                    let line = line.context("read a command")?;
                    match script::parse(&line, &self.desk) {
                        Ok(Some(message)) => {
                            self.send(&message)?;
                            self.await_answer(stop)?;
                        }
                        Ok(None) => {}
                        Err(error) => {
                            self.nonsense += 1;
                            eprintln!("gapless: {error}");
                        }
                    }
                }
                Err(TryRecvError::Empty) if stop.asked() => return Ok(()),
                Err(TryRecvError::Empty) => {
                    if self.poll()? == 0 {
                        sleep(REST);
                    }
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    pub(super) fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        message.encode_to(&mut bytes);
        let number = loop {
            match self.client.submit(&bytes) {
                Ok(number) => break number,
                Err(error) if error.is_backpressure() => {
                    self.poll()?;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.own.sent(number, &bytes)?;
        self.desk.sent(message);
        (self.asked, self.answered, self.last) = (Asked::Sent(number), false, message.to_string());
        Ok(())
    }

    /// Takes what there is in the stream, and tells what concerns the client.
    fn poll(&mut self) -> anyhow::Result<usize> {
        let (mut asked, mut answered) = (self.asked, self.answered);
        let (json, silent, last) = (self.json, self.silent, std::mem::take(&mut self.last));
        let polled = self.drive(|record, desk| {
            let done = is_through(record, desk.client(), &mut asked, &mut answered);
            if silent {
                return Ok(());
            }
            if done {
                tell_done(&last, json)?;
            }
            tell(record, desk, json)
        });
        (self.asked, self.answered, self.last) = (asked, answered, last);
        polled
    }

    /// Takes what there is in the stream, with what is known by then, and tells `told`.
    pub(super) fn drive(
        &mut self,
        mut told: impl FnMut(&Record<'_>, &Desk) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let Self { client, desk, own, .. } = self;
        let mut failed = None;
        let polled = client.poll(POLL_LIMIT, |record| {
            desk.learn(record);
            let kept = own.seen(record, desk.client());
            if let Err(error) = told(record, desk).and(kept) {
                failed.get_or_insert(error);
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match polled {
            Ok(count) => Ok(count),
            Err(ClientError::Record(error)) => {
                eprintln!("gapless: {error}");
                Ok(1)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes its leave.
    pub(crate) fn leave(mut self) -> anyhow::Result<()> {
        self.own.flush()?;
        // Without room for a good-bye its end is noticed all the same.
        let _ = self.client.close();
        Ok(())
    }
}

/// Follows the command that is waited for. True if it is through, and nothing was said of it.
fn is_through(record: &Record<'_>, id: ClientId, asked: &mut Asked, answered: &mut bool) -> bool {
    let own = record.client == id;
    match *asked {
        Asked::Sent(number) if own && record.reference == number => match record.kind {
            Kind::Command => *asked = Asked::Sequenced(record.sequence),
            Kind::Refused if Refusal::of(record.code) != Some(Refusal::Gap) => {
                *asked = Asked::Nothing;
            }
            _ => {}
        },
        Asked::Sequenced(sequence) => {
            if record.kind != Kind::Event || record.reference != sequence {
                *asked = Asked::Nothing;
                return !std::mem::take(answered);
            }
            *answered |= own;
        }
        _ => {}
    }
    false
}

fn tell_done(last: &str, json: bool) -> anyhow::Result<()> {
    match json {
        true => print_json(&serde_json::json!({ "done": last }))?,
        false => writeln!(io::stdout(), "done: {last}")?,
    }
    Ok(())
}

/// Tells what concerns the client.
fn tell(record: &Record<'_>, desk: &Desk, json: bool) -> anyhow::Result<()> {
    if record.client != desk.client() || !matches!(record.kind, Kind::Event | Kind::Refused) {
        return Ok(());
    }
    if json {
        return Ok(print_json(&words::object(&Entry::of(record)))?);
    }
    if let Some(line) = words::answer(record, desk.names()) {
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

/// The client's own record, if it keeps one.
pub(crate) struct Own {
    writer: Option<OwnWriter<File>>,
    /// What was seen up to here is in it.
    seen: u64,
    stamped: Vec<u8>,
}

impl Own {
    /// Goes on with the file, or begins it.
    pub(crate) fn open(path: Option<&Path>, client: ClientId) -> anyhow::Result<Self> {
        let stamped = Vec::new();
        let Some(path) = path else { return Ok(Self { writer: None, seen: 0, stamped }) };
        let named = || path.display().to_string();
        let (writer, _) = OwnWriter::open(path, client).with_context(named)?;
        let bytes = std::fs::read(path).with_context(named)?;
        let mut seen = 0;
        if !bytes.is_empty() {
            for record in OwnReader::new(&bytes).with_context(named)? {
                let record = record.with_context(named)?;
                if record.direction == Direction::Seen {
                    seen = record.sequence;
                }
            }
        }
        Ok(Self { writer: Some(writer), seen, stamped })
    }

    /// Notes a command that was sent.
    pub(crate) fn sent(&mut self, sequence: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        Ok(writer.append(&OwnRecord { direction: Direction::Sent, sequence, bytes })?)
    }

    /// Notes a record of the stream, if it concerns the client and is not in the file.
    pub(crate) fn seen(&mut self, record: &Record<'_>, client: ClientId) -> anyhow::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let sequence = record.sequence;
        if record.client != client || sequence <= self.seen {
            return Ok(());
        }
        self.stamped.clear();
        self.stamped.extend_from_slice(&record.stamp());
        self.stamped.extend_from_slice(record.payload);
        let bytes = &self.stamped;
        Ok(writer.append(&OwnRecord { direction: Direction::Seen, sequence, bytes })?)
    }

    /// Hands all of it to the file.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| Ok(writer.flush()?))
    }
}
