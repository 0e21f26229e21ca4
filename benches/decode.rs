//! Log files to batches: `tail::LogReader` on a real file, whole, into a queue whose other end throws the lines away.
//!
//! Throughput is in bytes of log. Each run reads the file from the page cache and measures what the reader thread does:
//! read, check UTF-8, decode records, join pieces.

use criterion::{BenchmarkId, Criterion, Throughput};
use logwatch::internals::model::{ContainerKey, Item, Queue};
use logwatch::internals::tail::{Command, Follow, LogReader, Start, Wake, Window};
use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::{fs, thread};

const SIZE: usize = 16 << 20;
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ATTRS: &str = r#""attrs":{"com.docker.compose.service":"web","tag":"web-1"},"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decode");
    let plain = format!("GET /api/v1/items/1234 200 12ms {}", "x".repeat(100));
    let escaped = r#"{\"level\":\"info\",\"msg\":\"GET /\",\"path\":\"C:\\\\tmp\\\\a\",\"status\":200,\"took_ms\":12}"#;
    let piece = "p".repeat(16 * 1024);
    for (name, records) in [
        ("plain", vec![record(&plain, true, "")]),
        ("escaped", vec![record(escaped, true, "")]),
        ("attrs", vec![record(&plain, true, ATTRS)]),
        ("pieces", [false, false, true].map(|is_last| record(&piece, is_last, "")).to_vec()),
    ] {
        let folder = tempfile::tempdir()?;
        let log = records.concat().repeat(SIZE / records.concat().len() + 1);
        fs::write(folder.path().join(format!("{ID}-json.log")), &log)?;
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), folder.path(), |bencher, folder| {
            bencher.iter(|| read(folder).map_err(|error| error.to_string()));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// All of it on one time: pieces of a line share theirs, and whole lines may.
fn record(message: &str, is_last: bool, attrs: &str) -> String {
    let end = if is_last { "\\n" } else { "" };
    format!("{{\"log\":\"{message}{end}\",\"stream\":\"stdout\",{attrs}\"time\":\"2026-11-20T23:00:53.037882171Z\"}}\n")
}

/// From opening the file to its last line; how many there were.
fn read(folder: &Path) -> Result<usize, Box<dyn Error>> {
    let wake = Wake::new()?;
    let on_room = wake.clone();
    let queue = Arc::new(Queue::new(8 << 20, move || on_room.wake()));
    let (commands, received) = mpsc::channel();
    let reader = LogReader::new(Arc::clone(&queue), wake.clone(), received, drop)?;
    let key = ContainerKey(0);
    commands.send(Command::Follow(Box::new(Follow {
        key,
        id: ID.to_owned(),
        folder: folder.to_owned(),
        start: Start::All,
        position: None,
        window: Window::default(),
        max_line_size: 1 << 20,
        once: true,
        is_held: false,
        on_open: Vec::new(),
    })))?;
    commands.send(Command::Finish(key, vec![Item::Deselected(key)]))?;
    wake.wake();
    let thread = thread::spawn(move || reader.run());
    let (mut items, mut lines, mut is_done) = (VecDeque::new(), 0, false);
    while !is_done && queue.take(&mut items, None) {
        for item in items.drain(..) {
            match &item {
                Item::Lines(batch) => lines += batch.lines.len(),
                item => is_done |= matches!(item, Item::Deselected(_)),
            }
            queue.finish(item);
        }
    }
    drop(commands);
    wake.wake();
    thread.join().map_err(|_| "the reader panicked")?;
    Ok(lines)
}
