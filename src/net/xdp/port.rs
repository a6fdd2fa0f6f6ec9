//! An interface that packets are taken from: its program, its queues, and who wants which packets.
//!
//! The process has one [`Port`] for an interface, which its networks share. A pair of address and
//! port is steered to the one network that wants it. Nothing can steer a packet to two: a pair that
//! a second network wants as well is left to the kernel, which gives both a copy.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, fs};

use super::super::error::NetError;
use super::super::options::XdpMode;
use super::super::sys::{self, Descriptor, Errno};
use super::features::Features;
use super::netlink::Netlink;
use super::queue::{Queue, Tap};
use super::steering::{self, Mode, Pair, SteerError, Steering};
use super::umem::PACKET_BYTES_MAX;

/// The most queues of an interface that one process takes: each has its own memory.
pub(super) const QUEUES_MAX: u16 = 16;
/// How often, and how far apart, attaching is tried again when others attach and detach at the same
/// moment, and taking a queue that somebody has.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// Socket options of 5.11 and later (`asm-generic/socket.h`).
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
/// Packets that the driver handles in one poll of ours.
const BUSY_POLL_BUDGET: i32 = 64;

/// All ports of this process that somebody uses.
static PORTS: Mutex<Vec<Weak<Port>>> = Mutex::new(Vec::new());

/// An interface in use. See the [module](self).
#[derive(Debug)]
pub(super) struct Port {
    /// Device and inode of the network namespace: interfaces are numbered within one.
    namespace: (u64, u64),
    index: u32,
    name: String,
    loopback: bool,
    zero_copy: bool,
    queues: Vec<Arc<Queue>>,
    steering: Steering,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A bit for each network that has taps here.
    networks: u32,
    claims: Vec<Claim>,
}

/// A pair, and the networks that want it.
#[derive(Debug)]
struct Claim {
    pair: Pair,
    owners: Vec<Owner>,
}

#[derive(Debug)]
struct Owner {
    network: u32,
    /// Its kernel socket of that pair, to let others share the port.
    socket: Descriptor,
}

/// What came of a wish for a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// Its packets come to the network.
    Steered,
    /// Another network of this process wants it too: both get it from the kernel.
    Contested,
}

impl Port {
    /// The port of an interface: the process's own, or a new one.
    ///
    /// # Errors
    /// Why packets of this interface cannot be had, in words.
    pub(super) fn open(
        netlink: &Netlink,
        index: u32,
        wanted: XdpMode,
    ) -> Result<Arc<Self>, String> {
        let namespace = namespace().map_err(|error| format!("no network namespace: {error}"))?;
        let mut ports = ports();
        ports.retain(|port| port.strong_count() > 0);
        let same = |port: &Arc<Self>| port.namespace == namespace && port.index == index;
        if let Some(port) = ports.iter().filter_map(Weak::upgrade).find(same) {
            return if port.is(wanted) {
                Ok(port)
            } else {
                Err(format!("{port} is in use by this process; {wanted} mode cannot be had beside"))
            };
        }
        let mut reasons = Vec::new();
        let link = netlink.link(index).map_err(|error| error.to_string())?;
        for (mode, zero_copy) in attempts(link.is_virtual(), Features::of(index), wanted) {
            match Self::attach(netlink, namespace, index, mode, zero_copy) {
                Ok(port) => {
                    let port = Arc::new(port);
                    ports.push(Arc::downgrade(&port));
                    return Ok(port);
                }
                Err(reason) => {
                    reasons.push(format!("{}: {reason}", describe(mode, zero_copy)));
                }
            }
        }
        Err(reasons.join("; "))
    }

    fn attach(
        netlink: &Netlink,
        namespace: (u64, u64),
        index: u32,
        mode: Mode,
        zero_copy: bool,
    ) -> Result<Self, String> {
        let mut tries = 0;
        let (link, steering) = loop {
            let link = netlink.link(index).map_err(|error| error.to_string())?;
            match Steering::attach(index, link.program, mode, PACKET_BYTES_MAX as u32) {
                Ok(steering) => break (link, steering),
                Err(SteerError::Raced { .. }) if tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error.to_string()),
            }
            sys::poll(&mut [], PAUSE).map_err(refusal)?;
        };
        let mut queues = Vec::new();
        let mut taken = Vec::new();
        for number in 0..QUEUES_MAX.min(u16::try_from(link.rx_queues).unwrap_or(QUEUES_MAX)) {
            match take(index, number, zero_copy, &mut tries) {
                Ok(queue) => {
                    let cleared = steering.clear_queue(number);
                    cleared.map_err(|error| error.to_string())?;
                    queues.push(Arc::new(queue));
                }
                Err(Errno(libc::EBUSY)) => taken.push(number.to_string()),
                // More queues were allocated than there are.
                Err(Errno(libc::EINVAL)) if number > 0 => break,
                Err(errno) => return Err(refusal(errno)),
            }
        }
        if queues.is_empty() {
            return Err(format!(
                "another process has queue {} of {}: let it end, or use plain sockets here",
                taken.join(", "),
                link.name
            ));
        }
        Ok(Self {
            namespace,
            index,
            name: link.name,
            loopback: link.loopback,
            zero_copy,
            queues,
            steering,
            state: Mutex::default(),
        })
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.loopback
    }

    pub(super) fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    fn is(&self, wanted: XdpMode) -> bool {
        match wanted {
            XdpMode::Auto => true,
            XdpMode::Generic => self.steering.mode() == Mode::Generic,
            XdpMode::Driver => self.steering.mode() == Mode::Driver && !self.zero_copy,
            XdpMode::ZeroCopy => self.zero_copy,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a network's taps, one for each queue, and gives the network its number here.
    pub(super) fn join(self: &Arc<Self>) -> Result<Member, String> {
        let number = {
            let mut state = self.state();
            let number = (!state.networks).trailing_zeros();
            if number >= steering::SLOTS_PER_QUEUE {
                let most = steering::SLOTS_PER_QUEUE;
                return Err(format!("{self}: {most} networks of this process use it already"));
            }
            state.networks |= 1 << number;
            number
        };
        let mut member = Member {
            taps: Vec::new(),
            port: Arc::clone(self),
            number,
            polls_busily: false,
            turn: 0,
            malformed: 0,
        };
        for queue in &self.queues {
            let tap = Tap::open(queue).map_err(refusal)?;
            let slot = slot(queue.number(), number);
            let inserted = self.steering.insert_socket(slot, tap.socket().borrow());
            inserted.map_err(|error| error.to_string())?;
            member.taps.push(tap);
        }
        Ok(member)
    }

    fn steer(&self, pair: &Pair, network: u32) -> Result<(), SteerError> {
        self.queues.iter().try_for_each(|queue| {
            self.steering.steer(pair, queue.number(), slot(queue.number(), network))
        })
    }

    fn unsteer(&self, pair: &Pair) -> Result<(), SteerError> {
        self.queues.iter().try_for_each(|queue| self.steering.unsteer(pair, queue.number()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = describe(self.steering.mode(), self.zero_copy);
        let queues = match self.queues.len() {
            1 => String::from("1 queue"),
            count => format!("{count} queues"),
        };
        let huge = self.queues.iter().all(|queue| queue.is_huge());
        let pages = if huge { ", huge pages" } else { "" };
        let program = self.steering.program();
        write!(f, "{} ({mode}, {queues}{pages}, program {program})", self.name)
    }
}

/// A network at a port: what it holds there, given back when it goes.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) taps: Vec<Tap>,
    pub(super) port: Arc<Port>,
    number: u32,
    /// Whether the driver is polled by us.
    pub(super) polls_busily: bool,
    /// Which tap is looked at first.
    pub(super) turn: usize,
    /// Packets that were damaged on their way.
    pub(super) malformed: u64,
}

impl Member {
    /// Asks the driver to be polled by us, up to `us` microseconds at a time, and to raise no
    /// interrupts meanwhile.
    pub(super) fn poll_busily(&mut self, us: u32) {
        let us = i32::try_from(us).unwrap_or(i32::MAX);
        let options = [
            (SO_PREFER_BUSY_POLL, 1),
            (libc::SO_BUSY_POLL, us),
            (SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET),
        ];
        // Where the driver cannot, it raises interrupts as ever.
        self.polls_busily = self.port.steering.mode() == Mode::Driver
            && self.taps.iter().all(|tap| {
                let set = |&(name, value): &(i32, i32)| {
                    tap.socket().set_int(libc::SOL_SOCKET, name, value).is_ok()
                };
                options.iter().all(set)
            });
    }

    /// Has another tap looked at first: the limit was reached.
    #[inline]
    pub(super) fn take_turns(&mut self) {
        self.turn = if self.turn + 1 < self.taps.len() { self.turn + 1 } else { 0 };
    }

    /// Packets that were not handed over: no room, or damaged. Asks the kernel: not for the hot
    /// path.
    pub(super) fn drops(&self) -> u64 {
        self.malformed + self.taps.iter().map(Tap::drops).sum::<u64>()
    }

    /// Wants the packets of a pair, which `socket` is bound to.
    pub(super) fn claim(&self, pair: Pair, socket: &Descriptor) -> Result<Claimed, NetError> {
        let refused = |Errno(errno)| NetError::refused("share a socket", errno);
        let owner = Owner { network: self.number, socket: socket.duplicate().map_err(refused)? };
        let mut state = self.port.state();
        let at = state.claims.iter().position(|claim| claim.pair == pair).unwrap_or_else(|| {
            state.claims.push(Claim { pair, owners: Vec::new() });
            state.claims.len() - 1
        });
        let owners = &mut state.claims[at].owners;
        let contested = owners.iter().any(|owner| owner.network != self.number);
        if contested {
            self.port.unsteer(&pair).map_err(failed)?;
        } else {
            self.port.steer(&pair, self.number).map_err(failed)?;
        }
        owners.push(owner);
        Ok(if contested { Claimed::Contested } else { Claimed::Steered })
    }
}

/// Whether this process has an address and port already, on whatever interface. If so those that
/// have it share it from now on, or do not any more.
pub(super) fn share(address: IpAddr, number: u16, on: bool) -> bool {
    share_those(|pair| (pair.address, pair.port) == (address, number), on)
}

/// Lets what this process has on a port, of whatever address, share it during a task: a wildcard
/// takes in other addresses.
pub(super) fn sharing<T>(number: u16, task: impl FnOnce() -> T) -> T {
    share_those(|pair| pair.port == number, true);
    let done = task();
    share_those(|pair| pair.port == number, false);
    done
}

fn share_those(wanted: impl Fn(&Pair) -> bool, on: bool) -> bool {
    let Ok(namespace) = namespace() else { return false };
    let mut found = false;
    let ports: Vec<_> = ports().iter().filter_map(Weak::upgrade).collect();
    for port in ports.iter().filter(|port| port.namespace == namespace) {
        let state = port.state();
        let same = |claim: &&Claim| wanted(&claim.pair);
        for owner in state.claims.iter().filter(same).flat_map(|claim| &claim.owners) {
            found = true;
            // Where it is refused, whoever binds is told that the port is in use.
            let _ = owner.socket.set_int(libc::SOL_SOCKET, libc::SO_REUSEADDR, on.into());
        }
    }
    found
}

fn ports() -> MutexGuard<'static, Vec<Weak<Port>>> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.port.state();
        state.networks &= !(1 << self.number);
        for claim in &mut state.claims {
            let before = claim.owners.len();
            claim.owners.retain(|owner| owner.network != self.number);
            if claim.owners.len() == before {
                continue;
            }
            // What cannot be changed now goes with the program; its slot is empty until then, and
            // packets for an empty slot go to the kernel.
            let _ = match claim.owners.first() {
                None => self.port.unsteer(&claim.pair),
                Some(one) if claim.owners.iter().all(|other| other.network == one.network) => {
                    self.port.steer(&claim.pair, one.network)
                }
                Some(_) => Ok(()),
            };
        }
        state.claims.retain(|claim| !claim.owners.is_empty());
        for tap in &self.taps {
            let _ = self.port.steering.remove_socket(slot(tap.queue().number(), self.number));
        }
    }
}

/// Takes a queue. The kernel gives one back a moment after its socket was closed, or its process
/// has ended.
fn take(interface: u32, number: u16, zero_copy: bool, tries: &mut usize) -> Result<Queue, Errno> {
    loop {
        match Queue::open(interface, number, zero_copy) {
            Err(Errno(libc::EBUSY)) if *tries < TRIES_MAX => *tries += 1,
            result => return result,
        }
        sys::poll(&mut [], PAUSE)?;
    }
}

fn slot(queue: u16, network: u32) -> u32 {
    u32::from(queue) * steering::SLOTS_PER_QUEUE + network
}

fn failed(error: SteerError) -> NetError {
    NetError::Unavailable { backend: "AF_XDP", reason: error.to_string() }
}

fn refusal(Errno(errno): Errno) -> String {
    let remedy = match errno {
        libc::EPERM | libc::EACCES => ": it takes root, or CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
        libc::EAFNOSUPPORT => ": this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        libc::ENOMEM | libc::ENOBUFS => ": raise the limit of locked memory (ulimit -l)",
        libc::EOPNOTSUPP => ": its driver cannot",
        _ => "",
    };
    format!("{}{remedy}", std::io::Error::from_raw_os_error(errno))
}

/// What to try, best first. A virtual interface has no receive queue of its own that a program
/// could run beside: there the driver mode costs an extra interrupt and a copy, and the generic one
/// was measured quicker (3.1 against 4.0 µs a round trip over a veth).
///
/// What a driver is known not to have is left out, unless it is all that is wanted: then the kernel
/// says why not, and drivers from elsewhere may have more than they tell.
pub(super) fn attempts(
    is_virtual: bool,
    features: Option<Features>,
    wanted: XdpMode,
) -> Vec<(Mode, bool)> {
    const GENERIC: (Mode, bool) = (Mode::Generic, false);
    const DRIVER: (Mode, bool) = (Mode::Driver, false);
    const ZERO_COPY: (Mode, bool) = (Mode::Driver, true);
    let mut best = match wanted {
        XdpMode::Auto if is_virtual => vec![GENERIC, DRIVER],
        XdpMode::Auto => vec![ZERO_COPY, DRIVER, GENERIC],
        XdpMode::Generic => return vec![GENERIC],
        XdpMode::Driver => return vec![DRIVER],
        XdpMode::ZeroCopy => return vec![ZERO_COPY],
    };
    best.retain(|attempt| match *attempt {
        ZERO_COPY => features.is_none_or(|features| features.zero_copy),
        DRIVER => features.is_none_or(|features| features.driver),
        _ => true,
    });
    best
}

fn describe(mode: Mode, zero_copy: bool) -> &'static str {
    match (mode, zero_copy) {
        (Mode::Generic, _) => "generic mode",
        (Mode::Driver, false) => "driver mode",
        (Mode::Driver, true) => "driver mode, zero-copy",
    }
}

/// The calling thread's network namespace.
fn namespace() -> std::io::Result<(u64, u64)> {
    fs::metadata("/proc/thread-self/ns/net").map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERIC: (Mode, bool) = (Mode::Generic, false);
    const DRIVER: (Mode, bool) = (Mode::Driver, false);
    const ZERO_COPY: (Mode, bool) = (Mode::Driver, true);
    const NOTHING: Features = Features { driver: false, zero_copy: false };

    #[test]
    fn what_a_driver_is_known_not_to_have_is_not_tried() {
        let of = |features| attempts(false, features, XdpMode::Auto);
        assert_eq!(of(None), [ZERO_COPY, DRIVER, GENERIC]);
        assert_eq!(of(Some(NOTHING)), [GENERIC]);
        assert_eq!(of(Some(Features { driver: true, zero_copy: false })), [DRIVER, GENERIC]);
        let all = Features { driver: true, zero_copy: true };
        assert_eq!(of(Some(all)), [ZERO_COPY, DRIVER, GENERIC]);
    }

    #[test]
    fn a_virtual_interface_is_tried_generic_first() {
        let of = |features| attempts(true, features, XdpMode::Auto);
        assert_eq!(of(None), [GENERIC, DRIVER]);
        assert_eq!(of(Some(NOTHING)), [GENERIC]);
    }

    #[test]
    fn the_one_mode_that_is_wanted_is_tried_whatever_is_told() {
        for (wanted, attempt) in
            [(XdpMode::Generic, GENERIC), (XdpMode::Driver, DRIVER), (XdpMode::ZeroCopy, ZERO_COPY)]
        {
            assert_eq!(attempts(false, Some(NOTHING), wanted), [attempt]);
        }
    }
}
