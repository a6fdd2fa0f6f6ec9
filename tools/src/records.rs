//! Files of length-prefixed records: a length of two or four bytes, then that many bytes, repeated
//! to the end of the file. The form in which feeds are usually captured.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use anyhow::{Context, bail};
use clap::ValueEnum;

/// How a record's length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prefix {
    /// 2 bytes, big-endian
    Be16,
    /// 2 bytes, little-endian
    Le16,
    /// 4 bytes, big-endian
    Be32,
    /// 4 bytes, little-endian
    Le32,
}

impl Prefix {
    /// Bytes of the length itself.
    fn len_bytes(self) -> usize {
        match self {
            Self::Be16 | Self::Le16 => 2,
            Self::Be32 | Self::Le32 => 4,
        }
    }

    fn decode(self, bytes: [u8; 4]) -> usize {
        let [a, b, ..] = bytes;
        match self {
            Self::Be16 => usize::from(u16::from_be_bytes([a, b])),
            Self::Le16 => usize::from(u16::from_le_bytes([a, b])),
            Self::Be32 => u32::from_be_bytes(bytes) as usize,
            Self::Le32 => u32::from_le_bytes(bytes) as usize,
        }
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If the message is longer than the prefix can say, or the file cannot be written.
    pub(crate) fn write(self, out: &mut dyn Write, message: &[u8]) -> io::Result<()> {
        let too_long = |_| {
            let text = format!(
                "a message of {} bytes does not fit a {}-byte length: use --prefix be32",
                message.len(),
                self.len_bytes()
            );
            io::Error::new(ErrorKind::InvalidInput, text)
        };
        match self {
            Self::Be16 | Self::Le16 => {
                let len = u16::try_from(message.len()).map_err(too_long)?;
                let big = self == Self::Be16;
                out.write_all(&if big { len.to_be_bytes() } else { len.to_le_bytes() })?;
            }
            Self::Be32 | Self::Le32 => {
                let len = u32::try_from(message.len()).map_err(too_long)?;
                let big = self == Self::Be32;
                out.write_all(&if big { len.to_be_bytes() } else { len.to_le_bytes() })?;
            }
        }
        out.write_all(message)
    }
}

/// Reads records one after another.
pub(crate) struct RecordReader<R> {
    input: R,
    prefix: Prefix,
    /// Bytes read so far.
    offset: u64,
    /// Records read so far.
    count: u64,
}

impl<R: BufRead> RecordReader<R> {
    /// From the start of `input`.
    pub(crate) fn new(input: R, prefix: Prefix) -> Self {
        Self { input, prefix, offset: 0, count: 0 }
    }

    /// Puts the next record into `record`; false at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or ends inside a record: says which, and where it starts.
    pub(crate) fn next(&mut self, record: &mut Vec<u8>) -> anyhow::Result<bool> {
        record.clear();
        if self.input.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let (number, offset) = (self.count + 1, self.offset);
        let place = || format!("record {number} at byte {offset}");
        let mut prefix = [0; 4];
        let prefix_bytes = self.prefix.len_bytes();
        match self.input.read_exact(&mut prefix[..prefix_bytes]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                bail!("{}: the file ends inside its length (another --prefix?)", place());
            }
            result => result.with_context(place)?,
        }
        let len = self.prefix.decode(prefix);
        // Grows with what is there, not with what the length claims.
        let read = (&mut self.input).take(len as u64).read_to_end(record).with_context(place)?;
        if read < len {
            bail!("{}: says {len} bytes, {read} are there (another --prefix?)", place());
        }
        self.offset += (prefix_bytes + len) as u64;
        self.count += 1;
        Ok(true)
    }
}

impl<R: Read> RecordReader<BufReader<R>> {
    /// Whether the next record has been read from the file already, all of it.
    pub(crate) fn has_whole(&self) -> bool {
        let (buffer, mut prefix) = (self.input.buffer(), [0; 4]);
        let prefix_bytes = self.prefix.len_bytes();
        buffer.split_at_checked(prefix_bytes).is_some_and(|(head, rest)| {
            prefix[..prefix_bytes].copy_from_slice(head);
            rest.len() >= self.prefix.decode(prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIXES: [Prefix; 4] = [Prefix::Be16, Prefix::Le16, Prefix::Be32, Prefix::Le32];

    #[test]
    fn what_is_written_is_read() {
        let long = vec![3; 65_535];
        for prefix in PREFIXES {
            let mut file = Vec::new();
            for message in [&b""[..], b"abc", &long] {
                prefix.write(&mut file, message).expect("fits");
            }
            let mut reader = RecordReader::new(&file[..], prefix);
            let mut record = Vec::new();
            for message in [&b""[..], b"abc", &long] {
                assert!(reader.next(&mut record).expect("a record"));
                assert_eq!(record, message, "{prefix:?}");
            }
            assert!(!reader.next(&mut record).expect("the end"));
        }
    }

    #[test]
    fn a_torn_end_is_told_with_its_place() {
        let mut file = Vec::new();
        Prefix::Be16.write(&mut file, b"whole").expect("fits");
        let mut record = Vec::new();
        for (torn, text) in [(&[0][..], "inside its length"), (&[0, 9, 1], "says 9 bytes, 1")] {
            let file = [&file[..], torn].concat();
            let mut reader = RecordReader::new(&file[..], Prefix::Be16);
            assert!(reader.next(&mut record).expect("the whole one"));
            let error = reader.next(&mut record).expect_err("torn").to_string();
            assert!(error.contains("record 2 at byte 7") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_said_is_refused() {
        let long = vec![0; 65_536];
        let error = Prefix::Le16.write(&mut io::sink(), &long).expect_err("too long");
        assert!(error.to_string().contains("65536 bytes"), "{error}");
        assert!(Prefix::Le32.write(&mut io::sink(), &long).is_ok());
    }
}
