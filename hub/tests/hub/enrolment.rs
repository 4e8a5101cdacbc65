//! Who gets in: tokens, fingerprints, renewal, revocation.

use crate::rig::*;
use identity::{DeviceKeys, EnrolToken, Failure, Kind, Peer};
use std::sync::Arc;
use std::time::Duration;
use wire::api::{NewToken, Problem};
use wire::client::{ConnectError, Ended, EnrolRequest, Session};

fn reason<T>(outcome: Result<T, ConnectError>) -> String {
    match outcome {
        Ok(_) => "let in".into(),
        Err(err) => err.reason().map_or_else(|| kit::chain(&err), str::to_owned),
    }
}

/// What the life cycle makes of an error.
fn failure<T>(outcome: Result<T, ConnectError>) -> Failure {
    let Err(err) = outcome else {
        panic!("it was let in")
    };
    Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(&err))
}

#[tokio::test]
async fn a_token_lets_one_device_in_once() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    rig.stranger("a").enrol(&rig.at(), &token).await.unwrap();
    assert_eq!(
        reason(rig.stranger("b").enrol(&rig.at(), &token).await),
        "TokenUsed"
    );
    let unknown = EnrolToken::generate(token.authority());
    assert_eq!(
        reason(rig.stranger("b").enrol(&rig.at(), &unknown).await),
        "TokenUnknown"
    );
    let fresh = rig.token().await;
    // The name is taken: another board must not take over a device's place.
    std::fs::remove_dir_all(rig.dir.path().join("a")).unwrap();
    assert_eq!(
        reason(rig.stranger("a").enrol(&rig.at(), &fresh).await),
        "NameTaken"
    );
    rig.clock.advance(Duration::from_secs(3601));
    assert_eq!(
        reason(rig.stranger("b").enrol(&rig.at(), &fresh).await),
        "TokenExpired"
    );
    let jetsons = NewToken {
        class: Some("jetson-orin-nx".parse().unwrap()),
        ..NewToken::default()
    };
    let jetsons = rig
        .api
        .create_token(&jetsons)
        .await
        .unwrap()
        .token
        .parse()
        .unwrap();
    assert_eq!(
        reason(rig.stranger("b").enrol(&rig.at(), &jetsons).await),
        "TokenForOtherClass"
    );
    let trail = rig.api.audit(100).await.unwrap();
    assert!(
        trail
            .iter()
            .any(|row| row.action == "device.enrol" && row.outcome == "ok"),
        "{trail:#?}"
    );
    assert!(
        trail
            .iter()
            .any(|row| row.action == "device.enrol" && row.outcome.starts_with("refused")),
        "{trail:#?}"
    );
}

#[tokio::test]
async fn a_lost_answer_does_not_lose_the_device() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    let mut device = rig.stranger("a");
    let requests = device.keys.requests(&device.name).unwrap();
    let request = EnrolRequest {
        token: token.reveal(),
        device: device.name.clone(),
        class: class(),
        identity_csr: requests.identity_csr.clone(),
        operational_csr: requests.operational_csr.clone(),
    };
    let tls = device.keys.enrol_tls(&token).unwrap();
    // The hub enrolled it, and the device never hears.
    wire::client::enrol(&rig.at(), tls, &request).await.unwrap();
    device.reopen();
    device.enrol(&rig.at(), &token).await.unwrap();
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn a_hub_with_another_authority_is_not_trusted() {
    let (rig, other) = (Rig::new().await, Rig::new().await);
    let token = rig.token().await;
    let mut device = rig.stranger("a");
    // The token's hub is elsewhere: nothing of the token may reach this one.
    let outcome = device.enrol(&other.at(), &token).await;
    assert!(matches!(&outcome, Err(err) if err.tls().is_some()), "{outcome:?}");
    device.enrol(&rig.at(), &token).await.unwrap();
    let outcome = device.connect(&other.at()).await;
    assert!(
        matches!(&outcome, Err(err) if err.tls().is_some()),
        "{:?}",
        outcome.err()
    );
    assert!(other.api.devices().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_certificate_of_another_hub_opens_nothing() {
    let (rig, other) = (Rig::new().await, Rig::new().await);
    let device = other.device("a").await;
    let mut local = rig.device("a").await;
    // The forger's own chain, towards a hub that it knows how to verify.
    let forged = device.keys.session_tls().unwrap();
    let mut config = (*forged).clone();
    config.dangerous().set_certificate_verifier(AnyHub::new());
    let outcome = Session::connect(&rig.at(), Arc::new(config), local.hello()).await;
    assert!(matches!(failure(outcome), Failure::Unreachable(_)));
    until("the refusal in the trail", async || {
        let trail = rig.api.audit(100).await.unwrap();
        trail
            .into_iter()
            .find(|row| row.action == "device.connect" && row.outcome.contains("not accepted"))
    })
    .await;
    local.connect(&rig.at()).await.unwrap();
}

/// Trusts anyone: what a forger would do.
#[derive(Debug)]
struct AnyHub(Arc<rustls::crypto::CryptoProvider>);

impl AnyHub {
    fn new() -> Arc<Self> {
        Arc::new(Self(Arc::new(rustls::crypto::ring::default_provider())))
    }
}

impl rustls::client::danger::ServerCertVerifier for AnyHub {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn away_for_a_year_a_device_returns_by_its_identity_key() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    device.connect(&rig.at()).await.unwrap();
    let year = Duration::from_secs(365 * 86_400);
    rig.clock.advance(year);
    // The hub was restarted in between, so that its own certificate is fresh.
    let rig = rig.restart().await;
    device.clock.advance(year);
    device.reopen();
    assert_eq!(failure(device.connect(&rig.at()).await), Failure::OwnExpired);
    device.renew(&rig.at()).await.unwrap();
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_an_open_connection_too() {
    // TLS looks at the dates when a connection opens; a device must not stay in by never closing one.
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    rig.clock.advance(Duration::from_secs(31 * 86_400));
    let ended = within("the end of the session", session.ended()).await;
    assert!(matches!(ended, Ended::ByHub { .. }), "{ended:?}");
}

#[tokio::test]
async fn each_certificate_is_for_its_own_purpose() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let hello = device.hello();
    let with_identity = Session::connect(&rig.at(), device.keys.renew_tls().unwrap(), hello).await;
    assert_eq!(reason(with_identity.map(|_| ())), "WrongCertificate");
    let requests = device.keys.requests(&device.name).unwrap();
    let request = wire::client::RenewRequest {
        operational_csr: requests.operational_csr,
        bundle_serial: 1,
    };
    let with_operational = wire::client::renew(&rig.at(), device.keys.session_tls().unwrap(), &request).await;
    assert_eq!(reason(with_operational), "WrongCertificate");
    // A token's TLS shows no certificate at all.
    let token = rig.token().await;
    let bare = wire::client::renew(&rig.at(), device.keys.enrol_tls(&token).unwrap(), &request).await;
    assert_eq!(reason(bare), "CertificateRequired");
}

#[tokio::test]
async fn a_device_cannot_speak_for_another() {
    let rig = Rig::new().await;
    let (device, _other) = (rig.device("a").await, rig.device("b").await);
    let mut hello = device.hello();
    hello.device = name("b");
    let outcome = Session::connect(&rig.at(), device.keys.session_tls().unwrap(), hello).await;
    assert_eq!(reason(outcome.map(|_| ())), "WrongCertificate");
}

#[tokio::test]
async fn a_revoked_device_is_sent_away_and_stays_out() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    rig.api.revoke(&device.name).await.unwrap();
    let ended = within("the end of the session", session.ended()).await;
    assert!(matches!(ended, Ended::ByHub { .. }), "{ended:?}");
    assert_eq!(failure(device.connect(&rig.at()).await), Failure::Revoked);
    assert_eq!(failure(device.renew(&rig.at()).await), Failure::Revoked);
    let rig = rig.restart().await;
    assert_eq!(failure(device.connect(&rig.at()).await), Failure::Revoked);
    assert_eq!(
        rig.api.device(&device.name).await.unwrap().summary.health,
        "Revoked"
    );
    let trail = rig.api.audit(100).await.unwrap();
    assert!(
        trail
            .iter()
            .any(|row| row.action == "device.revoke" && row.who == "admin"),
        "{trail:#?}"
    );
    assert!(
        trail
            .iter()
            .any(|row| row.action == "device.connect" && row.outcome.contains("revoked")),
        "{trail:#?}"
    );
}

#[tokio::test]
async fn a_request_that_proves_no_key_is_refused() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    let (device, other) = (rig.stranger("a"), rig.stranger("b"));
    let requests = device.keys.requests(&device.name).unwrap();
    // Somebody else's public key under a signature that does not fit it.
    let mut text = other.keys.requests(&other.name).unwrap().identity_csr;
    let middle = text.len() / 2;
    let changed = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
    text.replace_range(middle..=middle, changed);
    let request = EnrolRequest {
        token: token.reveal(),
        device: device.name.clone(),
        class: class(),
        identity_csr: text,
        operational_csr: requests.operational_csr,
    };
    let outcome = wire::client::enrol(&rig.at(), device.keys.enrol_tls(&token).unwrap(), &request).await;
    assert_eq!(reason(outcome), "BadRequest");
    // The token is not spent by it.
    rig.stranger("c").enrol(&rig.at(), &token).await.unwrap();
}

#[tokio::test]
async fn the_hubs_authority_rolls_over_and_every_device_follows() {
    let rig = Rig::new().await;
    let (mut present, mut away) = (rig.device("present").await, rig.device("away").await);
    let (session, _orders) = present.connect(&rig.at()).await.unwrap();
    rig.running
        .hub
        .roll_over(|authority| authority.prepare())
        .unwrap();
    within("the end of the session", session.ended()).await;
    present.connect(&rig.at()).await.unwrap();
    assert_eq!(present.keys.bundle_serial(), 2);
    rig.running
        .hub
        .roll_over(|authority| authority.activate())
        .unwrap();
    // This one never heard of the next authority: the old one's signature over it leads there.
    away.connect(&rig.at()).await.unwrap();
    assert_eq!(away.keys.bundle_serial(), 3);
    for device in [&mut present, &mut away] {
        device.renew(&rig.at()).await.unwrap();
    }
    rig.running.hub.roll_over(|authority| authority.retire()).unwrap();
    for device in [&mut present, &mut away] {
        device.connect(&rig.at()).await.unwrap();
        device.renew(&rig.at()).await.unwrap();
        device.reopen();
        device.connect(&rig.at()).await.unwrap();
    }
    // And the authority's file brings the same state back.
    let rig = rig.restart().await;
    present.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn keys_are_kept_private_and_a_damaged_operational_one_is_renewed() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    for entry in std::fs::read_dir(&device.dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
    std::fs::write(device.dir.join("operational.pem"), b"-----BEGIN").unwrap();
    device.reopen();
    assert_eq!(device.keys.held().unwrap().operational, None);
    device.renew(&rig.at()).await.unwrap();
    device.connect(&rig.at()).await.unwrap();
    std::fs::write(device.dir.join("device.key"), b"-----BEGIN").unwrap();
    let damaged = DeviceKeys::open(&device.dir, Arc::new(device.clock.clone()));
    assert!(damaged.is_err_and(|err| err.to_string().contains("device.key")));
}

#[tokio::test]
async fn what_a_problem_says_reaches_the_device() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    rig.stranger("a").enrol(&rig.at(), &token).await.unwrap();
    let Err(ConnectError::Refused {
        problem: Problem { message, .. },
        status,
        ..
    }) = rig.stranger("b").enrol(&rig.at(), &token).await
    else {
        panic!("a spent token let a device in")
    };
    assert_eq!(status, 403);
    assert!(message.contains("make a new one"), "{message}");
}

#[tokio::test]
async fn certificates_say_what_the_design_says() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let pem = |file: &str| std::fs::read_to_string(device.dir.join(file)).unwrap();
    let identity = Peer::of_pem(&pem("device.pem")).unwrap();
    let operational = Peer::of_pem(&pem("operational.pem")).unwrap();
    assert_eq!(
        (identity.kind, operational.kind),
        (Kind::Identity, Kind::Operational)
    );
    assert_ne!(identity.key, operational.key);
    let days = |peer: &Peer| peer.not_before.duration_until(peer.not_after).as_hours() / 24;
    assert_eq!((days(&identity), days(&operational)), (3650, 30));
    let listed = rig.api.device(&device.name).await.unwrap().certificates;
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .any(|row| row.serial == operational.serial && row.kind == "operational")
    );
}
