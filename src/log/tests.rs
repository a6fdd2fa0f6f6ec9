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
fn a_time_in_the_first_block_of_a_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = small().open(dir.path()).unwrap();
    log.begin(35, 1).unwrap();
    for sequence in 1..=3000 {
        log.append(sequence, &[7; 56], Flags::WHOLE, sequence * SECOND).unwrap();
    }
    log.flush().unwrap();
    let segments = catalog::list(&FileSystem::default(), dir.path()).unwrap();
    assert!(segments.len() > 2);
    let mut reader = LogReader::open(dir.path(), ReadFrom::Oldest).unwrap();
    for first in segments.iter().map(|name| name.first_sequence) {
        for wanted in [first, first + 1, first + 20, first + 40] {
            reader.seek(ReadFrom::UnixNs(wanted * SECOND)).unwrap();
            let mut found = 0;
            reader.poll(1, |message, _| found = message.sequence).unwrap();
            // Times within a block are interpolated.
            assert!((wanted..=wanted + 1).contains(&found), "{found}, not {wanted}");
        }
    }
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

/// Where the blocks of a segment begin, and what they have.
fn blocks(path: &std::path::Path) -> Vec<(u64, format::BlockHeader)> {
    let file = std::fs::File::open(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let name = catalog::SegmentName::parse(name).unwrap();
    let header = catalog::read_header(&file, name, path).unwrap();
    let mut blocks = Vec::new();
    scan::scan(&file, &header, |offset, block| blocks.push((offset, *block))).unwrap();
    blocks
}

fn flip(path: &std::path::Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

fn findings(directory: &std::path::Path) -> Vec<Finding> {
    verify(directory, |_, _| ()).unwrap().findings
}

#[test]
fn a_survey_says_what_a_full_read_says() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(survey(dir.path()).unwrap(), []);
    write(dir.path(), 5, 10_000, &small().name("orders").enveloped(true));
    let segments = survey(dir.path()).unwrap();
    assert!(segments.len() > 5);
    for pair in segments.windows(2) {
        assert_eq!(pair[0].next_sequence, pair[1].first_sequence);
        assert!(pair[0].sealed && pair[0].bytes == pair[0].file_bytes);
    }
    let (first, last) = (&segments[0], &segments[segments.len() - 1]);
    assert_eq!((first.first_sequence, first.created_unix_ns), (5, 7 * SECOND)); // its first flush
    assert_eq!((last.next_sequence, last.last_unix_ns), (10_005, 10_004 * SECOND));
    assert!(!last.sealed && last.bytes < last.file_bytes);
    assert!(segments.iter().all(|s| s.name == "orders" && s.enveloped && !s.synced));
    // Without its index the last one is walked from the beginning.
    std::fs::remove_file(last.path.with_extension("idx")).unwrap();
    assert_eq!(survey(dir.path()).unwrap().last(), Some(last));
    flip(&first.path, 100);
    let damaged = &survey(dir.path()).unwrap()[0];
    assert!(damaged.problem.is_some() && damaged.first_sequence == 5);
}

#[test]
fn a_sound_log_verifies_and_progress_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(dir.path(), |_, _| ()), Err(LogError::NotFound { .. })));
    write(dir.path(), 5, 10_000, &small());
    let mut told = Vec::new();
    let report = verify(dir.path(), |done, total| told.push((done, total))).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.messages, report.findings.len()), (10_000, 0));
    let (done, total) = told[told.len() - 1];
    assert!(done == total && told.is_sorted() && report.bytes == total);
}

#[test]
fn every_flipped_byte_of_a_segment_is_found_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 4_000, &small());
    let segments = survey(dir.path()).unwrap();
    let (path, end) = (&segments[1].path, segments[1].bytes);
    let sound = std::fs::read(path).unwrap();
    let blocks = blocks(path);
    let damaged_at = |at: u64| {
        flip(path, at);
        let found = findings(dir.path());
        std::fs::write(path, &sound).unwrap();
        found
    };
    for at in (0..SEGMENT_HEADER_BYTES).step_by(1021).chain([8]) {
        assert_eq!(damaged_at(at), [Finding::Header { path: path.clone() }], "byte {at}");
    }
    for at in (SEGMENT_HEADER_BYTES..end - 64).step_by(523) {
        let (offset, block) = *blocks.iter().rfind(|(offset, _)| *offset <= at).unwrap();
        let damage = Finding::Damaged {
            path: path.clone(),
            offset,
            bytes: block.length.into(),
            first: block.first_sequence,
            count: block.count.into(),
        };
        let mut found = damaged_at(at);
        // Where the damaged block has an entry in the index, that cannot be held against it.
        assert_eq!(found.remove(0), damage, "byte {at}");
        assert_eq!(found, [], "byte {at}");
    }
    let found = damaged_at(end - 40);
    assert!(
        matches!(found[..], [Finding::Unfinished { offset, .. }] if offset == end - 64),
        "{found:?}"
    );
    assert_eq!(findings(dir.path()), []);
}

#[test]
fn what_is_missing_torn_or_cut_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 4_000, &small());
    let segments = survey(dir.path()).unwrap();
    let (second, last) = (&segments[1], &segments[segments.len() - 1]);
    // Half a block at the end: the writer was killed.
    let file = std::fs::OpenOptions::new().write(true).open(&last.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\x01\x02\x03\x04GBLK", last.bytes).unwrap();
    let torn = Finding::Torn { path: last.path.clone(), offset: last.bytes, bytes: 8 };
    assert_eq!(findings(dir.path()).as_slice(), std::slice::from_ref(&torn));
    assert!(verify(dir.path(), |_, _| ()).unwrap().is_sound());
    // A segment that has gone.
    std::fs::remove_file(&second.path).unwrap();
    let count = second.next_sequence - second.first_sequence;
    let gone = Finding::Missing {
        path: segments[2].path.clone(),
        session: 35,
        first: second.first_sequence,
        count,
    };
    assert_eq!(findings(dir.path()), [gone, torn]);
    // One that was cut in the middle of a block.
    let third = &segments[2];
    let (offset, block) = blocks(&third.path)[3];
    let file = std::fs::OpenOptions::new().write(true).open(&third.path).unwrap();
    file.set_len(offset + 80).unwrap();
    let found = findings(dir.path());
    let cut = Finding::Unfinished { path: third.path.clone(), offset, bytes: 80 };
    assert_eq!(found[1], cut, "{found:?}");
    let lacks = (block.first_sequence, third.next_sequence - block.first_sequence);
    assert!(found.iter().any(|found| found.messages() == Some(lacks)), "{found:?}");
    assert!(found.iter().all(|found| !found.to_string().is_empty()));
}

#[test]
fn an_index_that_lies_is_told_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().segment_bytes(1 << 20);
    write(dir.path(), 1, 40_000, &options);
    let segment = survey(dir.path()).unwrap()[0].path.clone();
    let index = segment.with_extension("idx");
    let sound = std::fs::read(&index).unwrap();
    assert!(sound.len() > 64 + 10 * 32);
    let is_index = |found: &[Finding]| matches!(found, [Finding::Index { .. }]);
    let mut wrongs = vec![sound[..sound.len() - 32].to_vec(), sound[..sound.len() - 5].to_vec()];
    wrongs.extend((0..sound.len()).step_by(131).map(|at| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    }));
    for wrong in wrongs {
        std::fs::write(&index, wrong).unwrap();
        assert!(is_index(&findings(dir.path())), "{:?}", findings(dir.path()));
        rebuild_index(&segment).unwrap();
        assert_eq!(std::fs::read(&index).unwrap(), sound);
    }
    std::fs::remove_file(&index).unwrap();
    assert!(is_index(&findings(dir.path())));
    rebuild_index(&segment).unwrap();
    assert_eq!(findings(dir.path()), []);
    // Nobody takes the index of a segment from its writer.
    let (_log, _) = options.open(dir.path()).unwrap();
    let last = survey(dir.path()).unwrap().last().unwrap().path.clone();
    assert!(matches!(rebuild_index(&last), Err(LogError::WriterAlive { .. })));
    assert!(matches!(rebuild_index(dir.path()), Err(LogError::Header { .. })));
}

#[test]
fn beside_a_live_writer_nothing_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().retention(Retention { bytes: Some(512 << 10), age: None });
    write(dir.path(), 1, 10, &options);
    let directory = dir.path().to_path_buf();
    let writer = std::thread::spawn(move || write(&directory, 11, 100_000, &options));
    let mut checked = 0;
    while !writer.is_finished() || checked == 0 {
        let report = verify(dir.path(), |_, _| ()).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let segments = survey(dir.path()).unwrap();
        let joins = |pair: &[SegmentInfo]| pair[0].next_sequence <= pair[1].first_sequence;
        assert!(segments.windows(2).all(joins));
        checked += 1;
    }
    writer.join().unwrap();
    let report = verify(dir.path(), |_, _| ()).unwrap();
    assert!(report.is_sound() && report.messages < 100_000);
}

/// Changes a byte in the middle of the newest segment's second block.
fn damage(directory: &std::path::Path) {
    let name = *catalog::list(&FileSystem::default(), directory).unwrap().last().unwrap();
    let mut bytes = std::fs::read(name.path(directory)).unwrap();
    let start = format::SEGMENT_HEADER_BYTES as usize;
    let first = format::BlockHeader::peek(&bytes[start..]).unwrap();
    bytes[start + first.length as usize + format::BLOCK_HEADER_BYTES + 9] ^= 1;
    std::fs::write(name.path(directory), bytes).unwrap();
}

/// Makes the newest segment look as if an earlier run of the host had written it.
fn age(directory: &std::path::Path) {
    let name = *catalog::list(&FileSystem::default(), directory).unwrap().last().unwrap();
    let mut bytes = std::fs::read(name.path(directory)).unwrap();
    let mut header = format::SegmentHeader::decode(&bytes).unwrap();
    header.boot = [0xEE; 16];
    bytes[..4096].copy_from_slice(&header.encode());
    std::fs::write(name.path(directory), bytes).unwrap();
}

#[test]
fn damage_in_front_of_what_lasted_is_not_taken_for_a_torn_tail() {
    for (closed, aged) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let options = small().segment_bytes(1 << 20).sync(SyncPolicy::Batch);
        let (mut log, _) = options.open(dir.path()).unwrap();
        log.begin(35, 1).unwrap();
        for sequence in 1..1000 {
            let payload = vec![sequence as u8; (sequence % 100) as usize];
            log.append(sequence, &payload, Flags::WHOLE, sequence * SECOND).unwrap();
            if sequence % 7 == 0 {
                log.flush().unwrap();
                log.tick(sequence * SECOND).unwrap();
            }
        }
        if closed {
            log.close().unwrap()
        } else {
            drop(log)
        }
        damage(dir.path());
        if aged {
            age(dir.path());
        }
        let (log, recovery) = options.open(dir.path()).unwrap();
        let recovery = recovery.unwrap();
        assert_eq!((recovery.next_sequence, recovery.cut), (1000, None), "{closed} {aged}");
        assert_eq!(log.whole_from(), 15);
        drop(log);
        let mut reader = LogReader::open(dir.path(), ReadFrom::Oldest).unwrap();
        assert_eq!(reader.poll(9, |_, _| ()).unwrap(), 7);
        let told = loop {
            // In a segment that may be written to, it is looked at more than once.
            match reader.poll(9, |_, _| ()) {
                Ok(handed) => assert_eq!(handed, 0),
                Err(told) => break told,
            }
        };
        assert!(matches!(told, LogError::Damaged { first: 8, count: 7, .. }), "{told}");
        assert_eq!(read(&mut reader), (15..1000).collect::<Vec<_>>());
    }
}

#[test]
fn damage_behind_what_lasted_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().segment_bytes(1 << 20).sync(SyncPolicy::Every(std::time::Duration::MAX));
    write(dir.path(), 1, 100, &options); // the last sync was before all of it
    damage(dir.path());
    age(dir.path());
    let (log, recovery) = options.open(dir.path()).unwrap();
    let cut = recovery.unwrap().cut.unwrap();
    assert_eq!((log.position(), cut.segments), (Some((35, 8)), 0));
    assert!(cut.bytes > 5000, "{cut:?}");
}

#[test]
fn a_clock_that_is_set_back_stops_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let policy = SyncPolicy::Every(std::time::Duration::from_millis(10));
    let (mut log, _) = small().sync(policy).open(dir.path()).unwrap();
    log.begin(35, 1).unwrap();
    for (sequence, now) in [(1, 7200), (2, 3600)] {
        log.append(sequence, b"x", Flags::WHOLE, now * SECOND).unwrap();
        log.flush().unwrap();
        log.tick(now * SECOND).unwrap();
        log.tick(now * SECOND).unwrap();
        assert_eq!(log.durable_sequence(), sequence);
    }
    assert!(matches!(log.begin(36, u64::MAX), Err(LogError::Option { .. })));
}

#[test]
fn a_header_that_became_zeroes_hides_nothing_from_the_next_writer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, 700, &small().segment_bytes(1 << 20));
    let name = *catalog::list(&FileSystem::default(), dir.path()).unwrap().last().unwrap();
    let mut bytes = std::fs::read(name.path(dir.path())).unwrap();
    let start = format::SEGMENT_HEADER_BYTES as usize;
    let first = format::BlockHeader::peek(&bytes[start..]).unwrap();
    let second = start + first.length as usize;
    bytes[second..second + format::BLOCK_HEADER_BYTES].fill(0);
    std::fs::write(name.path(dir.path()), bytes).unwrap();
    let (log, recovery) = small().open(dir.path()).unwrap();
    assert_eq!((log.position(), recovery.unwrap().cut), (Some((35, 701)), None));
}

#[test]
fn the_newest_of_three_segments_speaks_for_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().sync(SyncPolicy::Batch);
    write(dir.path(), 1, 2600, &options);
    let disk = FileSystem::default();
    let names = catalog::list(&disk, dir.path()).unwrap();
    assert_eq!(names.len(), 3);
    // Nothing in the first two says that anything was durable; the last block of the third does.
    let (mut log, _) = options.open(dir.path()).unwrap();
    log.sync().unwrap();
    log.append(2601, &[41; 1], Flags::WHOLE, 2601 * SECOND).unwrap();
    drop(log);
    for &name in &names {
        let mut bytes = std::fs::read(name.path(dir.path())).unwrap();
        let mut header = format::SegmentHeader::decode(&bytes).unwrap();
        header.boot = [0xEE; 16];
        bytes[..4096].copy_from_slice(&header.encode());
        if name == names[0] {
            let first = format::BlockHeader::peek(&bytes[4096..]).unwrap();
            bytes[4096 + first.length as usize + format::BLOCK_HEADER_BYTES + 9] ^= 1;
        }
        std::fs::write(name.path(dir.path()), bytes).unwrap();
    }
    let (log, recovery) = options.open(dir.path()).unwrap();
    assert_eq!((log.position(), recovery.unwrap().cut), (Some((35, 2602)), None));
}
