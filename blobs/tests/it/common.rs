//! What the tests share: a real registry, images made by hand, a link that breaks.

use blobs::oci::{self, ConfigFile, Descriptor, ImageConfig, Manifest, RootFs};
use blobs::{Endpoint, Images, Patience, Quota, Registries, RegistryConfig, Store, UnpackOptions};
use model::{Digest, Platform};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whether a program is there; without it the test is skipped loudly, or fails in CI.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(
        found || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{program} is not installed; apt-get install it"
    );
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Debian's docker-registry, stopped when dropped.
pub struct DockerRegistry {
    child: Option<Child>,
    pub address: SocketAddr,
    pub dir: TempDir,
    config: PathBuf,
    scheme: &'static str,
}

impl DockerRegistry {
    pub fn start() -> Self {
        Self::with("", "")
    }

    /// `http` and `auth` are YAML put below those keys of its configuration; `DIR` in them is its folder.
    pub fn with(http: &str, auth: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), http, auth)
    }

    pub fn in_dir(dir: TempDir, http: &str, auth: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = dir.path().to_str().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n{}{}",
            http.replace("DIR", root),
            auth.replace("DIR", root),
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut registry = Self {
            child: None,
            address,
            config: path,
            dir,
            scheme: if http.contains("tls:") { "https" } else { "http" },
        };
        registry.resume();
        registry
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn resume(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "docker-registry does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn impatient() -> Patience {
    Patience {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(20),
        failures: 4,
        connect: Duration::from_secs(10),
        silence: Duration::from_secs(20),
    }
}

/// The client with `r.test` at `url`, plain http allowed.
pub fn registries(url: &str) -> Registries {
    let registries = Registries::new(impatient());
    registries
        .configure("r.test", RegistryConfig::at(Endpoint::plain(url)))
        .unwrap();
    registries
}

pub fn store(dir: &Path) -> Store {
    let quota = Quota {
        keep_free: 0,
        ..Quota::default()
    };
    // What a test stopped may still end its last write on a blocking thread, and holds the store until then.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Store::open(&dir.join("store"), quota) {
            Err(blobs::StoreError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.unwrap(),
        }
    }
}

pub fn images(dir: &Path, registries: &Registries) -> Images {
    let options = UnpackOptions {
        keep_free: 0,
        ..UnpackOptions::for_this_process()
    };
    Images::open(&dir.join("images"), store(dir), registries.clone(), options).unwrap()
}

/// Bytes that do not compress, the same at each call.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What to put into a layer.
pub enum Put<'a> {
    Dir(u32),
    File(u32, &'a [u8]),
    Symlink(&'a str),
    Hardlink(&'a str),
}

/// A plain tar of these.
pub fn tar(entries: &[(&str, Put<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, put) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match put {
            Put::Dir(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            Put::File(mode, data) => {
                header.set_mode(*mode);
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, path, *data).unwrap();
            }
            Put::Symlink(to) | Put::Hardlink(to) => {
                let link = if matches!(put, Put::Symlink(_)) {
                    tar::EntryType::Symlink
                } else {
                    tar::EntryType::Link
                };
                header.set_entry_type(link);
                header.set_mode(0o777);
                builder.append_link(&mut header, path, to).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    Platform {
        os: parts.next().unwrap(),
        architecture: parts.next().unwrap(),
        variant: parts.next(),
    }
}

/// Puts an image of these plain layers into the store; each is compressed as its media type's end says.
pub fn image(
    store: &Store,
    platform: &Platform,
    layers: &[(Vec<u8>, &str)],
    config: ImageConfig,
) -> Descriptor {
    let mut diff_ids = Vec::new();
    let mut blobs = Vec::new();
    for (plain, compression) in layers {
        diff_ids.push(Digest::of(plain));
        let bytes = match *compression {
            "+gzip" => gzip(plain),
            "+zstd" => zstd::encode_all(plain.as_slice(), 3).unwrap(),
            _ => plain.clone(),
        };
        let kind = format!("application/vnd.oci.image.layer.v1.tar{compression}");
        blobs.push(Descriptor::new(
            &kind,
            store.put(&bytes).unwrap(),
            bytes.len() as u64,
        ));
    }
    let config = ConfigFile {
        created: None,
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids,
        },
    };
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(oci::CONFIG, store.put(&config).unwrap(), config.len() as u64),
        layers: blobs,
        subject: None,
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    Descriptor {
        platform: Some(platform.clone()),
        ..Descriptor::new(
            oci::MANIFEST,
            store.put(&manifest).unwrap(),
            manifest.len() as u64,
        )
    }
}

/// An index of these in the store.
pub fn index(store: &Store, manifests: Vec<Descriptor>) -> Digest {
    let index = oci::Index {
        schema_version: 2,
        media_type: oci::INDEX.to_owned(),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: Default::default(),
    };
    store.put(&serde_json::to_vec(&index).unwrap()).unwrap()
}

/// A link that breaks: each connection carries as many bytes towards the client as its turn in `cuts` says, and is
/// closed then; when the list is used up, connections live.
pub struct Link {
    pub address: SocketAddr,
    cuts: Cuts,
    cuts_up: Cuts,
    hang: Arc<std::sync::atomic::AtomicBool>,
    carried: Arc<AtomicU64>,
    carried_up: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

type Cuts = Arc<Mutex<std::collections::VecDeque<u64>>>;

impl Link {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Self {
            address: listener.local_addr().unwrap(),
            cuts: Arc::default(),
            cuts_up: Arc::default(),
            hang: Arc::default(),
            carried: Arc::default(),
            carried_up: Arc::default(),
            connections: Arc::default(),
        };
        let (cuts, cuts_up) = (link.cuts.clone(), link.cuts_up.clone());
        let (carried, carried_up) = (link.carried.clone(), link.carried_up.clone());
        let (connections, hang) = (link.connections.clone(), link.hang.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                connections.fetch_add(1, Ordering::SeqCst);
                let turn = |cuts: &Cuts| cuts.lock().unwrap().pop_front().unwrap_or(u64::MAX);
                let (down, up) = (turn(&cuts), turn(&cuts_up));
                let (carried, carried_up) = (carried.clone(), carried_up.clone());
                let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (hang_up, hang_down) = (hang.clone(), hang.clone());
                std::thread::spawn(move || carry(client_too, server_too, up, &carried_up, &hang_up));
                std::thread::spawn(move || carry(server, client, down, &carried, &hang_down));
            }
        });
        link
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn cut_at(&self, cuts: impl IntoIterator<Item = u64>) {
        self.cuts.lock().unwrap().extend(cuts);
    }

    /// The same for bytes towards the server.
    pub fn cut_up_at(&self, cuts: impl IntoIterator<Item = u64>) {
        self.cuts_up.lock().unwrap().extend(cuts);
    }

    /// From now on a connection whose turn is over stays open and silent instead.
    pub fn hang_instead(&self) {
        self.hang.store(true, Ordering::SeqCst);
    }

    pub fn cuts_left(&self) -> usize {
        self.cuts.lock().unwrap().len() + self.cuts_up.lock().unwrap().len()
    }

    /// Bytes towards the server since the last call.
    pub fn take_up(&self) -> u64 {
        self.carried_up.swap(0, Ordering::SeqCst)
    }

    /// Bytes and connections since the last call.
    pub fn take_counts(&self) -> (u64, u64) {
        (
            self.carried.swap(0, Ordering::SeqCst),
            self.connections.swap(0, Ordering::SeqCst),
        )
    }
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    mut budget: u64,
    carried: &AtomicU64,
    hang: &std::sync::atomic::AtomicBool,
) {
    let mut buf = [0; 16 * 1024];
    while budget > 0 {
        let want = usize::try_from(budget).unwrap_or(usize::MAX).min(buf.len());
        match from.read(&mut buf[..want]) {
            Ok(got) if got > 0 => {
                // Before the other side can see them, so that whoever counts has all.
                carried.fetch_add(got as u64, Ordering::SeqCst);
                budget -= got as u64;
                if to.write_all(&buf[..got]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    if budget == 0 && hang.load(Ordering::SeqCst) {
        // Until the other side has enough of it.
        let _ = to.read(&mut [0]);
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Runs a command to its end and gives its output; panics with what it said where it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Serves requests with `answer` on a free port until the task is aborted.
pub async fn serve<A, F>(answer: A) -> (SocketAddr, tokio::task::JoinHandle<()>)
where
    A: Fn(http::Request<hyper::body::Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<blobs::registry::RegistryBody>> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(response.await) }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                // A client that goes away is no failure of the test.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    (address, task)
}

/// Our registry behind hyper's server, as the hub mounts it; stops when dropped.
pub struct OurRegistry {
    pub registry: blobs::Registry,
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl OurRegistry {
    pub async fn start(dir: &Path) -> Self {
        Self::with(dir, blobs::registry::Access::open()).await
    }

    pub async fn with(dir: &Path, access: blobs::registry::Access) -> Self {
        let registry = blobs::Registry::open(&dir.join("registry"), store(dir), access).unwrap();
        let serving = registry.clone();
        let (address, task) = serve(move |request| {
            let registry = serving.clone();
            async move { registry.handle(request).await }
        })
        .await;
        Self {
            registry,
            address,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops answering.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
