//! The hub's process, and a device that sends to it until it dies.
#![expect(clippy::unwrap_used, reason = "a test's tool may panic")]

use crate::device::Device;
use bytes::Bytes;
use jiff::Timestamp;
use kit::disk;
use model::{Event, Severity};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wire::client::HubAddress;
use wire::frame::Records;

/// Where the child finds and leaves its files.
pub const DIR: &str = "LEEWARD_CRASH_TEST_DIR";
/// Records in one batch.
pub const BATCH: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH: u64 = 0xdead;

/// A hub's process that does not outlive the test.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn start(dir: &Path) -> Self {
        disk::remove_if_there(&dir.join("address")).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hub_process", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub async fn address(&mut self, dir: &Path) -> HubAddress {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(text) = disk::read_if_there(&dir.join("address")).unwrap() {
                return String::from_utf8(text).unwrap().parse().unwrap();
            }
            let ended = self.0.try_wait().unwrap();
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no hub: {ended:?}\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, as by an operator or the kernel.
    fn kill(mut self) {
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(9));
    }
}

/// What is sent: its stream, and the record with a number.
pub type What = (&'static str, fn(u64) -> Bytes);

pub fn event(number: u64) -> Bytes {
    let event = Event {
        time: Timestamp::UNIX_EPOCH,
        severity: Severity::Normal,
        reason: "Counted".into(),
        about: "device".into(),
        message: format!("event {number}"),
        generation: None,
    };
    serde_json::to_vec(&event).unwrap().into()
}

/// Sends from `sent` on until the hub dies; gives what was acknowledged last.
pub async fn send(
    device: &Device,
    hub: &HubAddress,
    mut acknowledged: u64,
    kill_after: Duration,
    process: Process,
    (stream, record): What,
) -> u64 {
    let (session, _orders) = device.connect(hub).await.unwrap();
    let held = session.welcome().cursors.get(stream).copied().unwrap_or_default();
    assert!(
        held.upto >= acknowledged,
        "acknowledged up to {acknowledged}, but the hub has {held:?}"
    );
    let mut acks = session.acks();
    let sending = async {
        // From what was acknowledged: the device cannot know that the hub has more.
        let mut first = acknowledged + 1;
        while session
            .sender()
            .records(Records::new(
                stream,
                EPOCH,
                first,
                (first..first + BATCH).map(record).collect(),
            ))
            .await
            .is_ok()
        {
            first += BATCH;
            // What was sent and not acknowledged is bounded, as a spool's window is.
            let behind = acks
                .wait_for(|held| held.get(stream).is_some_and(|at| at.upto + 20 * BATCH >= first))
                .await;
            if behind.is_err() {
                return;
            }
        }
    };
    tokio::join!(
        async {
            tokio::time::sleep(kill_after).await;
            process.kill();
        },
        async {
            tokio::select! {
                () = sending => {}
                _ = session.ended() => {}
            }
        }
    );
    if let Some(at) = session.acks().borrow().get(stream) {
        acknowledged = acknowledged.max(at.upto);
    }
    acknowledged
}
