//! An engine under any commands, the folds of its stream, and damaged images.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::orders(data));
