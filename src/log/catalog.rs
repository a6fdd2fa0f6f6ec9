//! Which segments a directory has. Their names say it all: session and first sequence, so that
//! sorted names are segments in order.

use std::path::{Path, PathBuf};

use gapless_shm::session_text;

use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, Unreadable, crc};
use crate::protocol::Session;

/// A segment, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) session: u64,
    pub(crate) first_sequence: u64,
}

impl SegmentName {
    fn stem(self) -> String {
        format!("{}-{:020}", session_text(self.session), self.first_sequence)
    }

    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.log", self.stem()))
    }

    pub(crate) fn index_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.idx", self.stem()))
    }

    /// Reads the name of a segment; `None` of anything else.
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let (session, sequence) = file_name.strip_suffix(".log")?.split_once('-')?;
        let session = Session(session.as_bytes().try_into().ok()?).number()?;
        let digits = sequence.len() == 20 && sequence.bytes().all(|byte| byte.is_ascii_digit());
        let first_sequence = digits.then(|| sequence.parse().ok())??;
        let name = Self { session, first_sequence };
        (format!("{}.log", name.stem()) == file_name).then_some(name)
    }
}

/// All segments, in order; none if there is no such directory.
pub(crate) fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<SegmentName>, LogError> {
    let names = match disk.list(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::system("read", directory)(error)),
    };
    let mut segments: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Reads a segment's header, which must be the one that its name promises.
pub(crate) fn read_header<F: DiskFile>(
    file: &F,
    name: SegmentName,
    path: &Path,
) -> Result<SegmentHeader, LogError> {
    let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
    let have = file.read_full_at(&mut page, 0).map_err(LogError::system("read", path))?;
    let path = || path.to_path_buf();
    // A number from the future, or a damaged one.
    let sound = page.split_last_chunk().is_some_and(|(page, sum)| *sum == crc(page).to_le_bytes());
    let header = SegmentHeader::decode(&page[..have]).map_err(|why| match why {
        Unreadable::Version(version) if sound => LogError::Version { path: path(), version },
        _ => LogError::Header { path: path() },
    })?;
    let found = SegmentName { session: header.session, first_sequence: header.first_sequence };
    if found == name { Ok(header) } else { Err(LogError::Header { path: path() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_the_stream_runs() {
        let name = |session, first_sequence| SegmentName { session, first_sequence };
        let text = |name: SegmentName| name.path("".as_ref()).to_str().unwrap().to_owned();
        assert_eq!(text(name(35, 7)), "000000000Z-00000000000000000007.log");
        for (a, b) in [(name(9, 900), name(10, 1)), (name(9, 99), name(9, u64::MAX))] {
            assert!(a < b && text(a) < text(b));
            assert_eq!(SegmentName::parse(&text(b)), Some(b));
        }
        for bad in [
            "000000000Z-00000000000000000007.idx",
            "000000000z-00000000000000000007.log",
            "00000000Z-00000000000000000007.log",
            "000000000Z-0000000000000000007.log",
            "000000000Z-99999999999999999999.log",
            "000000000Z-+0000000000000000007.log",
            "lock",
            "",
        ] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }
}
