#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meshx_fuzz::link::link(data));
