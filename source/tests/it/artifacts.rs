//! Artifacts in a real registry, made as `flux push artifact` makes them, and objects of a real S3 server.

use crate::support::servers::{Server, push, registry, s3_server, upload};
use model::{Moved, Tree};
use reqwest::Method;
use source::{BucketSource, BucketSpec, Fetched, OciRef, OciSource, OciSpec, S3Keys, SourceError};
use std::sync::atomic::AtomicBool;

fn oci(server: &Server, reference: OciRef) -> OciSpec {
    OciSpec {
        url: format!("oci://{}/org/fleet", server.address),
        reference,
        media_type: None,
        docker_config: None,
        login: None,
        ca: None,
        insecure: true,
        ignore: None,
    }
}

fn read(tree: &Tree, path: &str) -> Option<String> {
    tree.read(path)
        .map(|data| String::from_utf8(data.to_vec()).unwrap())
}

fn go(source: &mut OciSource) -> Result<Fetched, SourceError> {
    source.fetch(&AtomicBool::new(false))
}

#[test]
fn an_artifact_is_followed_by_tag_and_is_here_without_its_registry() {
    let Some(server) = registry() else { return };
    let first = push(
        &server,
        "latest",
        &[("apps/a.yaml", "one"), ("logo.png", "left out")],
    );
    let device = tempfile::tempdir().unwrap();
    let spec = oci(&server, OciRef::Tag("latest".to_owned()));
    let mut source = OciSource::open(device.path(), spec.clone()).unwrap();
    let fetched = go(&mut source).unwrap();
    assert_eq!(fetched.moved, Moved::First);
    assert_eq!(fetched.revision.to_string(), format!("latest@{first}"));
    assert_eq!(
        fetched.revision.summary,
        "main@sha1:0123456789012345678901234567890123456789"
    );
    let tree = fetched.tree.unwrap();
    assert_eq!(read(&tree, "apps/a.yaml").as_deref(), Some("one"));
    assert_eq!(read(&tree, "logo.png"), None);
    let again = go(&mut source).unwrap();
    assert_eq!((again.moved, again.tree), (Moved::Unchanged, None));

    let second = push(&server, "latest", &[("apps/a.yaml", "two")]);
    let moved = go(&mut source).unwrap();
    assert_eq!(moved.moved, Moved::Forward);
    assert_eq!(moved.revision.commit, second.hex());
    drop(source);
    drop(server);
    let mut source = OciSource::open(device.path(), spec).unwrap();
    let err = go(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::Connect { .. }), "{err}");
    let tree = source.load(&second.hex()).unwrap();
    assert_eq!(read(&tree, "apps/a.yaml").as_deref(), Some("two"));
    // The one before stays, for a way back.
    assert!(source.load(&first.hex()).is_ok());
}

#[test]
fn an_artifact_is_found_by_version_and_by_digest() {
    let Some(server) = registry() else { return };
    for (tag, text) in [
        ("1.0.0", "a"),
        ("1.2.0", "b"),
        ("1.3.0-rc.1", "c"),
        ("2.0.0", "d"),
        ("edge", "e"),
    ] {
        push(&server, tag, &[("x", text)]);
    }
    let fetched = |reference: OciRef| {
        let device = tempfile::tempdir().unwrap();
        let mut source = OciSource::open(device.path(), oci(&server, reference)).unwrap();
        go(&mut source)
    };
    let semver = |range: &str, filter: Option<&str>| OciRef::Semver {
        range: range.to_owned(),
        filter: filter.map(str::to_owned),
    };
    let newest = fetched(semver("^1.0", None)).unwrap();
    assert_eq!(newest.revision.reference, "1.2.0");
    assert_eq!(read(&newest.tree.unwrap(), "x").as_deref(), Some("b"));
    assert_eq!(
        fetched(semver(">=1.0.0", Some("^1\\.")))
            .unwrap()
            .revision
            .reference,
        "1.2.0"
    );
    let none = fetched(semver("^9", None)).unwrap_err();
    assert!(none.to_string().contains("none of the 5 tags"), "{none}");
    let digest = push(&server, "pinned", &[("x", "p")]);
    let device = tempfile::tempdir().unwrap();
    let mut source = OciSource::open(device.path(), oci(&server, OciRef::Digest(digest))).unwrap();
    assert_eq!(go(&mut source).unwrap().revision.commit, digest.hex());
    let missing = fetched(OciRef::Tag("nope".to_owned())).unwrap_err();
    assert!(matches!(missing, SourceError::NotFound { .. }), "{missing}");
    let spec = OciSpec {
        media_type: Some("application/x".to_owned()),
        ..oci(&server, OciRef::Tag("edge".to_owned()))
    };
    let other = tempfile::tempdir().unwrap();
    let err = go(&mut OciSource::open(other.path(), spec).unwrap()).unwrap_err();
    assert!(err.to_string().contains("vnd.cncf.flux.content"), "{err}");
    drop(server);
    assert_eq!(
        go(&mut source).unwrap().moved,
        Moved::Unchanged,
        "a held digest asks nobody"
    );
}

fn bucket(server: &Server, id: &str) -> BucketSpec {
    BucketSpec {
        endpoint: server.address.clone(),
        bucket: "fleet".to_owned(),
        region: None,
        prefix: "prod/".to_owned(),
        keys: Some(S3Keys {
            id: id.to_owned(),
            secret: "S3RVER".to_owned(),
        }),
        ca: None,
        insecure: true,
        ignore: None,
    }
}

#[test]
fn a_bucket_is_followed_object_by_object_and_is_here_without_its_server() {
    let Some(server) = s3_server() else { return };
    upload(&server, Method::PUT, "prod/a.yaml", "one");
    upload(&server, Method::PUT, "prod/b%20c.yaml", &"x".repeat(50_000));
    upload(&server, Method::PUT, "other.yaml", "not below the prefix");
    let device = tempfile::tempdir().unwrap();
    let spec = bucket(&server, "S3RVER");
    let mut source = BucketSource::open(device.path(), spec.clone()).unwrap();
    let go = |source: &mut BucketSource| source.fetch(&AtomicBool::new(false));
    let first = go(&mut source).unwrap();
    assert_eq!(first.moved, Moved::First);
    assert!(first.revision.to_string().starts_with("sha256:"));
    let tree = first.tree.unwrap();
    let names: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
    assert_eq!(names, ["prod/a.yaml", "prod/b c.yaml"]);
    let again = go(&mut source).unwrap();
    assert_eq!((again.moved, again.tree), (Moved::Unchanged, None));

    upload(&server, Method::PUT, "prod/a.yaml", "two");
    let second = go(&mut source).unwrap();
    assert_eq!(second.moved, Moved::Forward);
    assert!(
        second.bytes_received < 20_000,
        "what did not change is not fetched: {}",
        second.bytes_received
    );
    assert_eq!(read(&second.tree.unwrap(), "prod/a.yaml").as_deref(), Some("two"));

    let wrong = tempfile::tempdir().unwrap();
    let mut denied = BucketSource::open(wrong.path(), bucket(&server, "SOMEBODY-ELSE")).unwrap();
    let err = go(&mut denied).unwrap_err();
    assert!(matches!(err, SourceError::Authentication { .. }), "{err}");
    drop(server);
    let mut source = BucketSource::open(device.path(), spec).unwrap();
    assert!(matches!(
        go(&mut source).unwrap_err(),
        SourceError::Connect { .. }
    ));
    let kept = source.load(&second.revision.commit).unwrap();
    assert_eq!(read(&kept, "prod/a.yaml").as_deref(), Some("two"));
}
