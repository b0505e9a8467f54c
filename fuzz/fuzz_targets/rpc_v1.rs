#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meshx_fuzz::rpc_v1::rpc_v1(data));
