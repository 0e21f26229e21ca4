#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwatch::docker::fuzzing::events(bytes));
