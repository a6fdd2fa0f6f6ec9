//! Which datagrams of an interface go to which AF_XDP socket: a program on the interface, shared by
//! all processes that steer there, and its two maps.
//!
//! The first process attaches the program by a link, each further one takes hold of that link and
//! of the maps. The kernel removes the program with the last descriptor of the link, however its
//! holder ends. A program of somebody else is never displaced.
//!
//! Sockets have slots: [`SLOTS_PER_QUEUE`] for each receive queue of the interface, 0 to
//! [`QUEUES_MAX`] - 1. Who may use which is for the callers to agree. A slot whose socket is closed
//! is empty; what is steered there goes to the kernel.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::net::if_::if_nameindex;
use thiserror::Error;

use super::bpf::{self, Map, MapKind, ProgramInfo, Rejected};
use super::program::{Key, program};
use crate::net::sys::Errno;

/// Sockets that one receive queue may have, over all processes.
pub(in crate::net) const SLOTS_PER_QUEUE: u32 = 32;
/// Receive queues that can be steered from.
pub(in crate::net) const QUEUES_MAX: u32 = 64;

const SLOTS: u32 = SLOTS_PER_QUEUE * QUEUES_MAX;
/// Pairs of one interface, over all its queues.
const PAIRS_MAX: u32 = 8192;
/// Bytes of a slot, as key and as value.
const SLOT_BYTES: usize = 4;
/// Names of our program; to be changed with anything of the maps that the instructions do not show.
const NAME_DRIVER: &str = "gapless1_driver";
const NAME_GENERIC: &str = "gapless1_skb";
/// What every version's name begins with.
const NAME_FAMILY: &str = "gapless";

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Mode {
    /// In the driver, before the kernel makes anything of a frame: quicker, where the driver can.
    Driver,
    /// On the kernel's socket buffers: with any driver. The buffer may be a super datagram, merged
    /// or not yet cut, which looks like one long datagram.
    Generic,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Driver => NAME_DRIVER,
            Self::Generic => NAME_GENERIC,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Driver, Self::Generic].into_iter().find(|mode| mode.name() == name)
    }
}

/// The name of a program; `None` if it is gone, or may not be looked at: that takes CAP_SYS_ADMIN.
pub(in crate::net) fn program_name(id: u32) -> Option<String> {
    let program = bpf::prog_by_id(id).ok()?;
    bpf::prog_info(program.as_fd()).ok().map(|info| info.name)
}

/// Whether a program of that name is ours, of any version.
pub(in crate::net) fn is_ours(name: &str) -> bool {
    name.starts_with(NAME_FAMILY)
}

/// Datagrams to be steered: all to that destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::net) struct Pair {
    /// An address of the host's, or a group.
    pub(in crate::net) address: IpAddr,
    /// A UDP port.
    pub(in crate::net) port: u16,
    /// 1 to 4,095; 0 = untagged, or tagged with a priority only. A driver that strips tags shows
    /// tagged frames as untagged ones.
    pub(in crate::net) vlan: u16,
}

impl Pair {
    fn key(&self, queue: u16) -> Key {
        Key::new(self.address, self.port, self.vlan, queue)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.address, self.port)?;
        if self.vlan == 0 { Ok(()) } else { write!(f, " in VLAN {}", self.vlan) }
    }
}

/// Datagrams cannot be steered: why, and what to do about it.
#[derive(Debug, Error)]
pub(in crate::net) enum SteerError {
    /// Permission is missing.
    #[error("no permission to {what}: {}", remedy(.missing))]
    Denied {
        /// What was tried.
        what: &'static str,
        /// Capabilities that it needs and the thread lacks.
        missing: Vec<&'static str>,
    },
    /// The kernel was built without something, or is too old.
    #[error(
        "the kernel cannot {what} ({source}): XDP and AF_XDP take Linux 5.10 or later with \
         CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS"
    )]
    Unsupported {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no links for XDP programs.
    #[error(
        "Linux {release} cannot attach an XDP program by a link, which goes away with its \
         holders: take 5.10 or later"
    )]
    NoLinks {
        /// The kernel's release.
        release: String,
    },
    /// The driver has no XDP, or not with the interface's present settings.
    #[error(
        "the driver of interface {interface} refuses XDP in driver mode: use generic mode, or see \
         in the kernel's log which setting (MTU, LRO, number of queues) it minds"
    )]
    NoDriverMode {
        /// The interface's index.
        interface: u32,
    },
    /// Mostly: frames of the interface's MTU do not fit the driver's pages.
    #[error(
        "the driver of interface {interface} refuses an XDP program ({source}), most likely \
         because the MTU, its own or on a veth its peer's, is too large: lower it (at most 3,506 \
         on a veth, often 1,500 to 3,000 elsewhere), or use generic mode"
    )]
    MtuTooLarge {
        /// The interface's index.
        interface: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such interface in this network namespace.
    #[error("no interface has index {interface} (any more): look it up again")]
    InterfaceMissing {
        /// The index.
        interface: u32,
    },
    /// Another program is on the interface.
    #[error(
        "XDP program {id} ({name}) is on interface {interface}: {}, or use another back end",
        owner(.name)
    )]
    Foreign {
        /// The interface's index.
        interface: u32,
        /// The program's id.
        id: u32,
        /// Its name; may be empty.
        name: String,
    },
    /// A program was attached or removed between the caller's look and the attempt: look again. If
    /// it persists, another program is on a device above the interface, such as a bond.
    #[error(
        "the XDP program of interface {interface} changed meanwhile: try again, and if it persists \
         look for a program on a device above it (`ip link`)"
    )]
    Raced {
        /// The interface's index.
        interface: u32,
    },
    /// The verifier did not take the program.
    #[error("the kernel's verifier rejects the steering program ({source}): {log}")]
    Rejected {
        /// What the kernel said.
        source: io::Error,
        /// What the verifier said.
        log: String,
    },
    /// Somebody steers the pair already.
    #[error(
        "datagrams to {pair} on queue {queue} go to the socket in slot {slot} already: use another \
         port, or another back end for sockets that are to share one"
    )]
    Taken {
        /// The pair.
        pair: Pair,
        /// The receive queue.
        queue: u16,
        /// Where they go.
        slot: u32,
    },
    /// There are as many pairs as the map holds.
    #[error("{PAIRS_MAX} pairs are steered on this interface, which is all: close some")]
    Full,
    /// The kernel refused for a reason of its own.
    #[error("could not {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn remedy(missing: &[&str]) -> String {
    if missing.is_empty() {
        return "this thread has the capabilities; before Linux 5.11 raise the locked memory \
                (`ulimit -l unlimited`), in a container allow bpf(2)"
            .into();
    }
    let list = missing.join(" and ");
    let files = missing.join(",").to_lowercase();
    format!("{list} missing; run as root, or `setcap {files},cap_net_raw+ep` the program")
}

fn owner(name: &str) -> &'static str {
    if is_ours(name) {
        "another version of gapless put it there; end its processes"
    } else {
        "ask whoever put it there to remove it (`ip link set dev NAME xdp off`)"
    }
}

/// What attaching takes: capabilities by number.
const TO_ATTACH: &[(u32, &str)] = &[(39, "CAP_BPF"), (12, "CAP_NET_ADMIN")];
/// What reaching another process's program takes.
const TO_JOIN: &[(u32, &str)] = &[(21, "CAP_SYS_ADMIN")];

/// Those that this thread lacks. CAP_SYS_ADMIN stands in for CAP_BPF.
fn missing(needed: &[(u32, &'static str)]) -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else {
        return Vec::new();
    };
    let has = |number: u32| held >> number & 1 == 1;
    let lacks = |(number, _): &&(u32, &str)| !(has(*number) || *number == 39 && has(21));
    needed.iter().filter(lacks).map(|(_, name)| *name).collect()
}

/// The kernel said no: the common cases typed.
fn refused(what: &'static str, needed: &[(u32, &'static str)], Errno(errno): Errno) -> SteerError {
    let source = io::Error::from_raw_os_error(errno);
    match errno {
        libc::EPERM | libc::EACCES => SteerError::Denied { what, missing: missing(needed) },
        libc::ENOSYS => SteerError::Unsupported { what, source },
        _ => SteerError::Io { what, source },
    }
}

/// Whether a kernel of that release lacks links for XDP programs (before 5.9).
fn is_before_links(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 9),
        _ => false,
    }
}

/// A program with fresh maps, on no interface yet.
struct Loaded {
    pairs: Map,
    sockets: Map,
    program: OwnedFd,
    info: ProgramInfo,
}

impl Loaded {
    fn new(mode: Mode, frame_bytes_max: u32) -> Result<Self, SteerError> {
        let make = "make the map of pairs";
        let key = Key::BYTES as u32;
        let pairs = Map::create(MapKind::Hash, key, SLOT_BYTES as u32, PAIRS_MAX, "gapless_pairs")
            .map_err(|errno| refused(make, TO_ATTACH, errno))?;
        let make = "make the map of sockets";
        let slot = SLOT_BYTES as u32;
        let sockets = Map::create(MapKind::Sockets, slot, slot, SLOTS, "gapless_sockets").map_err(
            |errno| match errno {
                Errno(libc::EINVAL) => SteerError::Unsupported {
                    what: make,
                    source: io::Error::from_raw_os_error(libc::EINVAL),
                },
                errno => refused(make, TO_ATTACH, errno),
            },
        )?;
        let code = program(pairs.raw(), sockets.raw(), frame_bytes_max);
        let load = "load the steering program";
        let program = bpf::prog_load(&code, mode.name()).map_err(|Rejected { errno, log }| {
            if log.is_empty() {
                return refused(load, TO_ATTACH, errno);
            }
            SteerError::Rejected { source: io::Error::from_raw_os_error(errno.0), log }
        })?;
        let info = bpf::prog_info(program.as_fd())
            .map_err(|errno| refused("look at the steering program", TO_ATTACH, errno))?;
        Ok(Self { pairs, sockets, program, info })
    }

    fn attach(self, interface: u32, mode: Mode) -> Result<Steering, SteerError> {
        let flags = match mode {
            Mode::Driver => bpf::DRIVER,
            Mode::Generic => bpf::GENERIC,
        };
        let link = bpf::link_create_xdp(self.program.as_fd(), interface, flags)
            .map_err(|errno| not_attached(interface, mode, errno))?;
        let Self { pairs, sockets, info, .. } = self;
        Ok(Steering { pairs, sockets, program: info.id, mode, _link: link })
    }
}

/// Why a link was not made.
fn not_attached(interface: u32, mode: Mode, errno: Errno) -> SteerError {
    let source = io::Error::from_raw_os_error(errno.0);
    match errno.0 {
        libc::EBUSY | libc::EEXIST => SteerError::Raced { interface },
        libc::EOPNOTSUPP if mode == Mode::Driver => SteerError::NoDriverMode { interface },
        libc::EINVAL | libc::ENODEV if !exists(interface) => {
            SteerError::InterfaceMissing { interface }
        }
        libc::EINVAL => {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            if is_before_links(&release) {
                return SteerError::NoLinks { release: release.trim().into() };
            }
            SteerError::MtuTooLarge { interface, source }
        }
        libc::ERANGE | libc::EFBIG | libc::E2BIG | libc::EMSGSIZE | libc::EOPNOTSUPP => {
            SteerError::MtuTooLarge { interface, source }
        }
        _ => refused("attach the steering program", TO_ATTACH, errno),
    }
}

/// Whether this network namespace has the interface; `true` if that cannot be told.
fn exists(interface: u32) -> bool {
    if_nameindex().map_or(true, |all| all.iter().any(|one| one.index() == interface))
}

/// A hold on an interface's program, and its maps. See the [module](self).
#[derive(Debug)]
pub(in crate::net) struct Steering {
    pairs: Map,
    sockets: Map,
    program: u32,
    mode: Mode,
    /// Closed with this; the last one takes the program from the interface.
    _link: OwnedFd,
}

impl Steering {
    /// Attaches the program to an interface of the thread's network namespace, or, if `attached`,
    /// the id of the program that the interface reports, is one of ours, takes hold of that: in
    /// the mode that it has, whatever `mode` says. Frames of more than `frame_bytes_max` bytes go
    /// to the kernel; processes share a program only if they agree in this.
    ///
    /// # Errors
    /// [`Raced`](SteerError::Raced): look again what is attached, and try again.
    /// [`NoDriverMode`](SteerError::NoDriverMode) and [`MtuTooLarge`](SteerError::MtuTooLarge):
    /// generic mode may do. Otherwise see [`SteerError`].
    pub(in crate::net) fn attach(
        interface: u32,
        attached: Option<u32>,
        mode: Mode,
        frame_bytes_max: u32,
    ) -> Result<Self, SteerError> {
        let own = Loaded::new(mode, frame_bytes_max)?;
        match attached {
            None => own.attach(interface, mode),
            Some(id) => Self::join(interface, id, own.info.tag),
        }
    }

    /// Takes hold of program `id`, if it is as ours.
    fn join(interface: u32, id: u32, tag: [u8; 8]) -> Result<Self, SteerError> {
        let failed = |errno| match errno {
            Errno(libc::ENOENT) => SteerError::Raced { interface },
            errno => refused("join the steering program of another process", TO_JOIN, errno),
        };
        let found = bpf::prog_by_id(id).map_err(failed)?;
        let ProgramInfo { name, tag: its, maps, .. } =
            bpf::prog_info(found.as_fd()).map_err(failed)?;
        let Some(mode) = Mode::of(&name).filter(|_| its == tag) else {
            return Err(SteerError::Foreign { interface, id, name });
        };
        let (mut pairs, mut sockets) = (None, None);
        for map in maps {
            let map = Map::by_id(map).map_err(failed)?;
            if map.is(MapKind::Hash, Key::BYTES, SLOT_BYTES, PAIRS_MAX) {
                pairs = Some(map);
            } else if map.is(MapKind::Sockets, SLOT_BYTES, SLOT_BYTES, SLOTS) {
                sockets = Some(map);
            }
        }
        let (Some(pairs), Some(sockets)) = (pairs, sockets) else {
            return Err(SteerError::Foreign { interface, id, name });
        };
        let link =
            link_of(id, interface).map_err(failed)?.ok_or(SteerError::Raced { interface })?;
        Ok(Self { pairs, sockets, program: id, mode, _link: link })
    }

    /// Where the program runs.
    pub(in crate::net) fn mode(&self) -> Mode {
        self.mode
    }

    /// The program's id: what the interface reports as long as it is attached, and `bpftool prog`
    /// lists.
    pub(in crate::net) fn program(&self) -> u32 {
        self.program
    }

    /// Puts an AF_XDP socket, complete with its rings, into `slot`, in place of any other. Frames
    /// come by the queue that it is bound to only.
    pub(in crate::net) fn insert_socket(
        &self,
        slot: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteerError> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets
            .update(&slot.to_ne_bytes(), &value, bpf::ANY)
            .map_err(|errno| refused("give a socket its slot", TO_ATTACH, errno))
    }

    /// Empties `slot`. A socket that is closed leaves its slot by itself.
    pub(in crate::net) fn remove_socket(&self, slot: u32) -> Result<(), SteerError> {
        self.sockets
            .delete(&slot.to_ne_bytes())
            .map(drop)
            .map_err(|errno| refused("empty a socket's slot", TO_ATTACH, errno))
    }

    /// Steers what is sent to `pair` and comes in by `queue` to the socket in `slot`, or to the
    /// kernel while there is none.
    ///
    /// # Errors
    /// [`Taken`](SteerError::Taken) if it is steered to another slot, [`Full`](SteerError::Full).
    pub(in crate::net) fn steer(
        &self,
        pair: &Pair,
        queue: u16,
        slot: u32,
    ) -> Result<(), SteerError> {
        let key = pair.key(queue);
        match self.pairs.update(key.bytes(), &slot.to_ne_bytes(), bpf::NEW) {
            Ok(()) => Ok(()),
            Err(Errno(libc::E2BIG)) => Err(SteerError::Full),
            Err(Errno(libc::EEXIST)) => match self.slot_of(pair, queue)? {
                Some(its) if its == slot => Ok(()),
                Some(slot) => Err(SteerError::Taken { pair: *pair, queue, slot }),
                None => self.steer(pair, queue, slot), // its owner has just let it go
            },
            Err(errno) => Err(refused("steer a pair", TO_ATTACH, errno)),
        }
    }

    /// Where datagrams to `pair` by `queue` go.
    pub(in crate::net) fn slot_of(
        &self,
        pair: &Pair,
        queue: u16,
    ) -> Result<Option<u32>, SteerError> {
        let mut slot = [0; SLOT_BYTES];
        let found = self.pairs.look_up(pair.key(queue).bytes(), &mut slot);
        let found = found.map_err(|errno| refused("look up a pair", TO_ATTACH, errno))?;
        Ok(found.then_some(u32::from_ne_bytes(slot)))
    }

    /// Leaves what is sent to `pair` and comes in by `queue` to the kernel.
    pub(in crate::net) fn unsteer(&self, pair: &Pair, queue: u16) -> Result<(), SteerError> {
        let removed = self.pairs.delete(pair.key(queue).bytes());
        removed.map(drop).map_err(|errno| refused("leave a pair to the kernel", TO_ATTACH, errno))
    }

    /// Removes all pairs and sockets of `queue`: what a dead owner of it left.
    pub(in crate::net) fn clear_queue(&self, queue: u16) -> Result<(), SteerError> {
        let failed = |errno| refused("clear a queue", TO_ATTACH, errno);
        for key in self.pairs.keys().map_err(failed)? {
            if Key::queue_of(&key) == Some(queue) {
                self.pairs.delete(&key).map_err(failed)?;
            }
        }
        let first = u32::from(queue) * SLOTS_PER_QUEUE;
        for slot in (first..first + SLOTS_PER_QUEUE).take_while(|slot| *slot < SLOTS) {
            self.remove_socket(slot)?;
        }
        Ok(())
    }
}

/// The link that holds program `id` on `interface`.
fn link_of(id: u32, interface: u32) -> Result<Option<OwnedFd>, Errno> {
    let mut last = 0;
    while let Some(next) = bpf::next_link_id(last)? {
        last = next;
        let link = match bpf::link_by_id(next) {
            Ok(link) => link,
            Err(Errno(libc::ENOENT)) => continue, // gone meanwhile
            Err(errno) => return Err(errno),
        };
        let info = bpf::link_info(link.as_fd())?;
        if (info.kind, info.program, info.interface) == (bpf::LINK_XDP, id, interface) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::net::if_::if_nametoindex;

    use super::super::fixture::{Socket, alone};
    use super::super::namespace::ip;
    use super::*;

    /// The loopback interface of every network namespace.
    const LO: u32 = 1;
    const FRAME_BYTES_MAX: u32 = 3776;

    fn attach(attached: Option<u32>) -> Result<Steering, SteerError> {
        Steering::attach(LO, attached, Mode::Generic, FRAME_BYTES_MAX)
    }

    fn pair(vlan: u16) -> Pair {
        Pair { address: [239, 1, 2, 3].into(), port: 40_001, vlan }
    }

    /// A process that another test starts has copies of all descriptors for a moment, so what goes
    /// with the last of them may go a little later.
    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    /// Attaches as soon as nothing is there.
    fn attach_afterwards() -> Steering {
        let mut attached = None;
        eventually("the link outlives its holders", || match attach(None) {
            Ok(steering) => {
                attached = Some(steering);
                true
            }
            Err(SteerError::Raced { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        attached.unwrap()
    }

    #[test]
    fn the_link_goes_with_its_last_holder() {
        alone(|| {
            let first = attach(None).unwrap();
            let id = first.program();
            let error = attach(None).unwrap_err();
            assert!(matches!(error, SteerError::Raced { interface: LO }), "{error}");

            let second = Steering::attach(LO, Some(id), Mode::Driver, FRAME_BYTES_MAX).unwrap();
            assert_eq!((second.program(), second.mode()), (id, Mode::Generic));
            drop(first);
            assert!(attach(None).is_err(), "the second holds it");
            let third = attach(Some(id)).unwrap();
            drop((second, third));
            eventually("the program outlives its holders", || {
                matches!(bpf::prog_by_id(id), Err(Errno(libc::ENOENT)))
            });
            let error = attach(Some(id)).unwrap_err();
            assert!(matches!(error, SteerError::Raced { .. }), "{error}");
            assert_ne!(attach_afterwards().program(), id);
        });
    }

    #[test]
    fn holders_share_the_maps() {
        alone(|| {
            let first = attach(None).unwrap();
            let second = attach(Some(first.program())).unwrap();
            first.steer(&pair(0), 1, 33).unwrap();
            assert_eq!(second.slot_of(&pair(0), 1).unwrap(), Some(33));
            assert_eq!(second.slot_of(&pair(0), 0).unwrap(), None, "another queue");
            assert_eq!(second.slot_of(&pair(5), 1).unwrap(), None, "another VLAN");

            first.steer(&pair(0), 1, 33).unwrap(); // again, the same
            let error = second.steer(&pair(0), 1, 34).unwrap_err();
            assert!(matches!(error, SteerError::Taken { slot: 33, queue: 1, .. }), "{error}");
            second.unsteer(&pair(0), 1).unwrap();
            second.unsteer(&pair(0), 1).unwrap(); // again: no harm
            second.steer(&pair(0), 1, 34).unwrap();
            assert_eq!(first.slot_of(&pair(0), 1).unwrap(), Some(34));
        });
    }

    #[test]
    fn a_queue_is_cleared_of_its_pairs_and_sockets() {
        alone(|| {
            let steering = attach(None).unwrap();
            for port in 1..=1000 {
                for queue in 0..3 {
                    let pair = Pair { port, ..pair(0) };
                    steering.steer(&pair, queue, u32::from(queue) * SLOTS_PER_QUEUE).unwrap();
                }
            }
            steering.clear_queue(1).unwrap();
            for port in 1..=1000 {
                let slot = |queue| steering.slot_of(&Pair { port, ..pair(0) }, queue).unwrap();
                assert_eq!([slot(0), slot(1), slot(2)], [Some(0), None, Some(64)]);
            }
            steering.clear_queue(63).unwrap();
            steering.clear_queue(u16::MAX).unwrap();
        });
    }

    #[test]
    fn says_when_the_map_is_full() {
        alone(|| {
            let steering = attach(None).unwrap();
            let pairs = (1..).map(|port| Pair { port, ..pair(0) });
            for (pair, _) in pairs.clone().zip(0..PAIRS_MAX) {
                steering.steer(&pair, 0, 0).unwrap();
            }
            let one_more = pairs.clone().nth(PAIRS_MAX as usize).unwrap();
            let error = steering.steer(&one_more, 0, 0).unwrap_err();
            assert!(matches!(error, SteerError::Full), "{error}");
            steering.clear_queue(0).unwrap();
            assert_eq!(steering.pairs.keys().unwrap(), Vec::<Vec<u8>>::new());
        });
    }

    #[test]
    fn sockets_have_slots() {
        alone(|| {
            let steering = attach(None).unwrap();
            let socket = Socket::open(LO, 0);
            for slot in [0, 31, 32, SLOTS - 1] {
                steering.insert_socket(slot, socket.as_fd()).unwrap();
                steering.insert_socket(slot, socket.as_fd()).unwrap();
                steering.remove_socket(slot).unwrap();
                steering.remove_socket(slot).unwrap();
            }
            assert!(
                steering.insert_socket(SLOTS, socket.as_fd()).is_err(),
                "there is no such slot"
            );
            let other = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            assert!(steering.insert_socket(0, other.as_fd()).is_err(), "it is no AF_XDP socket");
        });
    }

    #[test]
    fn a_closed_socket_leaves_its_slot_to_the_kernel() {
        alone(|| {
            let steering = attach(None).unwrap();
            let program = bpf::prog_by_id(steering.program()).unwrap();
            let frame = [
                &[0x01, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 9, 0x08, 0x00][..],
                &[0x45, 0, 0, 28, 0, 0, 0x40, 0, 7, 17, 0, 0, 10, 0, 0, 9, 239, 1, 2, 3],
                &[0x12, 0x34, 0x9c, 0x41, 0, 8, 0, 0],
            ]
            .concat();
            let verdict = || bpf::prog_test_run(program.as_fd(), &frame, None).unwrap();
            steering.steer(&pair(0), 0, 7).unwrap();
            assert_eq!(verdict(), 2, "the kernel's");
            let socket = Socket::open(LO, 0);
            steering.insert_socket(7, socket.as_fd()).unwrap();
            assert_eq!(verdict(), 4, "the socket's");
            drop(socket);
            eventually("the slot outlives its socket", || verdict() == 2);
        });
    }

    #[test]
    fn somebody_elses_program_stays() {
        const PASS_ALL: [u64; 2] = [
            u64::from_ne_bytes([0xb7, 0, 0, 0, 2, 0, 0, 0]), // r0 = XDP_PASS
            u64::from_ne_bytes([0x95, 0, 0, 0, 0, 0, 0, 0]), // exit
        ];
        alone(|| {
            for (name, remedy) in [
                ("firewall", "whoever put it there"),
                (NAME_GENERIC, "another version"),
                ("gapless9_skb", "another version"),
                ("", "whoever put it there"),
            ] {
                let program = bpf::prog_load(&PASS_ALL, name).unwrap();
                let id = bpf::prog_info(program.as_fd()).unwrap().id;
                // A child of another test's may hold the last link a moment longer.
                let mut link = None;
                eventually("the last link outlives its holders", || {
                    link = bpf::link_create_xdp(program.as_fd(), LO, bpf::GENERIC).ok();
                    link.is_some()
                });
                let link = link.unwrap();
                let error = attach(Some(id)).unwrap_err();
                assert!(
                    matches!(&error, SteerError::Foreign { interface: LO, id: its, name: of }
                        if *its == id && of == name),
                    "{error}"
                );
                assert!(error.to_string().contains(remedy), "{error}");
                let error = attach(None).unwrap_err();
                assert!(matches!(error, SteerError::Raced { .. }), "{error}");
                assert_eq!(
                    bpf::link_info(link.as_fd()).unwrap().interface,
                    LO,
                    "it is there still"
                );
                drop((link, program));
                drop(attach_afterwards());
            }
        });
    }

    #[test]
    fn frames_of_another_length_are_another_program() {
        alone(|| {
            let first = attach(None).unwrap();
            let id = Some(first.program());
            let error = Steering::attach(LO, id, Mode::Generic, 1500).unwrap_err();
            assert!(matches!(error, SteerError::Foreign { .. }), "{error}");
        });
    }

    #[test]
    fn says_what_a_driver_or_an_interface_lacks() {
        alone(|| {
            let driver =
                |interface| Steering::attach(interface, None, Mode::Driver, FRAME_BYTES_MAX);
            let error = driver(LO).unwrap_err();
            assert!(matches!(error, SteerError::NoDriverMode { interface: LO }), "{error}");
            let error = driver(999).unwrap_err();
            assert!(matches!(error, SteerError::InterfaceMissing { interface: 999 }), "{error}");
            ip("link add v0 mtu 9000 type veth peer name v1 mtu 9000");
            let veth = if_nametoindex("v0").unwrap();
            let error = driver(veth).unwrap_err();
            assert!(matches!(error, SteerError::MtuTooLarge { .. }), "{error}");
            let generic = Steering::attach(veth, None, Mode::Generic, FRAME_BYTES_MAX).unwrap();
            assert_eq!(generic.mode(), Mode::Generic);
            ip("link add v2 mtu 1500 type veth peer name v3 mtu 1500");
            assert_eq!(driver(if_nametoindex("v2").unwrap()).unwrap().mode(), Mode::Driver);
        });
    }

    /// The holder that is killed: this very test, run once more with this in its environment.
    const HOLDER: &str = "GAPLESS_TEST_HOLDS_THE_PROGRAM";

    #[test]
    fn a_killed_holder_leaves_nothing() {
        if std::env::var_os(HOLDER).is_some() {
            let steering = attach(None).unwrap();
            steering.steer(&pair(0), 0, 0).unwrap();
            println!("holds program {}", steering.program());
            std::io::stdout().flush().unwrap();
            std::io::stdin().read_line(&mut String::new()).unwrap(); // until the end
            return;
        }
        alone(|| {
            let name = this_test();
            let mut holder = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--nocapture"])
                .env(HOLDER, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
            let id = lines
                .map_while(Result::ok)
                .find_map(|line| line.split("holds program ").nth(1)?.trim().parse().ok())
                .expect("the holder attaches");
            assert!(attach(None).is_err());
            let second = attach(Some(id)).unwrap();
            holder.kill().unwrap();
            holder.wait().unwrap();
            assert_eq!(second.slot_of(&pair(0), 0).unwrap(), Some(0), "what it left");
            second.clear_queue(0).unwrap();
            assert!(attach(None).is_err(), "the second holds it");
            drop(second);
            drop(attach_afterwards());
        });
    }

    fn this_test() -> String {
        let module = module_path!().split_once("::").unwrap().1;
        format!("{module}::a_killed_holder_leaves_nothing")
    }

    #[test]
    fn says_which_capabilities_are_missing() {
        const BPF: u64 = 1 << 39;
        const NET_ADMIN: u64 = 1 << 12;
        alone(|| {
            let held = |mask| {
                bpf::keep_capabilities(mask).unwrap();
                missing(TO_ATTACH)
            };
            assert_eq!(held(u64::MAX), Vec::<&str>::new());
            assert_eq!(held(1 << 21 | NET_ADMIN), Vec::<&str>::new());
            assert_eq!(held(NET_ADMIN), ["CAP_BPF"]);
            let error = attach(None).unwrap_err();
            assert!(
                matches!(&error, SteerError::Denied { missing, .. } if *missing == ["CAP_BPF"])
            );
            let said = error.to_string();
            assert!(said.contains("setcap cap_bpf,cap_net_raw+ep"), "{said}");

            assert_eq!(held(BPF | NET_ADMIN), Vec::<&str>::new());
            let first = attach(None).unwrap();
            let error = attach(Some(first.program())).unwrap_err();
            assert!(matches!(
                &error,
                SteerError::Denied { missing, .. } if *missing == ["CAP_SYS_ADMIN"]
            ));
        });
    }

    #[test]
    fn links_came_with_linux_5_9() {
        for (release, before) in [
            ("5.8.18", true),
            ("4.19.0-27-amd64", true),
            ("5.9.0-rc1", false),
            ("5.10.209", false),
            ("6.18.44-x\n", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(is_before_links(release), before, "{release}");
        }
    }
}
