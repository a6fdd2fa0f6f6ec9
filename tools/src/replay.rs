//! `gapless replay`: what was recorded, once more: to standard output, or into a stream.

use gapless::{Address, LogAddress};

use crate::exit::{Outcome, Usage};
use crate::{relay, subscribe};

/// Replay a log: to standard output, to a file, or into a stream
///
/// Flat out, at the pace at which it was recorded, or a multiple of that; from a sequence number or
/// a time on, up to another; to where the log ends now, or on and on. Into a stream, session and
/// sequence numbers stay as they were, and what the log lacks is an explicit hole.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless replay log:/var/log/orders --from 1000 --max 10 --hex
  gapless replay log:/var/log/orders --hash --json
  gapless replay log:/var/log/orders --pace recorded --from @2025-11-22T05:20:00Z
  gapless replay log:/var/log/orders shm:again --pace 10x --wait-for 1
  gapless replay log:/var/log/orders 'udp:239.1.2.3:9000?iface=eth0' --follow

Everything may be said in the address as well, which `gapless sub` and every subscriber understands:
log:DIRECTORY?from=1000&until=2000&pace=2x&follow=yes

Ends with 3 if the log lacks some of the messages.")]
pub(crate) struct Args {
    /// The log, as log:DIRECTORY
    log: LogText,
    /// Where messages go, as shm:NAME or udp:239.1.2.3:9000?iface=eth0 [default: standard output]
    #[arg(conflicts_with_all = ["hex", "output", "hash", "envelope", "fragments"])]
    to: Option<Address>,
    /// Begin here: oldest, now, a sequence number, or a time as @1763788800.25 or
    /// @2025-11-22T05:20:00Z
    #[arg(long, value_name = "POINT")]
    from: Option<String>,
    /// Leave out what comes from here on: a sequence number or a time
    #[arg(long, value_name = "POINT")]
    until: Option<String>,
    /// How fast: flat, recorded, or a factor as 2x or 0.5x [default: flat]
    #[arg(long, value_name = "PACE")]
    pace: Option<String>,
    /// The session, ten characters [default: the newest]
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Go on with what is recorded meanwhile
    #[arg(long)]
    follow: bool,
    /// Begin when N subscribers of TO are attached, or receivers have reported
    #[arg(long, value_name = "N", requires = "to")]
    wait_for: Option<usize>,
    #[command(flatten)]
    output: subscribe::Output,
}

/// A log's address or directory, as it was given.
#[derive(Clone, Debug)]
struct LogText(String);

impl std::str::FromStr for LogText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A bare directory is one as well.
        let bare = text.parse::<Address>().is_err() && !text.starts_with("log:");
        let text = if bare { format!("log:{text}") } else { text.to_owned() };
        match text.parse() {
            Ok(Address::Log(_)) => Ok(Self(text)),
            Ok(_) => Err("expected log:DIRECTORY".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<Outcome> {
    let address = Address::Log(args.address()?);
    match args.to {
        Some(to) => {
            let (count, json) = (args.output.max(), args.output.json());
            let relay = relay::Args::replay(address, to, count, args.wait_for, json);
            relay::run(&relay)
        }
        None => subscribe::run(&subscribe::Args::of(address, args.output)),
    }
}

impl Args {
    /// The address with what the other arguments say.
    fn address(&self) -> Result<LogAddress, Usage> {
        let mut text = self.log.0.clone();
        let follow = self.follow.then(|| "yes".to_owned());
        let options = [
            ("from", &self.from),
            ("until", &self.until),
            ("pace", &self.pace),
            ("session", &self.session),
            ("follow", &follow),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                let join = if text.contains('?') { '&' } else { '?' };
                text = format!("{text}{join}{key}={value}");
            }
        }
        match text.parse() {
            Ok(Address::Log(log)) => Ok(log),
            Ok(other) => Err(Usage(format!("{other}: a log was expected"))),
            Err(error) => Err(Usage(error.to_string())),
        }
    }
}
