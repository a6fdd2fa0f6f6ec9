//! An io_uring on which nothing is ever left behind: each call queues its requests, submits them
//! together, and returns when all of them are completed.
//!
//! Requests are non-blocking (`MSG_DONTWAIT`), so the kernel completes them while it takes them in,
//! and a call is one system call. That is also why memory is safe here: no request outlives the
//! call that made it, hence neither do the pointers in it.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};

use super::SOCKETS_MAX;
use super::address::RawAddress;
use super::error::NetError;
use super::sys::{Control, Errno, MESSAGE_BYTES, Part};

/// Requests of one call, at most.
pub(super) const SLOTS: usize = 32;
const _: () = assert!(SLOTS >= SOCKETS_MAX && SLOTS >= super::sys::BATCH);
const FLAGS: u32 = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
/// The result of a request that is not completed. The kernel's own are at least -4095.
const PENDING: i32 = i32::MIN;
/// How often the kernel is asked again when it has no memory to take a request in.
const RETRIES_MAX: u32 = 100;

/// Where a request's message header lives, and what it points to.
struct Slot {
    header: libc::msghdr,
    vector: libc::iovec,
    control: Control,
    address: RawAddress,
    result: i32,
}

/// A datagram to read.
#[derive(Clone, Copy)]
pub(super) struct Read {
    /// The index of the socket.
    pub(super) file: u32,
    /// Whether its source and segment size are wanted. Costs a little.
    pub(super) described: bool,
}

/// What was read.
pub(super) struct Message<'a> {
    pub(super) bytes: &'a [u8],
    /// Meaningless unless it was asked for.
    pub(super) source: &'a RawAddress,
    /// 0 = one datagram.
    pub(super) segment_bytes: usize,
}

/// The ring with its buffers.
pub(super) struct Ring {
    /// `None` if it broke and could not be made again.
    queues: Option<Box<IoUring>>,
    slots: Box<[Slot]>,
    /// One message a slot.
    slab: Box<[u8]>,
    /// What is registered, by index.
    files: Vec<RawFd>,
}

// SAFETY: the raw pointers in `slots` are written anew before each use and point into this struct's
// own boxes or a caller's borrow; between calls nobody follows them. The rest is `Send` by itself.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets a ring up.
    ///
    /// # Errors
    /// [`NetError::Unavailable`] if the kernel has none, forbids it, or lacks what is needed.
    pub(super) fn new() -> Result<Self, NetError> {
        let queues = queues(&[]).map_err(|error| NetError::Unavailable {
            backend: "io_uring",
            reason: match error.raw_os_error() {
                Some(libc::ENOSYS) => "this kernel has no io_uring".into(),
                Some(libc::EPERM) => {
                    "io_uring is forbidden here (kernel.io_uring_disabled, or seccomp)".into()
                }
                Some(libc::ENOMEM) => "too little memory may be locked (ulimit -l)".into(),
                _ => format!("the kernel refused to set it up: {error}"),
            },
        })?;
        let slot = || Slot {
            // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
            header: unsafe { mem::zeroed() },
            vector: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            control: Control::new(),
            address: RawAddress::room(),
            result: PENDING,
        };
        Ok(Self {
            queues: Some(queues),
            slots: (0..SLOTS).map(|_| slot()).collect(),
            slab: vec![0; SLOTS * MESSAGE_BYTES].into(),
            files: Vec::with_capacity(SOCKETS_MAX),
        })
    }

    /// Makes a socket known, under the next index. It must be open as long as the ring is used.
    pub(super) fn register(&mut self, fd: RawFd) -> Result<(), Errno> {
        let queues = self.queues.as_ref().ok_or(Errno(libc::ENXIO))?;
        let index = self.files.len() as u32;
        queues.submitter().register_files_update(index, &[fd]).map_err(errno)?;
        self.files.push(fd);
        Ok(())
    }

    /// Sends one datagram.
    #[inline]
    pub(super) fn send_one(
        &mut self,
        file: u32,
        to: Option<&RawAddress>,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let Ok(len) = u32::try_from(bytes.len()) else { return Err(Errno(libc::EMSGSIZE)) };
        let entry = match to {
            None => opcode::Send::new(Fixed(file), bytes.as_ptr(), len)
                .flags(FLAGS.cast_signed())
                .build(),
            Some(_) => self.message_out(0, file, to, Part { bytes, segment_bytes: 0 }),
        };
        self.queue(0, entry)?;
        self.complete(1, 0)?;
        self.result(0).map(drop)
    }

    /// Sends messages in order; returns how many the kernel took, or why not the first. What comes
    /// after a refused one is not sent: the requests are linked.
    pub(super) fn send_batch(
        &mut self,
        file: u32,
        to: Option<&RawAddress>,
        parts: &[Part<'_>],
    ) -> Result<usize, Errno> {
        let count = parts.len().min(SLOTS);
        for (i, part) in parts[..count].iter().enumerate() {
            let mut entry = self.message_out(i, file, to, *part);
            if i + 1 < count {
                entry = entry.flags(squeue::Flags::IO_LINK);
            }
            self.queue(i, entry)?;
        }
        self.complete(count, count)?;
        for i in 0..count {
            match self.result(i) {
                Ok(_) => {}
                Err(errno) if i == 0 => return Err(errno),
                Err(_) => return Ok(i),
            }
        }
        Ok(count)
    }

    /// Tries to read one message for each of `reads`, at most [`SLOTS`].
    #[inline]
    pub(super) fn receive(&mut self, reads: &[Read]) -> Result<(), Errno> {
        let count = reads.len().min(SLOTS);
        for (i, read) in reads[..count].iter().enumerate() {
            let room = self.slab[i * MESSAGE_BYTES..][..MESSAGE_BYTES].as_mut_ptr();
            let file = Fixed(read.file);
            let entry = if read.described {
                let slot = &mut self.slots[i];
                slot.address = RawAddress::room();
                let vector = libc::iovec { iov_base: room.cast(), iov_len: MESSAGE_BYTES };
                slot.point_to(vector, RawAddress::CAPACITY as u32, size_of::<Control>());
                opcode::RecvMsg::new(file, &raw mut slot.header).flags(FLAGS).build()
            } else {
                let flags = FLAGS.cast_signed();
                opcode::Recv::new(file, room, MESSAGE_BYTES as u32).flags(flags).build()
            };
            self.queue(i, entry)?;
        }
        self.complete(count, 0)
    }

    /// What the `i`th read of the last [`receive`](Self::receive) brought.
    #[inline]
    pub(super) fn message(&self, i: usize, described: bool) -> Result<Message<'_>, Errno> {
        let len = self.result(i)?.min(MESSAGE_BYTES);
        let slot = &self.slots[i];
        let control = if described { slot.header.msg_controllen as _ } else { 0 };
        Ok(Message {
            bytes: &self.slab[i * MESSAGE_BYTES..][..len],
            source: &slot.address,
            segment_bytes: slot.control.segment_of(control),
        })
    }

    /// The request that sends one message.
    fn message_out(
        &mut self,
        i: usize,
        file: u32,
        to: Option<&RawAddress>,
        part: Part<'_>,
    ) -> squeue::Entry {
        let slot = &mut self.slots[i];
        let control = match part.segment_bytes {
            0 => 0,
            bytes => slot.control.segment(bytes),
        };
        let name_len = to.map_or(0, RawAddress::len);
        if let Some(to) = to {
            slot.address = *to;
        }
        let base = part.bytes.as_ptr().cast_mut().cast();
        let vector = libc::iovec { iov_base: base, iov_len: part.bytes.len() };
        slot.point_to(vector, name_len, control);
        opcode::SendMsg::new(Fixed(file), &raw const slot.header).flags(FLAGS).build()
    }

    /// Puts a request into the queue. Its pointers must be good until [`complete`](Self::complete)
    /// returns, which every caller here calls before it returns itself.
    #[inline]
    fn queue(&mut self, i: usize, entry: squeue::Entry) -> Result<(), Errno> {
        let queues = self.queues.as_mut().ok_or(Errno(libc::ENXIO))?;
        self.slots[i].result = PENDING;
        let entry = entry.user_data(i as u64);
        // SAFETY: the entry points into `self.slots`, `self.slab` and a caller's borrow, all of
        // which outlive the request: `complete` waits for it, or drops it unsubmitted with the
        // ring.
        let pushed = unsafe { queues.submission().push(&entry) };
        pushed.map_err(|_| self.restart(io::Error::from_raw_os_error(libc::EBUSY)))
    }

    /// Submits the first `count` slots' requests and returns when all are completed. `wait` is for
    /// how many the kernel is to wait: linked requests are completed one by one.
    #[inline]
    fn complete(&mut self, count: usize, wait: usize) -> Result<(), Errno> {
        let (mut done, mut wait, mut retries) = (0, wait, 0);
        loop {
            let Some(queues) = self.queues.as_mut() else { return Err(Errno(libc::ENXIO)) };
            let submitted = queues.submitter().submit_and_wait(wait);
            for entry in queues.completion() {
                if let Some(slot) = self.slots.get_mut(entry.user_data() as usize) {
                    slot.result = entry.result();
                }
                done += 1;
            }
            if done == count {
                return Ok(());
            }
            let queued = queues.submission().len();
            wait = count - queued - done; // in the kernel, and on their way
            if let Err(error) = submitted {
                retries += 1;
                // Nothing that the kernel has taken in may be left to it: then go on waiting.
                if wait == 0 && (!is_passing(&error) || retries > RETRIES_MAX) {
                    return Err(self.restart(error));
                }
            }
        }
    }

    /// Throws away a ring whose queue holds requests that the kernel would not take.
    #[cold]
    fn restart(&mut self, error: io::Error) -> Errno {
        self.release();
        self.queues = queues(&self.files).ok();
        errno(error)
    }

    /// Gives up the ring. The kernel takes rings apart in its own time; sockets that one still knew
    /// would keep their ports until then.
    fn release(&mut self) {
        if let Some(queues) = self.queues.take() {
            let known = queues.submitter().unregister_files();
            debug_assert!(known.is_ok(), "{known:?}");
        }
    }

    #[inline]
    fn result(&self, i: usize) -> Result<usize, Errno> {
        let result = self.slots[i].result;
        usize::try_from(result).map_err(|_| Errno(-result))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.release();
    }
}

impl Slot {
    /// Points the header to the slot's own parts.
    #[inline]
    fn point_to(&mut self, vector: libc::iovec, name_len: u32, control_len: usize) {
        self.vector = vector;
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        self.header.msg_namelen = name_len;
        self.header.msg_name = match name_len {
            0 => ptr::null_mut(),
            _ => self.address.pointer_mut().cast(),
        };
        self.header.msg_controllen = control_len as _;
        self.header.msg_control = match control_len {
            0 => ptr::null_mut(),
            _ => self.control.pointer_mut().cast(),
        };
    }
}

/// A new ring that knows `files`.
fn queues(files: &[RawFd]) -> io::Result<Box<IoUring>> {
    // Neither SINGLE_ISSUER and DEFER_TASKRUN nor a registered ring made a measurable difference
    // where no request waits, and without them the ring may be used from any thread.
    let queues = IoUring::builder().setup_submit_all().build(SLOTS as u32)?;
    queues.submitter().register_files_sparse(SOCKETS_MAX as u32)?;
    if !files.is_empty() {
        queues.submitter().register_files_update(0, files)?;
    }
    Ok(Box::new(queues))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

fn errno(error: io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
