//! What the tests need: a store on a clock that the test owns, and believable records.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use bytes::Bytes;
use hub::store::{Batch, NewCertificate, NewToken, Options, Store};
use jiff::{SignedDuration, Timestamp};
use kit::FakeClock;
use model::{DeviceName, Event, Facts, GenerationStatus, Phase, Severity, Status};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A moment that all tests start at.
pub fn start() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// Opens a store on `clock`.
pub fn open(dir: &Path, clock: &FakeClock) -> Store {
    let options = Options {
        clock: Arc::new(clock.clone()),
        ..Options::default()
    };
    Store::open_with(dir, options).unwrap()
}

pub fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

/// A token that lets `uses` devices of any class in, for a day from [`start`].
pub fn token(uses: u32) -> NewToken {
    NewToken {
        class: None,
        site: "harbour".into(),
        labels: BTreeMap::from([("ring".into(), "first".into())]),
        replaces: false,
        uses,
        expires_at: start() + SignedDuration::from_hours(24),
    }
}

pub fn certificate(serial: &str) -> NewCertificate {
    NewCertificate {
        serial: serial.into(),
        kind: "identity".into(),
        key: format!("key-of-{serial}"),
        not_after: start() + SignedDuration::from_hours(24 * 365),
    }
}

/// Enrols a device with a token of its own.
pub async fn enrol(store: &Store, device: &str) -> DeviceName {
    let secret = format!("token-for-{device}");
    store.create_token(&secret, token(1), "test").await.unwrap();
    let device = name(device);
    let class = "raspberry-pi-5".parse().unwrap();
    let serial = format!("serial-{device}");
    store
        .enrol(&secret, &device, &class, vec![certificate(&serial)])
        .await
        .unwrap();
    device
}

pub fn status(device: &str, phase: Phase, current: &str) -> Status {
    Status {
        device: name(device),
        class: "raspberry-pi-5".parse().unwrap(),
        time: start(),
        boot_id: "boot".into(),
        kustomizations: Vec::new(),
        agent: "0.1.0".into(),
        phase,
        conditions: Vec::new(),
        source: Default::default(),
        generation: GenerationStatus {
            current: Some(current.into()),
            ..Default::default()
        },
        notes: Vec::new(),
        workloads: Vec::new(),
        facts: Facts::default(),
        why: Default::default(),
    }
}

pub fn event(message: &str) -> Event {
    Event {
        time: start(),
        severity: Severity::Normal,
        reason: "Started".into(),
        about: "Deployment.apps/edge/web".into(),
        message: message.into(),
        generation: None,
    }
}

pub fn json<T: serde::Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}

pub fn batch(stream: &str, epoch: u64, records: impl IntoIterator<Item = (u64, Bytes)>) -> Batch {
    Batch {
        stream: stream.into(),
        epoch,
        records: records.into_iter().collect(),
        lost: Vec::new(),
        unused: Vec::new(),
    }
}

/// A small file system of its own, gone at the end.
pub struct Small(tempfile::TempDir);

impl Small {
    /// `None`, said aloud, where nothing may be mounted (an error under `CI=true`).
    pub fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, size.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(err) => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "cannot mount a tmpfs: {err}"
                );
                #[expect(clippy::print_stderr, reason = "a skipped test says so")]
                {
                    eprintln!("SKIPPED: cannot mount a tmpfs: {err}");
                }
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
