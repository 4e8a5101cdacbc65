//! Our registry with skopeo, with our own client, and with requests made by hand.

use crate::api::*;
use crate::common::*;
use blobs::oci::ImageConfig;
use blobs::registry::{Access, Action, Answer};
use blobs::{Progress, RegistryError};
use http::StatusCode;
use model::{Digest, ImageRef, PullPolicy};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn skopeo(args: &[&str]) -> String {
    run(Command::new("skopeo").args(args))
}

fn small_image(store: &blobs::Store, platform_: &str, seed: u64) -> blobs::oci::Descriptor {
    let layer = tar(&[("file", Put::File(0o644, &noise(50_000, seed)))]);
    image(
        store,
        &platform(platform_),
        &[(layer, "+gzip")],
        ImageConfig::default(),
    )
}

/// skopeo copies between Debian's registry and ours, both ways, index and all, and every byte is the same.
#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_both_ways() {
    if !have("docker-registry") || !have("skopeo") {
        return;
    }
    let theirs = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let source = store(&dir.path().join("source"));
    let top = index(
        &source,
        vec![
            small_image(&source, "linux/amd64", 1),
            small_image(&source, "linux/arm64", 2),
        ],
    );
    let name: ImageRef = "r.test/apps/web:1".parse().unwrap();
    registries(&theirs.url())
        .push(&source, &top, &name, None, Progress::none())
        .await
        .unwrap();

    let (their_host, our_host) = (theirs.address.to_string(), ours.address.to_string());
    let copied = tokio::task::spawn_blocking(move || {
        let no_tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        let copy = |from: String, to: String| {
            skopeo(&["copy", "--all", no_tls[0], no_tls[1], &from, &to]);
        };
        copy(
            format!("docker://{their_host}/apps/web:1"),
            format!("docker://{our_host}/apps/web:1"),
        );
        copy(
            format!("docker://{our_host}/apps/web:1"),
            format!("docker://{their_host}/back/web:1"),
        );
        // Within one registry, skopeo mounts blobs.
        copy(
            format!("docker://{our_host}/apps/web:1"),
            format!("docker://{our_host}/apps/other:2"),
        );
        let raw = |host: &str, name: &str| {
            skopeo(&[
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{host}/{name}"),
            ])
        };
        assert_eq!(raw(&our_host, "apps/web:1"), raw(&their_host, "back/web:1"));
        assert_eq!(raw(&our_host, "apps/web:1"), raw(&our_host, "apps/other:2"));
        let digest = Digest::of(raw(&our_host, "apps/web:1").as_bytes());
        let tags = skopeo(&[
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{our_host}/apps/web"),
        ]);
        skopeo(&[
            "delete",
            "--tls-verify=false",
            &format!("docker://{our_host}/apps/other:2"),
        ]);
        (digest, tags)
    });
    let (digest, tags) = copied.await.unwrap();
    assert_eq!(digest, top);
    assert!(tags.contains("\"1\""), "{tags}");
    assert_eq!(ours.registry.repositories().unwrap(), ["apps/other", "apps/web"]);
    assert_eq!(ours.registry.tags("apps/other").unwrap(), []);
    assert_eq!(ours.registry.tags("apps/web").unwrap(), [("1".to_owned(), top)]);

    let images_ = images(&dir.path().join("device"), &registries(&ours.url()));
    let arm64 = platform("linux/arm64");
    images_
        .ensure(&name, &arm64, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap();
}

/// F12 towards the registry: an upload goes on where it broke, over a restart of the registry too.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_bad_link_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let hub = dir.path().join("hub");
    let ours = OurRegistry::start(&hub).await;
    let source = store(&dir.path().join("source"));
    let piece = 8 * 1024 * 1024;
    let layer = tar(&[("file", Put::File(0o644, &noise(3 * piece + 12_345, 3)))]);
    let size = layer.len() as u64;
    let built = image(
        &source,
        &platform("linux/amd64"),
        &[(layer, "")],
        ImageConfig::default(),
    );
    let link = Link::to(ours.address);
    let piece = piece as u64;
    link.cut_up_at([100, piece / 2, piece + 1000, 10, 3 * piece]);
    let name: ImageRef = "r.test/apps/big:1".parse().unwrap();
    registries(&link.url())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    assert_eq!(link.cuts_left(), 0);
    let again = link.take_up().saturating_sub(size);
    eprintln!("{size} bytes up: {again} bytes more");
    // What was on its way into a socket when the link broke may be lost.
    assert!(again < 5 * 1024 * 1024, "{again}");

    let device = dir.path().join("device");
    let images_ = images(&device, &registries(&ours.url()));
    images_
        .ensure(
            &name,
            &platform("linux/amd64"),
            PullPolicy::IfNotPresent,
            Progress::none(),
        )
        .await
        .unwrap();
    ours.stop().await;
}

/// A piece that was still on its way when the link broke arrives after the registry said how far it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_further_than_was_said_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let source = store(&dir.path().join("source"));
    let piece = 8 * 1024 * 1024;
    let layer = tar(&[("file", Put::File(0o644, &noise(2 * piece, 3)))]);
    let layers = [(layer, "")];
    let built = image(&source, &platform("linux/amd64"), &layers, ImageConfig::default());
    let (registry, lied) = (ours.registry.clone(), Arc::new(AtomicBool::new(false)));
    let lies = lied.clone();
    let (address, server) = serve(move |request| {
        let (registry, lies) = (registry.clone(), lies.clone());
        async move {
            let how_far = request.method() == Method::GET && request.uri().path().contains("/uploads/");
            let mut answer = registry.handle(request).await;
            if how_far && !lies.swap(true, Ordering::SeqCst) {
                let range = answer.headers_mut().insert("range", "0-0".parse().unwrap());
                assert_ne!(range.unwrap(), "0-0");
            }
            answer
        }
    })
    .await;
    let link = Link::to(address);
    // Whichever of the client's connections the pieces go over is cut.
    link.cut_up_at([piece as u64 * 3 / 2; 4]);
    let name: ImageRef = "r.test/apps/big:1".parse().unwrap();
    registries(&link.url())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    assert!(lied.load(Ordering::SeqCst));
    server.abort();
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_come_in_pieces_in_order_and_out_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let api = Api::new(&ours);
    let data = noise(10_000, 4);
    let digest = Digest::of(&data);
    let at = api.start("a/b").await;
    let patch = |range: &str, part: &[u8]| {
        api.ask(Method::PATCH, &at)
            .header("content-range", range.to_owned())
            .body(part.to_vec())
    };
    let response = api
        .expect(patch("0-3999", &data[..4000]), StatusCode::ACCEPTED)
        .await;
    assert_eq!(header(&response, "range"), "0-3999");
    let response = api
        .expect(
            patch("5000-5999", &data[5000..6000]),
            StatusCode::RANGE_NOT_SATISFIABLE,
        )
        .await;
    assert_eq!(header(&response, "range"), "0-3999");
    // Another repository's client cannot touch it.
    let stranger = at.replace("/a/b/", "/x/y/");
    api.expect(api.ask(Method::GET, &stranger), StatusCode::NOT_FOUND)
        .await;
    let response = api
        .expect(api.ask(Method::GET, &at), StatusCode::NO_CONTENT)
        .await;
    assert_eq!(header(&response, "range"), "0-3999");
    let put = |digest: Digest, part: &[u8]| {
        api.ask(Method::PUT, &format!("{at}?digest={digest}"))
            .body(part.to_vec())
    };
    let response = api.expect(put(digest, &data[4000..]), StatusCode::CREATED).await;
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());

    let blob = header(&response, "location");
    let range = |range: &str| api.ask(Method::GET, &blob).header("range", range.to_owned());
    let response = api
        .expect(range("bytes=9990-"), StatusCode::PARTIAL_CONTENT)
        .await;
    assert_eq!(header(&response, "content-range"), "bytes 9990-9999/10000");
    assert_eq!(response.bytes().await.unwrap(), data[9990..]);
    let response = api
        .expect(range("bytes=10000-"), StatusCode::RANGE_NOT_SATISFIABLE)
        .await;
    assert_eq!(header(&response, "content-range"), "bytes */10000");
    let response = api.expect(api.ask(Method::HEAD, &blob), StatusCode::OK).await;
    assert_eq!(header(&response, "content-length"), "10000");
    assert_eq!(api.get(&blob).await.bytes().await.unwrap(), data);

    // A blob that is not what it says leaves nothing, and neither does one that is cancelled.
    let at = api.start("a/b").await;
    let wrong = api
        .ask(Method::PUT, &format!("{at}?digest={}", Digest::of(b"other")))
        .body("wrong");
    let response = api.expect(wrong, StatusCode::BAD_REQUEST).await;
    assert_eq!(code(response).await, "DIGEST_INVALID");
    let at = api.start("a/b").await;
    api.expect(api.ask(Method::DELETE, &at), StatusCode::NO_CONTENT)
        .await;
    api.expect(api.ask(Method::GET, &at), StatusCode::NOT_FOUND).await;
    assert_eq!(
        std::fs::read_dir(dir.path().join("registry/uploads"))
            .unwrap()
            .count(),
        0
    );

    // In another repository it is only after it was mounted there.
    let elsewhere = format!("/v2/c/blobs/{digest}");
    assert_eq!(code(api.get(&elsewhere).await).await, "BLOB_UNKNOWN");
    let mount = format!("/v2/c/blobs/uploads/?mount={digest}&from=a/b");
    api.expect(api.ask(Method::POST, &mount), StatusCode::CREATED)
        .await;
    assert_eq!(api.get(&elsewhere).await.status(), StatusCode::OK);
    let absent = format!("/v2/c/blobs/uploads/?mount={}&from=a/b", Digest::of(b"absent"));
    api.expect(api.ask(Method::POST, &absent), StatusCode::ACCEPTED)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_name_what_is_there_and_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let api = Api::new(&ours);
    let config = api.put_blob("a", b"{}").await;
    let good = manifest(config, 2);
    for tag in ["v2", "v1", "v10"] {
        assert_eq!(
            api.put_manifest("a", tag, &good).await.status(),
            StatusCode::CREATED
        );
    }
    let digest = Digest::of(good.to_string().as_bytes());
    let response = api.get(&format!("/v2/a/manifests/{digest}")).await;
    assert_eq!(header(&response, "content-type"), blobs::oci::MANIFEST);
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());

    let page = api.get("/v2/a/tags/list?n=2").await;
    assert_eq!(
        header(&page, "link"),
        "</v2/a/tags/list?n=2&last=v10>; rel=\"next\""
    );
    assert_eq!(
        page.json::<Value>().await.unwrap(),
        json!({"name": "a", "tags": ["v1", "v10"]})
    );
    let page = api.get("/v2/a/tags/list?n=2&last=v10").await;
    assert_eq!(header(&page, "link"), "");
    assert_eq!(page.json::<Value>().await.unwrap()["tags"], json!(["v2"]));
    assert_eq!(
        api.get("/v2/_catalog").await.json::<Value>().await.unwrap(),
        json!({"repositories": ["a"]})
    );

    for (bad, want) in [
        (manifest(Digest::of(b"absent"), 2), "MANIFEST_BLOB_UNKNOWN"),
        (manifest(config, 3), "MANIFEST_INVALID"),
        (
            json!({"schemaVersion": 1, "mediaType": blobs::oci::MANIFEST}),
            "MANIFEST_INVALID",
        ),
        (
            json!({"schemaVersion": 2, "mediaType": "text/plain", "config": good["config"]}),
            "MANIFEST_INVALID",
        ),
        (
            json!({"schemaVersion": 2, "mediaType": blobs::oci::INDEX, "config": good["config"]}),
            "MANIFEST_INVALID",
        ),
        (
            json!({"schemaVersion": 2, "mediaType": blobs::oci::INDEX,
                "manifests": [{"mediaType": blobs::oci::MANIFEST, "digest": Digest::of(b"no"), "size": 1}]}),
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ] {
        assert_eq!(
            code(api.put_manifest("a", "bad", &bad).await).await,
            want,
            "{bad}"
        );
    }
    let wrong = format!("/v2/a/manifests/{}", Digest::of(b"other"));
    let request = api
        .ask(Method::PUT, &wrong)
        .header("content-type", blobs::oci::MANIFEST);
    let response = api
        .expect(request.body(good.to_string()), StatusCode::BAD_REQUEST)
        .await;
    assert_eq!(code(response).await, "DIGEST_INVALID");
    let large = api
        .ask(Method::PUT, "/v2/a/manifests/large")
        .body(vec![b' '; 5 << 20]);
    api.expect(large, StatusCode::PAYLOAD_TOO_LARGE).await;
    assert_eq!(
        code(api.get("/v2/a/manifests/bad").await).await,
        "MANIFEST_UNKNOWN"
    );
    assert_eq!(code(api.get("/v2/b/tags/list").await).await, "NAME_UNKNOWN");
    assert_eq!(code(api.get("/v2/A/tags/list").await).await, "NAME_INVALID");
    assert_eq!(
        code(api.get("/v2/a/../../etc/tags/list").await).await,
        "UNSUPPORTED"
    );

    // What is about it is found, and what is removed is gone.
    let mut signature = good.clone();
    signature["artifactType"] = json!("application/vnd.test.signature");
    signature["subject"] = json!({"mediaType": blobs::oci::MANIFEST, "digest": digest, "size": 1});
    let about = Digest::of(signature.to_string().as_bytes());
    let response = api.put_manifest("a", &about.to_string(), &signature).await;
    assert_eq!(header(&response, "oci-subject"), digest.to_string());
    let found = async |query: &str| {
        let response = api.get(&format!("/v2/a/referrers/{digest}{query}")).await;
        assert_eq!(header(&response, "content-type"), blobs::oci::INDEX);
        response.json::<Value>().await.unwrap()["manifests"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(found("").await[0]["digest"], json!(about));
    assert_eq!(
        found("?artifactType=application/vnd.test.signature").await.len(),
        1
    );
    assert_eq!(found("?artifactType=other").await.len(), 0);
    api.expect(
        api.ask(Method::DELETE, &format!("/v2/a/manifests/{about}")),
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(found("").await.len(), 0);
    api.expect(
        api.ask(Method::DELETE, "/v2/a/manifests/v1"),
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(
        api.get("/v2/a/tags/list").await.json::<Value>().await.unwrap()["tags"],
        json!(["v10", "v2"])
    );
    api.expect(
        api.ask(Method::DELETE, &format!("/v2/a/manifests/{digest}")),
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(
        api.get("/v2/a/tags/list").await.json::<Value>().await.unwrap()["tags"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_outlives_a_restart_and_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let source = store(&dir.path().join("source"));
    let built = small_image(&source, "linux/amd64", 5);
    let name: ImageRef = "r.test/a:1".parse().unwrap();
    registries(&ours.url())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    let api = Api::new(&ours);
    let stray = api.put_blob("a", b"no manifest names this").await;
    let upload = api.start("a").await;
    api.expect(
        api.ask(Method::PATCH, &upload).body("begun"),
        StatusCode::ACCEPTED,
    )
    .await;
    ours.stop().await;

    let ours = OurRegistry::start(dir.path()).await;
    let api = Api::new(&ours);
    let response = api
        .expect(api.ask(Method::GET, &upload), StatusCode::NO_CONTENT)
        .await;
    assert_eq!(header(&response, "range"), "0-4");
    assert_eq!(ours.registry.collect(Duration::ZERO).unwrap().blobs, 1);
    assert_eq!(
        code(api.get(&format!("/v2/a/blobs/{stray}")).await).await,
        "BLOB_UNKNOWN"
    );
    let images_ = images(&dir.path().join("device"), &registries(&ours.url()));
    images_
        .ensure(
            &name,
            &platform("linux/amd64"),
            PullPolicy::IfNotPresent,
            Progress::none(),
        )
        .await
        .unwrap();
}

/// F5 at the hub: whatever becomes of its pin files, what the repositories hold is kept.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_pins_are_made_anew_from_the_repositories() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let source = store(&dir.path().join("source"));
    let built = small_image(&source, "linux/amd64", 11);
    let name: ImageRef = "r.test/a:1".parse().unwrap();
    registries(&ours.url())
        .push(&source, &built.digest, &name, None, Progress::none())
        .await
        .unwrap();
    ours.stop().await;
    for damage in [b"{".as_slice(), b""] {
        for entry in std::fs::read_dir(dir.path().join("store/pins")).unwrap() {
            std::fs::write(entry.unwrap().path(), damage).unwrap();
        }
        let ours = OurRegistry::start(dir.path()).await;
        assert_eq!(ours.registry.collect(Duration::ZERO).unwrap().blobs, 0);
        registries(&ours.url())
            .resolve(&name, &platform("linux/amd64"), None)
            .await
            .unwrap();
        ours.stop().await;
    }
}

/// F5 at the hub: a blob that rots on its disk never arrives, and pushing it again heals it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_never_arrives_and_can_be_pushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let api = Api::new(&ours);
    let data = noise(1_000_000, 6);
    let digest = api.put_blob("a", &data).await;
    let file = dir.path().join("store/blobs/sha256").join(digest.hex());
    let mut rotten = data.clone();
    rotten[500_000] ^= 1;
    std::fs::write(&file, rotten).unwrap();
    let path = format!("/v2/a/blobs/{digest}");
    assert!(
        api.get(&path).await.bytes().await.is_err(),
        "damaged bytes arrived whole"
    );
    assert_eq!(code(api.get(&path).await).await, "BLOB_UNKNOWN");
    api.put_blob("a", &data).await;
    assert_eq!(api.get(&path).await.bytes().await.unwrap(), data);
}

/// An image that was built beside the registry needs no push.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_built_in_the_registrys_store_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(dir.path()).await;
    let hub = dir.path().join("other");
    let other = store(&hub);
    let registry = blobs::Registry::open(&hub.join("registry"), other.clone(), Access::open()).unwrap();
    let top = index(
        &other,
        vec![
            small_image(&other, "linux/amd64", 7),
            small_image(&other, "linux/arm64", 8),
        ],
    );
    registry.publish("apps/web", "1", &top).unwrap();
    assert_eq!(registry.tags("apps/web").unwrap(), [("1".to_owned(), top)]);
    assert!(registry.publish("Apps", "1", &top).is_err());
    assert!(
        ours.registry.publish("apps/web", "1", &top).is_err(),
        "not in that store"
    );
    assert_eq!(other.collect(Duration::ZERO).unwrap().blobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_asked_for_each_repository_and_mount() {
    let dir = tempfile::tempdir().unwrap();
    let access = Access::new(|asked| {
        let who = asked
            .request
            .headers
            .get("authorization")
            .and_then(|held| held.to_str().ok());
        match (who, asked.action, asked.repository) {
            (None, ..) => Answer::Unauthenticated {
                challenge: "Basic realm=\"test\"".to_owned(),
            },
            (Some("Basic cm9vdDpwdw=="), ..) => Answer::Allow, // root:pw
            (_, Action::Ping, _) => Answer::Allow,
            (_, Action::Pull, Some("public")) => Answer::Allow,
            (_, _, Some("mine")) => Answer::Allow,
            _ => Answer::Forbid {
                why: "devices read only what they run".to_owned(),
            },
        }
    });
    let ours = OurRegistry::with(dir.path(), access).await;
    let source = store(&dir.path().join("source"));
    let built = small_image(&source, "linux/amd64", 9);
    let basic = |user: &str| {
        Some(blobs::Credentials::Basic {
            user: user.to_owned(),
            password: "pw".to_owned(),
        })
    };
    let push = async |name: &str, who: Option<blobs::Credentials>| {
        let name: ImageRef = name.parse().unwrap();
        registries(&ours.url())
            .push(&source, &built.digest, &name, who.as_ref(), Progress::none())
            .await
    };
    push("r.test/secret:1", basic("root")).await.unwrap();
    let err = push("r.test/public:1", basic("device")).await.unwrap_err();
    assert!(matches!(err, RegistryError::Denied { status: 403, .. }), "{err}");
    assert!(
        err.to_string().contains("devices read only what they run"),
        "{err}"
    );
    let err = push("r.test/public:1", None).await.unwrap_err();
    assert!(matches!(err, RegistryError::Denied { status: 401, .. }), "{err}");

    // Whoever may write here may not take from there.
    let secret: Vec<_> = source.list().into_iter().map(|(digest, _)| digest).collect();
    let api = Api::new(&ours);
    for digest in secret {
        let mount = format!("/v2/mine/blobs/uploads/?mount={digest}&from=secret");
        let request = api.ask(Method::POST, &mount).basic_auth("device", Some("pw"));
        api.expect(request, StatusCode::ACCEPTED).await;
    }
    let response = api.get("/v2/").await;
    assert_eq!(header(&response, "www-authenticate"), "Basic realm=\"test\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_room_says_so_before_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let quota = blobs::Quota {
        max_bytes: 10_000,
        keep_free: 0,
    };
    let full = blobs::Store::open(&dir.path().join("full"), quota).unwrap();
    let registry = blobs::Registry::open(dir.path(), full, Access::open()).unwrap();
    let data = noise(20_000, 10);
    let request = http::Request::post(format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&data)))
        .header("content-length", data.len())
        .body(http_body_util::Full::new(bytes::Bytes::from(data)))
        .unwrap();
    let response = registry.handle(request).await;
    assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
    let left = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    assert_eq!(left(&dir.path().join("uploads")), 0);
}
