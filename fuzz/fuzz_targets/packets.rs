//! The parsers of both protocols, on arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::packets(data));
