//! Artifacts in a real registry, made as `flux push artifact` makes them, and objects of a real S3 server.

use blobs::{Endpoint, Patience, Progress, Quota, Registries, RegistryConfig, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::{Digest, ImageRef, Moved, Tree};
use reqwest::Method;
use serde_json::json;
use source::{BucketSource, BucketSpec, Fetched, OciRef, OciSource, OciSpec, S3Keys, SourceError};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Server {
    child: Child,
    address: String,
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

fn registry() -> Option<Server> {
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
fn push(server: &Server, tag: &str, files: &[(&str, &str)]) -> Digest {
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

fn oci(server: &Server, reference: OciRef) -> OciSpec {
    OciSpec {
        url: format!("oci://{}/org/fleet", server.address),
        reference,
        media_type: None,
        docker_config: None,
        login: None,
        ca: None,
        insecure: true,
        ignore: None,
    }
}

fn read(tree: &Tree, path: &str) -> Option<String> {
    tree.read(path)
        .map(|data| String::from_utf8(data.to_vec()).unwrap())
}

fn go(source: &mut OciSource) -> Result<Fetched, SourceError> {
    source.fetch(&AtomicBool::new(false))
}

#[test]
fn an_artifact_is_followed_by_tag_and_is_here_without_its_registry() {
    let Some(server) = registry() else { return };
    let first = push(
        &server,
        "latest",
        &[("apps/a.yaml", "one"), ("logo.png", "left out")],
    );
    let device = tempfile::tempdir().unwrap();
    let spec = oci(&server, OciRef::Tag("latest".to_owned()));
    let mut source = OciSource::open(device.path(), spec.clone()).unwrap();
    let fetched = go(&mut source).unwrap();
    assert_eq!(fetched.moved, Moved::First);
    assert_eq!(fetched.revision.to_string(), format!("latest@{first}"));
    assert_eq!(
        fetched.revision.summary,
        "main@sha1:0123456789012345678901234567890123456789"
    );
    let tree = fetched.tree.unwrap();
    assert_eq!(read(&tree, "apps/a.yaml").as_deref(), Some("one"));
    assert_eq!(read(&tree, "logo.png"), None);
    let again = go(&mut source).unwrap();
    assert_eq!((again.moved, again.tree), (Moved::Unchanged, None));

    let second = push(&server, "latest", &[("apps/a.yaml", "two")]);
    let moved = go(&mut source).unwrap();
    assert_eq!(moved.moved, Moved::Forward);
    assert_eq!(moved.revision.commit, second.hex());
    drop(source);
    drop(server);
    let mut source = OciSource::open(device.path(), spec).unwrap();
    let err = go(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::Connect { .. }), "{err}");
    let tree = source.load(&second.hex()).unwrap();
    assert_eq!(read(&tree, "apps/a.yaml").as_deref(), Some("two"));
    // The one before stays, for a way back.
    assert!(source.load(&first.hex()).is_ok());
}

#[test]
fn an_artifact_is_found_by_version_and_by_digest() {
    let Some(server) = registry() else { return };
    for (tag, text) in [
        ("1.0.0", "a"),
        ("1.2.0", "b"),
        ("1.3.0-rc.1", "c"),
        ("2.0.0", "d"),
        ("edge", "e"),
    ] {
        push(&server, tag, &[("x", text)]);
    }
    let fetched = |reference: OciRef| {
        let device = tempfile::tempdir().unwrap();
        let mut source = OciSource::open(device.path(), oci(&server, reference)).unwrap();
        go(&mut source)
    };
    let semver = |range: &str, filter: Option<&str>| OciRef::Semver {
        range: range.to_owned(),
        filter: filter.map(str::to_owned),
    };
    let newest = fetched(semver("^1.0", None)).unwrap();
    assert_eq!(newest.revision.reference, "1.2.0");
    assert_eq!(read(&newest.tree.unwrap(), "x").as_deref(), Some("b"));
    assert_eq!(
        fetched(semver(">=1.0.0", Some("^1\\.")))
            .unwrap()
            .revision
            .reference,
        "1.2.0"
    );
    let none = fetched(semver("^9", None)).unwrap_err();
    assert!(none.to_string().contains("none of the 5 tags"), "{none}");
    let digest = push(&server, "pinned", &[("x", "p")]);
    let device = tempfile::tempdir().unwrap();
    let mut source = OciSource::open(device.path(), oci(&server, OciRef::Digest(digest))).unwrap();
    assert_eq!(go(&mut source).unwrap().revision.commit, digest.hex());
    let missing = fetched(OciRef::Tag("nope".to_owned())).unwrap_err();
    assert!(matches!(missing, SourceError::NotFound { .. }), "{missing}");
    let spec = OciSpec {
        media_type: Some("application/x".to_owned()),
        ..oci(&server, OciRef::Tag("edge".to_owned()))
    };
    let other = tempfile::tempdir().unwrap();
    let err = go(&mut OciSource::open(other.path(), spec).unwrap()).unwrap_err();
    assert!(err.to_string().contains("vnd.cncf.flux.content"), "{err}");
    drop(server);
    assert_eq!(
        go(&mut source).unwrap().moved,
        Moved::Unchanged,
        "a held digest asks nobody"
    );
}

fn s3_server() -> Option<Server> {
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
fn upload(server: &Server, method: Method, key: &str, body: &str) {
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

fn bucket(server: &Server, id: &str) -> BucketSpec {
    BucketSpec {
        endpoint: server.address.clone(),
        bucket: "fleet".to_owned(),
        region: None,
        prefix: "prod/".to_owned(),
        keys: Some(S3Keys {
            id: id.to_owned(),
            secret: "S3RVER".to_owned(),
        }),
        ca: None,
        insecure: true,
        ignore: None,
    }
}

#[test]
fn a_bucket_is_followed_object_by_object_and_is_here_without_its_server() {
    let Some(server) = s3_server() else { return };
    upload(&server, Method::PUT, "prod/a.yaml", "one");
    upload(&server, Method::PUT, "prod/b%20c.yaml", &"x".repeat(50_000));
    upload(&server, Method::PUT, "other.yaml", "not below the prefix");
    let device = tempfile::tempdir().unwrap();
    let spec = bucket(&server, "S3RVER");
    let mut source = BucketSource::open(device.path(), spec.clone()).unwrap();
    let go = |source: &mut BucketSource| source.fetch(&AtomicBool::new(false));
    let first = go(&mut source).unwrap();
    assert_eq!(first.moved, Moved::First);
    assert!(first.revision.to_string().starts_with("sha256:"));
    let tree = first.tree.unwrap();
    let names: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
    assert_eq!(names, ["prod/a.yaml", "prod/b c.yaml"]);
    let again = go(&mut source).unwrap();
    assert_eq!((again.moved, again.tree), (Moved::Unchanged, None));

    upload(&server, Method::PUT, "prod/a.yaml", "two");
    let second = go(&mut source).unwrap();
    assert_eq!(second.moved, Moved::Forward);
    assert!(
        second.bytes_received < 20_000,
        "what did not change is not fetched: {}",
        second.bytes_received
    );
    assert_eq!(read(&second.tree.unwrap(), "prod/a.yaml").as_deref(), Some("two"));

    let wrong = tempfile::tempdir().unwrap();
    let mut denied = BucketSource::open(wrong.path(), bucket(&server, "SOMEBODY-ELSE")).unwrap();
    let err = go(&mut denied).unwrap_err();
    assert!(matches!(err, SourceError::Authentication { .. }), "{err}");
    drop(server);
    let mut source = BucketSource::open(device.path(), spec).unwrap();
    assert!(matches!(
        go(&mut source).unwrap_err(),
        SourceError::Connect { .. }
    ));
    let kept = source.load(&second.revision.commit).unwrap();
    assert_eq!(read(&kept, "prod/a.yaml").as_deref(), Some("two"));
}
