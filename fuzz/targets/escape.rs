#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| logwatch::model::oracle::escape(bytes));
