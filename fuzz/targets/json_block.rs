#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwatch::internals::oracle::json_block(bytes));
