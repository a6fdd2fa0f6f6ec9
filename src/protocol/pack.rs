//! Messages from a ring into one packet, as many as fit.

use gapless_shm::{Consumer, Flags, Memory, PollError};

use super::mold::{self, HEADER_BYTES};

/// A record that does not go into a packet like any other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Odd {
    Lost,
    Fragment { sequence: u64 },
    TooLong { sequence: u64, len: usize },
}

/// Moves messages into `packet` behind its header until one does not fit. Returns bytes used and
/// messages.
#[inline(always)]
pub(super) fn pack<M: Memory>(
    consumer: &mut Consumer<M>,
    packet: &mut [u8],
    enveloped: bool,
    odd: &mut Option<Odd>,
) -> Result<(usize, u16), PollError> {
    let mut used = HEADER_BYTES;
    let mut count = 0;
    let limit = usize::from(mold::COUNT_MAX);
    consumer.poll_while(limit, |message| {
        let len = message.payload.len();
        if message.flags != Flags::WHOLE {
            let sequence = message.sequence;
            match message.flags.is_lost() {
                true => *odd = Some(Odd::Lost),
                false if !enveloped => *odd = Some(Odd::Fragment { sequence }),
                false => {}
            }
            if odd.is_some() {
                return false;
            }
        }
        match mold::append(packet, used, message.payload) {
            Some(end) => {
                used = end;
                count += 1;
                true
            }
            None => {
                if count == 0 {
                    *odd = Some(Odd::TooLong { sequence: message.sequence, len });
                }
                false
            }
        }
    })?;
    Ok((used, count))
}
