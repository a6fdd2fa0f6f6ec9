//! iceoryx2: shared-memory publish/subscribe between processes, without copies (a loaned sample is
//! filled in place); full queues make it wait, so that nothing is lost.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use iceoryx2::port::backpressure_strategy::BackpressureStrategy;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{NodeBuilder, ServiceName, ipc};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use super::{CAPACITY, Payload, value};
use crate::link::{Link, Receiver, Sender};

/// One publisher and one subscriber of a service named after the run's directory.
pub(crate) struct Iceoryx2;

type Service = PortFactory<ipc::Service, Payload, ()>;

fn service(dir: &Path, channel: &str) -> Result<Service> {
    let failed = |error: &dyn std::fmt::Debug| anyhow!("iceoryx2: {error:?}");
    let run = dir.file_name().context("the run's directory has a name")?;
    let name = format!("{}/{channel}", run.to_string_lossy());
    let name = ServiceName::new(&name).map_err(|error| failed(&error))?;
    let node = NodeBuilder::new().create::<ipc::Service>();
    let node = node.map_err(|error| failed(&error))?;
    node.service_builder(&name)
        .publish_subscribe::<Payload>()
        .max_publishers(1)
        .max_subscribers(1)
        .subscriber_max_buffer_size(CAPACITY)
        .enable_safe_overflow(false)
        .open_or_create()
        .map_err(|error| failed(&error))
}

impl Link for Iceoryx2 {
    type Sender = Iceoryx2Sender;
    type Receiver = Iceoryx2Receiver;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<Iceoryx2Sender> {
        let service = service(dir, channel)?;
        let publisher = service
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(|error| anyhow!("iceoryx2: {error:?}"))?;
        Ok(Iceoryx2Sender { publisher, _service: service })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<Iceoryx2Receiver> {
        let service = service(dir, channel)?;
        let subscriber = service.subscriber_builder().create();
        Ok(Iceoryx2Receiver {
            subscriber: subscriber.map_err(|error| anyhow!("iceoryx2: {error:?}"))?,
            _service: service,
        })
    }
}

/// The publisher; its service lives as long.
pub(crate) struct Iceoryx2Sender {
    publisher: Publisher<ipc::Service, Payload, ()>,
    _service: Service,
}

impl Sender for Iceoryx2Sender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        let sent = self.publisher.loan_uninit().map(|sample| {
            let sample = sample.write_payload(value(payload));
            sample.send().is_ok()
        });
        sent.unwrap_or(false)
    }
}

/// The subscriber; its service lives as long.
pub(crate) struct Iceoryx2Receiver {
    subscriber: Subscriber<ipc::Service, Payload, ()>,
    _service: Service,
}

impl Receiver for Iceoryx2Receiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.subscriber.receive() {
                Ok(Some(sample)) => handler(sample.payload()),
                Ok(None) => return count,
                Err(error) => panic!("iceoryx2: {error:?}"),
            }
        }
        limit
    }
}
