//! Publishing and polling allocate nothing and make no system call, once set up.
//!
//! Allocations are counted by the allocator. System calls are forbidden by the kernel: a forked
//! child enters strict seccomp mode (seccomp(2)), where any call but read, write and exit is its
//! death, and then works a ring through many laps.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gapless_shm::{
    Consumer, ConsumerOptions, Counters, CountersOptions, Mode, PollError, Producer, RingOptions,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on; `alloc` above is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: u64 = 1_000_000;

fn sides(mode: Mode) -> (Producer, Consumer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(1 << 16).mode(mode);
    let producer = options.create("r").expect("a ring");
    let attach = ConsumerOptions::new().directory(dir.path()).name("reader");
    let consumer = attach.attach("r").expect("a consumer");
    (producer, consumer, dir)
}

/// Publishes in three ways and polls; the lossy ring is lapped now and then. Returns how many
/// messages were seen or reported missing.
fn work(producer: &mut Producer, consumer: &mut Consumer) -> u64 {
    let mut accounted = 0;
    let mut n = 0;
    while n < MESSAGES {
        for _ in 0..50 {
            producer.try_publish(&n.to_le_bytes()).expect("room");
            let mut claim = producer.claim(40).expect("room");
            claim.fill(1);
            claim.commit();
            let mut batch = producer.batch();
            batch.push(b"one").expect("room");
            batch.push(b"two").expect("room");
            n += 2 + batch.commit();
        }
        // A lossy ring is now and then left to lap its reader.
        if consumer.is_gating() || !n.is_multiple_of(7) {
            accounted += drain(consumer);
        }
    }
    accounted
}

/// Reads all there is.
fn drain(consumer: &mut Consumer) -> u64 {
    let mut accounted = 0;
    loop {
        match consumer.poll(64, |message| accounted += u64::from(!message.payload.is_empty())) {
            Ok(0) => return accounted,
            Ok(_) => {}
            Err(PollError::Lapped { missed, .. }) => accounted += missed,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_million_messages_allocate_nothing() {
    for mode in [Mode::Lossless, Mode::Lossy] {
        let (mut producer, mut consumer, _dir) = sides(mode);
        let before = ALLOCATIONS.get();
        let accounted = work(&mut producer, &mut consumer);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{mode:?}");
        assert!(accounted > MESSAGES / 2);
    }
    // The counter does count.
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0u8; 10]));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

/// Counts and records on the page of `counters`; returns what was counted.
fn count(counters: &mut Counters) -> u64 {
    for n in 0..MESSAGES {
        counters.add(0, 2);
        counters.set(1, n);
        counters.record(0, n * n);
    }
    counters.get(0)
}

#[test]
fn counting_allocates_nothing_and_makes_no_system_call() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = CountersOptions::new().directory(dir.path());
    let mut counters = options.open("c", "sender", &["sum", "last"], &["t"]).expect("a page");
    let before = ALLOCATIONS.get();
    assert_eq!(count(&mut counters), 2 * MESSAGES);
    assert_eq!(ALLOCATIONS.get() - before, 0);
    let status = in_strict_child(|| count(&mut counters) == 4 * MESSAGES);
    assert!(libc::WIFEXITED(status), "killed for a system call ({status:#x})");
    assert_eq!(libc::WEXITSTATUS(status), 0);
}

/// Runs `body` in a forked child under strict seccomp; says how the child ended.
fn in_strict_child(body: impl FnOnce() -> bool) -> libc::c_int {
    // SAFETY: the child below calls only what is safe after a fork of a threaded process: no
    // allocation, no lock (asserted by the other test), raw system calls.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: takes no pointers.
        let strict = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
        let code = if strict != 0 { 2 } else { i32::from(!body()) };
        // SAFETY: ends this thread, the child's only one; `exit_group` is not allowed here.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer; the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

#[test]
fn a_million_messages_make_no_system_call() {
    for mode in [Mode::Lossless, Mode::Lossy] {
        let (mut producer, mut consumer, _dir) = sides(mode);
        let status = in_strict_child(|| work(&mut producer, &mut consumer) > MESSAGES / 2);
        assert!(libc::WIFEXITED(status), "{mode:?}: killed for a system call ({status:#x})");
        assert_eq!(libc::WEXITSTATUS(status), 0, "{mode:?}");
    }
    // The guard does bite.
    let status = in_strict_child(|| std::process::id() != 0);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
}
