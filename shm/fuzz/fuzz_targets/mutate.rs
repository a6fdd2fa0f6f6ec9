//! A live ring, changed under its producer and readers between their operations.
#![no_main]

#[path = "../src/entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::mutate(data));
