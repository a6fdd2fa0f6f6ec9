//! A client's own record: golden bytes, a tail torn anywhere, and damage anywhere.

use super::*;

const CLIENT: ClientId = ClientId(0x0201);

fn records() -> Vec<OwnRecord<'static>> {
    vec![
        OwnRecord { direction: Direction::Sent, sequence: 1, bytes: b"new order" },
        OwnRecord { direction: Direction::Seen, sequence: 0x0807_0605_0403_0201, bytes: b"" },
        OwnRecord { direction: Direction::Seen, sequence: 12, bytes: &[0; 40] },
    ]
}

fn file() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = OwnWriter::begin(&mut file, CLIENT).unwrap();
    records().iter().for_each(|record| writer.append(record).unwrap());
    drop(writer);
    file
}

#[test]
fn golden_bytes() {
    let file = file();
    assert_eq!(file[..12], *b"GAPOWN\x1a\n\x01\0\x01\x02");
    assert_eq!(file[16..32], [9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(file[40..49], *b"new order");
    // CRC-32C of "123456789", by RFC 3720's algorithm.
    assert_eq!(crc(b"123456789"), 0xE306_9283);
    let mut reader = OwnReader::new(&file).unwrap();
    assert_eq!(reader.client(), CLIENT);
    let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!((read, reader.torn_bytes()), (records(), 0));
}

#[test]
fn a_tail_torn_anywhere_is_no_error_and_is_told() {
    let file = file();
    let ends = [16, 49, 73, file.len()];
    for length in OWN_HEADER_BYTES..file.len() {
        let whole = ends.iter().rposition(|&end| end <= length).unwrap();
        for zeroes in [0, 7, 100] {
            let mut torn = file[..length].to_vec();
            if zeroes > 0 && ends.contains(&length) {
                torn.extend(vec![0; zeroes]);
            }
            let mut reader = OwnReader::new(&torn).unwrap();
            let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
            assert_eq!(read, records()[..whole], "{length}");
            assert_eq!(reader.torn_bytes() as usize, torn.len() - ends[whole]);
        }
    }
}

#[test]
fn damage_anywhere_is_found() {
    let file = file();
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 0x10;
        let Ok(mut reader) = OwnReader::new(&bad) else {
            assert!(at < OWN_HEADER_BYTES);
            continue;
        };
        let read: Vec<_> = reader.by_ref().collect();
        let sound = read.iter().filter(|record| record.is_ok()).count();
        let told = read.len() > sound || reader.torn_bytes() > 0;
        assert!(told && sound < 3, "byte {at}");
        // Only in the last record's payload can damage pass for a torn tail.
        assert_eq!(reader.torn_bytes() > 0, at >= 97, "byte {at}");
    }
    let mut newer = file;
    newer[8] = 2;
    let own = crc(&newer[..12]).to_le_bytes();
    newer[12..16].copy_from_slice(&own);
    assert!(matches!(OwnReader::new(&newer), Err(OwnError::Version { version: 2 })));
}

#[test]
fn a_writer_goes_on_behind_what_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.orders");
    for (length, cut) in [(0, 0), (5, 5), (16, 0), (60, 11), (file().len(), 0)] {
        std::fs::write(&path, &file()[..length]).unwrap();
        let (mut writer, torn) = OwnWriter::open(&path, CLIENT).unwrap();
        assert_eq!(torn, cut);
        writer.append(&records()[0]).unwrap();
        writer.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut reader = OwnReader::new(&bytes).unwrap();
        let last = reader.by_ref().map(Result::unwrap).last();
        assert_eq!((last, reader.torn_bytes()), (Some(records()[0]), 0));
    }
    let other = OwnWriter::open(&path, ClientId(9)).unwrap_err();
    assert!(matches!(other, OwnError::Client { found: CLIENT, wanted: ClientId(9) }));
    let mut bad = file();
    bad[20] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let damaged = OwnWriter::open(&path, CLIENT).unwrap_err();
    assert!(matches!(damaged, OwnError::Damaged { offset: 16 }), "{damaged}");
    assert_eq!(std::fs::read(&path).unwrap(), bad, "left as it was");
}

#[test]
fn what_is_too_long_is_refused_and_leaves_nothing_behind() {
    let mut file = Vec::new();
    let mut writer = OwnWriter::begin(&mut file, CLIENT).unwrap();
    let long = vec![0; OWN_PAYLOAD_MAX + 1];
    let record = OwnRecord { direction: Direction::Sent, sequence: 1, bytes: &long };
    assert!(matches!(writer.append(&record), Err(OwnError::TooLong { .. })));
    drop(writer);
    assert_eq!(file.len(), OWN_HEADER_BYTES);
}
