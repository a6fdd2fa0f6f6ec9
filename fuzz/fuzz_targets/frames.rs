//! Ethernet frames: parsed, written, and damaged on the way.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::frames(data));
