//! disruptor: a single-producer ring of preallocated events, read by an event poller, the way that
//! keeps the reading thread ours, pinned like the others. Threads only.

use disruptor::{
    BusySpin, EventPoller, Polling, Producer, SingleConsumerBarrier, SingleProducer,
    SingleProducerBarrier, build_single_producer,
};

use super::threads::Queue;
use super::{CAPACITY, PAYLOAD_BYTES, Payload};
use crate::link::{Receiver, Sender};

/// `disruptor::build_single_producer` with one event poller.
pub(crate) struct Disruptor;

impl Queue for Disruptor {
    type Sender = DisruptorSender;
    type Receiver = DisruptorReceiver;

    fn pair(&self) -> (DisruptorSender, DisruptorReceiver) {
        let builder = build_single_producer(CAPACITY, || [0; PAYLOAD_BYTES], BusySpin);
        let (poller, builder) = builder.new_event_poller();
        (DisruptorSender(builder.build()), DisruptorReceiver(poller))
    }
}

pub(crate) struct DisruptorSender(SingleProducer<Payload, SingleConsumerBarrier>);

impl Sender for DisruptorSender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        let published = self.0.try_publish(|event| event.copy_from_slice(payload));
        published.is_ok()
    }
}

pub(crate) struct DisruptorReceiver(EventPoller<Payload, SingleProducerBarrier>);

impl Receiver for DisruptorReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        match self.0.take(limit as u64) {
            Ok(mut events) => {
                let mut count = 0;
                for event in &mut events {
                    handler(event);
                    count += 1;
                }
                count
            }
            Err(Polling::NoEvents | Polling::Shutdown) => 0,
        }
    }
}
