//! rtrb: a wait-free single-producer single-consumer queue of values. Threads only.

use rtrb::{Consumer, Producer, RingBuffer};

use super::threads::Queue;
use super::{CAPACITY, Payload, value};
use crate::link::{Receiver, Sender};

/// `rtrb::RingBuffer`.
pub(crate) struct Rtrb;

impl Queue for Rtrb {
    type Sender = RtrbSender;
    type Receiver = RtrbReceiver;

    fn pair(&self) -> (RtrbSender, RtrbReceiver) {
        let (producer, consumer) = RingBuffer::new(CAPACITY);
        (RtrbSender(producer), RtrbReceiver(consumer))
    }
}

pub(crate) struct RtrbSender(Producer<Payload>);

impl Sender for RtrbSender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.0.push(value(payload)).is_ok()
    }
}

pub(crate) struct RtrbReceiver(Consumer<Payload>);

impl Receiver for RtrbReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.0.pop() {
                Ok(payload) => handler(&payload),
                Err(_) => return count,
            }
        }
        limit
    }
}
