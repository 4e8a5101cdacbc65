//! Requests drawn at random: whatever is asked, the registry answers, breaks nothing and stays in its folder.

use crate::common::*;
use blobs::Registry;
use blobs::registry::Access;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use model::Digest;
use proptest::prelude::*;
use std::path::Path;

#[derive(Debug, Clone)]
struct Drawn {
    method: &'static str,
    path: String,
    header: Option<(&'static str, &'static str)>,
    body: Vec<u8>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let (hello, empty) = (Digest::of(b"hello").to_string(), Digest::of(b"{}").to_string());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"x","digest":"{empty}","size":2}},"layers":[],
           "subject":{{"mediaType":"x","digest":"{hello}","size":5}}}}"#,
        blobs::oci::MANIFEST
    );
    let own = Digest::of(manifest.as_bytes()).to_string();
    let name = prop::sample::select(vec![
        "a",
        "a/b",
        "b",
        "..",
        "a/../b",
        "_tags",
        "A",
        "a/blobs/uploads",
        "",
    ]);
    let upload = "0".repeat(32);
    let last = prop::sample::select(vec![
        format!("manifests/{own}"),
        "manifests/v1".to_owned(),
        "manifests/..".to_owned(),
        format!("blobs/{hello}"),
        format!("blobs/{empty}"),
        "blobs/uploads/".to_owned(),
        format!("blobs/uploads/?digest={hello}"),
        format!("blobs/uploads/?digest={empty}"),
        format!("blobs/uploads/?mount={hello}&from=a"),
        format!("blobs/uploads/?mount={empty}&from=../a"),
        "blobs/uploads/?digest=sha256:00".to_owned(),
        format!("blobs/uploads/{upload}"),
        "blobs/uploads/../../../x".to_owned(),
        "tags/list".to_owned(),
        "tags/list?n=1&last=%2e%2e%2f".to_owned(),
        "tags/list?n=-1".to_owned(),
        format!("referrers/{hello}"),
        "%2e%2e/%2e%2e".to_owned(),
    ]);
    let path = (name, last).prop_map(|(name, last)| format!("/v2/{name}/{last}"));
    let path =
        prop_oneof![20 => path, 1 => Just("/v2/_catalog?n=0".to_owned()), 1 => Just("/v2/".to_owned())];
    let method = prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]);
    let header = prop::option::of(prop::sample::select(vec![
        ("range", "bytes=2-"),
        ("range", "bytes=9-5"),
        ("range", "bytes=99999999999999999999-"),
        ("content-range", "0-4"),
        ("content-range", "x"),
        ("content-type", blobs::oci::MANIFEST),
        ("content-type", "application/x\u{e9}"),
        ("content-length", "18446744073709551615"),
    ]));
    let body = prop::sample::select(vec![
        b"hello".to_vec(),
        b"{}".to_vec(),
        Vec::new(),
        manifest.into_bytes(),
        vec![b'['; 5000],
    ]);
    (method, path, header, body).prop_map(|(method, path, header, body)| Drawn {
        method,
        path,
        header,
        body,
    })
}

/// Every file of the registry, by what its path may be.
fn check_files(root: &Path) {
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            ["registry", "store"].contains(&name.as_str()),
            "{name} is outside"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 50, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn no_requests_break_the_registry(requests in prop::collection::vec(drawn(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let open = || Registry::open(&dir.path().join("registry"), store(dir.path()), Access::open()).unwrap();
            let registry = open();
            for drawn in &requests {
                let mut request = Request::builder().method(drawn.method).uri(&drawn.path);
                if let Some((name, value)) = drawn.header {
                    request = request.header(name, value);
                }
                let Ok(request) = request.body(Full::new(Bytes::from(drawn.body.clone()))) else { continue };
                let response = registry.handle(request).await;
                let status = response.status();
                assert!(status != 500, "{drawn:?}");
                let body = response.into_body().collect().await.unwrap().to_bytes();
                if status.is_client_error() && drawn.method != "HEAD" {
                    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    assert!(document["errors"][0]["code"].is_string(), "{drawn:?}");
                }
            }
            check_files(dir.path());
            // What it said before, it says after a restart.
            let told: Vec<_> =
                registry.repositories().unwrap().into_iter().map(|name| (registry.tags(&name).unwrap(), name)).collect();
            drop(registry);
            let registry = open();
            for (tags, name) in told {
                assert_eq!(registry.tags(&name).unwrap(), tags);
            }
        });
    }
}
