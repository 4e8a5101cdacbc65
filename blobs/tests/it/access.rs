//! How a registry is reached: TLS, credentials, tokens, aliases, mirrors; with Debian's registry as the judge.

use crate::common::*;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use blobs::oci::{Descriptor, ImageConfig};
use blobs::{Credentials, DockerConfig, Endpoint, Progress, Registries, RegistryConfig, RegistryError, Tls};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use model::{ImageRef, PullPolicy};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SigningKey as _};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A private authority with a certificate for 127.0.0.1 on disk, and one for a client.
struct Pki {
    root: CertificateDer<'static>,
    client: (CertificateDer<'static>, Vec<u8>),
}

impl Pki {
    fn in_dir(dir: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![name.to_owned()])
                .unwrap()
                .signed_by(&key, &authority)
                .unwrap();
            (certificate, key)
        };
        let (server, key) = issue("127.0.0.1");
        fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        fs::write(dir.join("server.pem"), server.pem()).unwrap();
        fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
        let (client, key) = issue("device");
        Self {
            root: authority.der().clone(),
            client: (client.der().clone(), key.serialize_der()),
        }
    }

    /// TLS that demands a certificate of this authority.
    fn server_config(&self, dir: &Path) -> rustls::ServerConfig {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()],
                rustls::pki_types::PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![self.client.0.clone()],
                PrivatePkcs8KeyDer::from(self.client.1.clone()).into(),
            )
            .unwrap()
    }
}

const TLS: &str = "  tls: {certificate: DIR/server.pem, key: DIR/server.key}\n";
const MUTUAL_TLS: &str =
    "  tls: {certificate: DIR/server.pem, key: DIR/server.key, clientcas: [DIR/ca.pem]}\n";

fn at(host: &str, endpoint: Endpoint) -> Registries {
    let registries = Registries::new(impatient());
    registries.configure(host, RegistryConfig::at(endpoint)).unwrap();
    registries
}

fn small(store: &blobs::Store) -> Descriptor {
    let layer = tar(&[("file", Put::File(0o644, b"small"))]);
    image(
        store,
        &platform("linux/amd64"),
        &[(layer, "+gzip")],
        ImageConfig::default(),
    )
}

/// Pushes and pulls back, both by these registries.
async fn round_trip(registries: &Registries, name: &str) -> Result<(), RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    let source = store(&dir.path().join("source"));
    let built = small(&source);
    let name: ImageRef = name.parse().unwrap();
    registries
        .push(&source, &built.digest, &name, None, Progress::none())
        .await?;
    let resolved = registries.resolve(&name, &platform("linux/amd64"), None).await?;
    assert_eq!(resolved.digest, built.digest);
    let device = store(dir.path());
    registries
        .fetch_blob(
            &device,
            &name,
            &resolved.manifest.layers[0],
            None,
            Progress::none(),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_client_certificate_open_the_door() {
    if !have("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::in_dir(dir.path());
    let registry = DockerRegistry::in_dir(dir, MUTUAL_TLS, "");
    // Under a name that says nothing of where it is: as manifests in Git name the hub's registry.
    let alias = "registry.leeward.internal";
    let with = |tls: Tls| {
        let endpoint = Endpoint {
            tls,
            ..Endpoint::new(&registry.url())
        };
        at(alias, endpoint)
    };
    let name = format!("{alias}/apps/web:1");
    round_trip(&with(Tls::Config(Arc::new(pki.client_config()))), &name)
        .await
        .unwrap();
    let err = round_trip(&with(Tls::Roots(vec![pki.root.clone()])), &name)
        .await
        .unwrap_err();
    // With TLS 1.3 the refusal comes as an alert or as a closed connection, whichever is seen first.
    assert!(matches!(err, RegistryError::Unreachable { .. }), "{err}");
    let err = round_trip(&with(Tls::System), &name).await.unwrap_err();
    assert!(kit::chain(&err).contains("UnknownIssuer"), "{}", kit::chain(&err));
}

/// As the hub serves devices: mutual TLS, HTTP/2, our registry behind it. The link breaks meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn http_2_with_a_client_certificate_resumes_too() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::in_dir(dir.path());
    let hub = blobs::Registry::open(
        &dir.path().join("registry"),
        store(dir.path()),
        blobs::registry::Access::open(),
    )
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(pki.server_config(dir.path())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::to(listener.local_addr().unwrap());
    let serving = hub.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, registry) = (acceptor.clone(), serving.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
                let service = hyper::service::service_fn(move |request| {
                    let registry = registry.clone();
                    async move { Ok::<_, std::convert::Infallible>(registry.handle(request).await) }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                let _ = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    let source = store(&dir.path().join("source"));
    let layer = tar(&[("file", Put::File(0o644, &noise(9_000_000, 1)))]);
    let built = image(
        &source,
        &platform("linux/amd64"),
        &[(layer, "")],
        ImageConfig::default(),
    );
    let mut tls = pki.client_config();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name: ImageRef = "registry.leeward.internal/apps/web:1".parse().unwrap();
    let endpoint = Endpoint {
        tls: Tls::Config(Arc::new(tls)),
        ..Endpoint::new(&format!("https://{}", link.address))
    };
    link.cut_up_at([100_000, 3_000_000]);
    at(&name.registry, endpoint.clone())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    link.take_counts();
    link.cut_at([50_000, 2_000_000, 3_000_000]);
    let images_ = images(&dir.path().join("device"), &at(&name.registry, endpoint));
    images_
        .ensure(
            &name,
            &platform("linux/amd64"),
            PullPolicy::Always,
            Progress::none(),
        )
        .await
        .unwrap();
    assert_eq!(link.cuts_left(), 0);
    let (carried, connections) = link.take_counts();
    let again = carried.saturating_sub(9_000_000);
    eprintln!("9000000 bytes over {connections} connections of HTTP/2: {again} bytes more");
    // Frames that were on their way, and a handshake each time.
    assert!(again < 1_000_000, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_must_be_asked_for() {
    let registries = Registries::new(impatient());
    let plain = RegistryConfig::at(Endpoint::new("http://127.0.0.1:1"));
    let err = registries.configure("r.test", plain).unwrap_err().to_string();
    assert!(
        err.contains("r.test") && err.contains("not encrypted") && err.contains("allow plain http"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_the_configuration_or_the_pull_secret() {
    if !have("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::in_dir(dir.path());
    // user:pw, by bcrypt.
    let line = "user:$2b$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q\n";
    fs::write(dir.path().join("passwords"), line).unwrap();
    let registry = DockerRegistry::in_dir(dir, TLS, "auth: {htpasswd: {realm: test, path: DIR/passwords}}\n");
    let endpoint = |credentials| Endpoint {
        tls: Tls::Roots(vec![pki.root.clone()]),
        credentials,
        ..Endpoint::new(&registry.url())
    };
    let basic = |password: &str| {
        Some(Credentials::Basic {
            user: "user".to_owned(),
            password: password.to_owned(),
        })
    };
    round_trip(&at("r.test", endpoint(basic("pw"))), "r.test/a:1")
        .await
        .unwrap();
    let err = round_trip(&at("r.test", endpoint(basic("wrong"))), "r.test/a:1")
        .await
        .unwrap_err();
    assert!(matches!(err, RegistryError::Denied { status: 401, .. }), "{err}");
    let anonymous = at("r.test", endpoint(None));
    let err = round_trip(&anonymous, "r.test/a:1").await.unwrap_err();
    assert!(err.to_string().contains("imagePullSecret"), "{err}");

    let device = tempfile::tempdir().unwrap();
    let images_ = images(device.path(), &anonymous);
    let auth = BASE64_STANDARD.encode("user:pw");
    let secret = json!({"auths": {"r.test/a": {"auth": auth}, "r.test/b": {"auth": "eDp5"}}}).to_string();
    let secret = DockerConfig::parse(secret.as_bytes()).unwrap();
    let ensure = async |name: &str| {
        let name: ImageRef = name.parse().unwrap();
        let amd64 = platform("linux/amd64");
        images_
            .ensure_as(&name, &amd64, PullPolicy::Always, &secret, Progress::none())
            .await
    };
    ensure("r.test/a:1").await.unwrap();
    // What is here serves, though the registry would not give it any more.
    let (name, amd64): (ImageRef, _) = ("r.test/a:1".parse().unwrap(), platform("linux/amd64"));
    images_
        .ensure(&name, &amd64, PullPolicy::Always, Progress::none())
        .await
        .unwrap();
    let err = ensure("r.test/b:1").await.unwrap_err();
    assert!(
        !err.is_transient() && kit::chain(&err).contains("credentials"),
        "{}",
        kit::chain(&err)
    );
}

/// The token server beside Debian's registry: gives what is asked for to whoever has the password, and to anyone the
/// right to read.
async fn token_server(dir: &Path) -> (String, Arc<AtomicUsize>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["issuer".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(dir.join("issuer.pem"), certificate.pem()).unwrap();
    let (key, der) = (Arc::new(key), certificate.der().to_vec());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let (address, _) = serve(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (key, der) = (key.clone(), der.clone());
        async move {
            let url = reqwest::Url::parse(&format!("http://x{}", request.uri())).unwrap();
            let scope = url
                .query_pairs()
                .find(|(name, _)| name == "scope")
                .unwrap()
                .1
                .into_owned();
            let mut parts = scope.split(':');
            let (kind, name, actions) = (
                parts.next().unwrap(),
                parts.next().unwrap(),
                parts.next().unwrap(),
            );
            let basic = format!("Basic {}", BASE64_STANDARD.encode("user:pw"));
            let known = request
                .headers()
                .get("authorization")
                .is_some_and(|held| held.to_str().unwrap() == basic);
            let actions: Vec<_> = actions
                .split(',')
                .filter(|action| known || *action == "pull")
                .collect();
            let access = json!([{"type": kind, "name": name, "actions": actions}]);
            json_answer(&json!({"token": token(&key, &der, &access), "expires_in": 300}))
        }
    })
    .await;
    (format!("http://{address}/token"), asked)
}

fn json_answer(document: &serde_json::Value) -> Response<blobs::registry::RegistryBody> {
    let body = Full::new(bytes::Bytes::from(document.to_string()));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

/// A signed token (RFC 7519) as the distribution's token spec wants it.
fn token(key: &KeyPair, certificate: &[u8], access: &serde_json::Value) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(certificate)]});
    let claims = json!({"iss": "issuer", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 60,
        "iat": now, "jti": "1", "access": access});
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let der = key.sign(signed.as_bytes()).unwrap();
    // From SEQUENCE { INTEGER r, INTEGER s } to two numbers of 32 bytes.
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - number.len()).chain(number.iter().copied()));
        rest = &rest[2 + length..];
    }
    format!("{signed}.{}", encode(&fixed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_for_what_is_asked_and_kept() {
    if !have("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (realm, asked) = token_server(dir.path()).await;
    let auth = format!(
        "auth: {{token: {{realm: \"{realm}\", service: registry, issuer: issuer, rootcertbundle: DIR/issuer.pem}}}}\n"
    );
    let registry = DockerRegistry::in_dir(dir, "", &auth);
    let mut endpoint = Endpoint::plain(&registry.url());
    let err = round_trip(&at("r.test", endpoint.clone()), "r.test/a/b:1")
        .await
        .unwrap_err();
    assert!(
        matches!(err, RegistryError::Denied { .. }),
        "anonymous may only read: {err}"
    );
    endpoint.credentials = Some(Credentials::Basic {
        user: "user".to_owned(),
        password: "pw".to_owned(),
    });
    asked.store(0, Ordering::SeqCst);
    round_trip(&at("r.test", endpoint.clone()), "r.test/a/b:1")
        .await
        .unwrap();
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "one token to push and one to pull"
    );
    endpoint.credentials = None;
    let anonymous = at("r.test", endpoint);
    anonymous
        .resolve(&"r.test/a/b:1".parse().unwrap(), &platform("linux/amd64"), None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_away_or_lacks_the_image_is_passed_over() {
    if !have("docker-registry") {
        return;
    }
    let (registry, empty) = (DockerRegistry::start(), DockerRegistry::start());
    let mut gone = DockerRegistry::start();
    gone.stop();
    round_trip(&registries(&registry.url()), "r.test/a:1")
        .await
        .unwrap();
    let mirrored = Registries::new(impatient());
    let endpoints = [&gone, &empty, &registry]
        .map(|place| Endpoint::plain(&place.url()))
        .to_vec();
    mirrored
        .configure("r.test", RegistryConfig { endpoints })
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let images_ = images(dir.path(), &mirrored);
    let ensure = async |name: &str| {
        let name: ImageRef = name.parse().unwrap();
        images_
            .ensure(
                &name,
                &platform("linux/amd64"),
                PullPolicy::Always,
                Progress::none(),
            )
            .await
    };
    ensure("r.test/a:1").await.unwrap();
    // "Not found" is no last word while a mirror that may have it is away.
    assert!(ensure("r.test/b:1").await.unwrap_err().is_transient());
}

/// F15 for registries: overloaded and broken ones are asked again, when they say.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_patience_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    round_trip(&registries(&ours.url()), "r.test/a:1").await.unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let (registry, counted) = (ours.registry.clone(), requests.clone());
    let (address, _) = serve(move |request| {
        let (registry, number) = (registry.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            let status = match number % 3 {
                0 => StatusCode::TOO_MANY_REQUESTS,
                1 => StatusCode::BAD_GATEWAY,
                _ => return registry.handle(request).await,
            };
            let mut response = json_answer(&json!({"errors": []}));
            *response.status_mut() = status;
            if number == 0 {
                response.headers_mut().insert("retry-after", "1".parse().unwrap());
            }
            response
        }
    })
    .await;
    let started = Instant::now();
    let images_ = images(dir.path(), &registries(&format!("http://{address}")));
    let name: ImageRef = "r.test/a:1".parse().unwrap();
    images_
        .ensure(
            &name,
            &platform("linux/amd64"),
            PullPolicy::Always,
            Progress::none(),
        )
        .await
        .unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "came back sooner than asked"
    );
    assert_eq!(
        requests.load(Ordering::SeqCst),
        9,
        "manifest, configuration and layer, at the third time each"
    );
}
