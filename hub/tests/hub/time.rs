//! Devices whose clock is wrong.

use crate::rig::*;
use identity::Failure;
use jiff::{SignedDuration, Timestamp};
use kit::Clock as _;
use std::time::Duration;

const TEN_YEARS: SignedDuration = SignedDuration::from_hours(24 * 3650);

#[tokio::test]
async fn a_device_without_a_clock_enrols_and_learns_the_time() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    let mut device = rig.stranger_at("a", Timestamp::UNIX_EPOCH);
    device.enrol(&rig.at(), &token).await.unwrap();
    device.connect(&rig.at()).await.unwrap();
    let off = device.keys.time().now().duration_until(rig.clock.now()).abs();
    assert!(off < SignedDuration::from_secs(60), "{off}");
    // The next boot starts in 1970 again, and is not below what was proven.
    device.clock.jump_to(Timestamp::UNIX_EPOCH);
    device.reopen();
    let off = device.keys.time().now().duration_until(rig.clock.now()).abs();
    assert!(off < SignedDuration::from_secs(60), "{off}");
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn a_clock_ten_years_ahead_locks_nobody_out() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    device.clock.jump_to(rig.clock.now() + TEN_YEARS);
    device.reopen();
    let Err(err) = device.connect(&rig.at()).await else {
        panic!("an expired hub was believed")
    };
    let failure = Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(&err));
    assert_eq!(failure, Failure::HubExpired);
    let nonce = identity::TimeKeeper::nonce();
    let signed = wire::client::signed_time(&rig.at(), device.keys.time_tls().unwrap(), &nonce)
        .await
        .unwrap();
    // Another question's answer proves nothing.
    assert!(
        device
            .keys
            .prove_time(&signed, "00112233445566778899aabbccddeeff")
            .is_err()
    );
    device.keys.prove_time(&signed, &nonce).unwrap();
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn a_hub_certificate_that_has_truly_expired_is_not_believed() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    // All agree that half a year has passed; the hub's listener still shows the certificate of then.
    let half_a_year = Duration::from_secs(183 * 86_400);
    rig.clock.advance(half_a_year);
    device.clock.advance(half_a_year);
    let nonce = identity::TimeKeeper::nonce();
    let signed = wire::client::signed_time(&rig.at(), device.keys.time_tls().unwrap(), &nonce)
        .await
        .unwrap();
    device.keys.prove_time(&signed, &nonce).unwrap();
    let Err(err) = device.renew(&rig.at()).await else {
        panic!("an expired hub was believed")
    };
    assert_eq!(
        Failure::of(err.tls(), err.reason(), None, String::new()),
        Failure::HubExpired
    );
}
