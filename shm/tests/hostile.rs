//! Files that somebody broke, or made to do harm, and places where a ring cannot be: a typed error
//! or valid messages, never a panic, an endless loop or something left behind.

#![cfg(not(miri))] // file mappings, processes, or too much for an interpreter

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use gapless_shm::{
    ConsumerOptions, HugePages, Inspector, LockMemory, Memory, Mode, PollError, Producer,
    RingError, RingOptions, Start, list, ring_path,
};
use nix::sys::signal::Signal;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use support::{Process, Rng, role};

const CAPACITY: u64 = 4096;
/// Where the regions of [`sound`] lie, as the layout documents.
const PRODUCER_PAGE: u64 = 4096;
const TABLE: u64 = 12288;
const DATA: u64 = 16384;

fn options(directory: &Path) -> RingOptions {
    RingOptions::new()
        .directory(directory)
        .capacity_bytes(CAPACITY)
        .consumer_slots(4)
        .lock_memory(LockMemory::Never)
}

fn consumer(directory: &Path) -> ConsumerOptions {
    ConsumerOptions::new().directory(directory).lock_memory(LockMemory::Never)
}

/// A ring with a few laps of messages in it, closed.
fn sound(directory: &Path, mode: Mode) {
    let mut producer = options(directory).mode(mode).create("r").unwrap();
    publish(&mut producer, 300);
}

fn publish<M: Memory>(producer: &mut Producer<M>, messages: u64) {
    for n in 0..messages {
        producer.try_publish(&[n as u8; 40][..(n % 41) as usize]).unwrap();
    }
}

fn file(directory: &Path) -> fs::File {
    let path = ring_path(directory, "r").unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Recomputes the checksum of the header: damage that it does not catch.
fn reseal(file: &fs::File) {
    let mut header = [0; 212];
    file.read_exact_at(&mut header, 0).unwrap();
    file.write_all_at(&crc32c::crc32c(&header).to_le_bytes(), 212).unwrap();
}

/// Everything that attaches; the first error of each.
fn try_all(directory: &Path) -> [Option<RingError>; 4] {
    let path = ring_path(directory, "r").unwrap();
    [
        options(directory).attach("r").err(),
        consumer(directory).attach("r").err(),
        consumer(directory).observer(true).attach("r").err(),
        Inspector::open_file(&path).err(),
    ]
}

#[test]
fn each_damage_to_the_header_has_its_own_error_for_everybody() {
    type Damage = fn(&fs::File);
    type Expected = fn(&RingError) -> bool;
    let cases: [(&str, Damage, Expected); 10] = [
        (
            "magic",
            |f| f.write_all_at(b"X", 0).unwrap(),
            |e| matches!(e, RingError::BadMagic { .. }),
        ),
        (
            "version",
            |f| f.write_all_at(&[9], 8).unwrap(),
            |e| matches!(e, RingError::BadVersion { found: 9, .. }),
        ),
        (
            "byte order",
            |f| f.write_all_at(&[1, 2, 3, 4], 12).unwrap(),
            |e| matches!(e, RingError::BadByteOrder { .. }),
        ),
        (
            "checksum",
            |f| f.write_all_at(&[0x55], 56).unwrap(),
            |e| matches!(e, RingError::BadChecksum { .. }),
        ),
        (
            "size",
            |f| {
                f.write_all_at(&(1u64 << 30).to_le_bytes(), 32).unwrap();
                reseal(f);
            },
            |e| matches!(e, RingError::BadHeader { .. }),
        ),
        (
            "slots",
            |f| {
                f.write_all_at(&[0xff; 4], 44).unwrap();
                reseal(f);
            },
            |e| matches!(e, RingError::BadHeader { field: "consumer slots", .. }),
        ),
        (
            "longer",
            |f| f.set_len(DATA + CAPACITY + 1).unwrap(),
            |e| matches!(e, RingError::BadLength { .. }),
        ),
        ("shorter", |f| f.set_len(DATA).unwrap(), |e| matches!(e, RingError::BadLength { .. })),
        (
            "header only",
            |f| f.set_len(100).unwrap(),
            |e| matches!(e, RingError::BadLength { found: 100, .. }),
        ),
        (
            "empty",
            |f| f.set_len(0).unwrap(),
            |e| matches!(e, RingError::BadLength { found: 0, .. }),
        ),
    ];
    for (what, damage, expected) in cases {
        let directory = support::directory();
        sound(directory.path(), Mode::Lossless);
        damage(&file(directory.path()));
        for error in try_all(directory.path()) {
            let error = error.unwrap_or_else(|| panic!("{what}: accepted"));
            assert!(expected(&error), "{what}: {error:?}");
        }
    }
}

#[test]
fn an_impossible_cursor_is_refused() {
    for (position, sequence) in [(1u64, 5u64), (1 << 63, 5), (64, u64::MAX), (u64::MAX, 0)] {
        let directory = support::directory();
        let directory = directory.path();
        sound(directory, Mode::Lossless);
        let file = file(directory);
        for pair in [136, 152] {
            file.write_all_at(&position.to_le_bytes(), PRODUCER_PAGE + pair).unwrap();
            file.write_all_at(&sequence.to_le_bytes(), PRODUCER_PAGE + pair + 8).unwrap();
        }
        let bad = |error: &RingError| matches!(error, RingError::BadCursor { .. });
        assert!(options(directory).attach("r").err().is_some_and(|error| bad(&error)));
        assert!(consumer(directory).attach("r").err().is_some_and(|error| bad(&error)));
        let inspector = Inspector::open_file(&ring_path(directory, "r").unwrap()).unwrap();
        let snapshot = inspector.snapshot();
        assert!(snapshot.problem.is_some_and(|problem| problem.contains("impossible cursor")));
        assert!(inspector.verify(|_| ()).err().is_some_and(|error| bad(&error)));
        assert!(inspector.records(0, 10, |_| ()).err().is_some_and(|error| bad(&error)));
    }
}

/// Overwrites words at random in one region.
fn scribble(file: &fs::File, rng: &mut Rng, region: std::ops::Range<u64>) {
    let few = rng.below(2) == 0;
    let words = if few { 1 + rng.below(3) } else { 64 };
    for _ in 0..words {
        let at = region.start + rng.below((region.end - region.start) / 8) * 8;
        let word = match rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => rng.below(2 * CAPACITY) & !15,
            3 => rng.below(400) << 32 | 0x83 << 24 | rng.below(64),
            _ => rng.next(),
        };
        file.write_all_at(&word.to_le_bytes(), at).unwrap();
    }
}

/// Uses the ring in every way. Whatever comes of it is right, unless it panics or never ends.
fn use_it(directory: &Path) {
    let path = ring_path(directory, "r").unwrap();
    if let Ok(inspector) = Inspector::open_file(&path) {
        let mut records = 0;
        // Errors are as good an answer as any.
        let _ = inspector.snapshot();
        let _ = inspector.verify(|_| records += 1);
        let _ = inspector.records(0, u64::MAX, |record| {
            assert!(record.message.payload.len() <= CAPACITY as usize);
        });
        assert!(records <= 2 * CAPACITY / 16);
    }
    for start in [Start::Oldest, Start::Now, Start::Sequence(290)] {
        for observer in [false, true] {
            let options = consumer(directory).observer(observer).start(start);
            let Ok(mut consumer) = options.attach("r") else { continue };
            let mut errors = 0;
            for _ in 0..20 {
                let polled = consumer.poll(1000, |message| {
                    assert!(message.payload.len() <= CAPACITY as usize);
                });
                match polled {
                    Ok(_) | Err(PollError::Lapped { .. }) => {}
                    Err(_) => errors += 1,
                }
            }
            assert!(errors <= 20);
        }
    }
    if let Ok(mut producer) = options(directory).attach("r") {
        for n in 0..200u64 {
            // Refusals are fine: what gates may be forged.
            let _ = producer.try_publish(&[7; 48][..(n % 49) as usize]);
        }
        let _ = producer.slowest();
    }
}

fn garbage(name: &str, mode: Mode, region: std::ops::Range<u64>) {
    let mut rng = Rng::from_environment(name);
    for _ in 0..60 {
        let directory = support::directory();
        sound(directory.path(), mode);
        scribble(&file(directory.path()), &mut rng, region.clone());
        use_it(directory.path());
    }
}

#[test]
fn garbage_in_the_producer_page() {
    garbage("garbage_in_the_producer_page", Mode::Lossless, PRODUCER_PAGE..PRODUCER_PAGE + 512);
    garbage("garbage_in_the_producer_page", Mode::Lossy, PRODUCER_PAGE..PRODUCER_PAGE + 512);
}

#[test]
fn garbage_in_the_index() {
    garbage("garbage_in_the_index", Mode::Lossless, 8192..TABLE);
    garbage("garbage_in_the_index", Mode::Lossy, 8192..TABLE);
}

#[test]
fn garbage_in_the_consumer_table() {
    garbage("garbage_in_the_consumer_table", Mode::Lossless, TABLE..TABLE + 640);
}

#[test]
fn garbage_in_the_data() {
    garbage("garbage_in_the_data", Mode::Lossless, DATA..DATA + CAPACITY);
    garbage("garbage_in_the_data", Mode::Lossy, DATA..DATA + CAPACITY);
}

#[test]
fn garbage_everywhere_behind_the_header() {
    garbage("garbage_everywhere", Mode::Lossless, PRODUCER_PAGE..DATA + CAPACITY);
}

#[test]
fn a_hostile_consumer_table_does_not_stop_a_live_producer_or_reader() {
    let mut rng = Rng::from_environment("hostile_table");
    let directory = support::directory();
    let directory = directory.path();
    let mut producer = options(directory).create("r").unwrap();
    let mut reader = consumer(directory).attach("r").unwrap();
    let file = file(directory);
    let mut next = 1u64;
    for _ in 0..2000 {
        // Any slot but the reader's own (the first): it would be blamed for what is written there.
        scribble(&file, &mut rng, TABLE + 256..TABLE + 640);
        for _ in 0..20 {
            // A forged slot gates until its missing lease is noticed, within a few attempts.
            let mut attempts = 0;
            while producer.try_publish(&next.to_le_bytes()).is_err() {
                attempts += 1;
                assert!(attempts < 1000, "a forged slot stops the producer");
            }
            reader
                .poll(10, |message| {
                    assert_eq!(message.sequence, next);
                    assert_eq!(message.payload, next.to_le_bytes());
                })
                .unwrap();
            next += 1;
        }
    }
}

/// Not a test of its own: what the children run.
#[test]
fn child() {
    let Some((role, directory)) = role() else { return };
    // As another user, where the test says so (it runs as root then).
    if let Some(uid) = std::env::var_os("GAPLESS_TEST_UID") {
        let uid: u32 = uid.to_str().unwrap().parse().unwrap();
        nix::unistd::setgid(uid.into()).unwrap();
        nix::unistd::setuid(uid.into()).unwrap();
    }
    let denied = |error: &RingError| matches!(error, RingError::Denied { .. });
    match role.as_str() {
        "write the data" => {
            let _consumer = consumer(&directory).attach("r").unwrap();
            let data = DATA as usize;
            // The consumer's mapping is the only one of this file in this process.
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let line = maps.lines().find(|line| line.contains("r.ring")).unwrap();
            let start = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            let at = std::ptr::with_exposed_provenance_mut::<u8>(start + data);
            // SAFETY: the address is mapped, by the consumer, which lives; nobody else uses the
            // byte. The write is meant to be refused by the memory protection.
            unsafe { at.write_volatile(1) };
        }
        "denied" => {
            let path = ring_path(&directory, "r").unwrap();
            assert!(options(&directory).attach("r").err().is_some_and(|error| denied(&error)));
            assert!(consumer(&directory).attach("r").err().is_some_and(|error| denied(&error)));
            let observer = consumer(&directory).observer(true).attach("r");
            assert!(observer.err().is_some_and(|error| denied(&error)));
            assert!(Inspector::open_file(&path).err().is_some_and(|error| denied(&error)));
        }
        "observe only" => {
            assert!(options(&directory).attach("r").err().is_some_and(|error| denied(&error)));
            assert!(consumer(&directory).attach("r").err().is_some_and(|error| denied(&error)));
            let mut observer = consumer(&directory).observer(true).attach("r").unwrap();
            assert_eq!(observer.poll(1000, |_| ()).map(|read| read > 0), Ok(true));
            let path = ring_path(&directory, "r").unwrap();
            assert_eq!(Inspector::open_file(&path).unwrap().snapshot().problem, None);
        }
        other => panic!("no such role: {other}"),
    }
}

#[test]
fn a_consumer_that_writes_to_the_data_dies_and_the_data_stay() {
    let directory = support::directory();
    let directory = directory.path();
    sound(directory, Mode::Lossless);
    let before = fs::read(ring_path(directory, "r").unwrap()).unwrap();
    let status = Process::spawn("write the data", directory, &[]).wait();
    assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32), "{status:?}");
    let after = fs::read(ring_path(directory, "r").unwrap()).unwrap();
    assert!(before[DATA as usize..] == after[DATA as usize..]);
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("{test}: skipped, needs root");
    }
    root
}

fn as_nobody(role: &str, directory: &Path) {
    let uid = [("GAPLESS_TEST_UID", "65534".to_owned())];
    let status = Process::spawn(role, directory, &uid).wait();
    assert!(status.success(), "{role}: {status:?}");
}

/// A directory that other users may enter.
fn open_directory() -> tempfile::TempDir {
    let directory = support::directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Whether another user can run this test binary at all (it may lie below a private directory).
fn nobody_can_run_us(test: &str) -> bool {
    let exe = std::env::current_exe().unwrap();
    let open = exe.ancestors().skip(1).all(|directory| {
        fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    });
    if !open {
        println!("{test}: skipped, {} is not reachable for other users", exe.display());
    }
    open
}

#[test]
fn another_user_is_refused() {
    let test = "another_user_is_refused";
    if !is_root(test) || !nobody_can_run_us(test) {
        return;
    }
    let directory = open_directory();
    sound(directory.path(), Mode::Lossless);
    let mode = fs::metadata(ring_path(directory.path(), "r").unwrap()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    as_nobody("denied", directory.path());
}

#[test]
fn a_readable_ring_can_be_observed_by_another_user_but_not_joined() {
    let test = "a_readable_ring_can_be_observed";
    if !is_root(test) || !nobody_can_run_us(test) {
        return;
    }
    let directory = open_directory();
    let mut producer = options(directory.path()).file_mode(0o644).create("r").unwrap();
    publish(&mut producer, 10);
    as_nobody("observe only", directory.path());
}

/// Asks for more than there is and checks that nothing stays behind.
fn refuse_for_want_of_room(directory: &Path, capacity: u64) {
    let error = options(directory).capacity_bytes(capacity).create("r").err().unwrap();
    assert!(matches!(error, RingError::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "something was left behind");
    let used = statfs(directory).unwrap();
    assert!(used.blocks() - used.blocks_free() < 64, "room is still taken");
}

/// Mounts a file system for one test; unmounts it when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(test: &str, kind: &str, how: &str) -> Option<Self> {
        if !is_root(test) {
            return None;
        }
        let directory = support::directory();
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("none"), directory.path(), Some(kind), flags, Some(how)) {
            Ok(()) => Some(Self(directory)),
            Err(errno) => {
                println!("{test}: skipped, cannot mount {kind}: {errno}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A mount that stays is only untidy: the machine's owner sees it in /proc/mounts.
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_file_system_is_an_error_and_nothing_stays_behind() {
    let Some(mount) = Mount::new("a_full_file_system", "tmpfs", "size=1m") else { return };
    refuse_for_want_of_room(mount.0.path(), 1 << 20); // the data alone would fit
    refuse_for_want_of_room(mount.0.path(), 1 << 40);
    let mut producer = options(mount.0.path()).capacity_bytes(1 << 19).create("r").unwrap();
    publish(&mut producer, 100);
    let second = options(mount.0.path()).capacity_bytes(1 << 19).create("s").err().unwrap();
    assert!(matches!(second, RingError::NoSpace { .. }), "{second:?}");
    assert_eq!(list(mount.0.path()).unwrap(), ["r"]);
}

#[test]
fn more_than_shared_memory_holds_is_refused() {
    let shared = Path::new("/dev/shm");
    let tmpfs = statfs(shared).is_ok_and(|status| status.filesystem_type() == TMPFS_MAGIC);
    let Ok(directory) = tempfile::tempdir_in(shared) else {
        println!("more_than_shared_memory_holds: skipped, /dev/shm cannot be written");
        return;
    };
    let bytes = statfs(shared).map_or(0, |s| s.blocks() * s.block_size() as u64);
    if !tmpfs || bytes == 0 || bytes >= 1 << 40 {
        println!("more_than_shared_memory_holds: skipped, /dev/shm is no limited tmpfs");
        return;
    }
    let error = options(directory.path()).capacity_bytes(1 << 40).create("r").err().unwrap();
    assert!(matches!(error, RingError::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn huge_pages_where_there_are_none_are_an_error() {
    let directory = support::directory();
    let required = options(directory.path()).huge_pages(HugePages::Required);
    let error = required.create("r").err().unwrap();
    assert!(matches!(error, RingError::NoHugePages { .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // Transparent ones are a wish, not a demand.
    options(directory.path()).huge_pages(HugePages::Transparent).create("r").unwrap();
}

#[test]
fn huge_pages_on_hugetlbfs() {
    let test = "huge_pages_on_hugetlbfs";
    let Some(mount) = Mount::new(test, "hugetlbfs", "pagesize=2M") else { return };
    let reserved = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let before = fs::read_to_string(reserved).unwrap_or_default();
    let granted = fs::write(reserved, "8")
        .and_then(|()| fs::read_to_string(reserved))
        .is_ok_and(|pages| pages.trim().parse().is_ok_and(|pages: u32| pages >= 8));
    if granted {
        let directory = mount.0.path();
        let huge = options(directory).huge_pages(HugePages::Required).capacity_bytes(1 << 21);
        let mut producer = huge.create("r").unwrap();
        assert!(producer.residency().huge_pages);
        let mut reader = consumer(directory).attach("r").unwrap();
        publish(&mut producer, 1000);
        let mut next = 1;
        while next <= 1000 {
            reader
                .poll(64, |message| {
                    assert_eq!(message.sequence, next);
                    next += 1;
                })
                .unwrap();
        }
        drop(producer);
        assert_eq!(huge.attach("r").unwrap().next_sequence(), 1001);
        let too_much = huge.capacity_bytes(1 << 30).create("s").err().unwrap();
        assert!(matches!(too_much, RingError::NoSpace { .. }), "{too_much:?}");
        drop(reader);
        fs::remove_file(ring_path(directory, "r").unwrap()).unwrap();
    } else {
        println!("{test}: skipped, the kernel grants no huge pages");
    }
    let _ = fs::write(reserved, before.trim());
}

#[test]
fn names_that_could_leave_the_directory_are_refused() {
    let directory = support::directory();
    let directory = directory.path();
    let long = "x".repeat(129);
    for name in ["", ".", "..", "../r", "a/b", "/r", ".r", "a b", "a\0b", "a\nb", "ü", &long] {
        let bad = |error: RingError| matches!(error, RingError::BadName { .. });
        assert!(options(directory).open(name).err().is_some_and(bad), "{name:?}");
        assert!(consumer(directory).attach(name).err().is_some_and(bad), "{name:?}");
        assert!(gapless_shm::remove(directory, name, true).is_err_and(bad), "{name:?}");
    }
    let longest = "x".repeat(128);
    for name in ["-", "_", "a..", "..a".trim_start_matches('.'), "0", longest.as_str()] {
        drop(options(directory).open(name).unwrap());
        assert!(consumer(directory).attach(name).is_ok(), "{name:?}");
    }
    assert_eq!(list(directory).unwrap().len(), 6);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = support::directory();
    let other = support::directory();
    sound(other.path(), Mode::Lossless);
    let target = ring_path(other.path(), "r").unwrap();
    let path = ring_path(directory.path(), "r").unwrap();
    symlink(&target, &path).unwrap();
    for error in try_all(directory.path()) {
        assert!(matches!(error, Some(RingError::System { .. })), "a symbolic link: {error:?}");
    }
    let exists = options(directory.path()).create("r").err();
    assert!(matches!(exists, Some(RingError::Exists { .. })), "{exists:?}");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "the link was replaced");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for error in try_all(directory.path()) {
        assert!(error.is_some(), "a fifo was taken for a ring");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for error in try_all(directory.path()) {
        assert!(error.is_some(), "a directory was taken for a ring");
    }
}

#[test]
fn a_full_table_is_an_error_and_a_leave_makes_room() {
    let directory = support::directory();
    let directory = directory.path();
    let _producer = options(directory).create("r").unwrap();
    let mut readers: Vec<_> = (0..4).map(|_| consumer(directory).attach("r").unwrap()).collect();
    let refused = consumer(directory).attach("r").err().unwrap();
    assert!(matches!(refused, RingError::NoFreeSlot { slots: 4, .. }), "{refused:?}");
    assert!(consumer(directory).observer(true).attach("r").is_ok(), "an observer needs no slot");
    readers.remove(2);
    assert!(consumer(directory).attach("r").is_ok());
}
