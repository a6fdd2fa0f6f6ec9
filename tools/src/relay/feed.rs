//! A file on its way into a ring: its packets through the receiver that real packets go through, or
//! its messages as they are.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use gapless::protocol::mold::{BLOCK_HEADER_BYTES, HEADER_BYTES};
use gapless::protocol::{
    DATAGRAM_MAX_BYTES, Header, Join, Receiver, ReceiverCounts, ReceiverOptions,
};
use gapless::{Flags, Message};

use super::capture::Capture;
use super::origin::{Destination, FileOrigin, Format};
use super::sink::Sink;
use crate::records::RecordReader;

/// How late a captured packet may be, in the capture's own time, before it counts as lost.
const REORDER_NS: u64 = 50_000_000;
/// Time between packets of a file that has no times.
const PACKET_NS: u64 = 1_000;
/// Requests would be written here; there is nobody to send them to.
const REQUEST_BYTES: usize = 2048;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Whoever sent a captured packet is of no interest.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A file that is read into a ring.
pub(crate) struct Feed {
    input: Input,
    /// Of files of packets.
    receiver: Option<Receiver>,
    now: u64,
    /// The packet or message read last.
    unit: Vec<u8>,
    /// A message that the ring had no room for yet.
    waiting: bool,
    next_sequence: u64,
    ended: bool,
    /// What is wrong with the end of the file.
    pub(super) torn: Option<String>,
}

enum Input {
    Records(RecordReader<BufReader<File>>),
    Mold { file: BufReader<File>, offset: u64 },
    Capture { capture: Capture, lines: [Option<Destination>; 2] },
}

impl Feed {
    /// Opens the file; of messages without numbers, the ring as well.
    pub(super) fn open(origin: &FileOrigin, sink: &mut Sink) -> anyhow::Result<Self> {
        let place = || origin.path.display().to_string();
        let file = File::open(&origin.path).with_context(place)?;
        let buffered = |file| BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let (input, numbered, lines) = match origin.format {
            Format::Records(prefix) => {
                (Input::Records(RecordReader::new(buffered(file), prefix)), false, 1)
            }
            Format::Mold => (Input::Mold { file: buffered(file), offset: 0 }, true, 1),
            Format::Capture { lines, raw } => {
                let capture = Capture::open(file).with_context(place)?;
                (Input::Capture { capture, lines }, !raw, lines.iter().flatten().count())
            }
        };
        let options = ReceiverOptions {
            join: Join::Now,
            lines,
            reorder_ns: REORDER_NS,
            skew_ns: REORDER_NS,
            ask_source: false,
            report_ns: 0,
            ..ReceiverOptions::default()
        };
        let receiver = numbered.then(|| Receiver::new(options)).transpose()?;
        let next_sequence = match (numbered, origin.first) {
            (true, _) => 0,
            (false, None) => sink.carry_on()?,
            (false, Some(first)) => {
                sink.start(None, first)?;
                first
            }
        };
        let (now, unit, waiting, ended, torn) = (0, Vec::new(), false, false, None);
        Ok(Self { input, receiver, now, unit, waiting, next_sequence, ended, torn })
    }

    /// What the receiver has seen, of a file of packets.
    pub(super) fn counts(&self) -> Option<ReceiverCounts> {
        self.receiver.as_ref().map(|receiver| *receiver.counts())
    }

    /// Whether everything has gone into the ring.
    pub(super) fn is_done(&self) -> bool {
        let behind = |receiver: &Receiver| {
            receiver.next_sequence() != receiver.newest_sequence() || receiver.open_gaps() > 0
        };
        self.ended && !self.waiting && !self.receiver.as_ref().is_some_and(behind)
    }

    /// Takes the next packet or message from the file, unless the one before still waits for room.
    /// Returns how much was done.
    pub(super) fn cycle(&mut self, sink: &mut Sink) -> anyhow::Result<usize> {
        let before = sink.messages + sink.lost;
        if self.receiver.is_some() {
            self.cycle_packets(sink)?;
        } else if !self.ended {
            self.cycle_messages(sink)?;
        }
        sink.check()?;
        Ok((sink.messages + sink.lost - before) as usize)
    }

    fn cycle_messages(&mut self, sink: &mut Sink) -> anyhow::Result<()> {
        if !self.waiting {
            let read = match &mut self.input {
                Input::Records(reader) => reader.next(&mut self.unit)?,
                _ => self.read_packet()?.is_some(),
            };
            if !read {
                self.ended = true;
                return Ok(());
            }
        }
        let message =
            Message { sequence: self.next_sequence, payload: &self.unit, flags: Flags::WHOLE };
        self.waiting = !sink.publish(message)?;
        self.next_sequence += u64::from(!self.waiting);
        Ok(())
    }

    fn cycle_packets(&mut self, sink: &mut Sink) -> anyhow::Result<()> {
        let refused = self.receiver.as_ref().is_some_and(Receiver::is_refused);
        if !refused && !self.ended {
            match self.read_packet()? {
                None => {
                    self.ended = true;
                    self.now += 2 * REORDER_NS; // nothing more will come
                }
                Some((line, at)) => {
                    self.now = self.now.max(at);
                    if let Some(receiver) = &mut self.receiver {
                        let mut handler = |event: gapless::protocol::Event<'_>| sink.take(event);
                        receiver.on_datagram(line, NOBODY, &self.unit, self.now, &mut handler);
                    }
                }
            }
        }
        if let Some(receiver) = &mut self.receiver {
            let mut nowhere = [0; REQUEST_BYTES];
            while receiver.poll_transmit(self.now, &mut nowhere).is_some() {}
            receiver.deliver(&mut |event| sink.take(event));
        }
        Ok(())
    }

    /// The next packet, into `unit`: of which line it is and when it was seen. `None` at the end.
    fn read_packet(&mut self) -> anyhow::Result<Option<(usize, u64)>> {
        match &mut self.input {
            Input::Records(_) => Ok(None),
            Input::Mold { file, offset } => {
                let torn = read_mold(file, *offset, &mut self.unit)?;
                let at = self.now + PACKET_NS;
                *offset += self.unit.len() as u64;
                self.torn = self.torn.take().or(torn);
                Ok((!self.unit.is_empty()).then_some((0, at)))
            }
            Input::Capture { capture, lines } => loop {
                let mut found = None;
                let unit = &mut self.unit;
                let more = capture.next(|to, payload, at| {
                    let wanted = |line: &Option<Destination>| line.is_some_and(|line| line.is(to));
                    found = lines.iter().position(wanted).map(|line| (line, at));
                    unit.clear();
                    unit.extend_from_slice(payload);
                })?;
                if !more || found.is_some() {
                    return Ok(found);
                }
            },
        }
    }
}

/// Reads the packet at `offset` into `packet`, as far as it goes; nothing at the end of the file.
/// Returns what is wrong if the file ends inside it.
fn read_mold(
    file: &mut impl BufRead,
    offset: u64,
    packet: &mut Vec<u8>,
) -> anyhow::Result<Option<String>> {
    packet.clear();
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut more = |packet: &mut Vec<u8>, bytes: usize| -> std::io::Result<usize> {
        let read = file.take(bytes as u64).read_to_end(packet)?;
        Ok(bytes - read)
    };
    let torn = |what: String| Ok(Some(format!("the packet at byte {offset} is cut: {what}")));
    if more(packet, HEADER_BYTES)? > 0 {
        return torn("its header is not whole".into());
    }
    let Ok(header) = Header::read(packet) else { return torn("it has no header".into()) };
    for number in 0..header.messages() {
        let start = packet.len();
        let mut lacking = more(packet, BLOCK_HEADER_BYTES)?;
        let length = packet[start..].first_chunk::<BLOCK_HEADER_BYTES>().copied();
        if let Some(length) = length {
            lacking += more(packet, u16::from_be_bytes(length).into())?;
        }
        if lacking > 0 {
            let of = header.messages();
            let message = header.sequence.saturating_add(number.into());
            return torn(format!(
                "{number} of {of} messages are whole, {message} lacks {lacking} B"
            ));
        }
        if packet.len() > DATAGRAM_MAX_BYTES {
            let error =
                format!("byte {offset}: no MoldUDP64 packet, longer than a datagram can be");
            bail!(std::io::Error::new(ErrorKind::InvalidData, error));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIST: &[u8] = include_bytes!("../../../data/bist-mold/mold.sample.dat");

    #[test]
    fn packets_follow_each_other_and_the_cut_is_told() {
        let mut file = BIST;
        let (mut offset, mut packet, mut found) = (0, Vec::new(), Vec::new());
        let torn = loop {
            let torn = read_mold(&mut file, offset, &mut packet).expect("readable");
            let header = Header::read(&packet).expect("a header");
            found.push((offset, header.sequence, header.count));
            if torn.is_some() {
                break torn;
            }
            offset += packet.len() as u64;
        };
        assert_eq!(found, [(0, 1, 15), (894, 16, 13), (1881, 29, 13)]);
        let torn = torn.expect("a cut");
        assert!(torn.contains("12 of 13 messages are whole, 41 lacks 5 B"), "{torn}");
        assert_eq!(read_mold(&mut file, offset, &mut packet).expect("readable"), None);
        assert!(packet.is_empty());
        for cut in [1, 19, 20, 21, 22] {
            let told = read_mold(&mut &BIST[..cut], 0, &mut packet).expect("readable");
            assert!(told.is_some_and(|told| told.contains("byte 0 is cut")), "{cut}");
        }
    }
}
