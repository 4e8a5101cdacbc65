//! The hub's telemetry sent onward: to Prometheus and its kin, Loki, OpenSearch, OTLP receivers, Alertmanager, Fluentd.
//!
//! Takes: staged records of the store, in the order of their arrival, through a cursor of each forwarder's own.
//! Gives: requests that a receiver may get twice (after a lost answer) and keeps once where it can tell; what it will
//! never take is set aside where people see it.
//! Never: holds up a device or another forwarder. One that is behind has its backlog bounded, and what that costs is
//! counted.

mod alertmanager;
mod api;
mod client;
mod config;
mod fluent;
mod labels;
mod loki;
mod opensearch;
mod otlp;
mod remote_write;
mod run;

pub(crate) use api::list;
pub use config::{BadForwarder, ForwarderConfig, ForwarderKind};
pub(crate) use run::{Board, start};

use crate::store::StagedRecord;
use labels::Place;
use std::time::Duration;

/// A record on its way, with where it is from.
#[derive(Debug, Clone)]
struct Item {
    record: StagedRecord,
    place: Place,
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    /// Behind the receiver's address.
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
}

/// What a receiver said of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It has everything, perhaps since an earlier try.
    Done,
    /// It has everything but so many entries, which it will never take; why.
    Partial(u64, String),
    /// Not now; when, if it said so.
    Later(Option<Duration>, String),
    /// The request is too large.
    Split,
    /// It will never take the request as it is.
    Poison(String),
}

/// What a receiver answered.
#[derive(Debug)]
struct Reply {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Reply {
    /// The start of what it says, in one line.
    fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).replace(['\n', '\r'], " ");
        format!("{} {}", self.status, text.trim())
    }

    /// By HTTP's own meaning: for receivers whose answer says no more.
    fn usual(&self) -> Outcome {
        match self.status {
            200..=299 => Outcome::Done,
            413 => Outcome::Split,
            // Wrong credentials or a wrong path say nothing of the records: waiting loses none of them.
            401 | 403 | 404 | 405 | 407 | 408 | 425 | 429 => Outcome::Later(self.retry_after, self.words()),
            300..=399 | 500..=599 => Outcome::Later(self.retry_after, self.words()),
            _ => Outcome::Poison(self.words()),
        }
    }
}

/// A record that cannot be made into a request: why.
#[derive(Debug)]
struct Unfit(String);
