//! `floor/uring`: the fastest bare io_uring loop for one datagram at a time.
//!
//! A send and a one-shot receive enter the kernel together; then the side spins on the queue's flag
//! in user space, and enters once more when the kernel says that there is work: the ring has a
//! single issuer and does its work only when asked to (`DEFER_TASKRUN`). Ring and socket are
//! registered. A round trip takes two system calls a side.

use std::mem::ManuallyDrop;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail, ensure};
use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, opcode, squeue};
use memmap2::{MmapOptions, MmapRaw};

use super::ground::Ground;
use super::pingpong::{Dial, Duplex};
use crate::scenario::Session;

/// Entries of the submission queue.
const ENTRIES: u32 = 8;
/// Bytes that a datagram may have.
const DATAGRAM_MAX: usize = 4096;
/// What completions are told apart by.
const SENT: u64 = 1;
const RECEIVED: u64 = 2;
/// The socket's place among the registered files.
const SOCKET: Fixed = Fixed(0);

/// Bare io_uring.
pub(crate) struct BareUring;

impl Dial for BareUring {
    type End = BareUringEnd;

    fn open(&self, session: &Session<'_>, ground: &Ground) -> Result<BareUringEnd> {
        let mut end = BareUringEnd::new(ground.connect(session)?)?;
        end.arm()?;
        end.submit()?;
        Ok(end)
    }

    fn obstacle(&self) -> Option<String> {
        build().err().map(|error| format!("no io_uring: {error}"))
    }
}

fn build() -> std::io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(ENTRIES)
}

/// One side's ring and socket. Fields that borrow from the ring stand before it: they go first.
pub(crate) struct BareUringEnd {
    submitter: Submitter<'static>,
    submission: SubmissionQueue<'static>,
    completion: CompletionQueue<'static>,
    owned: Owned,
    /// A receive is under way.
    armed: bool,
    /// A send is under way.
    sending: bool,
}

/// The ring, and the memory that its requests point to.
struct Owned {
    /// From `Box::into_raw`; freed by `drop` alone.
    ring: *mut IoUring,
    received: ManuallyDrop<MmapRaw>,
    sent: ManuallyDrop<MmapRaw>,
    _socket: UdpSocket,
}

impl BareUringEnd {
    fn new(socket: UdpSocket) -> Result<Self> {
        let memory = || -> Result<_> {
            let memory = MmapOptions::new().len(DATAGRAM_MAX).populate().map_anon();
            Ok(ManuallyDrop::new(MmapRaw::from(memory.context("map a buffer")?)))
        };
        let fd = socket.as_raw_fd();
        let (received, sent) = (memory()?, memory()?);
        let ring = Box::into_raw(Box::new(build().context("make an io_uring")?));
        let owned = Owned { ring, received, sent, _socket: socket };
        // SAFETY: just made by `Box::into_raw` and referred to by nobody else. The references taken
        // from it here are the fields before `owned`, which are dropped before it frees the ring.
        let ring: &'static mut IoUring = unsafe { &mut *owned.ring };
        let (mut submitter, submission, completion) = ring.split();
        submitter.register_files(&[fd]).context("register the socket")?;
        submitter.register_ring_fd().context("register the ring")?;
        Ok(Self { submitter, submission, completion, owned, armed: false, sending: false })
    }

    /// Queues a request.
    fn push(&mut self, entry: &squeue::Entry) -> Result<()> {
        // SAFETY: requests point into `owned.received` and `owned.sent` only, within their length,
        // and both stay mapped until every request is over (see `Owned::drop`).
        let pushed = unsafe { self.submission.push(entry) };
        pushed.context("the submission queue is full")
    }

    /// Queues a receive, unless there is one.
    #[inline(always)]
    fn arm(&mut self) -> Result<()> {
        if self.armed {
            return Ok(());
        }
        let into = self.owned.received.as_mut_ptr();
        let entry = opcode::Recv::new(SOCKET, into, DATAGRAM_MAX as u32).build();
        self.push(&entry.user_data(RECEIVED))?;
        self.armed = true;
        Ok(())
    }

    #[inline(always)]
    fn submit(&mut self) -> Result<()> {
        self.submission.sync();
        self.submitter.submit().context("enter the ring")?;
        Ok(())
    }
}

impl Duplex for BareUringEnd {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        ensure!(!self.sending, "the message before has not left yet");
        ensure!(message.len() <= DATAGRAM_MAX, "{} bytes are too long", message.len());
        let from = self.owned.sent.as_mut_ptr();
        // SAFETY: the mapping has DATAGRAM_MAX bytes, checked above; no request reads it, since no
        // send is under way; `message` is the caller's and not inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), from, message.len()) };
        let entry = opcode::Send::new(SOCKET, from, message.len() as u32).build();
        self.push(&entry.user_data(SENT))?;
        self.sending = true;
        self.arm()?;
        self.submit()
    }

    #[inline(always)]
    fn poll(&mut self, mut handler: impl FnMut(&[u8])) -> Result<usize> {
        self.completion.sync();
        if self.completion.is_empty() {
            if !self.submission.taskrun() {
                return Ok(0);
            }
            self.submit()?;
            self.completion.sync();
        }
        let mut count = 0;
        for entry in &mut self.completion {
            let Ok(bytes) = usize::try_from(entry.result()) else {
                let error = std::io::Error::from_raw_os_error(-entry.result());
                bail!("request {} failed: {error}", entry.user_data());
            };
            if entry.user_data() == SENT {
                self.sending = false;
                continue;
            }
            self.armed = false;
            let from = self.owned.received.as_mut_ptr().cast_const();
            // SAFETY: the kernel wrote `bytes`, at most DATAGRAM_MAX, of this mapping; the receive
            // is over and none is armed before the handler has returned.
            handler(unsafe { std::slice::from_raw_parts(from, bytes) });
            count += 1;
        }
        Ok(count)
    }
}

impl Drop for BareUringEnd {
    fn drop(&mut self) {
        // The registration would keep the ring alive beyond its descriptor. It fails only if there
        // is none.
        let _ = self.submitter.unregister_ring_fd();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`, not freed before; whatever borrowed from the ring was
        // dropped before this field.
        let ring = unsafe { Box::from_raw(self.ring) };
        let cancelled = ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let idle = match cancelled {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        drop(ring);
        // Otherwise the kernel may still write, so the memory stays.
        if idle {
            // SAFETY: not dropped before, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.received) };
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.sent) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_in_both_directions_and_many_rings_come_and_go() {
        if let Some(obstacle) = BareUring.obstacle() {
            // A floor that cannot be had is left out of a run, with this reason.
            assert!(obstacle.contains("io_uring"), "{obstacle}");
            return;
        }
        // More than a thread may register at once.
        for round in 0..20u8 {
            let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            let addresses = [0, 1].map(|i: usize| sockets[i].local_addr().unwrap());
            sockets[0].connect(addresses[1]).unwrap();
            sockets[1].connect(addresses[0]).unwrap();
            let [mut one, mut other] = sockets.map(|socket| {
                let mut end = BareUringEnd::new(socket).unwrap();
                end.arm().unwrap();
                end.submit().unwrap();
                end
            });
            for byte in 0..10u8 {
                for (from, to) in [(0, 1), (1, 0)] {
                    let ends =
                        if from < to { (&mut one, &mut other) } else { (&mut other, &mut one) };
                    ends.0.send(&[round, byte, from]).unwrap();
                    let mut seen = Vec::new();
                    while ends.1.poll(|message| seen.extend_from_slice(message)).unwrap() == 0 {}
                    assert_eq!(seen, [round, byte, from]);
                    while ends.0.sending {
                        assert_eq!(ends.0.poll(|_| ()).unwrap(), 0);
                    }
                }
            }
        }
    }
}
