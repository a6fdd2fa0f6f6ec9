//! crossbeam: `ArrayQueue` and the bounded channel. Many producers, many consumers, threads only.

use std::sync::Arc;

use crossbeam_channel as channel;
use crossbeam_queue::ArrayQueue;

use super::threads::Queue;
use super::{CAPACITY, Payload, value};
use crate::link::{Receiver, Sender};

/// `crossbeam_queue::ArrayQueue`.
pub(crate) struct Array;

impl Queue for Array {
    type Sender = ArrayEnd;
    type Receiver = ArrayEnd;

    fn pair(&self) -> (ArrayEnd, ArrayEnd) {
        let queue = Arc::new(ArrayQueue::new(CAPACITY));
        (ArrayEnd(queue.clone()), ArrayEnd(queue))
    }
}

/// Either end: the queue does not tell them apart.
pub(crate) struct ArrayEnd(Arc<ArrayQueue<Payload>>);

impl Sender for ArrayEnd {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.0.push(value(payload)).is_ok()
    }
}

impl Receiver for ArrayEnd {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.0.pop() {
                Some(payload) => handler(&payload),
                None => return count,
            }
        }
        limit
    }
}

/// `crossbeam_channel::bounded`.
pub(crate) struct Channel;

impl Queue for Channel {
    type Sender = ChannelSender;
    type Receiver = ChannelReceiver;

    fn pair(&self) -> (ChannelSender, ChannelReceiver) {
        let (sender, receiver) = channel::bounded(CAPACITY);
        (ChannelSender(sender), ChannelReceiver(receiver))
    }
}

pub(crate) struct ChannelSender(channel::Sender<Payload>);

impl Sender for ChannelSender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.0.try_send(value(payload)).is_ok()
    }
}

pub(crate) struct ChannelReceiver(channel::Receiver<Payload>);

impl Receiver for ChannelReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.0.try_recv() {
                Ok(payload) => handler(&payload),
                Err(_) => return count,
            }
        }
        limit
    }
}
