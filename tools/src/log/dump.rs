//! `gapless log dump`: the messages of a log, for people to read.

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use gapless::Message;
use gapless::shm::session_text;

use super::itch;
use super::lines::{flags_word, write_lacking, write_message};
use super::select::{Item, Selection};
use crate::exit::Outcome;
use crate::stop::Stop;
use crate::target::hexdump;
use crate::units::utc;

/// How messages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Number, time, length; the bytes as hexadecimal digits and text
    Hex,
    /// One JSON object a line, as `export` writes and `import` reads them
    Json,
    /// Decoded as Nasdaq ITCH 5.0
    Itch,
}

/// Print messages of a log: hexadecimal, JSON lines, or decoded
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log dump /var/log/orders --from 1000 --count 3
  gapless log dump /var/log/orders --from @2025-11-22T05:20:00Z --format json | jq .sequence
  gapless log dump /var/log/itch --format itch --count 20

What the log does not have is told in its place, and the exit code is then 3; it is 3 as well if a
message is not what --format says.")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// How messages are shown
    #[arg(long, value_enum, default_value_t = Format::Hex)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut foreign = 0u64;
    let met = args.selection.read(&stop, "dumping", |item| {
        match (item, args.format) {
            (Item::Message { session, message, unix_ns }, Format::Json) => {
                write_message(&mut out, session, message, unix_ns)?;
            }
            (Item::Lacking { session, first, count, .. }, Format::Json) => {
                write_lacking(&mut out, session, first, count)?;
            }
            (Item::Message { message, unix_ns, .. }, Format::Hex) => {
                let (number, len, time) = (message.sequence, message.payload.len(), utc(unix_ns));
                writeln!(out, "{number}  {time}  {len} B  {}", flags_word(message.flags))?;
                out.write_all(hexdump(message.payload).as_bytes())?;
            }
            (Item::Message { message, unix_ns, .. }, Format::Itch) => {
                foreign += u64::from(!decoded(&mut out, message, unix_ns)?);
            }
            (Item::Lacking { why, .. }, _) => writeln!(out, "-- {why}")?,
            (Item::Session { .. }, Format::Json) => {}
            (Item::Session { session, next }, _) => {
                writeln!(out, "-- session {} begins, at {next}", session_text(session))?;
            }
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(Outcome::wrong_if(met.lacking > 0 || foreign > 0))
}

/// Writes a message decoded. False if it is no ITCH 5.0.
fn decoded(out: &mut dyn Write, message: Message<'_>, unix_ns: u64) -> io::Result<bool> {
    let number = message.sequence;
    let place = format!("{number}  {}", utc(unix_ns));
    match itch::decode(message.payload) {
        Ok(text) => writeln!(out, "{place}  {text}").map(|()| true),
        Err(why) => writeln!(out, "{place}  ?? {why}").map(|()| false),
    }
}
