//! A client's own record: what it sent and what it saw, in a file of its own.
//!
//! The other half of a reconciliation: whatever the stream says, the client can show its own. The
//! file is append-only and little-endian; each record is checked by itself.
//!
//! | bytes | of the file |
//! |---|---|
//! | 0-7 | magic, `GAPOWN` 0x1A 0x0A |
//! | 8-9 | version, 1 |
//! | 10-11 | client |
//! | 12-15 | CRC-32C of bytes 0-11 |
//!
//! | bytes | of a record |
//! |---|---|
//! | 0-3 | bytes of the payload |
//! | 4 | direction: 1 sent, 2 seen |
//! | 5-7 | 0 |
//! | 8-15 | sequence |
//! | 16-19 | CRC-32C of the payload |
//! | 20-23 | CRC-32C of bytes 0-19 |
//! | 24- | the payload |
//!
//! Of what was *sent*, the sequence is the client's own, and the payload is the command's message;
//! a command that is sent again under its number is written once. Of what was *seen*, the sequence
//! is the stream's, and the payload is the whole record as it stood there, stamp and all.
//!
//! A process that ends in the middle of a record leaves a torn tail. It is no error: a reader says
//! how long it is, and a writer that goes on cuts it off. Damage anywhere else is an error.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use thiserror::Error;

use crate::sequencer::ClientId;

/// Bytes in front of the first record.
pub const OWN_HEADER_BYTES: usize = 16;
/// Bytes of a record in front of its payload.
pub const OWN_RECORD_BYTES: usize = 24;
/// Longest payload, bytes.
pub const OWN_PAYLOAD_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"GAPOWN\x1a\n";
const VERSION: u16 = 1;

fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Which way a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client sent it.
    Sent = 1,
    /// The client saw it in the stream.
    Seen = 2,
}

/// One record of a client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRecord<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// Of what was sent, the client's own number; of what was seen, the stream's.
    pub sequence: u64,
    /// Of what was sent, the message; of what was seen, stamp and payload.
    pub bytes: &'a [u8],
}

/// A client's own record could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OwnError {
    /// It does not begin as such a file does.
    #[error("no client's own record: the first {OWN_HEADER_BYTES} bytes are not its header")]
    Header,
    /// A version that this library does not know.
    #[error("version {version} of a client's own record; this library reads version {VERSION}")]
    Version {
        /// Its version.
        version: u16,
    },
    /// Another client's.
    #[error("the record is client {found}'s, not client {wanted}'s")]
    Client {
        /// Whose it is.
        found: ClientId,
        /// Whose it should be.
        wanted: ClientId,
    },
    /// Bytes that were changed after they were written: what follows cannot be relied on.
    #[error("damaged at byte {offset}: use a copy, or what is in front of it")]
    Damaged {
        /// Where the damaged record begins.
        offset: u64,
    },
    /// More than a record takes.
    #[error("{bytes} bytes in one record, at most {OWN_PAYLOAD_MAX}")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// The system refused something.
    #[error("cannot read or write a client's own record: {0}")]
    System(#[from] io::Error),
}

/// Appends to a client's own record. What is appended is on its way to the file after
/// [`flush`](Self::flush), or when it is dropped; nothing is allocated.
#[derive(Debug)]
pub struct OwnWriter<W: Write> {
    out: BufWriter<W>,
}

impl OwnWriter<File> {
    /// Goes on with the file at `path`, or begins it. Says how many bytes of a torn tail were cut.
    ///
    /// # Errors
    /// [`OwnError`] if the file is another client's, no such file, damaged, or cannot be written.
    pub fn open(path: &Path, client: ClientId) -> Result<(Self, u64), OwnError> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(path)?;
        let bytes = std::fs::read(path)?;
        if bytes.len() < OWN_HEADER_BYTES && header(client).starts_with(&bytes) {
            file.set_len(0)?;
            return Ok((Self::begin(file, client)?, bytes.len() as u64));
        }
        let mut reader = OwnReader::new(&bytes)?;
        if reader.client() != client {
            return Err(OwnError::Client { found: reader.client(), wanted: client });
        }
        reader.by_ref().try_for_each(|record| record.map(drop))?;
        let torn = reader.torn_bytes();
        let end = bytes.len() as u64 - torn;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok((Self { out: BufWriter::new(file) }, torn))
    }
}

impl<W: Write> OwnWriter<W> {
    /// Begins a record of `client`'s.
    ///
    /// # Errors
    /// [`OwnError::System`] if it cannot be written.
    pub fn begin(out: W, client: ClientId) -> Result<Self, OwnError> {
        let mut out = BufWriter::new(out);
        out.write_all(&header(client))?;
        Ok(Self { out })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`OwnError::TooLong`], then nothing was appended; [`OwnError::System`] if it cannot be
    /// written.
    pub fn append(&mut self, record: &OwnRecord<'_>) -> Result<(), OwnError> {
        let bytes = record.bytes.len();
        if bytes > OWN_PAYLOAD_MAX {
            return Err(OwnError::TooLong { bytes });
        }
        let mut head = [0; OWN_RECORD_BYTES];
        head[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        head[4] = record.direction as u8;
        head[8..16].copy_from_slice(&record.sequence.to_le_bytes());
        head[16..20].copy_from_slice(&crc(record.bytes).to_le_bytes());
        let own = crc(&head[..20]);
        head[20..].copy_from_slice(&own.to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(record.bytes)?;
        Ok(())
    }

    /// Hands everything to the file.
    ///
    /// # Errors
    /// [`OwnError::System`] if it cannot be written.
    pub fn flush(&mut self) -> Result<(), OwnError> {
        Ok(self.out.flush()?)
    }
}

fn header(client: ClientId) -> [u8; OWN_HEADER_BYTES] {
    let mut header = [0; OWN_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&client.0.to_le_bytes());
    let own = crc(&header[..12]);
    header[12..].copy_from_slice(&own.to_le_bytes());
    header
}

/// Reads a client's own record, from the bytes of its file.
///
/// ```
/// use gapless::order::{Direction, OwnReader, OwnRecord, OwnWriter};
/// use gapless::sequencer::ClientId;
///
/// let sent = OwnRecord { direction: Direction::Sent, sequence: 1, bytes: b"buy" };
/// let mut file = Vec::new();
/// OwnWriter::begin(&mut file, ClientId(7))?.append(&sent)?;
/// let mut reader = OwnReader::new(&file)?;
/// assert_eq!(reader.client(), ClientId(7));
/// assert_eq!(reader.next().transpose()?, Some(sent));
/// assert!(reader.next().is_none() && reader.torn_bytes() == 0);
/// # Ok::<(), gapless::order::OwnError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OwnReader<'a> {
    bytes: &'a [u8],
    client: ClientId,
    offset: usize,
    torn_bytes: u64,
}

/// What is found where a record should be.
enum Found<'a> {
    Whole(OwnRecord<'a>),
    Torn,
    Damaged,
}

impl<'a> OwnReader<'a> {
    /// Checks the header of `bytes`.
    ///
    /// # Errors
    /// [`OwnError::Header`] or [`OwnError::Version`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, OwnError> {
        let head: &[u8; OWN_HEADER_BYTES] = bytes.first_chunk().ok_or(OwnError::Header)?;
        let version = u16::from_le_bytes([head[8], head[9]]);
        let client = ClientId(u16::from_le_bytes([head[10], head[11]]));
        if head[..8] != MAGIC || head[12..] != crc(&head[..12]).to_le_bytes() {
            return Err(OwnError::Header);
        }
        if version != VERSION {
            return Err(OwnError::Version { version });
        }
        Ok(Self { bytes, client, offset: OWN_HEADER_BYTES, torn_bytes: 0 })
    }

    /// Whose it is.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// How many bytes of a torn tail were found; 0 until the end was reached.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    fn judge(&self, rest: &'a [u8]) -> Found<'a> {
        let zeroes = || rest.iter().all(|&byte| byte == 0);
        let Some((head, behind)) = rest.split_first_chunk::<OWN_RECORD_BYTES>() else {
            return Found::Torn;
        };
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if crc(&head[..20]) != u32_at(20) {
            // A file that was made longer, and then not written to.
            return if zeroes() { Found::Torn } else { Found::Damaged };
        }
        let direction = match head[4] {
            1 => Direction::Sent,
            2 => Direction::Seen,
            _ => return Found::Damaged,
        };
        let Some((bytes, after)) = behind.split_at_checked(u32_at(0) as usize) else {
            return Found::Torn;
        };
        if crc(bytes) != u32_at(16) {
            return if after.is_empty() { Found::Torn } else { Found::Damaged };
        }
        let sequence = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
        Found::Whole(OwnRecord { direction, sequence, bytes })
    }
}

/// The records, in the order of the file. Ends at a torn tail, and behind an error.
impl<'a> Iterator for OwnReader<'a> {
    type Item = Result<OwnRecord<'a>, OwnError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return None;
        }
        match self.judge(rest) {
            Found::Whole(record) => {
                self.offset += OWN_RECORD_BYTES + record.bytes.len();
                Some(Ok(record))
            }
            Found::Torn => {
                self.torn_bytes = rest.len() as u64;
                self.offset = self.bytes.len();
                None
            }
            Found::Damaged => {
                let offset = self.offset as u64;
                self.offset = self.bytes.len();
                Some(Err(OwnError::Damaged { offset }))
            }
        }
    }
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
