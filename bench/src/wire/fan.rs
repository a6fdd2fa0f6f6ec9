//! What a burst to a group costs its sender, by the number of receivers on this host.
//!
//! On one host the kernel hands a datagram to each of the group's sockets within the sender's
//! system call, so the cost cannot be flat here as it is on a network. What can be is our part of
//! it: each burst is followed by a bare one, the same number of bytes in the same number of
//! datagrams to the same sockets by one system call.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, ensure};
use gapless::Publisher;
use gapless::wire::Inlet;

use super::address::{Form, fresh, parsed, until};
use crate::clock::ticks;
use crate::control::Word;
use crate::net::{ask, segment, tell};
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Publishes bursts of 64 B to a group of so many receivers, plain sockets.
pub(crate) struct Fan {
    pub(crate) receivers: usize,
}

/// Messages of a burst: 12 datagrams of 21.
const BURST: u32 = 252;
const PAYLOAD: [u8; 64] = [0x5a; 64];
const DATAGRAM_BYTES: usize = 20 + 21 * (64 + 2);
const DATAGRAMS: usize = 12;
const POLL_LIMIT: usize = 64;
const STREAM: &str = "stream";
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A socket that sends to the stream's sockets, and what it sends.
fn bare(address: &str) -> Result<(UdpSocket, Vec<u8>)> {
    let socket = UdpSocket::bind((LOCALHOST, 0)).context("bind a socket")?;
    socket.connect(parsed(address)?.lines()[0]).context("connect to the group")?;
    segment(&socket, DATAGRAM_BYTES).context("UDP_SEGMENT")?;
    Ok((socket, vec![0; DATAGRAMS * DATAGRAM_BYTES])) // no packets of the stream: passed over
}

impl Scenario for Fan {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let address = ask(session, STREAM)?;
        let mut publisher = Publisher::open(&address)?;
        until("every receiver reports", || {
            publisher.poll()?;
            let sender = publisher.sender().context("a stream of datagrams has a sender")?;
            Ok(sender.receivers().count() == self.receivers)
        })?;
        let (socket, bytes) = bare(&address)?;
        let (mut ours, mut bares) = (histogram(), histogram());
        let mut watch = control.watch();
        let (warm, end) = session.schedule();
        let mut published = 0;
        loop {
            let from = ticks();
            let mut batch = publisher.batch();
            for _ in 0..BURST {
                published = batch.push(&PAYLOAD)?;
            }
            batch.commit();
            let sent = ticks();
            while control.get(Word::Progress) < published {
                publisher.poll()?;
                watch.stopped()?;
            }
            let bare_from = ticks();
            let count = socket.send(&bytes).context("send a bare burst")?;
            let now = ticks();
            ensure!(count == bytes.len(), "a bare burst was cut");
            if now > warm {
                ours.saturating_record(sent - from);
                bares.saturating_record(now - bare_from);
            }
            if now > end {
                break;
            }
        }
        control.set(Word::Stop, 1);
        let bare_ns = session.clock.to_ns(bares.value_at_quantile(0.5)) / f64::from(BURST);
        let our_ns = session.clock.to_ns(ours.value_at_quantile(0.5)) / f64::from(BURST);
        Ok(Outcome { operations_per_sample: BURST, ..Outcome::latency(ours) }
            .with_detail("receivers", self.receivers as f64)
            .with_detail("bare_p50_ns", bare_ns)
            .with_detail("more_than_bare_ns", our_ns - bare_ns))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let options = format!("backend=socket&datagram={DATAGRAM_BYTES}");
        let address = fresh(Form::Multicast, LOCALHOST, session.dir, &options)?;
        let udp = parsed(&address)?;
        let inlets = (0..self.receivers).map(|_| Inlet::open(&udp));
        let mut inlets = inlets.collect::<Result<Vec<_>, _>>()?;
        tell(session.dir, STREAM, &address)?;
        let mut watch = control.watch();
        while !watch.stopped()? {
            let mut all = u64::MAX;
            for inlet in &mut inlets {
                inlet.poll(POLL_LIMIT, |_| true)?;
                all = all.min(inlet.next_sequence());
            }
            control.set(Word::Progress, all.saturating_sub(1));
        }
        Ok(())
    }
}
