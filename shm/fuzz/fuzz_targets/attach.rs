//! Everything that attaches, on arbitrary bytes and on rings with arbitrary damage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_shm_fuzz::attach(data));
