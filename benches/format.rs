//! Batches to bytes: `output::Printer` in each format, on messages in each encoding, to `/dev/null`.
//!
//! Bytes are bytes of message, not of what is made of them.

use criterion::{BenchmarkId, Criterion, Throughput};
use logwatch::internals::model::{
    Batch, Container, ContainerKey, Encoding, Head, Item, Line, Part, Route, Stream, Timestamp,
};
use logwatch::internals::output::{Ansi, LogFormat, OutputFormat, Printer, PrinterSettings, When};
use std::error::Error;
use std::sync::Arc;

const SIZE: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let plain = format!("GET /api/v1/items/1234 200 12ms {}", "x".repeat(100));
    let escaped = r#"{\"level\":\"info\",\"msg\":\"GET /\",\"path\":\"C:\\\\tmp\\\\a\",\"status\":200,\"took_ms\":12}"#;
    let raw = r#"{"level":"info","msg":"GET /","path":"C:\\tmp\\a","status":200,"took_ms":12}"#;
    for (name, format, timestamps) in [
        ("text", OutputFormat::Text, false),
        ("text-t", OutputFormat::Text, true),
        ("json", OutputFormat::Json, false),
        ("raw", OutputFormat::Raw, false),
    ] {
        let mut group = criterion.benchmark_group(format!("format/{name}"));
        for (shape, encoding, message) in
            [("plain", Encoding::Plain, &*plain), ("escaped", Encoding::Json, escaped), ("stream", Encoding::Raw, raw)]
        {
            let (item, bytes) = batch(encoding, message);
            let mut printer = printer(format, timestamps)?;
            group.throughput(Throughput::Bytes(bytes));
            group.bench_with_input(BenchmarkId::from_parameter(shape), &item, |bencher, item| {
                bencher.iter(|| printer.take(item).and_then(|()| printer.flush()).map_err(|error| error.to_string()));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

fn printer(format: OutputFormat, timestamps: bool) -> Result<Printer, Box<dyn Error>> {
    let mut printer = Printer::open(PrinterSettings {
        format,
        timestamps,
        metadata: false,
        lifecycle: false,
        ansi: Ansi::Auto,
        color: When::Never,
        stream: None,
        include: Vec::new(),
        exclude: Vec::new(),
        file: Some("/dev/null".into()),
        quiet: true,
        log_format: LogFormat::Text,
    })?;
    let container = Container { id: "0123456789abcdef".repeat(4), name: "web-1".into(), ..Container::default() };
    printer.take(&Item::Describe(ContainerKey(0), Arc::new(container)))?;
    Ok(printer)
}

/// As many copies of the message as fit, a microsecond apart.
fn batch(encoding: Encoding, message: &str) -> (Item, u64) {
    let count = SIZE / message.len();
    let lines = (0..count).map(|number| {
        let time = Timestamp(1_795_215_653_037_882_171 + number as i64 * 1000);
        let head = Head { time, ordinal: 0, stream: Stream::Stdout, encoding, part: Part::Whole };
        Line::read(head, number * message.len(), message.len())
    });
    let bytes = message.repeat(count).into_bytes();
    let size = bytes.len() as u64;
    (Item::Lines(Batch::new(ContainerKey(0), Route::File, bytes, lines.collect())), size)
}
