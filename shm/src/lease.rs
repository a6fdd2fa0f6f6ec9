//! Leases: who is alive, by the kernel's word.
//!
//! An open-file-description lock (`F_OFD_SETLK`, fcntl(2)) on one byte lives exactly as long as
//! the open file: the kernel drops it when the process dies in whatever way, it works across pid
//! namespaces, and no pid can be mistaken for another. A forked child shares its parent's open
//! files, and so its leases: handles give them back only in the process that took them, and
//! otherwise a lease falls when the last copy of its file is closed.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

fn lock_on(byte: usize) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0, // must be 0 for OFD locks
    }
}

/// Takes the lease on a byte of the file; false if somebody else holds it.
pub(crate) fn acquire(file: &File, byte: usize) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock_on(byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Shares a byte so that nobody can take its lease; false if somebody holds it. Needs only read
/// permission.
pub(crate) fn keep_out(file: &File, byte: usize) -> io::Result<bool> {
    let shared = libc::flock { l_type: libc::F_RDLCK as libc::c_short, ..lock_on(byte) };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&shared)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives back every lease taken through this open file, at once: a process that is being forked off
/// at this moment holds a copy of the open file until it executes, and must not keep them alive.
pub(crate) fn release(file: &File) {
    let all = libc::flock {
        l_type: libc::F_UNLCK as libc::c_short,
        l_len: 0, // to the end, wherever that is
        ..lock_on(0)
    };
    // A failure leaves the leases to the closing of the file.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&all));
}

/// Whether another open file holds the lease on a byte. An error counts as held: nothing may be
/// taken from an owner on a doubt.
pub(crate) fn held_by_another(file: &File, byte: usize) -> bool {
    let mut lock = lock_on(byte);
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => lock.l_type != libc::F_UNLCK as libc::c_short,
        Err(_) => true,
    }
}
