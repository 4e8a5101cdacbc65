//! F12: links that break and machines that restart in the middle of a download.

use crate::common::*;
use blobs::oci::{Descriptor, LAYER_GZIP};
use blobs::store::CHUNK_BYTES;
use blobs::{Progress, Store};
use model::{Digest, ImageRef};

/// What the answers' headers may take on each connection.
const HEADERS: u64 = 1024;

async fn pushed(source: &Store, registry: &DockerRegistry, data: &[u8]) -> (ImageRef, Descriptor) {
    let name: ImageRef = "r.test/models/one:1".parse().unwrap();
    let blob = Descriptor::new(LAYER_GZIP, Digest::of(data), data.len() as u64);
    source.put(data).unwrap();
    // A manifest makes the registry keep the blob for this repository.
    let manifest = serde_json::json!({"schemaVersion": 2,
        "mediaType": blobs::oci::MANIFEST,
        "config": blob, "layers": [blob]});
    let top = source.put(manifest.to_string().as_bytes()).unwrap();
    registries(&registry.url())
        .push(source, &top, &name, None, Progress::none())
        .await
        .unwrap();
    (name, blob)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_cut_at_every_byte_goes_on_from_there() {
    if !have("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let data = noise(300, 1);
    let (name, blob) = pushed(&store(&dir.path().join("source")), &registry, &data).await;
    let link = Link::to(registry.address);
    let store = store(dir.path());
    let fetch = async |cuts: &[u64]| {
        link.cut_at(cuts.iter().copied());
        // A client of its own, so that each try has its own connection.
        let registries = registries(&link.url());
        registries
            .fetch_blob(&store, &name, &blob, None, Progress::none())
            .await
            .unwrap();
        assert!(store.verify(&blob.digest).unwrap(), "cut at {cuts:?}");
        store.remove(&blob.digest).unwrap();
        link.take_counts()
    };
    let (whole, _) = fetch(&[]).await;
    // An answer to a range has a line more in its header.
    let headers = whole - data.len() as u64 + 100;
    // From nothing at all, through the headers, to the last byte.
    for cut in 0..whole {
        let (carried, connections) = fetch(&[cut]).await;
        let again = carried.saturating_sub(whole);
        assert!(connections >= 2, "cut at {cut} was no cut");
        assert!(
            again <= (connections - 1) * headers,
            "cut at {cut}: {again} bytes again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_over_a_bad_link_fetches_nothing_twice() {
    if !have("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let chunk = CHUNK_BYTES;
    let data = noise(usize::try_from(5 * chunk + 77).unwrap(), 2);
    let (name, blob) = pushed(&store(&dir.path().join("source")), &registry, &data).await;
    let link = Link::to(registry.address);
    let cuts = [
        1,
        chunk - 1,
        chunk,
        chunk + 1,
        100,
        0,
        1_000_000,
        chunk / 2,
        65_536,
    ];
    link.cut_at(cuts);
    let store = store(dir.path());
    let registries = registries(&link.url());
    registries
        .fetch_blob(&store, &name, &blob, None, Progress::none())
        .await
        .unwrap();
    assert!(store.verify(&blob.digest).unwrap());
    let (carried, connections) = link.take_counts();
    assert_eq!(link.cuts_left(), 0);
    let again = carried.saturating_sub(data.len() as u64);
    eprintln!(
        "{} bytes over {connections} connections: {again} bytes more",
        data.len()
    );
    assert!(again <= connections * HEADERS, "{again} bytes more than the blob");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_costs_one_chunk_at_most() {
    if !have("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let data = noise(usize::try_from(4 * CHUNK_BYTES + 5).unwrap(), 3);
    let (name, blob) = pushed(&store(&dir.path().join("source")), &registry, &data).await;
    let link = Link::to(registry.address);
    let mut restarts = 0;
    for dies_at in [
        CHUNK_BYTES / 2,
        CHUNK_BYTES + 1000,
        2 * CHUNK_BYTES - 1,
        3 * CHUNK_BYTES,
    ] {
        // The process dies when so much has come: its client stops in the middle, nothing is tidied up.
        let store = store(dir.path());
        let at = store.partial(&blob.digest, blob.size).unwrap().at();
        link.cut_at([dies_at - at + 400]);
        let registries = blobs::Registries::new(blobs::Patience {
            failures: 1,
            ..impatient()
        });
        let place = blobs::RegistryConfig::at(blobs::Endpoint::plain(&link.url()));
        registries.configure("r.test", place).unwrap();
        registries
            .fetch_blob(&store, &name, &blob, None, Progress::none())
            .await
            .unwrap_err();
        restarts += 1;
    }
    let store = store(dir.path());
    registries(&link.url())
        .fetch_blob(&store, &name, &blob, None, Progress::none())
        .await
        .unwrap();
    assert!(store.verify(&blob.digest).unwrap());
    let (carried, connections) = link.take_counts();
    let again = carried - data.len() as u64;
    eprintln!("{restarts} restarts: {again} bytes fetched again");
    assert!(again <= restarts * CHUNK_BYTES + connections * HEADERS, "{again}");
}
