//! The tables: their columns, once, for the planner, for the files and for people.

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Nanoseconds since 1970, UTC.
    Time,
    /// A double.
    Float,
    /// A signed 64-bit integer.
    Int,
    /// True or false.
    Bool,
    /// Text by text: `labels['pod']`.
    Map,
}

impl Kind {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "timestamp",
            Self::Float => "double",
            Self::Int => "bigint",
            Self::Bool => "boolean",
            Self::Map => "map",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
            Self::Float => DataType::Float64,
            Self::Int => DataType::Int64,
            Self::Bool => DataType::Boolean,
            Self::Map => DataType::Map(
                Arc::new(Field::new(
                    "entries",
                    DataType::Struct(
                        vec![
                            Field::new("key", DataType::Utf8, false),
                            Field::new("value", DataType::Utf8, true),
                        ]
                        .into(),
                    ),
                    false,
                )),
                false,
            ),
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct ColumnInfo {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it says.
    pub about: &'static str,
    required: bool,
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub struct TableInfo {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
    /// In order.
    pub columns: &'static [ColumnInfo],
}

impl TableInfo {
    pub(crate) fn schema(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|column| Field::new(column.name, column.kind.data_type(), !column.required));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A column that every row has.
const fn must(name: &'static str, kind: Kind, about: &'static str) -> ColumnInfo {
    ColumnInfo {
        name,
        kind,
        about,
        required: true,
    }
}

/// A column that may be null.
const fn may(name: &'static str, kind: Kind, about: &'static str) -> ColumnInfo {
    ColumnInfo {
        name,
        kind,
        about,
        required: false,
    }
}

const DEVICE: ColumnInfo = must("device", Kind::Text, "who said it");

const METRICS: TableInfo = TableInfo {
    name: "metrics",
    about: "a sample of a time series",
    columns: &[
        DEVICE,
        must("time", Kind::Time, "when it was measured, by the device's clock"),
        must("name", Kind::Text, "of the metric, as Prometheus has it"),
        must("labels", Kind::Map, "what makes it this series; not its name"),
        must(
            "value",
            Kind::Float,
            "a native histogram has two rows, its count and sum, as NAME_count and NAME_sum",
        ),
    ],
};

const LOGS: TableInfo = TableInfo {
    name: "logs",
    about: "a line that a container or the system wrote",
    columns: &[
        DEVICE,
        must("time", Kind::Time, "when it was written, by the device's clock"),
        may(
            "severity",
            Kind::Text,
            "trace, debug, info, warn, error or fatal; null where the line does not say",
        ),
        may(
            "source",
            Kind::Text,
            "what it was read from: container, journald, syslog, file",
        ),
        may("namespace", Kind::Text, "of the pod"),
        may("pod", Kind::Text, "which wrote it"),
        may("container", Kind::Text, "which wrote it"),
        must("body", Kind::Text, "the line"),
        must("attributes", Kind::Map, "anything more"),
        may("trace_id", Kind::Text, "hexadecimal"),
        may("span_id", Kind::Text, "hexadecimal"),
    ],
};

const TRACES: TableInfo = TableInfo {
    name: "traces",
    about: "a span",
    columns: &[
        DEVICE,
        must("time", Kind::Time, "its start, by the device's clock"),
        must("duration_ns", Kind::Int, "how long it took"),
        must("trace_id", Kind::Text, "hexadecimal"),
        must("span_id", Kind::Text, "hexadecimal"),
        may("parent_id", Kind::Text, "hexadecimal; null for a root"),
        may("service", Kind::Text, "service.name of its resource"),
        must("name", Kind::Text, "of the operation"),
        must(
            "kind",
            Kind::Text,
            "internal, server, client, producer, consumer or unspecified",
        ),
        must("status", Kind::Text, "ok, error or unset"),
        must("attributes", Kind::Map, "anything more"),
    ],
};

const ALERTS: TableInfo = TableInfo {
    name: "alerts",
    about: "an alert as a device told it: one row each time that it was told",
    columns: &[
        DEVICE,
        must("time", Kind::Time, "since when the state holds"),
        must("name", Kind::Text, "label alertname"),
        must("state", Kind::Text, "firing or resolved"),
        may("severity", Kind::Text, "label severity"),
        must("labels", Kind::Map, "all labels"),
        must("annotations", Kind::Map, "summary, description, ..."),
    ],
};

pub(crate) const DEVICES: TableInfo = TableInfo {
    name: "devices",
    about: "an enrolled device, as it may be believed now",
    columns: &[
        must("name", Kind::Text, "as enrolled"),
        must("class", Kind::Text, "hardware class"),
        must("site", Kind::Text, "where it stands"),
        must("labels", Kind::Map, "set at enrolment"),
        must("enrolled_at", Kind::Time, "when it joined"),
        must(
            "health",
            Kind::Text,
            "Ready, Progressing, Waiting, Paused, RolledBack, Degraded, Unknown or Revoked",
        ),
        must("message", Kind::Text, "why"),
        must("connected", Kind::Bool, "it has a session and is heard of"),
        may("last_seen", Kind::Time, "by the hub's clock"),
        may("agent", Kind::Text, "version of its agent"),
        may("backlog", Kind::Int, "records that wait in its spool"),
    ],
};

pub(crate) const WORKLOADS: TableInfo = TableInfo {
    name: "workloads",
    about: "a workload on a device, as the device said last",
    columns: &[
        must("device", Kind::Text, "where"),
        must("namespace", Kind::Text, "its namespace"),
        must("kind", Kind::Text, "Deployment, DaemonSet, ..."),
        must("name", Kind::Text, "its name"),
        must("state", Kind::Text, "Current, InProgress, Failed, ..."),
        must("ready", Kind::Int, "pods that are ready"),
        must("desired", Kind::Int, "pods that are wanted"),
        must("restarts", Kind::Int, "of its pods' containers, together"),
        must("images", Kind::Text, "separated by commas"),
        must("message", Kind::Text, "what is wrong, where something is"),
        must(
            "told_at",
            Kind::Time,
            "when the device said so, by the hub's clock",
        ),
    ],
};

pub(crate) const EVENTS: TableInfo = TableInfo {
    name: "events",
    about: "something that happened on a device",
    columns: &[
        DEVICE,
        must("time", Kind::Time, "by the device's clock"),
        must("received_at", Kind::Time, "by the hub's clock"),
        must("severity", Kind::Text, "Normal, Warning or Critical"),
        must("reason", Kind::Text, "a CamelCase word"),
        must("about", Kind::Text, "the object that it concerns"),
        must("message", Kind::Text, "for people"),
        may("generation", Kind::Text, "in force then"),
    ],
};

pub(crate) const STATUS: TableInfo = TableInfo {
    name: "status",
    about: "a device's newest status",
    columns: &[
        must("device", Kind::Text, "whose"),
        must("told_at", Kind::Time, "when it came, by the hub's clock"),
        must(
            "phase",
            Kind::Text,
            "ready, progressing, rolledBack, degraded, paused or waitingForSource",
        ),
        may("generation", Kind::Text, "in force"),
        may("last_good", Kind::Text, "the one to go back to"),
        may("candidate", Kind::Text, "on trial"),
        may("revision", Kind::Text, "commit of the one in force"),
        may(
            "source_error",
            Kind::Text,
            "why Git is not followed, where it is not",
        ),
        may("cpu_percent", Kind::Float, "busy share of all cores"),
        may("temperature_celsius", Kind::Float, "of the hottest zone"),
        must("memory_used", Kind::Int, "bytes"),
        must("memory_total", Kind::Int, "bytes"),
        must("disk_used", Kind::Int, "bytes, where the agent keeps its state"),
        must("disk_total", Kind::Int, "bytes"),
    ],
};

/// A telemetry stream whose records are kept as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Samples of time series.
    Metrics,
    /// OTLP logs.
    Logs,
    /// OTLP spans.
    Traces,
    /// Alertmanager's alerts.
    Alerts,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Logs, Self::Traces, Self::Alerts];

    /// The signal that a stream of this name carries.
    pub fn of_stream(stream: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == stream)
    }

    /// Name of the stream and of the table.
    pub fn name(self) -> &'static str {
        self.table().name
    }

    pub(crate) fn table(self) -> &'static TableInfo {
        match self {
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
            Self::Traces => &TRACES,
            Self::Alerts => &ALERTS,
        }
    }

    pub(crate) fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> =
            LazyLock::new(|| Signal::ALL.iter().map(|signal| signal.table().schema()).collect());
        SCHEMAS[self as usize].clone()
    }
}

/// Every table that a query may name, in the order in which people look for them.
pub fn tables() -> Vec<TableInfo> {
    let mut all: Vec<TableInfo> = Signal::ALL.iter().map(|signal| *signal.table()).collect();
    all.extend([DEVICES, WORKLOADS, EVENTS, STATUS]);
    all
}
