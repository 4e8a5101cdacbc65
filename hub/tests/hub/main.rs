//! A real hub in this process and real devices against it, over TLS on loopback.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

mod enrolment;
mod fluent;
mod forward;
mod history;
mod hostile;
mod images;
mod lifecycle;
mod otlp;
mod people;
mod receiver;
mod records;
mod rig;
mod rollouts;
mod time;
mod uplink;
