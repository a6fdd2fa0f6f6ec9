//! `floor/xdp`: the tightest round trip over AF_XDP. A frame that was built before goes there, the
//! same frame comes back, not a byte of it changed: what lies between looks at none of them but
//! those that say "UDP". One system call a side hands the frame to the kernel, which takes it all
//! the way into the other side's ring, on which that side spins.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::ground::{Ground, Path, Side};
use super::meeting::{ask, tell};
use super::steer::Mode;
use super::veth::{self, FAR, NEAR, Veth};
use super::xsk::Xsk;
use crate::control::Word;
use crate::link::consume;
use crate::roundtrip;
use crate::scenario::{Outcome, Scenario, Session};

/// Bare AF_XDP: a datagram of so many bytes to and fro, over a veth pair.
pub(crate) struct BareXdp {
    pub(crate) mode: Mode,
    pub(crate) payload_bytes: usize,
}

/// Bytes of the headers: Ethernet, IPv4, UDP.
pub(super) const HEADERS: usize = 14 + 20 + 8;
/// Frames of each side: few, so that they stay in the caches.
const FRAMES: u32 = 32;
/// Any two; nobody listens there.
const PORTS: [u16; 2] = [7700, 7701];
/// Addresses that nobody else can have.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A datagram as it is on the wire, without checksums.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let udp_bytes = (8 + payload.len()) as u16;
    let mut frame = [MACS[1], MACS[0]].concat();
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + udp_bytes).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]); // not to be cut; 64 hops; UDP
    frame.extend(NEAR.octets());
    frame.extend(FAR.octets());
    for word in [PORTS[0], PORTS[1], udp_bytes, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// Both ends in one process, with the pair that is between them.
fn pair(mode: Mode) -> Result<(Veth, [Xsk; 2])> {
    let veth = Veth::create(false)?;
    let near = veth::inside(&veth.near()?, || Xsk::open(veth::NEAR_LINK, mode, FRAMES))??;
    let far = veth::inside(&veth.far()?, || Xsk::open(veth::FAR_LINK, mode, FRAMES))??;
    Ok((veth, [near, far]))
}

/// Why there is no AF_XDP between namespaces here; `None` if there is.
pub(crate) fn xdp_obstacle(mode: Mode) -> Option<String> {
    static GENERIC: OnceLock<Option<String>> = OnceLock::new();
    static DRIVER: OnceLock<Option<String>> = OnceLock::new();
    let found = match mode {
        Mode::Generic => &GENERIC,
        Mode::Driver => &DRIVER,
    };
    let refused = || pair(mode).err().map(|error| format!("no AF_XDP: {error:#}"));
    found.get_or_init(|| Path::Veth.obstacle().or_else(refused)).clone()
}

/// Opens this side's end, and waits until the other side's is open.
fn open(session: &Session<'_>, mode: Mode, side: Side) -> Result<(Ground, Xsk)> {
    let ground = Ground::open(session, Path::Veth, side)?;
    let interface = ground.interface().context("a veth pair has interfaces")?;
    let xsk = ground.inside(|| Xsk::open(interface, mode, FRAMES))??;
    let (mine, theirs) = ground.names();
    tell(session.dir, mine, "open")?;
    ask(session, theirs)?;
    Ok((ground, xsk))
}

impl Scenario for BareXdp {
    fn obstacle(&self) -> Option<String> {
        xdp_obstacle(self.mode)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let (_ground, mut xsk) = open(session, self.mode, Side::Lead)?;
        let ping = xsk.prepare(&frame(&vec![0x5a; self.payload_bytes]));
        let samples = roundtrip::sample(session, |watch| {
            xsk.send(ping)?;
            xsk.reap();
            loop {
                if let Some(pong) = xsk.receive() {
                    let bytes = xsk.bytes(pong);
                    ensure!(bytes.len() == HEADERS + self.payload_bytes, "a frame of others");
                    std::hint::black_box(consume(&bytes[HEADERS..]));
                    xsk.release(pong);
                    return Ok(());
                }
                watch.stopped()?;
                std::hint::spin_loop();
            }
        })?;
        session.control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let (_ground, mut xsk) = open(session, self.mode, Side::Partner)?;
        let mut watch = session.control.watch();
        loop {
            if let Some(ping) = xsk.receive() {
                xsk.send(ping)?;
                xsk.reap();
            } else {
                if watch.stopped()? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::xsk::Frame;

    #[test]
    fn frames_are_datagrams_of_the_payload() {
        let frame = frame(&[7; 64]);
        assert_eq!(frame.len(), HEADERS + 64);
        assert_eq!((&frame[12..15], frame[23]), (&[0x08, 0x00, 0x45][..], 17));
        assert_eq!(frame[16..18], (20 + 8 + 64_u16).to_be_bytes());
        assert_eq!((&frame[26..30], &frame[30..34]), (&NEAR.octets()[..], &FAR.octets()[..]));
        assert_eq!(frame[38..40], (8 + 64_u16).to_be_bytes());
        assert!(frame[HEADERS..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_frame_comes_back_as_it_went_or_the_reason_is_told() {
        for mode in [Mode::Generic, Mode::Driver] {
            let bare = BareXdp { mode, payload_bytes: 1400 };
            if let Some(obstacle) = bare.obstacle() {
                let known = ["no veth pair", "no AF_XDP"];
                assert!(known.iter().any(|known| obstacle.contains(known)), "{obstacle}");
                continue;
            }
            let (_veth, [mut near, mut far]) = pair(mode).unwrap();
            let sent = frame(&[0xa5; 1400]);
            let ping = near.prepare(&sent);
            // More often than there are frames.
            for _ in 0..100 {
                near.send(ping).unwrap();
                let echo = wait(&mut far);
                assert_eq!(far.bytes(echo), sent);
                far.send(echo).unwrap();
                far.reap();
                let pong = wait(&mut near);
                assert_eq!(near.bytes(pong), sent);
                near.release(pong);
                near.reap();
            }
        }
    }

    fn wait(xsk: &mut Xsk) -> Frame {
        let from = std::time::Instant::now();
        loop {
            if let Some(frame) = xsk.receive() {
                return frame;
            }
            assert!(from.elapsed().as_secs() < 10, "the frame did not come");
            std::thread::yield_now();
        }
    }
}
