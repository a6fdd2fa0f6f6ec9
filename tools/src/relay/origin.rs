//! Where a relay takes its messages from: an address, or a file and how it is read.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use gapless::{Address, AddressError};

use crate::records::Prefix;

/// The FROM of a relay.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub(crate) enum Origin {
    /// A stream.
    Stream(Address),
    /// A file.
    File(FileOrigin),
}

/// A file, and what its bytes mean.
#[derive(Clone, Debug)]
pub(crate) struct FileOrigin {
    text: String,
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// Sequence number of the first message, where the file has none.
    pub(super) first: Option<u64>,
}

/// What a file's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A length and so many bytes, repeated.
    Records(Prefix),
    /// MoldUDP64 packets one behind the other.
    Mold,
    /// Captured network traffic.
    Capture {
        /// Where the datagrams of each line went to.
        lines: [Option<Destination>; 2],
        /// Whether each datagram is a message, instead of a MoldUDP64 packet.
        raw: bool,
    },
}

/// A port, or an address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Port(u16),
    Place(SocketAddr),
}

impl Destination {
    pub(crate) fn is(self, place: SocketAddr) -> bool {
        match self {
            Self::Port(port) => place.port() == port,
            Self::Place(wanted) => place == wanted,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(address) => address.fmt(f),
            Self::File(file) => f.write_str(&file.text),
        }
    }
}

impl FromStr for Origin {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |part: &str, reason: &str| {
            let before = part.as_ptr() as usize - text.as_ptr() as usize;
            let start = text[..before].chars().count();
            let (address, reason) = (text.to_owned(), reason.to_owned());
            AddressError { address, reason, start, len: part.chars().count() }
        };
        let kinds = ["file", "mold", "pcap"];
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kinds.contains(kind))
        else {
            return Ok(Self::Stream(text.parse()?));
        };
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        if path.is_empty() {
            return Err(error(path, "which file?"));
        }
        let (mut prefix, mut lines, mut raw, mut first) = (Prefix::Be16, [None; 2], false, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match (kind, key) {
                ("file", "prefix") => {
                    let known = Prefix::from_str(value, false);
                    prefix = known.map_err(|_| error(value, "be16, le16, be32 or le32"))?;
                }
                ("pcap", "port" | "b") => {
                    let port = value.parse().map(Destination::Port);
                    let place = port.or_else(|_| value.parse().map(Destination::Place));
                    let place = place.map_err(|_| error(value, "expected PORT or IP:PORT"))?;
                    lines[usize::from(key == "b")] = Some(place);
                }
                ("pcap", "raw") => {
                    raw = match value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(error(value, "expected one of: yes, no")),
                    };
                }
                ("file" | "pcap", "first") => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    first = Some(number.ok_or_else(|| error(value, "not a sequence number"))?);
                }
                _ => {
                    let known = match kind {
                        "file" => "unknown option; known: prefix, first",
                        "pcap" => "unknown option; known: port, b, raw, first",
                        _ => "a file of MoldUDP64 packets has no options",
                    };
                    return Err(error(key, known));
                }
            }
        }
        let format = match kind {
            "file" => Format::Records(prefix),
            "mold" => Format::Mold,
            _ if lines[0].is_none() => {
                return Err(error(rest, "which of the datagrams? say port=PORT or port=IP:PORT"));
            }
            _ if raw && lines[1].is_some() => {
                return Err(error(
                    rest,
                    "two lines need sequence numbers: raw datagrams have none",
                ));
            }
            _ if first.is_some() && !raw => {
                return Err(error(rest, "first= is for raw=yes: packets have sequence numbers"));
            }
            _ => Format::Capture { lines, raw },
        };
        Ok(Self::File(FileOrigin { text: text.to_owned(), path: path.into(), format, first }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileOrigin {
        match text.parse() {
            Ok(Origin::File(file)) => file,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn files_are_named_with_what_they_hold() {
        assert_eq!(file("file:/a/b").format, Format::Records(Prefix::Be16));
        let records = file("file:b?prefix=le32&first=7");
        assert_eq!((records.format, records.first), (Format::Records(Prefix::Le32), Some(7)));
        assert_eq!(file("mold:/a/b.dat").path, PathBuf::from("/a/b.dat"));
        let place = Some(Destination::Place("239.1.2.3:9001".parse().expect("an address")));
        let lines = [Some(Destination::Port(9000)), place];
        let capture = file("pcap:b?port=9000&b=239.1.2.3:9001");
        assert_eq!(capture.format, Format::Capture { lines, raw: false });
        assert!(matches!("shm:x".parse(), Ok(Origin::Stream(_))));
    }

    #[test]
    fn errors_point_at_the_offending_part() {
        for (text, part) in [
            ("file:", ""),
            ("file:x?prefix=be64", "be64"),
            ("file:x?first=0", "0"),
            ("mold:x?port=7", "port"),
            ("pcap:x", "x"),
            ("pcap:x?port=70000", "70000"),
            ("pcap:x?port=7&raw=maybe", "maybe"),
            ("pcap:x?port=7&b=8&raw=yes", "x?port=7&b=8&raw=yes"),
            ("pcap:x?port=7&first=8", "x?port=7&first=8"),
            ("tcp:x", "tcp"),
        ] {
            let error = text.parse::<Origin>().expect_err(text);
            let pointed: String = text.chars().skip(error.start).take(error.len).collect();
            assert_eq!(pointed, part, "{error}");
        }
    }
}
