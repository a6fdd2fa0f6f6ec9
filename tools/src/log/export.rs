//! `gapless log export`: a log, or a part of it, as a capture, a file of records, or JSON lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use gapless::Message;

use super::lines::{write_lacking, write_message};
use super::packets::PacketWriter;
use super::select::{Item, Selection};
use crate::exit::{Outcome, Usage};
use crate::records::Prefix;
use crate::stop::Stop;
use crate::table::{bytes_text, messages_text};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A capture of MoldUDP64 packets: session, numbers and times are kept
    Pcap,
    /// Length-prefixed records: the messages alone
    File,
    /// JSON lines: session, numbers, times and flags are kept
    Json,
}

/// Write messages of a log to a file: a capture, records, or JSON lines
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log export /var/log/orders day.pcap --format pcap
  tshark -r day.pcap -d udp.port==26400,moldudp64
  gapless log export /var/log/itch day.binfile --format file
  gapless log export /var/log/orders - --format json --from @2025-11-22T05:20:00Z | head

Packets have the times at which their messages were recorded. Fragments of long messages are written
one by one; only JSON lines say which they are, and only those say what is lost.

Ends with 3 if the log lacks some of the messages.")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The file, made anew; `-`: standard output
    file: PathBuf,
    /// What the file is to be
    #[arg(long, value_enum)]
    format: Format,
    /// How the lengths of records are written
    #[arg(long, value_enum, default_value_t = Prefix::Be16)]
    prefix: Prefix,
    /// Where packets come from
    #[arg(long, value_name = "IP:PORT", default_value = "10.0.0.1:26401")]
    source: SocketAddrV4,
    /// Where packets go to
    #[arg(long, value_name = "IP:PORT", default_value = "239.1.2.3:26400")]
    to: SocketAddrV4,
}

/// Where messages go.
enum Sink {
    Packets(Box<PacketWriter<Box<dyn Write>>>),
    Records(Box<dyn Write>, Prefix),
    Lines(Box<dyn Write>),
}

impl Sink {
    fn put(&mut self, session: u64, message: Message<'_>, unix_ns: u64) -> anyhow::Result<()> {
        match self {
            // A hole in the numbers says as much.
            Self::Packets(_) if message.flags.is_lost() => Ok(()),
            Self::Packets(packets) => {
                packets.add(session, message.sequence, message.payload, unix_ns)
            }
            Self::Records(out, prefix) => Ok(prefix.write(out, message.payload)?),
            Self::Lines(out) => Ok(write_message(out, session, message, unix_ns)?),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Packets(packets) => packets.finish(),
            Self::Records(mut out, _) | Self::Lines(mut out) => Ok(out.flush()?),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.source.ip().is_multicast() {
        return Err(Usage("--source is a host's address".into()).into());
    }
    let stop = Stop::on_signals()?;
    let to_stdout = args.file.as_os_str() == "-";
    let out: Box<dyn Write> = match to_stdout {
        true => Box::new(BufWriter::new(io::stdout())),
        false => {
            let file = File::create(&args.file);
            Box::new(BufWriter::new(file.with_context(|| args.file.display().to_string())?))
        }
    };
    let mut sink = match args.format {
        Format::Pcap => Sink::Packets(Box::new(PacketWriter::new(out, args.source, args.to)?)),
        Format::File => Sink::Records(out, args.prefix),
        Format::Json => Sink::Lines(out),
    };
    let mut fragments = 0u64;
    let met = args.selection.read(&stop, "exporting", |item| {
        match item {
            Item::Message { session, message, unix_ns } => {
                fragments += u64::from(!(message.flags.begins() && message.flags.ends()));
                sink.put(session, message, unix_ns)?;
            }
            Item::Lacking { session, first, count, why } => {
                eprintln!("gapless: {why}");
                if let Sink::Lines(out) = &mut sink {
                    write_lacking(out, session, first, count)?;
                }
            }
            Item::Session { .. } => {}
        }
        Ok(())
    })?;
    sink.finish()?;
    if fragments > 0 && args.format != Format::Json {
        let messages = messages_text(fragments);
        eprintln!("gapless: {messages} are fragments of longer ones; the file does not say so");
    }
    let (messages, bytes) = (messages_text(met.messages), bytes_text(met.bytes));
    eprintln!("exported {messages}, {bytes}");
    Ok(Outcome::wrong_if(met.lacking > 0))
}
