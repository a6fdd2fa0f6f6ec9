//! A log whose files are damaged in arbitrary ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::log(data));
