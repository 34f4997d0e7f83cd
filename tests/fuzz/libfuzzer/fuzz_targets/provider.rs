//! See `provider` in `tests/fuzz/targets.rs`.
#![no_main]

#[path = "../../targets.rs"]
#[allow(dead_code, unused_imports)] // one of its functions is used here
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::provider(data));
