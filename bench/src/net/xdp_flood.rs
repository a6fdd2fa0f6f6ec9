//! `floor/xdp/throughput`: a flood of packed messages by bare AF_XDP, generic mode, nothing lost,
//! nothing checked.
//!
//! One frame lies packed from the start and is sent again and again, as many times a system call as
//! the kernel takes. The receiver takes frames where the kernel put them and touches every message.
//! What is in flight stays below what the receiver's frames hold: a shared word tells how much was
//! taken. Both sides' namespaces have to be entered already.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::steer::Mode;
use super::veth::{FAR_LINK, NEAR_LINK};
use super::xdp::{HEADERS, frame, xdp_obstacle};
use super::xsk::{Frame, Xsk};
use crate::link::{Link, Receiver, Sender};
use crate::mapping::Mapping;

/// Frames sent by a system call: what the kernel takes at once.
const BURST: u32 = 32;
/// Frames of each side: enough for either to be off its core for a while.
const FRAMES: u32 = 1024;
/// Frames in flight at most: all of the receiver's but the first, which stays its own.
const WINDOW: u64 = FRAMES as u64 - 1;
/// Where the receiver tells how many frames it took.
const TAKEN: usize = 0;
const CREDIT_BYTES: usize = 4096;

/// A flood of messages of `N` bytes, as many as fit in datagrams of `datagram_bytes`.
pub(crate) struct XdpFlood<const N: usize> {
    pub(crate) datagram_bytes: usize,
}

impl<const N: usize> Link for XdpFlood<N> {
    type Sender = XdpFloodSender<N>;
    type Receiver = XdpFloodReceiver<N>;

    fn obstacle(&self) -> Option<String> {
        xdp_obstacle(Mode::Generic)
    }

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<XdpFloodSender<N>> {
        let credit = Mapping::create(&dir.join(format!("{channel}.credit")), CREDIT_BYTES);
        Ok(XdpFloodSender {
            xsk: Xsk::open(FAR_LINK, Mode::Generic, FRAMES)?,
            credit: credit.context("create the credit word")?,
            messages: self.datagram_bytes / N,
            packed: None,
            sent: 0,
            calls: 0,
        })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<XdpFloodReceiver<N>> {
        let credit = Mapping::open(&dir.join(format!("{channel}.credit")));
        Ok(XdpFloodReceiver {
            xsk: Xsk::open(NEAR_LINK, Mode::Generic, FRAMES)?,
            credit: credit.context("open the credit word")?,
            taken: 0,
        })
    }
}

/// The sending end.
pub(crate) struct XdpFloodSender<const N: usize> {
    xsk: Xsk,
    credit: Mapping,
    /// Messages of a frame.
    messages: usize,
    packed: Option<Frame>,
    /// Frames.
    sent: u64,
    calls: u64,
}

impl<const N: usize> Sender for XdpFloodSender<N> {
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.send_some(payload, 1) > 0
    }

    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], _limit: usize) -> usize {
        let (xsk, messages) = (&mut self.xsk, self.messages);
        let packed =
            *self.packed.get_or_insert_with(|| xsk.prepare(&frame(&payload.repeat(messages))));
        let taken = self.credit.word(TAKEN).load(Ordering::Acquire); // pairs with: CREDIT
        if self.sent + u64::from(BURST) - taken > WINDOW {
            return 0;
        }
        let sent = xsk.send_again(packed, BURST);
        self.calls += sent.expect("the kernel takes frames");
        xsk.reap();
        self.sent += u64::from(BURST);
        BURST as usize * messages
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.calls)
    }
}

/// The receiving end.
pub(crate) struct XdpFloodReceiver<const N: usize> {
    xsk: Xsk,
    credit: Mapping,
    /// Frames.
    taken: u64,
}

impl<const N: usize> Receiver for XdpFloodReceiver<N> {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(frame) = self.xsk.receive() else {
                break;
            };
            let bytes = self.xsk.bytes(frame);
            for message in bytes[HEADERS..].chunks_exact(N) {
                handler(message);
            }
            count += (bytes.len() - HEADERS) / N;
            self.xsk.release(frame);
            self.taken += 1;
        }
        if count > 0 {
            self.credit.word(TAKEN).store(self.taken, Ordering::Release); // pairs with: CREDIT
        }
        count
    }

    fn calls(&mut self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::veth::{self, Veth};

    #[test]
    fn a_flood_stops_at_the_window_and_arrives_whole_or_the_reason_is_told() {
        let flood = XdpFlood::<64> { datagram_bytes: 1472 };
        if let Some(obstacle) = flood.obstacle() {
            let known = ["no veth pair", "no AF_XDP"];
            assert!(known.iter().any(|known| obstacle.contains(known)), "{obstacle}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let veth = Veth::create(false).unwrap();
        let far = veth.far().unwrap();
        let sender = veth::inside(&far, || flood.open_sender(dir.path(), "f")).unwrap();
        let near = veth.near().unwrap();
        let receiver = veth::inside(&near, || flood.open_receiver(dir.path(), "f")).unwrap();
        let (mut sender, mut receiver) = (sender.unwrap(), receiver.unwrap());
        let payload = [7; 64];
        let (mut sent, mut seen) = (0, 0);
        for _ in 0..20 {
            loop {
                match sender.send_some(&payload, usize::MAX) {
                    0 => break,
                    count => sent += count,
                }
            }
            while seen < sent {
                seen += receiver.poll(usize::MAX, |message| assert_eq!(message, payload));
            }
            assert_eq!(seen, sent);
        }
        assert_eq!(sent % (23 * BURST as usize), 0);
        assert!(sent > 20 * 23 && sender.calls() <= Some(sent as u64));
    }
}
