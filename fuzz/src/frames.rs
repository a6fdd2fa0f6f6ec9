//! Ethernet frames with UDP in them.
//!
//! Whatever the bytes: no panic, and what is taken for a datagram is written as one that is parsed
//! alike.

use std::net::{IpAddr, SocketAddr};

use gapless::net::frame::{Ends, HEADER_BYTES_MAX, Header, Packet, parse};

use super::Input;

/// The bytes as they are; and as what is to be written, with damage.
pub fn frames(data: &[u8]) {
    if let Ok(packet) = parse(data) {
        assert!(
            data.as_ptr_range().contains(&packet.payload.as_ptr()) || packet.payload.is_empty()
        );
        let ends = ends(packet.vlan, packet.source, packet.destination);
        written_and_parsed(&ends, packet.payload);
    }
    let mut input = Input(data);
    let (shape, vlan) = (input.byte(), u16::from(input.byte()) << 4 | 5);
    let mut host = || -> SocketAddr {
        let mut address = [0; 16];
        let given = input.take(if shape & 1 == 0 { 4 } else { 16 });
        address[..given.len()].copy_from_slice(given);
        let ip = match shape & 1 {
            0 => IpAddr::from(*address.first_chunk::<4>().expect("16 bytes")),
            _ => IpAddr::from(address),
        };
        (ip, u16::from(input.byte()) << 8 | u16::from(input.byte())).into()
    };
    let (source, destination) = (host(), host());
    let ends = ends((shape & 2 != 0).then_some(vlan), source, destination);
    let damages = shape >> 5;
    let damages: Vec<_> = (0..damages).map(|_| (input.byte(), input.byte())).collect();
    let mut frame = written_and_parsed(&ends, input.0);
    for (at, byte) in damages {
        let at = usize::from(at) % frame.len();
        frame[at] = byte;
    }
    if shape & 4 != 0 {
        frame.truncate(usize::from(shape));
    }
    if let Ok(packet) = parse(&frame) {
        assert!(packet.payload.len() + 42 <= frame.len());
    }
}

fn ends(vlan: Option<u16>, source: SocketAddr, destination: SocketAddr) -> Ends {
    let (source_mac, destination_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    Ends { source_mac, destination_mac, vlan, source, destination, hops: 1, dscp: 0 }
}

fn written_and_parsed(ends: &Ends, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(9000)];
    let header = Header::new(ends).expect("one family");
    let mut frame = vec![0; HEADER_BYTES_MAX + payload.len()];
    let len = header.write(payload, &mut frame);
    assert_eq!(len, header.len() + payload.len());
    let Ends { vlan, source, destination, .. } = *ends;
    assert_eq!(parse(&frame[..len]), Ok(Packet { source, destination, vlan, payload }));
    frame.truncate(len);
    frame
}
