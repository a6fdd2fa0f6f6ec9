//! Channel addresses: one string names a stream and its options, for the library and the command
//! line alike.
//!
//! ```text
//! shm:NAME?option=value&option=value
//! udp:GROUP_OR_HOST:PORT?option=value&option=value
//! log:DIRECTORY?option=value&option=value
//! ```
//!
//! Options of `shm:`
//!
//! | option | value | side |
//! |---|---|---|
//! | `dir` | directory of the ring | both |
//! | `capacity` | bytes, with `K`, `M`, `G` for powers of 1,024 | publisher |
//! | `align` | 16, 32, 64, 128 | publisher |
//! | `max` | largest record, bytes (`K`, `M` as above) | publisher |
//! | `slots` | consumer slots | publisher |
//! | `mode` | `lossless`, `lossy` | publisher |
//! | `parkable`, `evictable` | `yes`, `no` | publisher |
//! | `first` | first sequence of a new ring | publisher |
//! | `filemode` | octal, as 0640 | publisher |
//! | `from` | `oldest`, `now`, a sequence; with `log` or `rewind` also `@TIME` | subscriber |
//! | `log` | directory of the stream's log: what the ring has not any more is read there; a publisher whose ring is gone goes on from it | both |
//! | `rewind` | rewinders, `HOST:PORT,HOST:PORT`, that have what the ring has not any more | subscriber |
//! | `resume` | `durable`: nobody was sent, or acted on, what was not durable, so that a publisher may go on from a log that was not finished in order (`udp:`) | publisher |
//! | `fresh` | `yes`: begin a new session although there is a log to go on with | publisher |
//! | `name` | shown to whoever asks who is slow | subscriber |
//! | `observe` | `yes`: no slot, holds nobody up | subscriber |
//! | `wait` | `spin`, `yield`, `park` | subscriber |
//! | `envelope` | `yes`: each message carries an [`Envelope`](crate::protocol::Envelope) | both |
//! | `topic`, `publisher` | numbers for the envelope | publisher |
//! | `prefault` | `yes`, `no` | both |
//! | `lock` | `never`, `permitted`, `required` | both |
//! | `huge` | `default`, `transparent`, `required` | both |
//!
//! A side ignores the options of the other, so that both may use one string. For the options of
//! `udp:` see [`UdpAddress`], for those of `log:` [`LogAddress`].

mod log;
mod udp;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gapless_shm::{
    ConsumerOptions, HugePages, LockMemory, Mode, RingOptions, Start, WaitStrategy,
    default_directory, ring_path,
};
use thiserror::Error;

use crate::protocol::Envelope;

pub use log::{LogAddress, Pace, PastSource, ReadFrom, Until};
pub use udp::UdpAddress;

/// Where the past of a stream is to be had, and where a subscriber begins in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PastOptions {
    /// In this order.
    pub(crate) sources: Vec<PastSource>,
    /// Where to begin, if the address said so.
    pub(crate) from: Option<ReadFrom>,
    /// Whether a publisher begins anew although it could go on.
    pub(crate) fresh: bool,
    /// Whether nobody was sent what was not durable.
    pub(crate) resume_durable: bool,
}

impl PastOptions {
    /// The log on this host, if one was named.
    pub(crate) fn log(&self) -> Option<&Path> {
        self.sources.iter().find_map(|source| match source {
            PastSource::Log(directory) => Some(directory.as_path()),
            PastSource::Server(_) => None,
        })
    }
}

/// An address could not be read. Its text shows the address with the offending part underlined.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}\n  {address}\n  {}{}", " ".repeat(*.start), "^".repeat((*.len).max(1)))]
pub struct AddressError {
    /// The address as given.
    pub address: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
    /// Where the offending part starts, in characters.
    pub start: usize,
    /// How long it is, in characters.
    pub len: usize,
}

/// A channel address, parsed.
///
/// ```
/// use gapless::Address;
/// let address: Address = "shm:orders?capacity=64M&mode=lossy".parse()?;
/// assert_eq!(address.name(), "orders");
/// let error = "shm:orders?capacity=64Q".parse::<Address>().unwrap_err();
/// assert_eq!((error.start, error.len), (20, 3)); // points at `64Q`
/// # Ok::<(), gapless::AddressError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "there are never many")]
pub enum Address {
    /// A ring on this host.
    Shm(ShmAddress),
    /// Datagrams, to a multicast group or to hosts.
    Udp(Box<UdpAddress>),
    /// A log on this host's disk, to be read.
    Log(LogAddress),
}

/// The address of a ring, and how to open it on either side.
#[derive(Clone, Debug)]
pub struct ShmAddress {
    text: String,
    name: String,
    directory: PathBuf,
    pub(crate) ring: RingOptions,
    pub(crate) consumer: ConsumerOptions,
    pub(crate) wait: WaitStrategy,
    /// What envelopes say unless told otherwise; `None` if there are none.
    pub(crate) envelope: Option<Envelope>,
    pub(crate) past: PastOptions,
}

impl Address {
    /// The stream's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Shm(shm) => &shm.name,
            Self::Udp(udp) => udp.name(),
            Self::Log(log) => log.directory().to_str().unwrap_or_default(),
        }
    }
}

impl Address {
    /// Whether messages carry envelopes: then a publisher puts them on, and a subscriber takes them
    /// off.
    pub fn is_enveloped(&self) -> bool {
        match self {
            Self::Shm(shm) => shm.envelope.is_some(),
            Self::Udp(udp) => udp.sender.enveloped,
            Self::Log(log) => log.envelope.is_some(),
        }
    }
}

impl ShmAddress {
    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory of the ring: the address's, or the default one.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How a publisher opens it.
    pub fn ring_options(&self) -> &RingOptions {
        &self.ring
    }

    /// How a subscriber opens it.
    pub fn consumer_options(&self) -> &ConsumerOptions {
        &self.consumer
    }

    /// How a subscriber waits.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.wait
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shm(shm) => f.write_str(&shm.text),
            Self::Udp(udp) => f.write_str(udp.text()),
            Self::Log(log) => f.write_str(log.text()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let input = Input { text };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(input.error(text, "an address starts with its kind, as in shm:NAME"));
        };
        match scheme {
            "shm" => Ok(Self::Shm(input.shm(rest)?)),
            "udp" => Ok(Self::Udp(Box::new(udp::parse(&input, rest)?))),
            "log" => Ok(Self::Log(log::parse(&input, rest)?)),
            _ => Err(input.error(scheme, "unknown kind of address; known: shm, udp, log")),
        }
    }
}

/// The whole text, to point into.
struct Input<'a> {
    text: &'a str,
}

impl Input<'_> {
    /// An error about `part`, which is a slice of the text.
    fn error(&self, part: &str, reason: impl Into<String>) -> AddressError {
        let bytes = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        AddressError {
            address: self.text.to_owned(),
            reason: reason.into(),
            start: self.text.get(..bytes).map_or(0, |before| before.chars().count()),
            len: part.chars().count(),
        }
    }

    fn shm(&self, rest: &str) -> Result<ShmAddress, AddressError> {
        let (name, options) = rest.split_once('?').unwrap_or((rest, ""));
        if let Err(error) = ring_path("".as_ref(), name) {
            return Err(self.error(name, error.to_string()));
        }
        let mut address = self.blank(name);
        for (key, value) in self.options(options)? {
            if !self.set_envelope(&mut address.envelope, key, value)?
                && !self.set_past(&mut address.past, key, value)?
            {
                self.set(&mut address, key, value)?;
            }
        }
        self.check_past(&address.past)?;
        Ok(address)
    }

    /// A ring's address without options.
    fn blank(&self, name: &str) -> ShmAddress {
        ShmAddress {
            text: self.text.to_owned(),
            name: name.to_owned(),
            directory: default_directory(),
            ring: RingOptions::new(),
            consumer: ConsumerOptions::new(),
            wait: WaitStrategy::default(),
            envelope: None,
            past: PastOptions::default(),
        }
    }

    /// `log`, `rewind`, `fresh`, and `from` for whoever reads the past. False if `key` is something
    /// else, or has a further meaning.
    fn set_past(
        &self,
        past: &mut PastOptions,
        key: &str,
        value: &str,
    ) -> Result<bool, AddressError> {
        match key {
            // What is at hand first.
            "log" => past.sources.insert(0, log::directory(self, value)?),
            "rewind" => past.sources.extend(log::servers(self, value)?),
            "fresh" => past.fresh = self.yes(value)?,
            "resume" => past.resume_durable = self.word(value, &[("durable", true)])?,
            "from" => {
                let from = log::read_from(self, value)?;
                past.from = Some(from);
                return Ok(matches!(from, ReadFrom::UnixNs(_)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A time needs a log to be looked up in.
    fn check_past(&self, past: &PastOptions) -> Result<(), AddressError> {
        match past.from {
            Some(ReadFrom::UnixNs(_)) if past.log().is_none() => {
                Err(self.error(self.text, "from=@TIME needs a log on this host: say log=DIRECTORY"))
            }
            _ => Ok(()),
        }
    }

    fn wait(&self, value: &str) -> Result<WaitStrategy, AddressError> {
        let strategies = [
            ("spin", WaitStrategy::BusySpin),
            ("yield", WaitStrategy::SpinYield),
            ("park", WaitStrategy::Park),
        ];
        self.word(value, &strategies)
    }

    /// `envelope`, `topic` and `publisher`. False if `key` is something else.
    fn set_envelope(
        &self,
        envelope: &mut Option<Envelope>,
        key: &str,
        value: &str,
    ) -> Result<bool, AddressError> {
        match key {
            "envelope" if self.yes(value)? => {
                envelope.get_or_insert_default();
            }
            "envelope" => *envelope = None,
            "topic" => envelope.get_or_insert_default().topic = self.number(value)?,
            "publisher" => envelope.get_or_insert_default().publisher = self.number(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The options as keys and values, none of them given twice.
    fn options<'a>(&self, options: &'a str) -> Result<Vec<(&'a str, &'a str)>, AddressError> {
        let mut all: Vec<(&str, &str)> = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let Some((key, value)) = option.split_once('=') else {
                return Err(self.error(option, "an option is written key=value"));
            };
            if all.iter().any(|(known, _)| *known == key) {
                return Err(self.error(option, format!("option {key} is given twice")));
            }
            all.push((key, value));
        }
        Ok(all)
    }

    fn set(&self, address: &mut ShmAddress, key: &str, value: &str) -> Result<(), AddressError> {
        let ring = address.ring.clone();
        let consumer = address.consumer.clone();
        match key {
            "capacity" => address.ring = ring.capacity_bytes(self.bytes(value)?),
            "align" => address.ring = ring.alignment_bytes(self.bytes(value)?),
            "max" => address.ring = ring.max_message_bytes(self.bytes(value)?),
            "slots" => address.ring = ring.consumer_slots(self.number(value)?),
            "mode" => {
                let modes = [("lossless", Mode::Lossless), ("lossy", Mode::Lossy)];
                address.ring = ring.mode(self.word(value, &modes)?);
            }
            "parkable" => address.ring = ring.parkable(self.yes(value)?),
            "evictable" => address.ring = ring.evictable(self.yes(value)?),
            "first" => address.ring = ring.first_sequence(self.number(value)?),
            "filemode" => address.ring = ring.file_mode(self.octal(value)?),
            "from" => address.consumer = consumer.start(self.start(value)?),
            "name" => address.consumer = consumer.name(value),
            "observe" => address.consumer = consumer.observer(self.yes(value)?),
            "wait" => address.wait = self.wait(value)?,
            "dir" if value.is_empty() => return Err(self.error(value, "dir= needs a directory")),
            "dir" => {
                address.directory = value.into();
                address.ring = ring.directory(value);
                address.consumer = consumer.directory(value);
            }
            "prefault" => {
                let prefault = self.yes(value)?;
                address.ring = ring.prefault(prefault);
                address.consumer = consumer.prefault(prefault);
            }
            "lock" => {
                let locks = [
                    ("never", LockMemory::Never),
                    ("permitted", LockMemory::IfPermitted),
                    ("required", LockMemory::Required),
                ];
                let lock = self.word(value, &locks)?;
                address.ring = ring.lock_memory(lock);
                address.consumer = consumer.lock_memory(lock);
            }
            "huge" => {
                let kinds = [
                    ("default", HugePages::Default),
                    ("transparent", HugePages::Transparent),
                    ("required", HugePages::Required),
                ];
                let huge = self.word(value, &kinds)?;
                address.ring = ring.huge_pages(huge);
                address.consumer = consumer.huge_pages(huge);
            }
            _ => {
                return Err(self.error(
                    key,
                    "unknown option; known: dir, capacity, align, max, slots, mode, parkable, \
                     evictable, first, filemode, from, log, rewind, resume, fresh, name, observe, \
                     wait, envelope, topic, publisher, prefault, lock, huge",
                ));
            }
        }
        Ok(())
    }

    fn number<T: FromStr>(&self, value: &str) -> Result<T, AddressError> {
        value.parse().map_err(|_| self.error(value, "not a number in range"))
    }

    /// Bytes, with K, M or G for powers of 1,024.
    fn bytes(&self, value: &str) -> Result<u64, AddressError> {
        let digits = value.trim_end_matches(['K', 'M', 'G']);
        let shift = match &value[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(self.error(value, "one of K, M, G at most may follow the number")),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .ok_or_else(|| self.error(value, "not a number of bytes, as 4096, 64K, 16M or 1G"))
    }

    /// Bytes of memory.
    fn size(&self, value: &str) -> Result<usize, AddressError> {
        let bytes = self.bytes(value)?;
        usize::try_from(bytes).map_err(|_| self.error(value, "more bytes than memory has"))
    }

    fn octal(&self, value: &str) -> Result<u32, AddressError> {
        match u32::from_str_radix(value, 8) {
            Ok(mode) if mode <= 0o777 => Ok(mode),
            _ => Err(self.error(value, "not a file mode, as 0600 or 0660")),
        }
    }

    fn yes(&self, value: &str) -> Result<bool, AddressError> {
        self.word(value, &[("yes", true), ("no", false)])
    }

    fn word<T: Copy>(&self, value: &str, words: &[(&str, T)]) -> Result<T, AddressError> {
        let known = words.iter().find(|(word, _)| *word == value);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.error(value, format!("expected one of: {}", words.join(", ")))
        })
    }

    fn start(&self, value: &str) -> Result<Start, AddressError> {
        match value {
            "oldest" => Ok(Start::Oldest),
            "now" => Ok(Start::Now),
            _ => value
                .parse()
                .map(Start::Sequence)
                .map_err(|_| self.error(value, "expected oldest, now or a sequence number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_the_offending_part() {
        for (text, part) in [
            ("orders", "orders"),
            ("tcp:orders", "tcp"),
            ("shm:", ""),
            ("shm:../x", "../x"),
            ("shm:x?capacity", "capacity"),
            ("shm:x?capacity=1T", "1T"),
            ("shm:x?capacity=1KK", "1KK"),
            ("shm:x?capacity=99999999999999999999", "99999999999999999999"),
            ("shm:x?mode=fast", "fast"),
            ("shm:x?slots=-1", "-1"),
            ("shm:x?colour=red", "colour"),
            ("shm:x?from=then", "then"),
            ("shm:x?filemode=0888", "0888"),
            ("shm:x?name=a&name=b", "name=b"),
            ("shm:x?dir=&name=é", ""),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            let pointed: String = text.chars().skip(error.start).take(error.len).collect();
            assert_eq!(pointed, part, "{error}");
            assert!(error.to_string().contains('^'));
        }
    }

    #[test]
    fn both_sides_may_use_one_string() {
        let text = "shm:a.b-C_1?capacity=64K&align=16&max=1000&slots=8&mode=lossy&parkable=yes\
                    &evictable=no&first=7&filemode=0660&from=12&name=book&observe=no&wait=park\
                    &dir=/tmp&prefault=no&lock=never&huge=transparent";
        let address: Address = text.parse().unwrap();
        assert_eq!((address.name(), address.to_string().as_str()), ("a.b-C_1", text));
        let Address::Shm(shm) = address else { panic!() };
        assert_eq!(shm.wait_strategy(), WaitStrategy::Park);
        assert_eq!(shm.directory(), Path::new("/tmp"));
    }
}
