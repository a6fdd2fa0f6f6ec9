//! A limit order book, asked for anything in any order; and damaged images of one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::book(data));
