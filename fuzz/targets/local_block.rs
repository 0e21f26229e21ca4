#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwatch::tail::oracle::local_block(bytes));
