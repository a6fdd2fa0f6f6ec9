//! Appending, rolling, reading back, in order and from the middle.

use gapless_shm::Flags;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn write(directory: &std::path::Path, first: u64, count: u64, options: &LogOptions) {
    let (mut log, _) = options.open(directory).unwrap();
    log.begin(35, first).unwrap();
    for sequence in first..first + count {
        let payload = vec![sequence as u8; (sequence % 100) as usize];
        log.append(sequence, &payload, Flags::WHOLE, sequence * SECOND).unwrap();
        if sequence % 7 == 0 {
            log.flush().unwrap();
        }
    }
    log.flush().unwrap();
}

fn small() -> LogOptions {
    LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10).in_line(true)
}

fn read(reader: &mut LogReader) -> Vec<u64> {
    let mut sequences = Vec::new();
    loop {
        let handled = reader.poll(1000, |message, unix_ns| {
            let n = message.sequence;
            assert_eq!(message.payload, vec![n as u8; (n % 100) as usize]);
            assert!(
                unix_ns >= (n - 7.min(n)) * SECOND && unix_ns <= n * SECOND,
                "{n} at {unix_ns}"
            );
            sequences.push(n);
        });
        if handled.unwrap() == 0 {
            return sequences;
        }
    }
}

#[test]
fn what_is_written_is_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, 10_000, &small());
    assert!(catalog::list(&FileSystem::default(), dir.path()).unwrap().len() > 5);
    let mut reader = LogReader::open(dir.path(), ReadFrom::Oldest).unwrap();
    assert_eq!(read(&mut reader), (5..10_005).collect::<Vec<_>>());
    for from in (5..10_005).step_by(97) {
        reader.seek(ReadFrom::Sequence(from)).unwrap();
        assert_eq!(reader.next_sequence(), from);
        let mut seen = 0;
        reader.poll(1, |message, _| seen = message.sequence).unwrap();
        assert_eq!(seen, from);
        reader.seek(ReadFrom::UnixNs(from * SECOND)).unwrap();
        reader
            .poll(1, |message, unix_ns| {
                assert!(
                    (from..from + 7).contains(&message.sequence),
                    "{from}: {message:?} {unix_ns}"
                );
            })
            .unwrap();
    }
    assert!(matches!(
        reader.seek(ReadFrom::Sequence(4)),
        Err(LogError::SequenceGone { wanted: 4, oldest: 5 })
    ));
    reader.seek(ReadFrom::Now).unwrap();
    assert_eq!((reader.next_sequence(), read(&mut reader).len()), (10_005, 0));
}

#[test]
fn a_writer_goes_on_where_the_last_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 1000, &small());
    let mut reader = LogReader::open(dir.path(), ReadFrom::Oldest).unwrap();
    assert_eq!(read(&mut reader).len(), 1000);
    write(dir.path(), 1001, 5000, &small());
    assert_eq!(read(&mut reader), (1001..6001).collect::<Vec<_>>());
    let (mut log, recovery) = small().open(dir.path()).unwrap();
    assert_eq!(log.position(), Some((35, 6001)));
    assert_eq!(recovery.map(|found| (found.next_sequence, found.cut)), Some((6001, None)));
    assert!(matches!(small().open(dir.path()), Err(LogError::WriterAlive { .. })));
    assert!(matches!(
        log.begin(35, 7000),
        Err(LogError::OutOfTurn { expected: 6001, found: 7000 })
    ));
    assert!(matches!(log.begin(34, 1), Err(LogError::OldSession { .. })));
    log.append_lost(10, 0).unwrap();
    log.begin(36, 1).unwrap();
    log.append(1, &[1], Flags::WHOLE, 0).unwrap();
    log.sync().unwrap();
    assert_eq!(log.durable_sequence(), 1);
    let told = |reader: &mut LogReader| reader.poll(1, |_, _| ()).unwrap_err();
    assert!(matches!(told(&mut reader), LogError::Missing { first: 6001, count: 10 }));
    assert!(matches!(told(&mut reader), LogError::NewSession { next: 1, .. }));
    assert_eq!(reader.poll(9, |message, _| assert_eq!(message.payload, [1])).unwrap(), 1);
}
