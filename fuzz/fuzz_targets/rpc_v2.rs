#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meshx_fuzz::rpc_v2::rpc_v2(data));
