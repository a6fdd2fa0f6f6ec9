//! Hellos and frames of bulk catch-up, on arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::bulk(data));
