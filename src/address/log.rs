//! `log:` addresses, and how other addresses name the past of their stream.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gapless_shm::WaitStrategy;

use super::{AddressError, Input};
use crate::protocol::{Envelope, Session};

/// Where in the past of a stream to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest message of the session.
    Oldest,
    /// At this sequence number; one in the future is waited for.
    Sequence(u64),
    /// At the first message recorded at this time or later, ns since the Unix epoch.
    UnixNs(u64),
    /// Behind the last message.
    Now,
}

/// A place that has the past of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PastSource {
    /// A log on this host, by its directory.
    Log(PathBuf),
    /// A rewinder.
    Server(SocketAddr),
}

impl fmt::Display for PastSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(directory) => write!(f, "log:{}", directory.display()),
            Self::Server(server) => server.fmt(f),
        }
    }
}

/// How fast a log is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pace {
    /// As fast as it is read.
    #[default]
    Flat,
    /// So many times as fast as it was recorded.
    Times(f64),
}

/// The end of a replay: the first message that is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// This sequence number.
    Sequence(u64),
    /// The first message recorded at this time or later, ns since the Unix epoch.
    UnixNs(u64),
}

/// The address of a log, and how it is replayed.
///
/// `log:/var/log/orders?from=1000&pace=2x`
///
/// | option | value |
/// |---|---|
/// | `from` | `oldest` (unless given otherwise), `now`, a sequence, or `@TIME` |
/// | `until` | a sequence or `@TIME`: the first message that is left out |
/// | `pace` | `flat` (unless given otherwise), `recorded`, or `2x`, `0.5x`, … |
/// | `follow` | `yes`: go on with what is recorded meanwhile; `no`: end where the log ended when it was opened |
/// | `session` | 10 characters; unless given, the newest |
/// | `reader` | a name that lasts: begin where it was, and keep what it has not read from being removed |
/// | `envelope` | `yes`: messages carry [`Envelope`]s |
/// | `wait` | `spin`, `yield`, `park` |
///
/// A time is `@` and seconds since the Unix epoch, with up to nine digits behind a point, as
/// `@1763788800.25`, or UTC by RFC 3339, as `@2025-11-22T05:20:00.25Z`.
#[derive(Clone, Debug)]
pub struct LogAddress {
    text: String,
    directory: PathBuf,
    pub(crate) from: ReadFrom,
    pub(crate) until: Option<Until>,
    pub(crate) pace: Pace,
    pub(crate) follow: bool,
    pub(crate) session: Option<Session>,
    pub(crate) reader: Option<String>,
    pub(crate) envelope: Option<Envelope>,
    pub(crate) wait: WaitStrategy,
}

impl LogAddress {
    /// The address as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The log's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where to begin.
    pub fn from(&self) -> ReadFrom {
        self.from
    }

    /// Where to end.
    pub fn until(&self) -> Option<Until> {
        self.until
    }

    /// How fast.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Whether to go on with what is recorded meanwhile.
    pub fn follows(&self) -> bool {
        self.follow
    }

    /// The session, if not the newest.
    pub fn session(&self) -> Option<Session> {
        self.session
    }
}

/// Parses what stands behind `log:`.
pub(super) fn parse(input: &Input<'_>, rest: &str) -> Result<LogAddress, AddressError> {
    let (directory, options) = rest.split_once('?').unwrap_or((rest, ""));
    if directory.is_empty() {
        return Err(input.error(rest, "log: needs a directory, as in log:/var/log/orders"));
    }
    let mut address = LogAddress {
        text: input.text.to_owned(),
        directory: directory.into(),
        from: ReadFrom::Oldest,
        until: None,
        pace: Pace::Flat,
        follow: false,
        session: None,
        reader: None,
        envelope: None,
        wait: WaitStrategy::default(),
    };
    for (key, value) in input.options(options)? {
        match key {
            "from" => address.from = read_from(input, value)?,
            "until" => {
                address.until = Some(match read_from(input, value)? {
                    ReadFrom::Sequence(sequence) => Until::Sequence(sequence),
                    ReadFrom::UnixNs(unix_ns) => Until::UnixNs(unix_ns),
                    _ => return Err(input.error(value, "expected a sequence number or @TIME")),
                });
            }
            "pace" => address.pace = pace(input, value)?,
            "follow" => address.follow = input.yes(value)?,
            "session" => {
                let session = value.as_bytes().try_into().map(Session);
                let known = session.ok().filter(|session| session.number().is_some());
                let wrong = || input.error(value, "a session is 10 characters, 0-9 and A-Z");
                address.session = Some(known.ok_or_else(wrong)?);
            }
            "reader" => address.reader = Some(value.to_owned()),
            "envelope" => {
                input.set_envelope(&mut address.envelope, key, value)?;
            }
            "wait" => address.wait = input.wait(value)?,
            _ => {
                return Err(input.error(
                    key,
                    "unknown option; known: from, until, pace, follow, session, reader, envelope, \
                     wait",
                ));
            }
        }
    }
    Ok(address)
}

/// `oldest`, `now`, a sequence, or `@TIME`.
pub(super) fn read_from(input: &Input<'_>, value: &str) -> Result<ReadFrom, AddressError> {
    match value {
        "oldest" => return Ok(ReadFrom::Oldest),
        "now" => return Ok(ReadFrom::Now),
        _ => {}
    }
    let found = match value.strip_prefix('@') {
        Some(time) => parse_unix_ns(time).map(ReadFrom::UnixNs),
        None => value.parse().ok().map(ReadFrom::Sequence),
    };
    found.ok_or_else(|| {
        input.error(
            value,
            "expected oldest, now, a sequence number, or a time as @1763788800.25 or \
             @2025-11-22T05:20:00Z",
        )
    })
}

fn pace(input: &Input<'_>, value: &str) -> Result<Pace, AddressError> {
    let times = |text: &str| text.strip_suffix('x')?.parse().ok();
    match value {
        "flat" => Ok(Pace::Flat),
        "recorded" => Ok(Pace::Times(1.0)),
        _ => match times(value) {
            Some(factor) if factor > 0.0 && f64::is_finite(factor) => Ok(Pace::Times(factor)),
            _ => Err(input.error(value, "expected flat, recorded, or a factor as 2x or 0.5x")),
        },
    }
}

/// `HOST:PORT,HOST:PORT`: rewinders.
pub(super) fn servers(input: &Input<'_>, value: &str) -> Result<Vec<PastSource>, AddressError> {
    let server = |part: &str| {
        let place: Option<SocketAddr> = part.parse().ok();
        let place = place.filter(|place| place.port() != 0).map(PastSource::Server);
        place.ok_or_else(|| input.error(part, "expected an IP address and a port"))
    };
    value.split(',').map(server).collect()
}

/// A log's directory, with or without `log:` in front of it.
pub(super) fn directory(input: &Input<'_>, value: &str) -> Result<PastSource, AddressError> {
    match value.strip_prefix("log:").unwrap_or(value) {
        "" => Err(input.error(value, "log= needs a directory")),
        directory => Ok(PastSource::Log(directory.into())),
    }
}

/// Seconds since the Unix epoch with a fraction, or RFC 3339 in UTC.
fn parse_unix_ns(text: &str) -> Option<u64> {
    if text.ends_with('Z') {
        let time = humantime::parse_rfc3339(text).ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        return u64::try_from(since.as_nanos()).ok();
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || fraction.len() > 9 || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let ns: u64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Address;

    fn parsed(text: &str) -> LogAddress {
        match text.parse::<Address>() {
            Ok(Address::Log(log)) => log,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn options_are_read() {
        let log = parsed(
            "log:/var/log/orders?from=@1763788800.25&until=9&pace=0.5x&follow=yes\
             &session=000000000Z&reader=risk&envelope=yes&wait=park",
        );
        assert_eq!(log.directory(), Path::new("/var/log/orders"));
        assert_eq!(log.from(), ReadFrom::UnixNs(1_763_788_800_250_000_000));
        assert_eq!((log.until(), log.pace()), (Some(Until::Sequence(9)), Pace::Times(0.5)));
        assert!(log.follows() && log.session().is_some() && log.envelope.is_some());
        let utc = parsed("log:x?from=@2025-11-22T05:20:00.25Z");
        assert_eq!(utc.from(), log.from());
        assert_eq!(parsed("log:x?from=now&pace=recorded").pace(), Pace::Times(1.0));
        assert_eq!(parsed("log:x").from(), ReadFrom::Oldest);
    }

    #[test]
    fn errors_point_at_the_offending_part() {
        for (text, part) in [
            ("log:", ""),
            ("log:?from=1", "?from=1"),
            ("log:x?from=@", "@"),
            ("log:x?from=@1.0000000001", "@1.0000000001"),
            ("log:x?from=@99999999999999999999", "@99999999999999999999"),
            ("log:x?until=now", "now"),
            ("log:x?pace=0x", "0x"),
            ("log:x?pace=infx", "infx"),
            ("log:x?session=abc", "abc"),
            ("log:x?colour=red", "colour"),
            ("shm:x?rewind=10.0.0.1:0", "10.0.0.1:0"),
            ("shm:x?log=", ""),
            ("udp:10.0.0.1:9?rewind=host:1", "host:1"),
            ("udp:10.0.0.1:9?from=@x", "@x"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            let pointed: String = text.chars().skip(error.start).take(error.len).collect();
            assert_eq!(pointed, part, "{error}");
        }
    }
}
