#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwatch::tail::fuzzing::local_record(bytes));
