//! Input from the provider: bodies and headers of the Graph API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_vault::fuzzing::graph(data));
