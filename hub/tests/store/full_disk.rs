//! A hub whose disk is full acknowledges nothing, keeps what it has, and goes on when there is room again.

use crate::setup::*;
use bytes::Bytes;
use hub::store::{Store, StoreError};
use kit::FakeClock;
use model::DeviceName;
async fn send(store: &Store, device: &DeviceName, n: u64) -> Result<u64, StoreError> {
    let payload = Bytes::from(vec![n as u8; 20_000]);
    let told = store
        .append_records(device, batch("readings", 1, [(n, payload)]))
        .await?;
    Ok(told.upto)
}

#[tokio::test]
async fn root_a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let Some(disk) = Small::mount(24 << 20) else {
        return;
    };
    let clock = FakeClock::at(start());
    let state = disk.path().join("hub");
    let store = open(&state, &clock);
    let device = enrol(&store, "pi").await;
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 18 << 20]).unwrap();

    let mut acknowledged = 0;
    let refusal = loop {
        match send(&store, &device, acknowledged + 1).await {
            Ok(upto) => acknowledged = upto,
            Err(err) => break err,
        }
        assert!(acknowledged < 1_000, "the disk was never full");
    };
    assert!(
        matches!(refusal, StoreError::Sql(_) | StoreError::Commit(_)),
        "{refusal}"
    );
    assert!(
        acknowledged > 10,
        "full after {acknowledged} records: nothing was tested"
    );
    // Many at once, so that good and failing writes share a transaction: none may be told what does not stand.
    let writers = (acknowledged + 1..acknowledged + 40).map(|n| {
        let (store, device) = (store.clone(), device.clone());
        tokio::spawn(async move { send(&store, &device, n).await.map(|_| n) })
    });
    let mut told = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        told.extend(writer.await.unwrap().ok());
    }
    let held = async |store: &Store| {
        let records = store.records(&device, "readings", (0, 0), 10_000).await.unwrap();
        records
            .into_iter()
            .map(|record| record.sequence)
            .collect::<Vec<_>>()
    };
    let kept = held(&store).await;
    let expected: Vec<u64> = (1..=acknowledged).chain(told.iter().copied()).collect();
    assert!(
        expected.iter().all(|n| kept.contains(n)),
        "told {told:?}, kept {kept:?}"
    );

    std::fs::remove_file(&ballast).unwrap();
    let end = acknowledged + 40;
    for n in acknowledged + 1..=end {
        send(&store, &device, n).await.unwrap();
    }
    assert_eq!(held(&store).await, (1..=end).collect::<Vec<_>>());
    drop(store);
    let store = open(&state, &clock);
    assert_eq!(store.cursors(&device).await.unwrap()[0].upto, end);
    assert_eq!(held(&store).await, (1..=end).collect::<Vec<_>>());
}
