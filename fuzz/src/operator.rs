//! Input from the operator: configuration, key files, certificates, cron expressions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_vault::fuzzing::operator(data));
