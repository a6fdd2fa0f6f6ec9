//! `gapless log`: looking at logs, checking them, taking out of them and putting into them.

mod dump;
mod export;
mod import;
mod itch;
mod lines;
mod ls;
mod packets;
mod select;
mod trim;
mod verify;

use std::path::PathBuf;
use std::str::FromStr;

use gapless::Address;
use gapless::log::ReadFrom;

use crate::exit::Outcome;

/// Look at logs, check them, take out of them and put into them
#[derive(clap::Args)]
#[command(after_long_help = "\
A log is a directory that `gapless record` writes. All of these may be used while it does.

  gapless log ls /var/log/orders                      its segments, its readers, totals
  gapless log verify /var/log/orders                  every byte, checked
  gapless log dump /var/log/orders --from 1000 --count 3
  gapless log export /var/log/orders day.pcap --format pcap
  gapless log import day.pcap /var/log/copy --format pcap --port 26400
  gapless log trim /var/log/orders --keep-age 7days")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Ls(ls::Args),
    Verify(verify::Args),
    Dump(dump::Args),
    Export(export::Args),
    Import(import::Args),
    Trim(trim::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Ls(args) => ls::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Trim(args) => trim::run(args),
    }
}

/// A log's directory, with or without `log:` in front of it.
#[derive(Clone, Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("log:").unwrap_or(text) {
            "" => Err("which directory?".into()),
            path if matches!(path.parse(), Ok(Address::Shm(_) | Address::Udp(_))) => {
                Err("expected a log, as log:DIRECTORY".into())
            }
            path if path.contains('?') => Err("a directory, without options".into()),
            path => Ok(Self(path.into())),
        }
    }
}

/// A point in a log: `oldest`, `now`, a sequence number, or `@TIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point(pub(crate) ReadFrom);

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match format!("log:.?from={text}").parse() {
            Ok(Address::Log(log)) if !text.contains('&') => Ok(Self(log.from())),
            Err(error) => Err(error.reason),
            Ok(_) => Err("one point, without options".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_numbers_words_or_times() {
        let at = |ns| Ok(Point(ReadFrom::UnixNs(ns)));
        assert_eq!("oldest".parse(), Ok(Point(ReadFrom::Oldest)));
        assert_eq!("17".parse(), Ok(Point(ReadFrom::Sequence(17))));
        assert_eq!("@1763788800.25".parse(), at(1_763_788_800_250_000_000));
        assert_eq!("@2025-11-22T05:20:00.25Z".parse(), at(1_763_788_800_250_000_000));
        for bad in ["", "-1", "@", "@1.0000000001", "@now", "then", "1&until=2"] {
            assert!(bad.parse::<Point>().is_err(), "{bad}");
        }
    }
}
