//! Entries into records: read, redacted, bounded, gathered.

use super::guard::{Limits, Redaction, redact};
use super::read::{Level, Reading, read};
use super::{Batch, Entry, Rules, nanos, otlp};
use jiff::Timestamp;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use serde_json::Value;
use std::time::Duration;

/// A record is closed at this size.
const RECORD_BYTES: usize = 64 << 10;

/// What is known of every entry of a source: attributes of the OTLP resource, by OpenTelemetry's semantic conventions.
pub type Attributes = Vec<(String, String)>;

/// Gathers entries of one kind of source.
#[derive(Debug)]
pub struct Packer {
    attributes: Attributes,
    redactions: Vec<Redaction>,
    wait: Duration,
    limits: Limits,
    open: Option<Open>,
}

/// The record that is being filled.
#[derive(Debug)]
struct Open {
    file: String,
    upto: u64,
    since: Duration,
    bytes: usize,
    records: Vec<LogRecord>,
}

impl Packer {
    /// Gathers by `rules`.
    pub fn new(attributes: Attributes, rules: &Rules) -> Self {
        Self {
            attributes,
            redactions: rules.redactions.clone(),
            wait: rules.wait,
            limits: Limits::new(rules.per_second),
            open: None,
        }
    }

    /// Takes an entry; a record that is full is added to `batches`. `free` says that it counts against no limit, `now`
    /// is the wall's time, `since_boot` one that only rises.
    pub fn add(
        &mut self,
        entry: Entry,
        free: bool,
        now: Timestamp,
        since_boot: Duration,
        batches: &mut Vec<Batch>,
    ) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.file != entry.file || open.bytes >= RECORD_BYTES)
        {
            batches.extend(self.close(now));
        }
        let open = self.open.get_or_insert_with(|| Open {
            file: entry.file.clone(),
            upto: 0,
            since: since_boot,
            bytes: 0,
            records: Vec::new(),
        });
        // An entry that is turned away is taken too: it must not come again.
        open.upto = entry.upto;
        if !free && !self.limits.admits(&entry.said.whose, since_boot) {
            return;
        }
        let text = String::from_utf8_lossy(&entry.text);
        let mut reading = read(&redact(&text, &self.redactions));
        reading.level = reading.level.or(entry.said.level);
        for (name, value) in &entry.said.fields {
            let value = match value {
                Value::String(text) => redact(text, &self.redactions).into_owned().into(),
                other => other.clone(),
            };
            reading.fields.insert(name.clone(), value);
        }
        let record = otlp::record(&entry, reading, nanos(now));
        open.bytes += record.encoded_len();
        open.records.push(record);
    }

    /// The record that is being filled, if it has waited for long enough. To be called after each look at the source.
    pub fn due(&mut self, now: Timestamp, since_boot: Duration) -> Option<Batch> {
        self.limits.looked(since_boot);
        let open = self.open.as_ref()?;
        (since_boot.saturating_sub(open.since) >= self.wait)
            .then(|| self.close(now))
            .flatten()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// The record that is being filled, whatever it holds.
    pub fn close(&mut self, now: Timestamp) -> Option<Batch> {
        let mut open = self.open.take()?;
        for (whose, dropped) in self.limits.dropped() {
            open.records
                .push(self.told(&whose, dropped, open.upto, &open.file, now));
        }
        let record = otlp::encode(&self.attributes, &open.file, open.records);
        Some(Batch {
            file: open.file,
            upto: open.upto,
            record,
        })
    }

    /// What was turned away is an entry itself.
    fn told(&self, whose: &str, dropped: u64, upto: u64, file: &str, now: Timestamp) -> LogRecord {
        let of = if whose.is_empty() {
            String::new()
        } else {
            format!(" of {whose}")
        };
        let message = format!(
            "{dropped} entries{of} dropped: over {} a second",
            self.limits.per_second()
        );
        let mut reading = Reading {
            level: Some(Level::Warn),
            message,
            ..Reading::default()
        };
        reading
            .fields
            .insert("leeward.dropped".to_owned(), dropped.into());
        let entry = Entry {
            time: Some(now),
            stream: None,
            text: Vec::new(),
            said: super::Said::default(),
            file: file.to_owned(),
            upto,
        };
        otlp::record(&entry, reading, nanos(now))
    }
}
