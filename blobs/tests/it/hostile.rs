//! F19: registries that lie. Each is refused with a clear error, and nothing of it stays.

use crate::common::*;
use blobs::oci::{self, ImageConfig};
use blobs::{Progress, Registry};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use model::{Digest, ImageRef, PullPolicy};
use std::fs;

type Answer = Response<blobs::registry::RegistryBody>;

fn answer(status: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    let body = Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Pulls from a registry whose answers `lie` may change; gives the error and checks that nothing was left.
async fn pull_from(
    lie: impl Fn(&Request<Incoming>, &Lies) -> Option<Answer> + Clone + Send + Sync + 'static,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let source = store(&dir.path().join("source"));
    let layer = tar(&[("file", Put::File(0o644, &noise(100_000, 1)))]);
    let built = image(
        &source,
        &platform("linux/amd64"),
        &[(layer, "+gzip")],
        ImageConfig::default(),
    );
    let name: ImageRef = "r.test/a:1".parse().unwrap();
    registries(&ours.url())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    let manifest = source.read(&built.digest, 1 << 20).unwrap().unwrap();
    let lies = Lies {
        manifest: serde_json::from_slice(&manifest).unwrap(),
    };
    let registry: Registry = ours.registry.clone();
    let (address, _) = serve(move |request| {
        let (registry, lied) = (registry.clone(), lie(&request, &lies));
        async move {
            match lied {
                Some(answer) => answer,
                None => registry.handle(request).await,
            }
        }
    })
    .await;
    let device = dir.path().join("device");
    let images_ = images(&device, &registries(&format!("http://{address}")));
    let wanted = platform("linux/amd64");
    let result = images_
        .ensure(&name, &wanted, PullPolicy::IfNotPresent, Progress::none())
        .await;
    assert!(images_.local(&name, &wanted).await.unwrap().is_none());
    let left = |path: &str| fs::read_dir(device.join(path)).unwrap().count();
    assert_eq!(
        (left("images/layers"), left("images/tmp"), left("store/tmp")),
        (0, 0, 0)
    );
    kit::chain(&result.unwrap_err())
}

#[derive(Clone)]
struct Lies {
    manifest: oci::Manifest,
}

impl Lies {
    fn layer(&self, request: &Request<Incoming>) -> bool {
        request
            .uri()
            .path()
            .ends_with(&self.manifest.layers[0].digest.to_string())
    }

    fn with(&self, request: &Request<Incoming>, change: impl FnOnce(&mut oci::Manifest)) -> Option<Answer> {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        let wanted = request.uri().path().contains("/manifests/");
        wanted.then(|| answer(StatusCode::OK, serde_json::to_vec(&manifest).unwrap()))
    }
}

#[track_caller]
fn check(text: &str, words: &[&str]) {
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_the_digest_says_are_refused() {
    let err = pull_from(|request, lies| {
        let size = usize::try_from(lies.manifest.layers[0].size).unwrap();
        lies.layer(request)
            .then(|| answer(StatusCode::OK, noise(size, 9)))
    })
    .await;
    check(&err, &["cannot pull r.test/a:1", "changed or damaged"]);
    let err = pull_from(|request, _| {
        let wanted = request.uri().path().contains("/manifests/");
        wanted.then(|| {
            let mut lied = answer(StatusCode::OK, "{}");
            let other = Digest::of(b"other").to_string();
            lied.headers_mut()
                .insert("docker-content-digest", other.parse().unwrap());
            lied
        })
    })
    .await;
    check(&err, &["/v2/a/manifests/1", "wrong answer", "digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_cut_at_the_declared_size() {
    let endless = |lies_to_manifest: bool| {
        move |request: &Request<Incoming>, lies: &Lies| {
            let wanted = if lies_to_manifest {
                request.uri().path().contains("/manifests/")
            } else {
                lies.layer(request)
            };
            wanted.then(|| {
                let piece = || Ok(Frame::data(Bytes::from(vec![b' '; 65_536])));
                let stream = futures_util::stream::repeat_with(piece);
                Response::new(StreamBody::new(stream).boxed_unsync())
            })
        }
    };
    check(
        &pull_from(endless(false)).await,
        &["bytes where", "were declared"],
    );
    check(&pull_from(endless(true)).await, &["more than 4194304 bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lies_is_refused() {
    // A smaller size than the blob has.
    let err = pull_from(|request, lies| lies.with(request, |manifest| manifest.layers[0].size -= 1)).await;
    check(&err, &["bytes where", "were declared"]);
    let err = pull_from(|request, lies| lies.with(request, |manifest| manifest.layers[0].size += 1)).await;
    check(&err, &["416", "the blob has", "bytes"]);
    // More than any disk here has: refused before the first byte.
    let err =
        pull_from(|request, lies| lies.with(request, |manifest| manifest.layers[0].size = u64::MAX / 4))
            .await;
    check(&err, &["no room for"]);
    let err = pull_from(|request, lies| lies.with(request, |manifest| manifest.layers.clear())).await;
    check(&err, &["0 layers", "its configuration 1"]);
    let err = pull_from(|request, lies| {
        lies.with(request, |manifest| manifest.config = manifest.layers[0].clone())
    })
    .await;
    check(&err, &["configuration does not parse"]);
    let err = pull_from(|request, lies| {
        lies.with(request, |manifest| {
            manifest.layers[0].media_type = "application/wasm".to_owned()
        })
    })
    .await;
    check(&err, &["layer 1", "application/wasm", "not supported"]);
    let documents = [
        ("<html>", "no manifest"),
        (r#"{"schemaVersion": 1}"#, "schema 1"),
        (r#"{"schemaVersion": 2}"#, "neither a manifest nor an index"),
        (
            r#"{"schemaVersion": 2, "manifests": [], "config": {}}"#,
            "an index too",
        ),
        (
            r#"{"schemaVersion": 2, "manifests": []}"#,
            "offered for no platform at all",
        ),
        (
            r#"{"schemaVersion": 2, "manifests": [{"digest": "sha256:../../etc", "size": 1}]}"#,
            "digest",
        ),
    ];
    for (document, word) in documents {
        let err = pull_from(move |request, _| {
            let wanted = request.uri().path().contains("/manifests/");
            wanted.then(|| answer(StatusCode::OK, document))
        })
        .await;
        check(&err, &["r.test/a:1", word]);
    }
}

/// An index that names itself, or one that names the next: bounded.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_indexes_without_end_is_refused() {
    let err = pull_from(|request, _| {
        let path = request.uri().path();
        let depth: u64 = path.rsplit('/').next().filter(|_| path.contains("/manifests/"))?.len() as u64;
        // Each answer is a new index that names another new one; digests cannot match, so the client finds out.
        let child = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{depth},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
            Digest::of(path.as_bytes())
        );
        Some(answer(StatusCode::OK, child))
    })
    .await;
    check(&err, &["wrong answer", "has digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_was_not_asked_for_is_refused() {
    let err = pull_from(|request, lies| {
        if !lies.layer(request) {
            return None;
        }
        let mut lied = answer(StatusCode::PARTIAL_CONTENT, noise(10, 1));
        lied.headers_mut()
            .insert("content-range", "bytes 50-59/100".parse().unwrap());
        Some(lied)
    })
    .await;
    check(&err, &["Content-Range", "from 0 were asked"]);
}

/// A layer that would reach out of its folder, pushed as any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_layer_of_an_image_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let source = store(&dir.path().join("source"));
    let good = tar(&[("file", Put::File(0o644, b"x"))]);
    let evil = tar(&[
        ("a", Put::Symlink("../../..")),
        ("a/evil", Put::File(0o644, b"x")),
    ]);
    let layers = [(good, "+gzip"), (evil, "+gzip")];
    let built = image(&source, &platform("linux/amd64"), &layers, ImageConfig::default());
    let name: ImageRef = "r.test/a:1".parse().unwrap();
    let registries = registries(&ours.url());
    registries
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    let images_ = images(&dir.path().join("device"), &registries);
    let wanted = platform("linux/amd64");
    let err = images_
        .ensure(&name, &wanted, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap_err();
    assert!(!err.is_transient());
    check(
        &kit::chain(&err),
        &["layer 2 of r.test/a:1", "\"a/evil\"", "out of the layer"],
    );
    assert!(images_.local(&name, &wanted).await.unwrap().is_none());
    assert_eq!(
        images_.collect(std::time::Duration::ZERO).unwrap().layers,
        1,
        "the good one is no image's"
    );
    assert_eq!(fs::read_dir(images_.layers_dir()).unwrap().count(), 0);
}
