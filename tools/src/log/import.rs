//! `gapless log import`: messages of a file into a log, new or one that goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context, bail};
use gapless::Flags;
use gapless::log::{LogOptions, LogWriter};
use gapless::protocol::{Envelope, Packet, Session};

use super::Directory;
use super::export::Format;
use super::lines::{self, Read};
use super::select::session;
use crate::exit::{Outcome, Usage};
use crate::progress;
use crate::records::{Prefix, RecordReader};
use crate::relay::capture::Capture;
use crate::relay::origin::Destination;
use crate::stop::Stop;
use crate::table::{Cell, Facts, print_json};
use crate::units::{bytes, unix_ns};

/// How late a captured packet may be before what it has counts as lost.
const REORDER_NS: u64 = 50_000_000;
/// Messages between two looks at what need not be looked at for each.
const HOUSEKEEPING_MESSAGES: u64 = 1024;

/// Put messages of a file into a log: of a capture, of records, or of JSON lines
///
/// Makes the log, or goes on with one. Captures and JSON lines bring their sessions, sequence
/// numbers and times; what a capture has twice (two lines, repeats) is taken once, and what it
/// lacks is put on record as lost. Records have the time of the import, and follow the last message
/// of the log unless --session says otherwise.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log import day.pcap /var/log/copy --format pcap --port 26400
  gapless log import day.binfile /var/log/itch --format file
  gapless log import day.json /var/log/copy --format json

Ends with 3 if a capture lacks messages.")]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
    /// The log's directory
    directory: Directory,
    /// What the file is
    #[arg(long, value_enum)]
    format: Format,
    /// How the lengths of records are written
    #[arg(long, value_enum, default_value_t = Prefix::Be16)]
    prefix: Prefix,
    /// Which of a capture's datagrams: those that went to PORT or IP:PORT [default: all]
    #[arg(long, value_name = "PLACE", value_parser = destination)]
    port: Vec<Destination>,
    /// The session, ten characters, of records, or of packets whose session is no number
    #[arg(long, value_name = "SESSION", value_parser = session)]
    session: Option<Session>,
    /// Sequence number of the first record of a new session
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    first: u64,
    /// The stream's name
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Messages carry envelopes
    #[arg(long)]
    envelope: bool,
    /// Size of the log's segments
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    segment: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn destination(text: &str) -> Result<Destination, String> {
    let port = text.parse().map(Destination::Port);
    let place = port.or_else(|_| text.parse().map(Destination::Place));
    place.map_err(|_| "expected PORT or IP:PORT".into())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let place = || args.file.display().to_string();
    let file = File::open(&args.file).with_context(place)?;
    if args.format != Format::Pcap && !args.port.is_empty() {
        return Err(Usage("--port is for captures".into()).into());
    }
    let options = LogOptions::new().name(args.name.as_str()).enveloped(args.envelope);
    let (writer, recovery) = options.segment_bytes(args.segment).open(&args.directory.0)?;
    if let Some(cut) = recovery.and_then(|recovery| recovery.cut) {
        let (bytes, path) = (cut.bytes, cut.path.display());
        eprintln!("gapless: {path}: a torn end of {bytes} bytes was cut off");
    }
    let bar = progress::spinner("importing");
    let mut import =
        Import { writer, enveloped: args.envelope, messages: 0, lost: 0, again: 0, last_ns: 0 };
    let check = |import: &Import| {
        if import.messages.is_multiple_of(HOUSEKEEPING_MESSAGES) {
            bar.set_position(import.messages);
            if stop.asked() {
                bail!("interrupted");
            }
        }
        Ok(())
    };
    match args.format {
        Format::Pcap => import.packets(args, Capture::open(file).with_context(place)?, check),
        Format::File => import.records(args, file, check),
        Format::Json => import.lines(file, check),
    }
    .with_context(place)?;
    bar.finish_and_clear();
    let Import { writer, messages, lost, again, .. } = import;
    let position = writer.position();
    writer.close()?;
    let mut facts = Facts::default();
    facts.add("messages", "messages", Cell::count(messages));
    facts.add("lost", "lost", Cell::count(lost));
    facts.add("duplicates", "duplicates", Cell::count(again));
    if let Some((session, next)) = position {
        let session = Session::from_number(session).to_string();
        facts.add("session", "session", Cell::text(session));
        facts.add("next_sequence", "next sequence", Cell::count(next));
    }
    match args.json {
        true => print_json(&facts.json().into())?,
        false => println!("{facts}"),
    }
    Ok(Outcome::wrong_if(lost > 0))
}

struct Import {
    writer: LogWriter,
    enveloped: bool,
    messages: u64,
    lost: u64,
    again: u64,
    /// Time of the message appended last.
    last_ns: u64,
}

impl Import {
    /// Sequence that the log goes on with, if it is at this session.
    fn next_of(&self, session: u64) -> Option<u64> {
        self.writer.position().filter(|position| position.0 == session).map(|(_, next)| next)
    }

    /// Says what is missing in front of `sequence`, or begins the session there.
    fn reach(&mut self, session: u64, sequence: u64, unix_ns: u64) -> anyhow::Result<()> {
        match self.next_of(session) {
            Some(next) if next < sequence => {
                self.lost += sequence - next;
                Ok(self.writer.append_lost(sequence - next, unix_ns)?)
            }
            Some(_) => Ok(()),
            None => Ok(self.writer.begin(session, sequence)?),
        }
    }

    fn append(&mut self, sequence: u64, payload: &[u8], unix_ns: u64) -> anyhow::Result<()> {
        let mut flags = Flags::WHOLE;
        if self.enveloped {
            let (envelope, _) =
                Envelope::split(payload).with_context(|| format!("message {sequence}"))?;
            flags = envelope.record_flags();
        }
        self.append_flagged(sequence, payload, flags, unix_ns)
    }

    fn append_flagged(
        &mut self,
        sequence: u64,
        payload: &[u8],
        flags: Flags,
        unix_ns: u64,
    ) -> anyhow::Result<()> {
        // Within a block times are spread evenly: so each time gets a block, and stays as it was.
        if unix_ns != self.last_ns {
            self.writer.flush()?;
            self.last_ns = unix_ns;
        }
        self.writer.append(sequence, payload, flags, unix_ns)?;
        self.messages += 1;
        Ok(())
    }

    fn records(
        &mut self,
        args: &Args,
        file: File,
        check: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let position = self.writer.position();
        let session = args.session.and_then(Session::number);
        let session = session.or(position.map(|position| position.0));
        let session = session.unwrap_or_else(fresh_session);
        let mut sequence = self.next_of(session).unwrap_or(args.first);
        self.reach(session, sequence, unix_ns())?;
        let mut reader = RecordReader::new(BufReader::with_capacity(1 << 16, file), args.prefix);
        let (mut record, mut now) = (Vec::new(), 0);
        while reader.next(&mut record)? {
            if self.messages.is_multiple_of(HOUSEKEEPING_MESSAGES) {
                now = unix_ns();
            }
            self.append(sequence, &record, now)?;
            sequence += 1;
            check(self)?;
        }
        Ok(())
    }

    fn lines(
        &mut self,
        file: File,
        check: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let lines = BufReader::with_capacity(1 << 16, file).lines();
        for (number, line) in (1..).zip(lines) {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            let read = lines::read(&line).with_context(|| format!("line {number}"))?;
            match read {
                Read::Lost { session, first, count } => {
                    self.reach(session, first, 0)?;
                    self.writer.append_lost(count, 0)?;
                    self.lost += count;
                }
                Read::Message { session, sequence, unix_ns: at, flags, payload } => {
                    let at = at.unwrap_or_else(unix_ns);
                    self.reach(session, sequence, at)?;
                    self.append_flagged(sequence, &payload, flags, at)?;
                }
            }
            check(self)?;
        }
        Ok(())
    }

    fn packets(
        &mut self,
        args: &Args,
        mut capture: Capture,
        check: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let unnamed = args.session.and_then(Session::number);
        let mut waiting = Waiting::default();
        loop {
            let mut found = None;
            let more = capture.next(|to, payload, at| {
                if args.port.is_empty() || args.port.iter().any(|place| place.is(to)) {
                    found = Some((payload.to_vec(), at));
                }
            })?;
            if !more {
                break;
            }
            let Some((payload, at)) = found else { continue };
            let Ok(packet) = Packet::read(&payload) else { continue };
            let session = packet.header.session.number().or(unnamed);
            let session = session.with_context(|| {
                let session = packet.header.session;
                format!("session {session} is no number: say --session")
            })?;
            if session != waiting.session {
                self.take_waiting(&mut waiting, u64::MAX)?;
                waiting.session = session;
            }
            for (sequence, message) in packet.messages() {
                self.take(&mut waiting, sequence, message, at)?;
                check(self)?;
            }
            self.take_waiting(&mut waiting, at.saturating_sub(REORDER_NS))?;
        }
        self.take_waiting(&mut waiting, u64::MAX)
    }

    /// Takes a captured message: at once if it is the next one, later if it is ahead.
    fn take(
        &mut self,
        waiting: &mut Waiting,
        sequence: u64,
        message: &[u8],
        at: u64,
    ) -> anyhow::Result<()> {
        let session = waiting.session;
        let next = self.next_of(session).unwrap_or(sequence);
        if sequence < next || waiting.messages.contains_key(&sequence) {
            self.again += 1;
        } else if sequence > next {
            waiting.messages.insert(sequence, (at, message.to_vec()));
        } else {
            self.reach(session, sequence, at)?;
            self.append(sequence, message, at)?;
        }
        Ok(())
    }

    /// Takes what can be taken, over the holes in front of what has waited since `until`.
    fn take_waiting(&mut self, waiting: &mut Waiting, until: u64) -> anyhow::Result<()> {
        while let Some(first) = waiting.messages.first_entry() {
            let (sequence, at) = (*first.key(), first.get().0);
            let is_next = self.next_of(waiting.session) == Some(sequence);
            if !is_next && at > until {
                break;
            }
            let (_, message) = first.remove();
            self.reach(waiting.session, sequence, at)?;
            self.append(sequence, &message, at)?;
        }
        Ok(())
    }
}

/// Messages that came ahead of others, by number: when they came, and their bytes.
#[derive(Default)]
struct Waiting {
    session: u64,
    messages: BTreeMap<u64, (u64, Vec<u8>)>,
}

/// A session that no earlier import had: the time in µs, as rings have it.
fn fresh_session() -> u64 {
    unix_ns() / 1000
}
