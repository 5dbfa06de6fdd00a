//! Input from callers: messages, pasted tokens, keys, cursors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_vault::fuzzing::caller(data));
