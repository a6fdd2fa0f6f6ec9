//! Which ring a command looks at: a name, with `--dir` if need be, or the address that the ring's
//! publisher and subscribers use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gapless::shm::{RingError, default_directory, ring_path};
use gapless::{Address, AddressError};

/// Where rings are looked for.
#[derive(clap::Args)]
pub(crate) struct Directory {
    /// Directory of the rings [default: $GAPLESS_DIR, or /dev/shm/gapless]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Directory {
    /// The directory given, or the default one.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(default_directory)
    }
}

/// A ring as named on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    name: String,
    /// Where an address says that it is.
    directory: Option<PathBuf>,
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let is_address = text.contains(':');
        // A bare name is checked by the rules of an address.
        let prefix = if is_address { "" } else { "shm:" };
        let Address::Shm(shm) = format!("{prefix}{text}").parse()? else {
            return Err(AddressError {
                address: text.to_owned(),
                reason: "only rings can be looked at".into(),
                start: 0,
                len: text.len(),
            });
        };
        let directory = is_address.then(|| shm.directory().to_path_buf());
        Ok(Self { name: shm.name().to_owned(), directory })
    }
}

impl Target {
    /// The stream's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The ring's directory: the option, unless an address says where it is.
    pub(crate) fn directory(&self, option: &Directory) -> PathBuf {
        match (&option.dir, &self.directory) {
            (None, Some(directory)) => directory.clone(),
            _ => option.path(),
        }
    }

    /// The ring's file.
    ///
    /// # Errors
    /// Never for a parsed target; the library checks the name once more.
    pub(crate) fn file(&self, option: &Directory) -> Result<PathBuf, RingError> {
        ring_path(&self.directory(option), &self.name)
    }
}

/// Whether an error means that the ring's bytes are not what a producer writes (as opposed to a
/// ring that is not there, or not ours to read).
pub(crate) fn is_damage(error: &RingError) -> bool {
    matches!(
        error,
        RingError::BadMagic { .. }
            | RingError::BadVersion { .. }
            | RingError::BadByteOrder { .. }
            | RingError::BadChecksum { .. }
            | RingError::BadHeader { .. }
            | RingError::BadLength { .. }
            | RingError::BadCursor { .. }
            | RingError::Corrupt { .. }
    )
}

/// The first bytes of a file as a hexdump; what cannot be read is said instead.
pub(crate) fn head_of(path: &Path, max_bytes: usize) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(max_bytes as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => hexdump(&bytes),
        Err(error) => format!("  {error}\n"),
    }
}

/// Sixteen bytes a line: offset, hexadecimal, text.
pub(crate) fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let mut hex = String::new();
        for (column, byte) in line.iter().enumerate() {
            let gap = if column == 8 { "  " } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(hex, "{gap}{byte:02x}");
        }
        let shown = |&byte: &u8| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        };
        let ascii: String = line.iter().map(shown).collect();
        let _ = writeln!(text, "  {:06x} {hex:<49}  |{ascii}|", index * 16);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_an_address_names_a_ring() {
        let here = Directory { dir: Some("/a".into()) };
        let default = Directory { dir: None };
        let name: Target = "orders".parse().expect("a name");
        assert_eq!(name.file(&here).expect("usable"), Path::new("/a/orders.ring"));
        let address: Target = "shm:orders?dir=/b".parse().expect("an address");
        assert_eq!(address.file(&default).expect("usable"), Path::new("/b/orders.ring"));
        for bad in ["../x", "", "tcp:x", "shm:../x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hexdumps_are_as_people_know_them() {
        let text = hexdump(b"GAPLESS\0\x01\x02 0123456789");
        let expected = "  000000  47 41 50 4c 45 53 53 00  01 02 20 30 31 32 33 34  \
                        |GAPLESS... 01234|\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("  000010  35 36 37 38 39  ") && text.ends_with("|56789|\n"));
    }
}
