//! The hub's authority and what devices keep of it.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use identity::{
    Authority, AuthorityError, DeviceKeys, EnrolToken, KeyError, Kind, OPERATIONAL_LIFE, Peer, TrustBundle,
    TrustError,
};
use jiff::{SignedDuration, Timestamp};
use kit::FakeClock;
use model::Signed;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn open(dir: &Path, domain: &str) -> Result<Authority, AuthorityError> {
    Authority::open(dir, domain, Arc::new(FakeClock::at(NOW)))
}

fn keys(dir: &Path) -> DeviceKeys {
    DeviceKeys::open(dir, Arc::new(FakeClock::at(NOW))).unwrap()
}

fn name() -> model::DeviceName {
    "a".parse().unwrap()
}

#[test]
fn an_authority_is_made_once_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), "leeward").unwrap();
    let again = open(dir.path(), "leeward").unwrap();
    assert_eq!(first.fingerprint().unwrap(), again.fingerprint().unwrap());
    assert_eq!(first.bundle(), again.bundle());
    use std::os::unix::fs::PermissionsExt as _;
    let file = dir.path().join("authority.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(
        open(dir.path(), "elsewhere"),
        Err(AuthorityError::OtherDomain { .. })
    ));
    // A damaged file must never lead to a new authority: every device would have to enrol again.
    let text = std::fs::read_to_string(&file).unwrap();
    for damage in [
        &text[..text.len() / 2],
        "",
        "{}",
        &text.replace("MIG", "MIX"),
        &text.replace("issuing", "old"),
    ] {
        std::fs::write(&file, damage).unwrap();
        let outcome = open(dir.path(), "leeward").and_then(|authority| authority.server(&[]).map(drop));
        assert!(outcome.is_err(), "{damage:.40}");
    }
    std::fs::write(&file, text).unwrap();
    assert_eq!(open(dir.path(), "leeward").unwrap().bundle(), first.bundle());
}

#[test]
fn names_purpose_and_dates_are_the_hubs_whatever_the_request_says() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path(), "leeward").unwrap();
    let device = keys(&dir.path().join("device"));
    // The request is of "root"; the certificate is of who was let in.
    let requests = device.requests(&"root".parse().unwrap()).unwrap();
    let issued = authority
        .issue(
            Kind::Operational,
            &requests.operational_csr,
            &name(),
            OPERATIONAL_LIFE,
        )
        .unwrap();
    let peer = Peer::of_pem(&issued.pem).unwrap();
    assert_eq!(
        (peer.name.as_str(), peer.domain.as_str(), peer.kind),
        ("a", "leeward", Kind::Operational)
    );
    assert_eq!(peer.not_after, NOW + OPERATIONAL_LIFE);
    // Serial numbers are random and positive (RFC 5280, 4.1.2.2).
    let other = authority
        .issue(
            Kind::Operational,
            &requests.operational_csr,
            &name(),
            OPERATIONAL_LIFE,
        )
        .unwrap();
    assert_ne!(other.peer.serial, peer.serial);
    assert!(peer.serial.len() == 32 && u8::from_str_radix(&peer.serial[..2], 16).unwrap() < 0x80);
    // A certificate authority's certificate names no device.
    assert!(Peer::of_pem(authority.certificate()).is_err());
}

#[test]
fn an_answer_for_other_keys_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path(), "leeward").unwrap();
    let token = EnrolToken::generate(authority.fingerprint().unwrap());
    let mut device = keys(&dir.path().join("device"));
    let (ours, theirs) = (
        device.requests(&name()).unwrap(),
        keys(&dir.path().join("other")).requests(&name()).unwrap(),
    );
    let issue = |kind, csr: &str| authority.issue(kind, csr, &name(), OPERATIONAL_LIFE).unwrap().pem;
    let identity = issue(Kind::Identity, &ours.identity_csr);
    let operational = issue(Kind::Operational, &ours.operational_csr);
    let bundle = authority.bundle();
    let swapped = issue(Kind::Identity, &theirs.identity_csr);
    let foreign = issue(Kind::Operational, &theirs.operational_csr);
    for (identity, operational) in [
        (&swapped, &operational),
        (&identity, &foreign),
        (&operational, &identity),
    ] {
        let outcome = device.store_enrolment(&token, &ours, identity, operational, bundle);
        assert!(matches!(outcome, Err(KeyError::NotOurs(_))), "{outcome:?}");
    }
    let elsewhere = EnrolToken::generate([1; 32]);
    let outcome = device.store_enrolment(&elsewhere, &ours, &identity, &operational, bundle);
    assert!(matches!(outcome, Err(KeyError::OtherAuthority)), "{outcome:?}");
    assert_eq!(device.held(), None, "nothing of a refused answer may stay");
    assert_eq!(keys(&dir.path().join("device")).held(), None);
    let held = device
        .store_enrolment(&token, &ours, &identity, &operational, bundle)
        .unwrap();
    // And what was kept is there after a restart.
    assert_eq!(keys(&dir.path().join("device")).held(), Some(held));
}

#[test]
fn a_bundle_moves_forward_only_and_only_by_its_signer() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = open(&dir.path().join("one"), "leeward").unwrap();
    let other = open(&dir.path().join("two"), "leeward").unwrap();
    let first = authority.bundle().clone();
    let held = TrustBundle::first(&first).unwrap();
    assert!(held.next(&first).unwrap().is_none(), "the same bundle is no news");
    authority.prepare().unwrap();
    assert!(matches!(authority.prepare(), Err(AuthorityError::RollOver(_))));
    let newer = held.next(authority.bundle()).unwrap().unwrap();
    assert_eq!((newer.serial, newer.roots.len()), (2, 2));
    assert!(matches!(newer.next(&first), Err(TrustError::Stale { .. })));
    assert!(matches!(held.next(other.bundle()), Err(TrustError::Signature(_))));
    let forged = Signed {
        text: first.text.replace("leeward", "leeword"),
        ..first.clone()
    };
    assert!(matches!(held.next(&forged), Err(TrustError::Signature(_))));
    assert!(matches!(
        TrustBundle::first(&forged),
        Err(TrustError::Signature(_))
    ));
    assert!(matches!(
        TrustBundle::first(&Signed {
            text: "{".into(),
            ..first
        }),
        Err(TrustError::Parse(_))
    ));
    authority.activate().unwrap();
    authority.retire().unwrap();
    assert!(matches!(authority.retire(), Err(AuthorityError::RollOver(_))));
    assert!(matches!(authority.activate(), Err(AuthorityError::RollOver(_))));
    let last = newer.next(authority.bundle()).unwrap().unwrap();
    assert_eq!((last.serial, last.roots.len()), (4, 1));
    assert_ne!(last.roots, held.roots);
}

#[test]
fn an_identity_certificate_is_followed_up_in_time() {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(NOW);
    let mut authority = Authority::open(&dir.path().join("ca"), "leeward", Arc::new(clock.clone())).unwrap();
    let requests = keys(&dir.path().join("device")).requests(&name()).unwrap();
    let life = SignedDuration::from_hours(24 * 100);
    let issued = authority
        .issue(Kind::Identity, &requests.identity_csr, &name(), life)
        .unwrap();
    let shown = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    assert_eq!(authority.follow_up(&shown).unwrap(), None);
    clock.advance(Duration::from_secs(51 * 86_400));
    let next = authority.follow_up(&shown).unwrap().unwrap();
    assert_eq!(
        (&next.peer.key, &next.peer.name),
        (&issued.peer.key, &issued.peer.name)
    );
    assert!(next.peer.not_after > issued.peer.not_after);
    let next = CertificateDer::from_pem_slice(next.pem.as_bytes()).unwrap();
    assert_eq!(authority.follow_up(&next).unwrap(), None);
    // At a roll-over the certificate follows to the new authority, however young it is.
    authority.prepare().unwrap();
    assert_eq!(authority.follow_up(&next).unwrap(), None);
    authority.activate().unwrap();
    assert!(authority.follow_up(&next).unwrap().is_some());
}
