//! One publisher, one subscriber, one stream: in two threads here, in two processes just the same.
//!
//! Run with `cargo run --release --example quickstart`.

use std::error::Error;
use std::thread;

use gapless::{Publisher, Subscriber};

const MESSAGES: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let address = format!("shm:quickstart-{}?capacity=1M&wait=yield", std::process::id());
    let mut publisher = Publisher::open(&address)?;
    let mut subscriber = Subscriber::open(&address)?;

    let reader = thread::spawn(move || -> Result<u64, gapless::PollError> {
        let mut next = 1;
        while next <= MESSAGES {
            subscriber.poll_or_wait(256, |message| {
                assert_eq!(message.sequence, next, "a gap");
                assert_eq!(message.payload, next.to_le_bytes());
                next += 1;
            })?;
        }
        Ok(next - 1)
    });

    for n in 1..=MESSAGES {
        // Backpressure is an answer, not a wait: here the publisher just tries again.
        publisher.publish(&n.to_le_bytes(), || {
            thread::yield_now();
            true
        })?;
    }
    let read = reader.join().expect("the reader does not panic")?;
    println!("published and read {read} messages without a gap");

    drop(publisher);
    gapless::shm::remove(&gapless::shm::default_directory(), &name_of(&address), false)?;
    Ok(())
}

fn name_of(address: &str) -> String {
    let name = address.trim_start_matches("shm:");
    name.split('?').next().unwrap_or(name).to_owned()
}
