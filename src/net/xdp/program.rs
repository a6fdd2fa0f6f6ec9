//! The program that steers: our pairs to our sockets, everything else to the kernel.
//!
//! Assembled here, an instruction a line, so that no compiler is needed where it is loaded. The
//! instruction set is RFC 9669's; the verifier of Linux 5.10 takes it, and without the right to
//! compare packet pointers (CAP_PERFMON) as well. [`program`] is the listing.
//!
//! It looks only at what it needs to know whose a datagram is: Ethernet with at most one 802.1Q
//! tag, IPv4 without options or fragments, IPv6 with UDP next, the destination. Whether the rest is
//! right (lengths, checksums) the receiver sees to. A frame that is anything else, or longer than
//! can be taken, goes on to the kernel untouched, as does one whose pair has no socket.
//!
//! And one whose UDP checksum is unfinished, the sum of the pseudo-header alone. That is what a
//! sender on the same machine leaves for its interface to finish, and a virtual one hands it on as
//! it is. Such a packet may be many datagrams in one (GSO), which only the kernel can tell apart.

use std::net::IpAddr;
use std::os::fd::RawFd;

/// A pair as the program looks it up: 24 bytes, none unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u8; Key::BYTES]);

impl Key {
    pub(super) const BYTES: usize = 24;
    // Where in it: the address (IPv4 as ::ffff:a.b.c.d), the port (big-endian), the queue and the
    // VLAN (0 = untagged; both native), zeros.
    const PORT: usize = 16;
    const QUEUE: usize = 18;
    const VLAN: usize = 20;

    /// The key of what is sent to `address` and `port` and comes in by `queue`, tagged with `vlan`
    /// (1 to 4,095; 0 = untagged).
    pub(super) fn new(address: IpAddr, port: u16, vlan: u16, queue: u16) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..Self::PORT].copy_from_slice(&address.octets());
        bytes[Self::PORT..Self::QUEUE].copy_from_slice(&port.to_be_bytes());
        bytes[Self::QUEUE..Self::VLAN].copy_from_slice(&queue.to_ne_bytes());
        bytes[Self::VLAN..Self::VLAN + 2].copy_from_slice(&vlan.to_ne_bytes());
        Self(bytes)
    }

    /// The queue in a key that was read back; `None` if it is no key.
    pub(super) fn queue_of(key: &[u8]) -> Option<u16> {
        let key: &[u8; Self::BYTES] = key.try_into().ok()?;
        Some(u16::from_ne_bytes([key[Self::QUEUE], key[Self::QUEUE + 1]]))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A register: `R1` to `R5` are arguments and lost in a call, `R0` is the result.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    /// Kept in calls: the context, `struct xdp_md`.
    Context = 6,
    /// Kept in calls: where the frame begins; behind a tag, four bytes later.
    Frame = 7,
    /// Kept in calls: where the frame ends.
    End = 8,
    /// The end of the stack; what is on it has negative offsets.
    Stack = 10,
}
use Register::{Context, End, Frame, R0, R1, R2, R3, R4, Stack};

/// A place to jump to, further on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The Ethernet type is in `R2`.
    Typed,
    /// It says IPv4.
    Ipv4,
    /// The key is complete but for the port, which is in `R3`, and the queue.
    Ported,
    /// Not ours.
    Pass,
}

// Size of a load or store.
const WORD: u8 = 0x00;
const HALF: u8 = 0x08;
const BYTE: u8 = 0x10;
// Operations between two values, and conditions of jumps.
const ADD: u8 = 0x00;
const AND: u8 = 0x50;
const SHIFT_RIGHT: u8 = 0x70;
const MOVE: u8 = 0xb0;
const EQUAL: u8 = 0x10;
const GREATER: u8 = 0x20;
const NOT_EQUAL: u8 = 0x50;
const LESS_OR_EQUAL: u8 = 0xb0;
// Helpers of the kernel.
const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;
/// The verdict that a frame is the kernel's. As flags of `redirect_map`: the verdict if no socket
/// is there.
const XDP_PASS: i32 = 2;
// Fields of `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// Instructions so far, and jumps whose places are not known yet.
#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
        self.code.push(u64::from_ne_bytes([opcode, registers, o0, o1, i0, i1, i2, i3]));
    }

    /// `to = *(size *)(from + offset)`.
    fn load(&mut self, size: u8, to: Register, from: Register, offset: i16) {
        self.emit(0x61 | size, to as u8, from as u8, offset, 0);
    }

    /// `*(size *)(to + offset) = from`.
    fn store(&mut self, size: u8, to: Register, offset: i16, from: Register) {
        self.emit(0x63 | size, to as u8, from as u8, offset, 0);
    }

    /// `*(u32 *)(to + offset) = value`.
    fn store_value(&mut self, to: Register, offset: i16, value: i32) {
        self.emit(0x62 | WORD, to as u8, 0, offset, value);
    }

    /// `to = from`, or with another operation, in 64 bits.
    fn copy(&mut self, to: Register, from: Register) {
        self.emit(0x0f | MOVE, to as u8, from as u8, 0, 0);
    }

    /// `to = to operation value`, in 64 bits.
    fn compute(&mut self, operation: u8, to: Register, value: i32) {
        self.emit(0x07 | operation, to as u8, 0, 0, value);
    }

    /// `to = to + from`, in 64 bits.
    fn add(&mut self, to: Register, from: Register) {
        self.emit(0x0f | ADD, to as u8, from as u8, 0, 0);
    }

    /// `of` from big-endian 16 bits to the machine's.
    fn native(&mut self, of: Register) {
        self.emit(0xdc, of as u8, 0, 0, 16);
    }

    /// `to` = the map with that descriptor: two instructions, the second without opcode.
    fn map(&mut self, to: Register, map: RawFd) {
        const IS_A_MAP: u8 = 1;
        self.emit(0x18, to as u8, IS_A_MAP, 0, map);
        self.emit(0, 0, 0, 0, 0);
    }

    /// `if left condition value goto label`.
    fn jump_if(&mut self, condition: u8, left: Register, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05 | condition, left as u8, 0, 0, value);
    }

    /// `if left condition right goto label`.
    fn jump_if_register(&mut self, condition: u8, left: Register, right: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x0d | condition, left as u8, right as u8, 0, 0);
    }

    /// `goto label`.
    fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05, 0, 0, 0, 0);
    }

    fn call(&mut self, helper: i32) {
        self.emit(0x85, 0, 0, 0, helper);
    }

    fn exit(&mut self) {
        self.emit(0x95, 0, 0, 0, 0);
    }

    /// Here is `label`: all jumps there so far lead to the next instruction.
    fn place(&mut self, label: Label) {
        let here = self.code.len();
        for (at, _) in self.jumps.extract_if(.., |(_, wanted)| *wanted == label) {
            let mut bytes = self.code[at].to_ne_bytes();
            // Counted from the instruction behind the jump.
            bytes[2..4].copy_from_slice(&((here - at - 1) as i16).to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
    }
}

/// Where in the frame, untagged.
mod at {
    pub(super) const ETHERNET_TYPE: i16 = 12;
    pub(super) const TAG: i16 = 14;
    pub(super) const TAGGED_TYPE: i16 = 16;
    pub(super) const VERSION: i16 = 14;
    pub(super) const IPV4_FRAGMENT: i16 = 20;
    pub(super) const IPV4_PROTOCOL: i16 = 23;
    pub(super) const IPV4_SOURCE: i16 = 26;
    pub(super) const IPV4_DESTINATION: i16 = 30;
    pub(super) const IPV4_UDP: i16 = 34;
    pub(super) const IPV4_PAYLOAD: i32 = 42;
    pub(super) const IPV6_NEXT_HEADER: i16 = 20;
    pub(super) const IPV6_SOURCE: i16 = 22;
    pub(super) const IPV6_DESTINATION: i16 = 38;
    pub(super) const IPV6_UDP: i16 = 54;
    pub(super) const IPV6_PAYLOAD: i32 = 62;
    // From where UDP begins.
    pub(super) const PORT: i16 = 2;
    pub(super) const LENGTH: i16 = 4;
    pub(super) const CHECKSUM: i16 = 6;
}

/// Two bytes of the network's as the machine loads them.
fn wire(value: u16) -> i32 {
    i32::from(value.to_be())
}

const TAG_BYTES: i32 = 4;
const TAGGED: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: i32 = 17;
/// The key on the stack.
const KEY: i16 = -(Key::BYTES as i16);

/// The program over two maps: from [`Key`] to a slot (`u32`), and from a slot to a socket. Frames
/// of more than `frame_bytes_max` bytes are the kernel's, and any of more than 32,767.
pub(super) fn program(pairs: RawFd, sockets: RawFd, frame_bytes_max: u32) -> Vec<u64> {
    let too_long = frame_bytes_max.min(32_767) as i32 + 1;
    let mut a = Assembler::default();
    a.copy(Context, R1);
    a.load(WORD, Frame, Context, DATA);
    a.load(WORD, End, Context, DATA_END);
    // Too long for us? Too short for UDP over IPv4?
    a.copy(R2, Frame);
    a.compute(ADD, R2, too_long);
    a.jump_if_register(LESS_OR_EQUAL, R2, End, Label::Pass);
    a.copy(R2, Frame);
    a.compute(ADD, R2, at::IPV4_PAYLOAD);
    a.jump_if_register(GREATER, R2, End, Label::Pass);
    // The VLAN. A tag with VLAN 0 has a priority only.
    a.store_value(Stack, KEY + Key::VLAN as i16, 0);
    a.load(HALF, R2, Frame, at::ETHERNET_TYPE);
    a.jump_if(NOT_EQUAL, R2, wire(TAGGED), Label::Typed);
    a.load(HALF, R3, Frame, at::TAG);
    a.native(R3);
    a.compute(AND, R3, 0xfff);
    a.store(HALF, Stack, KEY + Key::VLAN as i16, R3);
    a.load(HALF, R2, Frame, at::TAGGED_TYPE);
    a.compute(ADD, Frame, TAG_BYTES);
    a.place(Label::Typed);
    a.jump_if(EQUAL, R2, wire(IPV4), Label::Ipv4);
    a.jump_if(NOT_EQUAL, R2, wire(IPV6), Label::Pass);
    ipv6(&mut a);
    a.jump(Label::Ported);
    a.place(Label::Ipv4);
    ipv4(&mut a);
    a.place(Label::Ported);
    a.store(HALF, Stack, KEY + Key::PORT as i16, R3);
    a.load(WORD, R3, Context, RX_QUEUE_INDEX);
    a.store(HALF, Stack, KEY + Key::QUEUE as i16, R3);
    a.map(R1, pairs);
    a.copy(R2, Stack);
    a.compute(ADD, R2, KEY.into());
    a.call(MAP_LOOKUP_ELEM);
    a.jump_if(EQUAL, R0, 0, Label::Pass);
    a.load(WORD, R2, R0, 0);
    a.map(R1, sockets);
    a.compute(MOVE, R3, XDP_PASS);
    a.call(REDIRECT_MAP);
    a.exit();
    a.place(Label::Pass);
    a.compute(MOVE, R0, XDP_PASS);
    a.exit();
    debug_assert!(a.jumps.is_empty(), "a label has no place");
    a.code
}

/// Goes on if the frame is UDP over IPv6, with the port in `R3` and the address in the key.
fn ipv6(a: &mut Assembler) {
    a.copy(R3, Frame);
    a.compute(ADD, R3, at::IPV6_PAYLOAD);
    a.jump_if_register(GREATER, R3, End, Label::Pass);
    a.load(BYTE, R3, Frame, at::VERSION);
    a.compute(SHIFT_RIGHT, R3, 4);
    a.jump_if(NOT_EQUAL, R3, 6, Label::Pass);
    a.load(BYTE, R3, Frame, at::IPV6_NEXT_HEADER);
    a.jump_if(NOT_EQUAL, R3, UDP, Label::Pass);
    for word in [0, 4, 8, 12] {
        a.load(WORD, R3, Frame, at::IPV6_DESTINATION + word);
        a.store(WORD, Stack, KEY + word, R3);
    }
    finished(a, at::IPV6_SOURCE, 8, at::IPV6_UDP);
}

/// The same over IPv4, whole and without options.
fn ipv4(a: &mut Assembler) {
    a.copy(R3, Frame);
    a.compute(ADD, R3, at::IPV4_PAYLOAD);
    a.jump_if_register(GREATER, R3, End, Label::Pass); // again: behind a tag it is four bytes more
    a.load(BYTE, R3, Frame, at::VERSION);
    a.jump_if(NOT_EQUAL, R3, 0x45, Label::Pass); // version 4, five words of header
    a.load(HALF, R3, Frame, at::IPV4_FRAGMENT);
    a.compute(AND, R3, wire(0x3fff)); // more fragments, or an offset
    a.jump_if(NOT_EQUAL, R3, 0, Label::Pass);
    a.load(BYTE, R3, Frame, at::IPV4_PROTOCOL);
    a.jump_if(NOT_EQUAL, R3, UDP, Label::Pass);
    a.store_value(Stack, KEY, 0);
    a.store_value(Stack, KEY + 4, 0);
    a.store_value(Stack, KEY + 8, 0xffff_u32.to_be() as i32);
    a.load(WORD, R3, Frame, at::IPV4_DESTINATION);
    a.store(WORD, Stack, KEY + 12, R3);
    finished(a, at::IPV4_SOURCE, 2, at::IPV4_UDP);
}

/// Goes on, with the port in `R3`, if the UDP checksum is not the sum of the pseudo-header alone:
/// of `words` of addresses, the protocol and the length. Such sums are the same in either byte
/// order (RFC 1071).
fn finished(a: &mut Assembler, addresses: i16, words: i16, udp: i16) {
    a.compute(MOVE, R4, wire(UDP as u16));
    for word in 0..words {
        a.load(WORD, R3, Frame, addresses + 4 * word);
        a.add(R4, R3);
    }
    a.load(HALF, R3, Frame, udp + at::LENGTH);
    a.add(R4, R3);
    // 36 bits at most are 21, then 17, then 16 when folded.
    for _ in 0..3 {
        a.copy(R3, R4);
        a.compute(SHIFT_RIGHT, R3, 16);
        a.compute(AND, R4, 0xffff);
        a.add(R4, R3);
    }
    a.load(HALF, R3, Frame, udp + at::CHECKSUM);
    a.jump_if_register(EQUAL, R3, R4, Label::Pass);
    a.load(HALF, R3, Frame, udp + at::PORT);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::os::fd::{AsFd, OwnedFd};

    use super::super::bpf::{self, Map, MapKind};
    use super::super::fixture::{Socket, alone};
    use super::super::namespace::ip;
    use super::*;

    const LONGEST: u32 = 1500;
    const PORT: u16 = 40_001;
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
    const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0x1234, 0, 0xabcd, 0x77);
    const PASS: u32 = XDP_PASS as u32;
    const REDIRECT: u32 = 4;
    const SLOT: u32 = 3;

    fn ethernet(tags: &[(u16, u16)], kind: u16) -> Vec<u8> {
        let mut frame = vec![0x01, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 9];
        for (kind, tag) in tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(kind.to_be_bytes());
        frame
    }

    fn udp(payload: usize) -> Vec<u8> {
        let mut bytes = 5_555_u16.to_be_bytes().to_vec();
        bytes.extend(PORT.to_be_bytes());
        bytes.extend((payload as u16 + 8).to_be_bytes());
        bytes.extend([0xab, 0xcd]); // a checksum need not be right, only finished
        bytes.resize(8 + payload, 0x5a);
        bytes
    }

    fn ipv4_frame(tags: &[(u16, u16)], payload: usize) -> Vec<u8> {
        let mut frame = ethernet(tags, IPV4);
        frame.extend([0x45, 0]);
        frame.extend((payload as u16 + 28).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 7, 17, 0xab, 0xcd, 10, 0, 0, 9]);
        frame.extend(GROUP.octets());
        frame.extend(udp(payload));
        frame
    }

    fn ipv6_frame(tags: &[(u16, u16)], payload: usize) -> Vec<u8> {
        let mut frame = ethernet(tags, IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((payload as u16 + 8).to_be_bytes());
        frame.extend([17, 7]);
        frame.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
        frame.extend(GROUP6.octets());
        frame.extend(udp(payload));
        frame
    }

    /// What the program must take a frame for: destination and VLAN.
    fn destination(frame: &[u8]) -> Option<(IpAddr, u16, u16)> {
        if frame.len() > LONGEST as usize {
            return None;
        }
        let pair = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let (vlan, at) = match pair(12)? {
            0x8100 => (pair(14)? & 4095, 16),
            _ => (0, 12),
        };
        let packet = frame.get(at + 2..)?;
        let (address, ends, udp): (IpAddr, _, _) = match pair(at)? {
            0x0800 => {
                let header: [u8; 20] = packet.get(..20)?.try_into().ok()?;
                let whole = header[6] & 0x3f == 0 && header[7] == 0;
                if header[0] != 0x45 || !whole || header[9] != 17 {
                    return None;
                }
                let address = <[u8; 4]>::try_from(&header[16..]).ok()?;
                (address.into(), &packet[12..20], packet.get(20..)?)
            }
            0x86dd => {
                let header: [u8; 40] = packet.get(..40)?.try_into().ok()?;
                if header[0] >> 4 != 6 || header[6] != 17 {
                    return None;
                }
                let address = <[u8; 16]>::try_from(&header[24..]).ok()?;
                (address.into(), &packet[8..40], packet.get(40..)?)
            }
            _ => return None,
        };
        let header = udp.get(..8)?;
        let finished = header[6..8] != unfinished(ends, [header[4], header[5]]);
        finished.then_some((address, u16::from_be_bytes([header[2], header[3]]), vlan))
    }

    /// The sum of a pseudo-header: what a checksum begins with.
    fn unfinished(addresses: &[u8], length: [u8; 2]) -> [u8; 2] {
        let words = addresses.chunks(2).chain([&[0, 17][..], &length[..]]);
        let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        ((folded & 0xffff) as u16 + (folded >> 16) as u16).to_be_bytes()
    }

    /// The program over maps in which some pairs lead to a socket.
    struct Bench {
        pairs: Map,
        sockets: Map,
        program: OwnedFd,
        steered: Vec<(IpAddr, u16, u16)>,
    }

    impl Bench {
        fn new(socket: &Socket) -> Self {
            let pairs = Map::create(MapKind::Hash, Key::BYTES as u32, 4, 64, "pairs").unwrap();
            let sockets = Map::create(MapKind::Sockets, 4, 4, 8, "sockets").unwrap();
            let code = program(pairs.raw(), sockets.raw(), LONGEST);
            let program = bpf::prog_load(&code, "test").unwrap();
            let fd = socket.raw().to_ne_bytes();
            sockets.update(&SLOT.to_ne_bytes(), &fd, bpf::ANY).unwrap();
            Self { pairs, sockets, program, steered: Vec::new() }
        }

        fn steer(&mut self, address: IpAddr, port: u16, vlan: u16) {
            let key = Key::new(address, port, vlan, 0);
            self.pairs.update(key.bytes(), &SLOT.to_ne_bytes(), bpf::NEW).unwrap();
            self.steered.push((address, port, vlan));
        }

        fn verdict(&self, frame: &[u8]) -> u32 {
            bpf::prog_test_run(self.program.as_fd(), frame, None).unwrap()
        }

        /// The program and the model agree; whether it is steered.
        fn check(&self, frame: &[u8]) -> bool {
            let steered = destination(frame).is_some_and(|pair| self.steered.contains(&pair));
            let wanted = if steered { REDIRECT } else { PASS };
            assert_eq!(self.verdict(frame), wanted, "{frame:02x?}");
            steered
        }
    }

    const VLAN: u16 = 0x123;
    const TAG: &[(u16, u16)] = &[(TAGGED, 0xe000 | VLAN)]; // with a priority

    fn frames(payload: usize) -> [Vec<u8>; 4] {
        [
            ipv4_frame(&[], payload),
            ipv4_frame(TAG, payload),
            ipv6_frame(&[], payload),
            ipv6_frame(TAG, payload),
        ]
    }

    /// With all four destinations steered.
    fn bench(socket: &Socket) -> Bench {
        let mut bench = Bench::new(socket);
        for vlan in [0, VLAN] {
            bench.steer(GROUP.into(), PORT, vlan);
            bench.steer(GROUP6.into(), PORT, vlan);
        }
        bench
    }

    #[test]
    fn takes_frames_of_steered_pairs_only() {
        alone(|| {
            let socket = Socket::open(1, 0);
            for (one, frame) in frames(64).into_iter().enumerate() {
                let mut bench = Bench::new(&socket);
                assert!(!bench.check(&frame), "nothing is steered yet");
                let (address, port, vlan) = destination(&frame).unwrap();
                bench.steer(address, port, vlan);
                for (other, frame) in frames(64).into_iter().enumerate() {
                    assert_eq!(bench.check(&frame), one == other);
                }
            }
        });
    }

    #[test]
    fn agrees_with_the_model_whatever_byte_is_changed() {
        alone(|| {
            let socket = Socket::open(1, 0);
            let bench = bench(&socket);
            let mut steered = [0; 2];
            for frame in frames(24) {
                for at in 0..frame.len() {
                    for change in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80, 0xff] {
                        let mut changed = frame.clone();
                        changed[at] ^= change;
                        steered[usize::from(bench.check(&changed))] += 1;
                    }
                }
            }
            assert!(steered.iter().all(|count| *count > 100), "{steered:?}");
        });
    }

    #[test]
    fn passes_what_may_be_several_datagrams_in_one() {
        alone(|| {
            let socket = Socket::open(1, 0);
            let bench = bench(&socket);
            for payload in [0, 1, 64, 1_000] {
                for (mut frame, addresses) in frames(payload).into_iter().zip([8, 8, 32, 32]) {
                    let udp = frame.len() - payload - 8;
                    let length = [frame[udp + 4], frame[udp + 5]];
                    let sum = unfinished(&frame[udp - addresses..udp], length);
                    frame[udp + 6..udp + 8].copy_from_slice(&sum);
                    assert!(!bench.check(&frame));
                    frame[udp + 7] ^= 1;
                    assert!(bench.check(&frame));
                }
            }
        });
    }

    #[test]
    fn passes_what_is_cut_short() {
        alone(|| {
            let socket = Socket::open(1, 0);
            let bench = bench(&socket);
            for frame in frames(3) {
                let header = frame.len() - 3;
                for len in 14..=frame.len() {
                    assert_eq!(bench.check(&frame[..len]), len >= header, "{len} bytes");
                }
            }
        });
    }

    #[test]
    fn passes_what_is_odd_or_too_long() {
        alone(|| {
            let socket = Socket::open(1, 0);
            let bench = bench(&socket);
            let changed = |at: usize, to: u8| {
                let mut frame = ipv4_frame(&[], 64);
                frame[at] = to;
                frame
            };
            let odd = [
                ("options", changed(14, 0x46)),
                ("more fragments", changed(20, 0x20)),
                ("a later fragment", changed(21, 1)),
                ("TCP", changed(23, 6)),
                ("a service tag", ipv4_frame(&[(0x88a8, VLAN)], 64)),
                ("two tags", ipv4_frame(&[(TAGGED, VLAN), (TAGGED, VLAN)], 64)),
                ("ARP", [ethernet(&[], 0x0806), vec![0; 46]].concat()),
            ];
            for (what, frame) in odd {
                assert!(!bench.check(&frame), "{what}");
            }
            let mut next = ipv6_frame(&[], 64);
            next[20] = 0; // hop-by-hop options
            assert!(!bench.check(&next));

            for headers in frames(0) {
                let mut frame = headers;
                frame.resize(LONGEST as usize, 0);
                assert!(bench.check(&frame));
                frame.push(0);
                assert!(!bench.check(&frame));
            }
            assert!(bench.check(&ipv4_frame(&[(TAGGED, 0xe000)], 64)), "a priority is no VLAN");
        });
    }

    #[test]
    fn passes_what_has_no_socket() {
        alone(|| {
            let socket = Socket::open(1, 0);
            let bench = bench(&socket);
            let frame = ipv4_frame(&[], 64);
            assert_eq!(bench.verdict(&frame), REDIRECT);
            bench.sockets.delete(&SLOT.to_ne_bytes()).unwrap();
            assert_eq!(bench.verdict(&frame), PASS, "the slot is empty");

            let beyond = 1_000_000_u32.to_ne_bytes();
            let key = Key::new(GROUP.into(), PORT, 0, 0);
            bench.pairs.update(key.bytes(), &beyond, bpf::ANY).unwrap();
            assert_eq!(bench.verdict(&frame), PASS, "there is no such slot");
        });
    }

    #[test]
    fn tells_queues_apart() {
        alone(|| {
            ip("link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1");
            let veth = nix::net::if_::if_nametoindex("v0").unwrap();
            let socket = Socket::open(1, 0);
            let bench = Bench::new(&socket);
            let key = Key::new(GROUP.into(), PORT, 0, 1);
            bench.pairs.update(key.bytes(), &SLOT.to_ne_bytes(), bpf::NEW).unwrap();
            let frame = ipv4_frame(&[], 64);
            let on = |queue| bpf::prog_test_run(bench.program.as_fd(), &frame, Some((veth, queue)));
            assert_eq!((on(0).unwrap(), on(1).unwrap()), (PASS, REDIRECT));
        });
    }

    #[test]
    fn a_key_has_its_queue() {
        let key = Key::new(GROUP6.into(), PORT, VLAN, 0x1234);
        assert_eq!(Key::queue_of(key.bytes()), Some(0x1234));
        assert_eq!(Key::queue_of(&key.bytes()[1..]), None);
    }
}
