//! A live ring, changed under its producer and readers between their operations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_shm_fuzz::mutate(data));
