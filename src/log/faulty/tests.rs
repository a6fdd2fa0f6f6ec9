//! The disk that fails: what lasts through which accident, and what it costs.

use super::*;

fn disk() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    disk.create_directory("/a".as_ref()).unwrap();
    disk
}

#[test]
fn a_kill_keeps_what_was_written_and_ends_the_process() {
    let disk = disk();
    let file = disk.create("/a/b".as_ref()).unwrap();
    assert!(file.try_lock().unwrap());
    assert!(!disk.open("/a/b".as_ref(), true).unwrap().try_lock().unwrap());
    file.write_all_at(b"here", 4).unwrap();
    disk.plan(0, Fault::Death);
    assert!(file.write_all_at(&[1; 1000], 8).is_err() && disk.is_dead());
    let next = disk.kill();
    assert!(file.length().is_err() && disk.list("/a".as_ref()).is_err());
    let file = next.open("/a/b".as_ref(), true).unwrap();
    assert!(file.try_lock().unwrap());
    let mut bytes = [0; 2000];
    let have = file.read_full_at(&mut bytes, 0).unwrap();
    assert!((8..1008).contains(&have), "{have}: a part of the last write");
    assert_eq!(bytes[..8], *b"\0\0\0\0here");
    assert!(bytes[8..have].iter().all(|&byte| byte == 1));
}

#[test]
fn names_last_once_their_directory_is_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let disk = disk();
        disk.create("/a/b".as_ref()).unwrap().write_all_at(b"old", 0).unwrap();
        disk.create("/a/c".as_ref()).unwrap().write_all_at(b"new", 0).unwrap();
        disk.open("/a/b".as_ref(), true).unwrap().sync().unwrap();
        disk.open("/a/c".as_ref(), true).unwrap().sync().unwrap();
        disk.sync_directory("/a".as_ref()).unwrap();
        disk.rename("/a/c".as_ref(), "/a/b".as_ref()).unwrap();
        let boot = disk.boot_id();
        let disk = disk.power_off(seed);
        assert_ne!(disk.boot_id(), boot);
        let mut bytes = [0; 3];
        disk.open("/a/b".as_ref(), false).unwrap().read_full_at(&mut bytes, 0).unwrap();
        match (&bytes, disk.list("/a".as_ref()).unwrap().len()) {
            (b"new", 1) => kept += 1,
            (b"old", 2) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(kept > 20 && lost > 20);
}

#[test]
fn room_is_taken_and_given_back() {
    let disk = disk();
    disk.set_room(Some(10_000));
    let file = disk.create("/a/b".as_ref()).unwrap();
    file.allocate(8000).unwrap();
    let full = |error: io::Error| error.kind() == io::ErrorKind::StorageFull;
    assert!(full(file.allocate(10_001).unwrap_err()));
    assert!(full(file.write_all_at(&[1; 5000], 6000).unwrap_err()));
    assert_eq!(disk.used(), 10_000);
    disk.remove("/a/b".as_ref()).unwrap();
    assert_eq!(disk.used(), 10_000, "it is still open");
    drop(file);
    assert_eq!(disk.used(), 0);
}

#[test]
fn calls_fail_as_often_as_they_are_told_to() {
    let disk = disk();
    let file = disk.create("/a/b".as_ref()).unwrap();
    disk.set_faults(Faults { short: 0.5, interrupted: 0.3, ..Faults::default() });
    for at in 0..100 {
        file.write_all_at(&[at; 100], u64::from(at) * 100).unwrap();
    }
    let mut bytes = vec![0; 10_000];
    assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 10_000);
    assert!((0..10_000).all(|at| usize::from(bytes[at]) == at / 100));
    assert!(disk.calls() > 300);
    disk.set_faults(Faults { io_error: 0.5, ..Faults::default() });
    let failed = (0..100).filter(|_| file.length().is_err()).count();
    assert!((20..80).contains(&failed), "{failed}");
}
