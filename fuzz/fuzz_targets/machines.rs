//! Sender and receiver, fed with arbitrary datagrams in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::machines(data));
