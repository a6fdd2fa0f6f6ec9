//! One socket of a network, and how runs leave through it, whatever the means of sending.

use std::net::SocketAddr;
use std::time::Duration;

use super::address::RawAddress;
use super::error::NetError;
use super::open::{self, Opened};
use super::options::SocketOptions;
use super::sys::{self, BATCH, Descriptor, Errno, Part};
use super::{Run, SocketStatistics};

/// How long a run that is half sent waits for room.
const ROOM_TIMEOUT: Duration = Duration::from_millis(1);

/// A socket with its counters.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) descriptor: Descriptor,
    pub(super) local: SocketAddr,
    pub(super) peer: Option<SocketAddr>,
    pub(super) counted: SocketStatistics,
    /// Runs leave as super datagrams.
    pub(super) segments: bool,
    /// Floods come in as super datagrams.
    pub(super) coalesces: bool,
    index: usize,
}

/// What to do about a refused send.
pub(super) enum Verdict {
    /// No room now.
    Full,
    /// The refusal spoke of an earlier datagram: try again.
    Again,
    /// This datagram is lost.
    Lost,
    /// The kernel or the device cannot segment for us: send singly.
    Singly,
    /// The caller's fault, or nobody's.
    Error(NetError),
}

/// Where a send is: the run, and the byte in it. A run that is being sent in pieces is `split`.
#[derive(Clone, Copy, Default)]
struct Place {
    run: usize,
    byte: usize,
}

impl Member {
    pub(super) fn open(
        options: &SocketOptions,
        index: usize,
        notes: &mut Vec<String>,
    ) -> Result<Self, NetError> {
        if index >= super::SOCKETS_MAX {
            return Err(NetError::TooManySockets { limit: super::SOCKETS_MAX });
        }
        let Opened { descriptor, local, peer } = open::open(options, index, notes)?;
        let (segments, coalesces) = (options.coalesce, options.coalesce);
        let counted = SocketStatistics::default();
        Ok(Self { descriptor, local, peer, counted, segments, coalesces, index })
    }

    pub(super) fn statistics(&self) -> SocketStatistics {
        let buffer = self.descriptor.get_int(libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap_or(0);
        SocketStatistics {
            kernel_drops: open::kernel_drops(&self.descriptor),
            receive_buffer_bytes: u64::try_from(buffer).unwrap_or(0),
            ..self.counted
        }
    }

    /// Where to send; `None` is where the socket is connected.
    #[inline]
    pub(super) fn destination(
        &self,
        to: Option<SocketAddr>,
    ) -> Result<Option<RawAddress>, NetError> {
        match to {
            Some(to) if to.is_ipv4() == self.local.is_ipv4() => Ok(Some(RawAddress::of(to))),
            Some(to) => Err(NetError::FamilyMismatch {
                what: "destination",
                address: to.ip(),
                socket: self.local,
            }),
            None if self.peer.is_some() => Ok(None),
            None => Err(NetError::NotConnected { socket: self.index, address: self.local }),
        }
    }

    #[inline]
    pub(super) fn count_in(&mut self, bytes: usize) {
        self.counted.datagrams_in += 1;
        self.counted.bytes_in += bytes as u64;
    }

    #[inline]
    pub(super) fn count_out(&mut self, datagrams: usize, bytes: usize) {
        self.counted.datagrams_out += datagrams as u64;
        self.counted.bytes_out += bytes as u64;
    }

    /// Switches coalescing on receive; returns whether the kernel did it.
    pub(super) fn set_gro(&mut self, on: bool, notes: &mut Vec<String>) -> bool {
        match self.descriptor.set_int(libc::SOL_UDP, libc::UDP_GRO, on.into()) {
            Ok(()) => true,
            Err(Errno(errno)) => {
                self.coalesces = false;
                let reason = std::io::Error::from_raw_os_error(errno);
                notes.push(format!("socket {}: UDP_GRO refused: {reason}", self.index));
                false
            }
        }
    }

    /// Gives up segmentation by the kernel.
    #[cold]
    pub(super) fn send_singly(&mut self, notes: &mut Vec<String>) {
        self.segments = false;
        let text = "UDP_SEGMENT refused: datagrams are sent one by one";
        notes.push(format!("socket {}: {text}", self.index));
    }

    /// Sends one datagram by `send`; returns whether the kernel had room.
    #[inline]
    pub(super) fn send_one(
        &mut self,
        bytes: &[u8],
        to: Option<&RawAddress>,
        mut send: impl FnMut(&Descriptor, Option<&RawAddress>, &[u8]) -> Result<(), Errno>,
    ) -> Result<bool, NetError> {
        let mut first = true;
        loop {
            self.counted.system_calls += 1;
            let Err(errno) = send(&self.descriptor, to, bytes) else {
                self.count_out(1, bytes.len());
                return Ok(true);
            };
            match self.judge(errno, to, Part { bytes, segment_bytes: 0 }, first) {
                Verdict::Full => return Ok(false),
                Verdict::Again => first = false,
                Verdict::Lost | Verdict::Singly => {
                    self.counted.send_failures += 1;
                    return Ok(true);
                }
                Verdict::Error(error) => return Err(error),
            }
        }
    }

    /// What a refused send means; `first` is whether it may be tried again.
    #[cold]
    pub(super) fn judge(
        &mut self,
        errno: Errno,
        to: Option<&RawAddress>,
        part: Part<'_>,
        first: bool,
    ) -> Verdict {
        let bytes = part.bytes.len();
        if errno.would_block() {
            return Verdict::Full;
        }
        self.counted.unreachable += u64::from(errno.is_unreachable());
        if first && (errno.is_unreachable() || errno.0 == libc::EINTR) {
            return Verdict::Again;
        }
        if part.segment_bytes > 0 && errno.refuses_segmentation() {
            return Verdict::Singly;
        }
        if errno.is_loss() {
            return Verdict::Lost;
        }
        let named = to.and_then(RawAddress::address);
        Verdict::Error(match errno.0 {
            libc::EMSGSIZE => NetError::TooLarge {
                bytes,
                mtu: match named {
                    Some(to) => open::path_mtu(to),
                    None => open::own_mtu(&self.descriptor, self.local.is_ipv6()),
                },
            },
            errno => {
                let to = named.or(self.peer).map_or("nowhere".into(), |to| to.to_string());
                NetError::refused(format!("send {bytes} bytes from {} to {to}", self.local), errno)
            }
        })
    }

    /// Sends runs; returns how many the kernel took. `send` passes it messages, at least one and at
    /// most [`BATCH`], and returns how many it took, or why not the first.
    pub(super) fn send_many<'a>(
        &mut self,
        runs: &[Run<'a>],
        notes: &mut Vec<String>,
        to: Option<&RawAddress>,
        mut send: impl FnMut(&Descriptor, Option<&RawAddress>, &[Part<'a>]) -> Result<usize, Errno>,
    ) -> Result<usize, NetError> {
        let mut place = Place::default();
        let (mut first, mut waited) = (true, false);
        let mut singly = None; // the run that the kernel would not segment
        while place.run < runs.len() {
            let mut parts = [Part { bytes: &[], segment_bytes: 0 }; BATCH];
            let mut ends = [Place::default(); BATCH];
            let count = self.fill(runs, place, singly, &mut parts, &mut ends);
            self.counted.system_calls += 1;
            let errno = match send(&self.descriptor, to, &parts[..count]) {
                Ok(taken) => {
                    for part in &parts[..taken] {
                        self.count_out(datagrams(part), part.bytes.len());
                    }
                    if singly == Some(place.run) && self.segments {
                        self.send_singly(notes); // it was not the size that the kernel refused
                    }
                    (place, first) = (ends[taken - 1], true);
                    continue;
                }
                Err(errno) => errno,
            };
            match self.judge(errno, to, parts[0], first) {
                Verdict::Again => first = false,
                Verdict::Singly => singly = Some(place.run),
                Verdict::Lost => {
                    self.counted.send_failures += datagrams(&parts[0]) as u64;
                    (place, first) = (ends[0], true);
                }
                Verdict::Full if place.byte == 0 => break,
                Verdict::Full if !waited => {
                    waited = true;
                    self.await_room()?;
                }
                Verdict::Full => {
                    let run = runs[place.run];
                    let rest = run.bytes.len().saturating_sub(place.byte);
                    self.counted.send_failures += rest.div_ceil(run.segment_bytes) as u64;
                    place.run += 1;
                    break;
                }
                Verdict::Error(error) if place.run == 0 => return Err(error),
                Verdict::Error(_) => break, // told when the caller comes back with this run
            }
        }
        Ok(place.run)
    }

    /// Cuts what is to be sent from `place` on into messages; returns how many, and where each
    /// ends.
    fn fill<'a>(
        &self,
        runs: &[Run<'a>],
        mut place: Place,
        singly: Option<usize>,
        parts: &mut [Part<'a>; BATCH],
        ends: &mut [Place; BATCH],
    ) -> usize {
        let mut count = 0;
        while count < BATCH && place.run < runs.len() {
            let run = runs[place.run];
            let whole = self.segments && run.fits_one_call() && singly != Some(place.run);
            let next = Place { run: place.run + 1, byte: 0 };
            if run.is_one() {
                parts[count] = Part { bytes: run.bytes, segment_bytes: 0 };
                place = next;
            } else if whole && place.byte == 0 {
                let segment_bytes = u16::try_from(run.segment_bytes).unwrap_or(u16::MAX);
                parts[count] = Part { bytes: run.bytes, segment_bytes };
                place = next;
            } else {
                let end = (place.byte + run.segment_bytes).min(run.bytes.len());
                parts[count] = Part { bytes: &run.bytes[place.byte..end], segment_bytes: 0 };
                place.byte = end;
                if end == run.bytes.len() {
                    place = next;
                }
            }
            ends[count] = place;
            count += 1;
        }
        count
    }

    #[cold]
    fn await_room(&self) -> Result<(), NetError> {
        sys::wait(&mut [sys::interest(self.descriptor.raw(), libc::POLLOUT)], ROOM_TIMEOUT)
    }

    /// A read that failed: counted if a network explains it.
    #[cold]
    pub(super) fn refused_to_receive(&mut self, errno: Errno) -> Result<(), NetError> {
        self.counted.unreachable += u64::from(errno.is_unreachable());
        if errno.is_loss() || errno.0 == libc::EINTR {
            return Ok(());
        }
        Err(NetError::refused(format!("receive on {}", self.local), errno.0))
    }
}

/// How many datagrams a message is.
fn datagrams(part: &Part<'_>) -> usize {
    match part.segment_bytes {
        0 => 1,
        segment => part.bytes.len().div_ceil(segment.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        let any = "127.0.0.1:0".parse().unwrap();
        Member::open(&SocketOptions::new(any).connect(any), 0, &mut Vec::new()).unwrap()
    }

    /// Sends ten runs of four pieces of ten bytes by a kernel that answers as `answer` says: with
    /// how many of the messages offered it takes. Returns the result and what was taken.
    fn offer(
        member: &mut Member,
        notes: &mut Vec<String>,
        mut answer: impl FnMut(&[Part<'_>]) -> Result<usize, i32>,
    ) -> (Result<usize, NetError>, Vec<u8>) {
        let bytes: Vec<Vec<u8>> = all().chunks(40).map(<[u8]>::to_vec).collect();
        let runs: Vec<Run<'_>> =
            bytes.iter().map(|bytes| Run { bytes, segment_bytes: 10 }).collect();
        let mut taken = Vec::new();
        let result = member.send_many(&runs, notes, None, |_, _, parts| {
            let count = answer(parts).map_err(Errno)?;
            parts[..count].iter().for_each(|part| taken.extend(part.bytes));
            Ok(count)
        });
        (result, taken)
    }

    fn all() -> Vec<u8> {
        (0..400_u32).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn a_kernel_that_takes_little_gets_everything_in_order() {
        for (at_a_time, singly) in [(1, false), (3, false), (16, false), (1, true), (7, true)] {
            let mut member = member();
            member.segments = !singly;
            let (result, taken) =
                offer(&mut member, &mut Vec::new(), |parts| Ok(parts.len().min(at_a_time)));
            assert_eq!((result.unwrap(), taken), (10, all()));
            assert_eq!((member.counted.datagrams_out, member.counted.bytes_out), (40, 400));
        }
    }

    #[test]
    fn a_device_that_cannot_segment_is_noted_once_and_served_singly() {
        for errno in [libc::EIO, libc::EINVAL, libc::EOPNOTSUPP] {
            let (mut member, mut notes) = (member(), Vec::new());
            let refuse = |parts: &[Part<'_>]| match parts[0].segment_bytes {
                // A batch is refused from its first segmented message on.
                0 => Ok(parts.iter().take_while(|part| part.segment_bytes == 0).count()),
                _ => Err(errno),
            };
            for _ in 0..2 {
                let (result, taken) = offer(&mut member, &mut notes, refuse);
                assert_eq!((result.unwrap(), taken), (10, all()));
            }
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert_eq!(member.counted.send_failures, 0);
        }
    }

    #[test]
    fn a_path_too_narrow_is_an_error_and_no_reason_to_send_singly() {
        let (mut member, mut notes) = (member(), Vec::new());
        let (result, taken) = offer(&mut member, &mut notes, |_| Err(libc::EMSGSIZE));
        assert!(matches!(result, Err(NetError::TooLarge { bytes: 10, .. })));
        assert!(taken.is_empty() && notes.is_empty() && member.segments);
    }

    #[test]
    fn no_room_between_runs_is_told() {
        let (mut member, mut budget) = (member(), 3);
        let (result, taken) = offer(&mut member, &mut Vec::new(), |parts| {
            let count = parts.len().min(budget);
            budget -= count;
            if count == 0 { Err(libc::EAGAIN) } else { Ok(count) }
        });
        assert_eq!((result.unwrap(), &taken[..]), (3, &all()[..120]));
        assert_eq!(member.counted.send_failures, 0);
    }

    /// The rest of a run that was begun is waited for, then given up and counted.
    #[test]
    fn no_room_within_a_run_loses_its_rest() {
        let (mut member, mut budget, mut refused) = (member(), 6, 0);
        member.segments = false;
        let (result, taken) = offer(&mut member, &mut Vec::new(), |parts| {
            let count = parts.len().min(budget);
            budget -= count;
            refused += usize::from(count == 0);
            if count == 0 { Err(libc::EAGAIN) } else { Ok(count) }
        });
        assert_eq!((result.unwrap(), &taken[..]), (2, &all()[..60]));
        assert_eq!((refused, member.counted.send_failures), (2, 2));
        assert_eq!(member.counted.datagrams_out, 6);
    }

    #[test]
    fn an_echo_of_an_earlier_datagram_costs_none() {
        let (mut member, mut echo) = (member(), true);
        let (result, taken) = offer(&mut member, &mut Vec::new(), |parts| {
            echo = !echo;
            if echo { Ok(parts.len().min(2)) } else { Err(libc::ECONNREFUSED) }
        });
        assert_eq!((result.unwrap(), taken), (10, all()));
        assert_eq!((member.counted.unreachable, member.counted.send_failures), (5, 0));
    }

    #[test]
    fn what_cannot_leave_is_counted_and_passed_over() {
        for errno in [libc::ENETDOWN, libc::ENOBUFS, libc::EPERM, libc::ENETUNREACH] {
            let mut member = member();
            let (result, taken) = offer(&mut member, &mut Vec::new(), |_| Err(errno));
            assert_eq!((result.unwrap(), taken.len()), (10, 0));
            assert_eq!((member.counted.send_failures, member.counted.datagrams_out), (40, 0));
        }
    }
}
