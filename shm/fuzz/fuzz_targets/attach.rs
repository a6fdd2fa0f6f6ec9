//! Everything that attaches, on arbitrary bytes and on rings with arbitrary damage.
#![no_main]

#[path = "../src/entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::attach(data));
