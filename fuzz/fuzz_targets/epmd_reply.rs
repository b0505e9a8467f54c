#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meshx_fuzz::dist::epmd_reply(data));
