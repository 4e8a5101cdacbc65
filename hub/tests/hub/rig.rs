//! What the tests need: a hub that can be stopped and started, devices with keys of their own, and a link that can be cut.

use bytes::Bytes;
use hub::{Hub, HubConfig};
use identity::{DeviceKeys, EnrolToken};
use jiff::Timestamp;
use kit::FakeClock;
use model::{ClassName, DeviceName, Event, Severity, Status};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::ApiClient;
use wire::api::NewToken;
use wire::client::{self, ConnectError, EnrolRequest, HubAddress, Orders, RenewRequest, Session};
use wire::frame::{Cursor, Hello, Records};

/// Everything must have happened by then, on however slow a machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits for `what`, or fails with its name.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not happen within {SOON:?}"),
    }
}

/// Waits until `check` gives something.
pub async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut check: F) -> T {
    within(what, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

pub fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

pub fn class() -> ClassName {
    "raspberry-pi-5".parse().unwrap()
}

/// A hub that runs until it is stopped.
pub struct RunningHub {
    pub hub: Arc<Hub>,
    pub address: SocketAddr,
    pub admin_token: Option<String>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningHub {
    pub async fn start(config: HubConfig) -> Self {
        let bound = Hub::build(config).await.unwrap();
        let (hub, address) = (bound.hub().clone(), bound.address());
        let admin_token = bound.admin_token().map(str::to_owned);
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let task = tokio::spawn(async move { bound.run(ended.cancelled_owned()).await });
        Self {
            hub,
            address,
            admin_token,
            stop,
            task,
        }
    }

    pub fn at(&self) -> HubAddress {
        self.address.to_string().parse().unwrap()
    }

    /// Stops it in order, and waits until its state is free for the next one.
    pub async fn stop(self) {
        self.stop.cancel();
        within("the hub's stop", self.task).await.unwrap();
        let hub = self.hub;
        until("the end of the hub's last task", async || {
            (Arc::strong_count(&hub) == 1).then_some(())
        })
        .await;
        // The store's thread ends a moment after its last handle.
        let data = hub.config().data.clone();
        drop(hub);
        let mut before = None;
        until("the end of the database", async || {
            let now = Some(sizes(&data));
            tokio::time::sleep(Duration::from_millis(50)).await;
            (std::mem::replace(&mut before, now.clone()) == now).then_some(())
        })
        .await;
    }
}

fn sizes(dir: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let size = |entry: std::fs::DirEntry| (entry.file_name(), entry.metadata().map_or(0, |m| m.len()));
    let mut sizes: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(size).collect();
    sizes.sort();
    sizes
}

/// A data folder, a clock, and a hub on them.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub clock: FakeClock,
    pub running: RunningHub,
    pub api: ApiClient,
    pub admin_token: String,
}

pub fn config(data: &Path, clock: &FakeClock) -> HubConfig {
    let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), data.join("hub"));
    config.clock = Arc::new(clock.clone());
    config.heartbeat = Duration::from_secs(5);
    config
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut HubConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = FakeClock::at(Timestamp::now());
        let mut config = config(dir.path(), &clock);
        change(&mut config);
        let running = RunningHub::start(config).await;
        let admin_token = running.admin_token.clone().unwrap();
        let api = api(&running, &admin_token);
        Self {
            dir,
            clock,
            running,
            api,
            admin_token,
        }
    }

    /// Stops the hub and starts it again on the same state and port.
    pub async fn restart(self) -> Self {
        self.restart_after(|| {}).await
    }

    /// The same, with something done while it is down.
    pub async fn restart_after(self, between: impl FnOnce()) -> Self {
        self.restart_with_after(|_| {}, between).await
    }

    /// The same with other settings.
    pub async fn restart_with(self, change: impl FnOnce(&mut HubConfig)) -> Self {
        self.restart_with_after(change, || {}).await
    }

    /// Both.
    pub async fn restart_with_after(
        self,
        change: impl FnOnce(&mut HubConfig),
        between: impl FnOnce(),
    ) -> Self {
        let Self {
            dir,
            clock,
            running,
            admin_token,
            ..
        } = self;
        let address = running.address;
        running.stop().await;
        between();
        let mut config = config(dir.path(), &clock);
        config.listen = address;
        change(&mut config);
        let running = RunningHub::start(config).await;
        assert_eq!(
            running.admin_token, None,
            "a second start makes no second administrator"
        );
        let api = api(&running, &admin_token);
        Self {
            dir,
            clock,
            running,
            api,
            admin_token,
        }
    }

    pub fn at(&self) -> HubAddress {
        self.running.at()
    }

    pub async fn token(&self) -> EnrolToken {
        self.api
            .create_token(&NewToken::default())
            .await
            .unwrap()
            .token
            .parse()
            .unwrap()
    }

    /// A device with a clock of its own, not enrolled.
    pub fn stranger(&self, name: &str) -> Device {
        self.stranger_at(name, kit::Clock::now(&self.clock))
    }

    pub fn stranger_at(&self, text: &str, wall: Timestamp) -> Device {
        let clock = FakeClock::at(wall);
        let dir = self.dir.path().join(text);
        let keys = DeviceKeys::open(&dir, Arc::new(clock.clone())).unwrap();
        Device {
            name: name(text),
            keys,
            clock,
            dir,
            next: 1,
        }
    }

    pub async fn device(&self, name: &str) -> Device {
        let mut device = self.stranger(name);
        let token = self.token().await;
        device.enrol(&self.at(), &token).await.unwrap();
        device
    }
}

pub fn api(running: &RunningHub, token: &str) -> ApiClient {
    ApiClient::new(
        running.at(),
        identity::tls::person(&running.hub.ca()).unwrap(),
        token,
    )
}

/// A device as an agent would be, as far as the hub is concerned.
pub struct Device {
    pub name: DeviceName,
    pub keys: DeviceKeys,
    pub clock: FakeClock,
    pub dir: std::path::PathBuf,
    /// Number of the next record.
    pub next: u64,
}

pub const EPOCH: u64 = 7;

impl Device {
    pub async fn enrol(&mut self, hub: &HubAddress, token: &EnrolToken) -> Result<(), ConnectError> {
        let requests = self.keys.requests(&self.name).unwrap();
        let request = EnrolRequest {
            token: token.reveal(),
            device: self.name.clone(),
            class: class(),
            identity_csr: requests.identity_csr.clone(),
            operational_csr: requests.operational_csr.clone(),
        };
        let answer = client::enrol(hub, self.keys.enrol_tls(token).unwrap(), &request).await?;
        self.keys
            .store_enrolment(
                token,
                &requests,
                &answer.identity,
                &answer.operational,
                &answer.bundle,
            )
            .unwrap();
        Ok(())
    }

    pub async fn renew(&mut self, hub: &HubAddress) -> Result<(), ConnectError> {
        let requests = self.keys.requests(&self.name).unwrap();
        let request = RenewRequest {
            operational_csr: requests.operational_csr.clone(),
            bundle_serial: self.keys.bundle_serial(),
        };
        let answer = client::renew(hub, self.keys.renew_tls().unwrap(), &request).await?;
        self.keys
            .store_renewal(
                &requests,
                answer.identity.as_deref(),
                &answer.operational,
                answer.bundle.as_ref(),
            )
            .unwrap();
        Ok(())
    }

    pub fn hello(&self) -> Hello {
        Hello {
            versions: wire::OURS,
            device: self.name.clone(),
            class: class(),
            agent: "0.1.0-test".into(),
            boot_id: "boot".into(),
            nonce: identity::TimeKeeper::nonce(),
            bundle_serial: self.keys.bundle_serial(),
            last_intent: self.keys.last_intent(),
            status: None,
            status_at: None,
        }
    }

    pub async fn connect(&mut self, hub: &HubAddress) -> Result<(Session, Orders), ConnectError> {
        let hello = self.hello();
        let nonce = hello.nonce.clone();
        let (session, orders) = Session::connect(hub, self.keys.session_tls().unwrap(), hello).await?;
        let welcome = session.welcome();
        if let Some(bundle) = &welcome.bundle {
            assert!(self.keys.accept_bundle(bundle).unwrap());
        }
        self.keys.prove_time(&welcome.time, &nonce).unwrap();
        Ok((session, orders))
    }

    /// A batch of the next `count` events.
    pub fn batch(&mut self, count: u64) -> Records {
        let first = self.next;
        self.next += count;
        let records = (first..self.next).map(|n| json(&event(n))).collect();
        Records::new("events", EPOCH, first, records)
    }

    /// Opens its folder anew, as after a restart.
    pub fn reopen(&mut self) {
        self.keys = DeviceKeys::open(&self.dir, Arc::new(self.clock.clone())).unwrap();
    }
}

pub fn at(upto: u64) -> Cursor {
    Cursor { epoch: EPOCH, upto }
}

pub fn event(number: u64) -> Event {
    Event {
        time: Timestamp::UNIX_EPOCH,
        severity: Severity::Normal,
        reason: "Started".into(),
        about: "Deployment.apps/edge/web".into(),
        message: format!("event {number}"),
        generation: None,
    }
}

pub fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}

pub fn status(device: &DeviceName, generation: &str) -> Status {
    serde_json::from_value(serde_json::json!({
        "device": device, "class": class(), "time": "2026-11-24T12:00:00Z", "bootId": "boot", "agent": "0.1.0-test",
        "phase": "ready",
        "conditions": [{ "type": "Ready", "status": "True", "reason": "Healthy", "message": "all is well",
                         "lastTransitionTime": "2026-11-24T12:00:00Z" }],
        "source": { "url": "https://git.example/fleet" },
        "generation": { "current": generation },
        "workloads": [], "facts": {},
    }))
    .unwrap()
}

/// A proxy in front of a hub: counts bytes, cuts links.
pub struct Link {
    pub address: HubAddress,
    /// Bytes that each connection may carry upward before it is cut; changes apply at once.
    pub allowance: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let (allowance, allowed) = watch::channel(u64::MAX);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let allowed = allowed.clone();
                tokio::spawn(async move {
                    if let Ok(up) = TcpStream::connect(hub).await {
                        carry(tcp, up, allowed).await;
                    }
                });
            }
        });
        Self {
            address,
            allowance,
            task,
        }
    }
}

async fn carry(device: TcpStream, hub: TcpStream, mut allowed: watch::Receiver<u64>) {
    let (mut from_device, mut to_device) = device.into_split();
    let (mut from_hub, mut to_hub) = hub.into_split();
    let allowance = allowed.clone();
    let down = tokio::io::copy(&mut from_hub, &mut to_device);
    let up = async {
        let mut sent = 0;
        let mut buffer = [0; 1024];
        while let Ok(count) = from_device.read(&mut buffer).await {
            let left = allowance.borrow().saturating_sub(sent);
            let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 || to_hub.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            sent += count as u64;
        }
    };
    let cut = async {
        let _ = allowed.wait_for(|left| *left == 0).await;
    };
    tokio::select! {
        _ = down => {}
        () = up => {}
        () = cut => {}
    }
}
