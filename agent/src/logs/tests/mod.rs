mod compression;
mod files;
mod journald;
mod syslog;

use super::{Intake, LOGS, Sourced};
use crate::journal::Journal;
use crate::uplink::SINK;
use kit::{Clock, SystemClock};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use spool::{Class, Durability, Spool, Stream};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use telemetry::logs::{Format, Rules, Together, trim};

/// Far beyond what a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A line as the hub has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    body: String,
    severity: String,
    attributes: BTreeMap<String, String>,
}

/// A device's spool, and a hub that takes what is in it while the link is up.
struct Rig {
    dir: tempfile::TempDir,
    lives: u32,
    clock: Arc<dyn Clock>,
    spool: Spool,
    logs: Stream,
    events: Stream,
    /// What the hub knows: how far each source is, and each line that it keeps.
    held: BTreeMap<String, u64>,
    lines: Vec<Line>,
    cursor: u64,
    link: bool,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (spool, logs, events) = open(&dir.path().join("spool-0"));
        Self {
            dir,
            lives: 0,
            clock,
            spool,
            logs,
            events,
            held: BTreeMap::new(),
            lines: Vec::new(),
            cursor: 0,
            link: true,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sourced(&self, prefix: &'static str) -> Sourced {
        Sourced {
            clock: Arc::clone(&self.clock),
            events: Journal::new(self.events.clone(), Arc::clone(&self.clock)),
            intake: Intake::new(self.spool.clone(), self.logs.clone(), prefix),
        }
    }

    /// As after `kill -9`: what was in memory is gone.
    fn crash(&mut self) {
        let from = self.path(&format!("spool-{}", self.lives));
        self.lives += 1;
        let to = self.path(&format!("spool-{}", self.lives));
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
        (self.spool, self.logs, self.events) = open(&to);
        self.logs.skip_ahead();
    }

    /// What the hub does, while the link is up.
    fn deliver(&mut self) {
        if !self.link {
            return;
        }
        loop {
            let records = self.logs.read(self.cursor, 1 << 20).unwrap();
            let Some(last) = records.last() else { return };
            self.cursor = last.seq;
            for record in &records {
                let held = |source: &str| Ok::<_, std::convert::Infallible>(self.held.get(source).copied());
                let trimmed = trim(record.payload.clone().into(), held).unwrap();
                self.held.extend(trimmed.places);
                self.lines.extend(lines(&trimmed.record));
            }
            self.logs.ack(SINK, self.cursor).unwrap();
        }
    }

    /// Waits until the hub has so many lines.
    async fn until(&mut self, count: usize) {
        let end = std::time::Instant::now() + DEADLINE;
        while self.lines.len() < count {
            self.deliver();
            assert!(
                std::time::Instant::now() < end,
                "{} of {count} lines: {:#?}",
                self.lines.len(),
                self.lines
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an event of this reason was told.
    async fn told(&self, reason: &str) -> String {
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let events = self.events.read(0, 1 << 20).unwrap();
            let texts = events
                .iter()
                .map(|it| String::from_utf8_lossy(&it.payload).into_owned());
            if let Some(text) = texts.into_iter().find(|text| text.contains(reason)) {
                return text;
            }
            assert!(std::time::Instant::now() < end, "{reason} was not told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn bodies(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.body.as_str()).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        // A temporary file may be gone by now.
        let _ = std::fs::copy(from, to);
    }
}

fn open(dir: &Path) -> (Spool, Stream, Stream) {
    let (spool, _) = Spool::open(dir, spool::Options::default()).unwrap();
    let logs = spool.stream(LOGS, Durability::Replayable, Class::Bulk).unwrap();
    let events = spool
        .stream(crate::journal::EVENTS, Durability::Strict, Class::Normal)
        .unwrap();
    logs.attach(SINK).unwrap();
    events.attach(SINK).unwrap();
    (spool, logs, events)
}

fn rules() -> Rules {
    Rules {
        format: Format::Plain,
        together: Together::Never,
        redactions: vec![telemetry::logs::Redaction::parse(":bearer").unwrap()],
        per_second: 1000,
        wait: Duration::from_millis(50),
    }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn lines(record: &[u8]) -> Vec<Line> {
    let request = ExportLogsServiceRequest::decode(record).unwrap();
    let mut lines = Vec::new();
    for resource in request.resource_logs {
        let shared = resource.resource.unwrap_or_default().attributes;
        for log in resource
            .scope_logs
            .into_iter()
            .flat_map(|scope| scope.log_records)
        {
            let pair = |pair: &KeyValue| (pair.key.clone(), text(pair.value.as_ref()));
            lines.push(Line {
                body: text(log.body.as_ref()),
                severity: log.severity_text,
                attributes: shared.iter().chain(&log.attributes).map(pair).collect(),
            });
        }
    }
    lines
}

/// False, loudly, where a program is missing; on CI it must not be.
#[expect(clippy::print_stderr, reason = "what was skipped is to be seen")]
fn have(program: &str) -> bool {
    let there = Path::new(program).exists()
        || std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    assert!(there || std::env::var_os("CI").is_none(), "{program} is missing");
    if !there {
        eprintln!("SKIPPED: {program} is missing");
    }
    there
}
