//! The unhappy paths: a subscriber that is too slow on a lossless stream is named; on a lossy one
//! it is told exactly what it missed; one that is gone holds nobody up.
//!
//! Run with `cargo run --example slow_consumer`.

use std::error::Error;

use gapless::PublishError;
use gapless::shm::{Mode, PollError, RingOptions, Start};

fn main() -> Result<(), Box<dyn Error>> {
    // Lossless: the publisher is told who is in its way, and decides.
    let ring = RingOptions::new().capacity_bytes(4096);
    let (mut producer, streams) = ring.heap()?;
    let slow = streams.subscribe("slow-risk", Start::Oldest)?;
    let published = loop {
        match producer.try_publish(b"order") {
            Ok(_) => {}
            Err(PublishError::Backpressure { .. }) => break producer.next_sequence() - 1,
            Err(other) => return Err(other.into()),
        }
    };
    let view = producer.slowest().expect("there is one");
    println!("full after {published} messages: {} is {} behind", view.name, view.lag_messages);
    assert_eq!((view.name.as_str(), view.lag_messages), ("slow-risk", published));
    drop(slow);
    producer.try_publish(b"order")?; // gone, and no longer in the way

    // Lossy: the publisher never waits, and a subscriber that was lapped knows by how much.
    let (mut producer, streams) =
        RingOptions::new().mode(Mode::Lossy).capacity_bytes(4096).heap()?;
    let mut reader = streams.subscribe("dashboard", Start::Oldest)?;
    for _ in 0..1000 {
        producer.try_publish(b"tick")?;
    }
    let mut seen = 0;
    let mut lost = 0;
    while seen + lost < 1000 {
        match reader.poll(64, |_message| seen += 1) {
            Ok(_) => {}
            Err(PollError::Lapped { missed, resumed_at }) => {
                println!("lapped: missed {missed}, going on at {resumed_at}");
                lost += missed;
            }
            Err(other) => return Err(other.into()),
        }
    }
    println!("read {seen}, missed {lost}, together all 1000");
    Ok(())
}
