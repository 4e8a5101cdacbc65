//! `git http-backend` over HTTP and HTTPS.

use crate::support::git_server::{GitServer, NEVER, Options};
use crate::support::{Device, Upstream, fetch, limits, noise, spec, text};
use model::Moved;
use source::{GitAuth, Limits, SourceError};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_rustls::rustls;

struct Ca {
    pem: Vec<u8>,
    server: Arc<rustls::ServerConfig>,
}

fn ca() -> Ca {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&leaf_key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            leaf_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    Ca {
        pem: certificate.pem().into_bytes(),
        server: Arc::new(server),
    }
}

fn serve(up: &Upstream, options: Options) -> GitServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    GitServer::start(
        listener,
        Options {
            root: up.root(),
            ..options
        },
    )
    .unwrap()
}

fn requests(server: &GitServer) -> Vec<String> {
    std::mem::take(&mut *server.faults().requests.lock().unwrap())
}

#[test]
fn a_new_commit_costs_its_thin_pack_and_an_unchanged_branch_one_listing() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("noise.txt", &noise(200_000, 7));
    for i in 0..20 {
        std::fs::write(up.work().join(format!("{i}.yaml")), noise(2_000, i + 1)).unwrap();
    }
    up.commit_all("many");
    let server = serve(&up, Options::default());
    let mut source = device.open(spec(&server.url("repo.git")));
    let clone = fetch(&mut source).unwrap();
    assert!(clone.bytes_received > 150_000, "{}", clone.bytes_received);
    assert_eq!(
        clone.bytes_received,
        server.faults().sent.load(Ordering::Relaxed),
        "all that is sent is counted"
    );

    requests(&server);
    let same = fetch(&mut source).unwrap();
    assert_eq!((same.moved, same.tree), (Moved::Unchanged, None));
    assert_eq!(
        requests(&server),
        [
            "GET /repo.git/info/refs?service=git-upload-pack",
            "POST /repo.git/git-upload-pack"
        ]
    );
    assert!(same.bytes_received < 500, "{}", same.bytes_received);

    up.commit("3.yaml", "replicas: 3\n");
    let small = fetch(&mut source).unwrap();
    assert_eq!(small.moved, Moved::Forward);
    assert!(small.bytes_received < 2_500, "{}", small.bytes_received);

    // A change of one line in the large file is a delta against the file that the device has.
    let file = up.work().join("noise.txt");
    let changed = format!("{}\nnew line\n", std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, changed).unwrap();
    up.commit_all("one line");
    let delta = fetch(&mut source).unwrap();
    assert!(delta.bytes_received < 2_500, "{}", delta.bytes_received);
    assert!(
        text(&delta.tree.unwrap(), "noise.txt")
            .unwrap()
            .ends_with("new line\n")
    );
}

#[test]
fn a_connection_that_breaks_at_any_byte_leaves_what_is_held_and_the_next_fetch_succeeds() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.txt", &noise(30_000, 3));
    let server = serve(&up, Options::default());
    let mut source = device.open(spec(&server.url("repo.git")));
    fetch(&mut source).unwrap();
    let second = up.commit("b.txt", &noise(30_000, 9));
    for cut in [0, 1, 50, 180, 300, 400, 500, 700, 1_000, 5_000, 15_000, 24_000] {
        server.faults().cut_after.store(cut, Ordering::Relaxed);
        let err = fetch(&mut source).unwrap_err();
        assert!(matches!(err, SourceError::Cut { .. }), "cut after {cut}: {err:?}");
        assert_eq!(source.held().unwrap().commit, first);
        assert!(text(&source.load(&first).unwrap(), "a.txt").is_some());
        if cut % 1_000 == 0 {
            drop(source);
            source = device.open(spec(&server.url("repo.git")));
        }
    }
    server.faults().cut_after.store(NEVER, Ordering::Relaxed);
    let fetched = fetch(&mut source).unwrap();
    assert_eq!((fetched.moved, fetched.revision.commit), (Moved::Forward, second));
    assert_eq!(text(&fetched.tree.unwrap(), "b.txt").unwrap().len(), 30_000);
}

#[test]
fn https_trusts_the_sources_own_ca_and_nothing_else() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    let ours = ca();
    let server = serve(
        &up,
        Options {
            tls: Some(Arc::clone(&ours.server)),
            ..Options::default()
        },
    );
    let mut given = spec(&server.url("repo.git"));
    let err = fetch(&mut device.open(given.clone())).unwrap_err();
    assert!(matches!(err, SourceError::Certificate { .. }), "{err}");
    assert!(err.to_string().contains("`ca`"), "{err}");
    given.ca = Some(ca().pem);
    let err = fetch(&mut device.open(given.clone())).unwrap_err();
    assert!(matches!(err, SourceError::Certificate { .. }), "{err}");
    given.ca = Some(b"not a certificate".to_vec());
    let err = fetch(&mut device.open(given.clone())).unwrap_err();
    assert!(err.to_string().contains("holds no certificate"), "{err}");
    given.ca = Some(ours.pem);
    fetch(&mut device.open(given.clone())).unwrap();
    // The certificate is for another name.
    given.url = given.url.replace("localhost", "127.0.0.1");
    let err = fetch(&mut device.open(given)).unwrap_err();
    assert!(matches!(err, SourceError::Certificate { .. }), "{err}");
}

#[test]
fn a_token_is_sent_to_its_host_only_and_never_shown() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    let ours = ca();
    let reader = Some(("git".to_owned(), "t0ken".to_owned()));
    let tls = Some(Arc::clone(&ours.server));
    let server = serve(
        &up,
        Options {
            tls: tls.clone(),
            reader: reader.clone(),
            ..Options::default()
        },
    );
    let mut given = spec(&server.url("repo.git"));
    given.ca = Some(ours.pem.clone());
    let err = fetch(&mut device.open(given.clone())).unwrap_err();
    assert!(matches!(err, SourceError::Authentication { .. }), "{err}");
    given.auth = GitAuth::Token {
        user: String::new(),
        token: "wr0ng".to_owned(),
    };
    let mut source = device.open(given.clone());
    let err = fetch(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::Authentication { .. }), "{err}");
    assert!(!format!("{err} {err:?} {source:?}").contains("wr0ng"));
    drop(source);
    given.auth = GitAuth::Token {
        user: String::new(),
        token: "t0ken".to_owned(),
    };
    fetch(&mut device.open(given.clone())).unwrap();

    // Another host may be redirected to, but is not given the token, and so refuses.
    let front = serve(
        &up,
        Options {
            tls,
            ..Options::default()
        },
    );
    *front.faults().redirect_to.lock().unwrap() =
        Some(format!("https://localhost:{}", server.address().port()));
    given.url = front.url("repo.git");
    let other = Device::new();
    let err = fetch(&mut other.open(given.clone())).unwrap_err();
    assert!(matches!(err, SourceError::Authentication { .. }), "{err}");
}

#[test]
fn a_moved_repository_is_followed_but_a_page_to_log_in_is_not() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    let target = serve(&up, Options::default());
    let front = serve(&up, Options::default());
    *front.faults().redirect_to.lock().unwrap() =
        Some(format!("http://localhost:{}", target.address().port()));
    fetch(&mut device.open(spec(&front.url("repo.git")))).unwrap();
    assert!(
        requests(&target)
            .iter()
            .any(|request| request.starts_with("POST"))
    );
    *front.faults().redirect_to.lock().unwrap() = Some(format!(
        "http://localhost:{}/login?next=",
        target.address().port()
    ));
    let err = fetch(&mut device.open(spec(&front.url("repo.git"))))
        .unwrap_err()
        .to_string();
    assert!(err.contains("no Git repository"), "{err}");
}

#[test]
fn a_repository_that_is_not_there_and_a_server_that_is_not_there_are_told_apart() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    let server = serve(&up, Options::default());
    let err = fetch(&mut device.open(spec(&server.url("other.git")))).unwrap_err();
    assert!(matches!(err, SourceError::NotFound { .. }), "{err}");
    let url = server.url("repo.git");
    drop(server);
    let err = fetch(&mut device.open(spec(&url))).unwrap_err();
    assert!(matches!(err, SourceError::Connect { .. }), "{err}");
    assert!(err.to_string().contains("goes on with what it holds"), "{err}");
}

#[test]
fn a_server_that_says_nothing_ends_by_the_limit_or_by_the_caller() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", silent.local_addr().unwrap());
    let quick = Limits {
        idle: Duration::from_millis(300),
        ..limits()
    };
    let mut source = device.open(spec(&url)).with_limits(quick);
    let err = fetch(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::Timeout { .. }), "{err}");
    let mut source = source.with_limits(limits());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        let err = source.fetch(&stop).unwrap_err();
        assert!(matches!(err, SourceError::Stopped), "{err}");
    });
}

#[test]
fn the_test_server_takes_pushes_from_its_writer_only() {
    let up = Upstream::new();
    up.commit("a.yaml", "a");
    let writer = Some(("admin".to_owned(), "pw".to_owned()));
    let server = serve(
        &up,
        Options {
            writer,
            ..Options::default()
        },
    );
    std::fs::write(up.work().join("a.yaml"), "b").unwrap();
    up.git(&["commit", "-q", "-am", "b"]);
    let url = server.url("repo.git");
    let refused = std::process::Command::new("git")
        .args(["push", "-q", &url, "HEAD:main"])
        .current_dir(up.work())
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap();
    assert!(!refused.status.success());
    up.git(&["push", "-q", &url.replace("://", "://admin:pw@"), "HEAD:main"]);
    let device = Device::new();
    assert_eq!(
        fetch(&mut device.open(spec(&url))).unwrap().revision.commit,
        up.head()
    );
}

#[test]
fn a_clone_that_breaks_goes_on_where_it_was() {
    let (up, device) = (Upstream::new(), Device::new());
    for i in 0..60 {
        let path = up.work().join(format!("apps/{}/{i}.txt", i % 7));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise(20_000, i + 1)).unwrap();
    }
    up.commit_all("much");
    let server = serve(&up, Options::default());
    let url = server.url("repo.git");
    let faults = server.faults();
    let mut tries = 0;
    let fetched = loop {
        faults.cut_after.store(150_000, Ordering::Relaxed);
        // A new process each time, as after a power cut.
        match fetch(&mut device.open(spec(&url))) {
            Ok(fetched) => break fetched,
            Err(err) => assert!(matches!(err, SourceError::Cut { .. }), "{err:?}"),
        }
        tries += 1;
        assert!(tries < 20, "no progress");
    };
    let whole = 60 * 20_000 * 85 / 100;
    let sent = faults.sent.load(Ordering::Relaxed);
    assert!(tries >= whole / 150_000, "{tries} tries");
    assert!(
        sent < whole * 14 / 10,
        "{sent} bytes sent for a repository of about {whole}"
    );
    assert_eq!(fetched.tree.unwrap().len(), 60);
    faults.cut_after.store(NEVER, Ordering::Relaxed);
    up.commit("apps/0/0.txt", "small");
    let next = fetch(&mut device.open(spec(&url))).unwrap();
    assert!(
        next.moved == Moved::Forward && next.bytes_received < 3_000,
        "{next:?}"
    );
}

#[test]
fn a_broken_clone_of_another_commit_is_no_ground_to_build_upon() {
    let (up, device) = (Upstream::new(), Device::new());
    for i in 0..10 {
        std::fs::write(up.work().join(format!("{i}.txt")), noise(20_000, i + 1)).unwrap();
    }
    let first = up.commit_all("much");
    let server = serve(&up, Options::default());
    let url = server.url("repo.git");
    server.faults().cut_after.store(90_000, Ordering::Relaxed);
    fetch(&mut device.open(spec(&url))).unwrap_err();
    server.faults().cut_after.store(NEVER, Ordering::Relaxed);
    let second = up.commit("0.txt", "changed");
    let mut source = device.open(spec(&url));
    assert_eq!(fetch(&mut source).unwrap().revision.commit, second);
    assert!(source.load(&first).is_err());
    up.git(&["reset", "-q", "--hard", &first]);
    up.push();
    let back = fetch(&mut source).unwrap();
    assert_eq!(back.moved, Moved::Backward { from: second });
    assert_eq!(back.tree.unwrap().len(), 10);
}
