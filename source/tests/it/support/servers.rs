//! A real registry with artifacts in it as `flux push artifact` makes them, and a real S3 server. The agent's tests
//! have them, too.

use blobs::{Endpoint, Patience, Progress, Quota, Registries, RegistryConfig, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::{Digest, ImageRef};
use reqwest::Method;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Server {
    child: Child,
    pub address: String,
    _data: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Started on a free port; another process may take that first.
    fn start(make: impl Fn(u16, &Path) -> Command) -> Self {
        for _ in 0..20 {
            let data = tempfile::tempdir().unwrap();
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut command = make(port, data.path());
            let mut child = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let end = Instant::now() + Duration::from_secs(120);
            while Instant::now() < end && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self {
                        child,
                        address: format!("127.0.0.1:{port}"),
                        _data: data,
                    };
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the server does not start");
    }
}

/// Says aloud that a test is skipped; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
}

pub fn registry() -> Option<Server> {
    let program = "docker-registry";
    if Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        skipped("docker-registry is not installed");
        return None;
    }
    Some(Server::start(|port, data| {
        let file = data.join("config.yml");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            data.join("data").display()
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(file);
        command
    }))
}

/// Packs files, and pushes them under a tag; the manifest's digest.
pub fn push(server: &Server, tag: &str, files: &[(&str, &str)]) -> Digest {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let layer = archive.into_inner().unwrap().finish().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path(), Quota::default()).unwrap();
    let config = b"{}";
    let part = |kind: &str, data: &[u8]| json!({"mediaType": kind, "digest": store.put(data).unwrap().to_string(), "size": data.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("application/vnd.cncf.flux.config.v1+json", config),
        "layers": [part("application/vnd.cncf.flux.content.v1.tar+gzip", &layer)],
        "annotations": {
            "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
            "org.opencontainers.image.revision": "main@sha1:0123456789012345678901234567890123456789",
            "org.opencontainers.image.source": "https://git.example/fleet"
        }
    });
    let digest = store.put(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let image: ImageRef = format!("{}/org/fleet:{tag}", server.address).parse().unwrap();
    let registries = Registries::new(Patience::default());
    let endpoint = Endpoint::plain(&format!("http://{}", server.address));
    registries
        .configure(&server.address, RegistryConfig::at(endpoint))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(registries.push(&store, &digest, &image, None, Progress::none()))
        .unwrap();
    digest
}

pub fn s3_server() -> Option<Server> {
    let program = std::env::var_os("LEEWARD_S3_SERVER").unwrap_or_else(|| "s3rver".into());
    if Command::new(&program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        skipped("s3rver is not installed (npm; LEEWARD_S3_SERVER names it)");
        return None;
    }
    Some(Server::start(|port, data| {
        let mut command = Command::new(&program);
        command.args([
            "--address",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--directory",
        ]);
        command
            .arg(data)
            .args(["--configure-bucket", "fleet", "--silent"]);
        command
    }))
}

/// Puts an object. This server takes requests that nobody signed.
pub fn upload(server: &Server, method: Method, key: &str, body: &str) {
    let url = format!("http://{}/fleet/{key}", server.address);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // One that was installed before is as good.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client.request(method, &url).body(body.to_owned()).send();
    let response = runtime.block_on(sent).unwrap();
    assert!(response.status().is_success(), "{url}: {}", response.status());
}
