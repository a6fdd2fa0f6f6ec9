//! One socket of a network, and how runs leave through it by plain system calls.

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

    /// Sends one datagram by one system call; returns whether the kernel had room.
    #[inline]
    pub(super) fn send_one(
        &mut self,
        to: Option<&RawAddress>,
        bytes: &[u8],
    ) -> Result<bool, NetError> {
        let mut first = true;
        loop {
            self.counted.system_calls += 1;
            let result = match to {
                Some(to) => self.descriptor.send_to(bytes, to),
                None => self.descriptor.send(bytes),
            };
            let Err(errno) = result else {
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
        let destination = to.and_then(RawAddress::address).or(self.peer);
        Verdict::Error(match errno.0 {
            libc::EMSGSIZE => {
                NetError::TooLarge { bytes, mtu: destination.and_then(open::path_mtu) }
            }
            errno => NetError::refused(
                format!("send {bytes} bytes to {destination:?} from {}", self.local),
                errno,
            ),
        })
    }

    /// Sends runs; returns how many the kernel took.
    pub(super) fn send_many(
        &mut self,
        to: Option<&RawAddress>,
        runs: &[Run<'_>],
        notes: &mut Vec<String>,
    ) -> Result<usize, NetError> {
        let mut place = Place::default();
        let (mut first, mut waited) = (true, false);
        let mut singly = None; // the run that the kernel would not segment
        while place.run < runs.len() {
            let mut parts = [Part { bytes: &[], segment_bytes: 0 }; BATCH];
            let mut ends = [Place::default(); BATCH];
            let count = self.fill(runs, place, singly, &mut parts, &mut ends);
            self.counted.system_calls += 1;
            let errno = match self.descriptor.send_batch(to, &parts[..count]) {
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
        let mut wanted = [sys::interest(self.descriptor.raw(), libc::POLLOUT)];
        match sys::poll(&mut wanted, ROOM_TIMEOUT) {
            Ok(_) | Err(Errno(libc::EINTR)) => Ok(()),
            Err(Errno(errno)) => Err(NetError::refused("wait for room to send", errno)),
        }
    }
}

/// How many datagrams a message is.
fn datagrams(part: &Part<'_>) -> usize {
    match part.segment_bytes {
        0 => 1,
        segment => part.bytes.len().div_ceil(segment.into()),
    }
}
