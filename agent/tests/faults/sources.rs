//! `Kustomization` objects that read other sources: real `git http-backend`, registry and S3 server.

#[expect(dead_code, reason = "the source's own tests use all of it")]
#[path = "../../../sim/src/git_server.rs"]
mod git_server;
#[path = "../../../source/tests/it/support/servers.rs"]
mod servers;

use crate::rig::{Rig, deployment};
use git_server::{GitServer, Options};
use model::{Phase, Status};
use reqwest::Method;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio_rustls::rustls;

/// A certificate for `localhost`, and who signed it in PEM.
fn certificate() -> (String, Arc<rustls::ServerConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (own.pem(), Arc::new(config))
}

/// Commits a file and tells the commit.
fn commit(repository: &Path, file: &str, text: &str) -> String {
    let git = |words: &[&str]| {
        let out = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
            .args(words)
            .current_dir(repository)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    if !repository.exists() {
        std::fs::create_dir_all(repository).unwrap();
        git(&["init", "--quiet", "--initial-branch=main"]);
    }
    let path = repository.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "change"]);
    git(&["rev-parse", "HEAD"])
}

fn kustomization(name: &str, kind: &str, path: &str) -> String {
    format!(
        "---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: {name}, namespace: \
         flux-system}}\nspec:\n  interval: 1m\n  prune: true\n  path: {path}\n  sourceRef: {{kind: {kind}, name: {name}}}\n"
    )
}

fn git_repository(url: &str, more: &str) -> String {
    format!(
        "---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: apps, namespace: \
         flux-system}}\nspec:\n  interval: 500ms\n  url: {url}\n  ref: {{branch: main}}\n{more}"
    )
}

/// Status and reason of `Ready`, and the revision that runs.
fn ready<'s>(status: &'s Status, name: &str) -> Option<(&'s str, &'s str, Option<&'s str>)> {
    let found = status.kustomizations.iter().find(|it| it.name == name)?;
    let ready = found.conditions.iter().find(|it| it.kind == "Ready")?;
    Some((
        ready.status.as_str(),
        ready.reason.as_str(),
        found.last_applied_revision.as_deref(),
    ))
}

fn is_at(status: &Status, name: &str, revision: &str) -> bool {
    status.phase == Phase::Ready
        && ready(status, name) == Some(("True", "ReconciliationSucceeded", Some(revision)))
}

#[tokio::test]
async fn another_git_repository_is_followed_and_outlives_its_server() {
    let served = tempfile::tempdir().unwrap();
    let apps = served.path().join("apps");
    let first = commit(&apps, "deploy/web.yaml", &deployment("web", "1", 1));
    let (pem, tls) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = GitServer::start(
        listener,
        Options {
            root: served.path().to_owned(),
            tls: Some(tls),
            reader: Some(("edge".to_owned(), "t0ken".to_owned())),
            ..Options::default()
        },
    )
    .unwrap();
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: login, namespace: flux-system}}\nstringData:\n  username: edge\n  \
         password: t0ken\n  ca.crt: |\n    {}\n",
        pem.trim().replace('\n', "\n    ")
    );
    let repository = git_repository(&server.url("apps"), "  secretRef: {name: login}\n");
    let all = format!(
        "{secret}{repository}{}",
        kustomization("apps", "GitRepository", "./deploy")
    );
    let mut rig = Rig::new(&[("apps.yaml", &all)]);
    rig.start();
    rig.until("it runs what the other repository says", |_, status| {
        is_at(status, "apps", &format!("main@sha1:{first}"))
    })
    .await;
    rig.still_runs("registry.example/web:1").await;

    // Nothing is committed to the device's own repository.
    let second = commit(&apps, "deploy/web.yaml", &deployment("web", "2", 1));
    let second = format!("main@sha1:{second}");
    rig.until("the other repository moved", |_, status| {
        is_at(status, "apps", &second)
    })
    .await;
    rig.still_runs("registry.example/web:2").await;

    // With the other server gone, a restart and a new commit of the own repository have what was fetched.
    let url = server.url("apps");
    drop(server);
    rig.kill().await;
    rig.reboot();
    rig.push(&[("db.yaml", &deployment("db", "1", 1))]);
    rig.start();
    rig.until("both run", |seen, status| {
        seen.pods.iter().filter(|pod| pod.ready()).count() == 2 && is_at(status, "apps", &second)
    })
    .await;

    // What was never here cannot be had; what runs goes on.
    let moved = all.replace(&url, "https://127.0.0.1:1/other");
    rig.push(&[("apps.yaml", &moved)]);
    rig.until("the artifact is missing", |seen, status| {
        seen.pods.iter().filter(|pod| pod.ready()).count() == 2
            && ready(status, "apps") == Some(("False", "ArtifactFailed", Some(&second)))
            && status
                .source
                .error
                .as_deref()
                .is_some_and(|error| error.contains("127.0.0.1:1"))
    })
    .await;
}

#[tokio::test]
async fn an_artifact_and_a_bucket_are_followed() {
    let (Some(registry), Some(bucket)) =
        tokio::task::spawn_blocking(|| (servers::registry(), servers::s3_server()))
            .await
            .unwrap()
    else {
        return;
    };
    let (web, db, login) = (
        deployment("web", "1", 1),
        deployment("db", "1", 1),
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s3, namespace: flux-system}\nstringData: {accesskey: S3RVER, \
         secretkey: S3RVER}\n",
    );
    let (registry, bucket, digest) = tokio::task::spawn_blocking(move || {
        let digest = servers::push(
            &registry,
            "1.1.0",
            &[("web.yaml", &web), ("skip.yaml", "not: an object")],
        );
        servers::upload(&bucket, Method::PUT, "prod/db.yaml", &db);
        (registry, bucket, digest)
    })
    .await
    .unwrap();
    let all = format!(
        "{login}---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata: {{name: web, namespace: \
         flux-system}}\nspec:\n  interval: 500ms\n  insecure: true\n  url: oci://{}/org/fleet\n  ref: {{semver: '>=1.0'}}\n  \
         ignore: skip.yaml\n---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: Bucket\nmetadata: {{name: db, namespace: \
         flux-system}}\nspec:\n  interval: 500ms\n  insecure: true\n  endpoint: {}\n  bucketName: fleet\n  prefix: prod/\n  \
         secretRef: {{name: s3}}\n{}{}",
        registry.address,
        bucket.address,
        kustomization("web", "OCIRepository", "./"),
        kustomization("db", "Bucket", "./prod")
    );
    let mut rig = Rig::new(&[("all.yaml", &all)]);
    rig.start();
    rig.until("both run", |seen, status| {
        seen.pods.iter().filter(|pod| pod.ready()).count() == 2
            && is_at(status, "web", &format!("1.1.0@{digest}"))
            && ready(status, "db")
                .is_some_and(|(ready, _, at)| ready == "True" && at.is_some_and(|at| at.contains("sha256:")))
    })
    .await;

    let newer = deployment("web", "2", 1);
    let (digest, _registry) = tokio::task::spawn_blocking(move || {
        (
            servers::push(&registry, "1.2.0", &[("web.yaml", &newer)]),
            registry,
        )
    })
    .await
    .unwrap();
    rig.until("the newer version", |_, status| {
        is_at(status, "web", &format!("1.2.0@{digest}"))
    })
    .await;
    drop(bucket);
}

#[tokio::test]
async fn what_a_device_does_not_do_for_a_source_is_refused_by_its_field() {
    let repository = git_repository(
        "https://127.0.0.1:1/apps",
        "  verify: {mode: HEAD, secretRef: {name: keys}}\n",
    );
    let all = format!("{repository}{}", kustomization("apps", "GitRepository", "./"));
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;
    rig.push(&[("apps.yaml", &all)]);
    rig.until("refused", |_, status| {
        let error = status.source.error.as_deref().unwrap_or_default();
        error.contains("Kustomization/flux-system/apps: spec.sourceRef: verify")
    })
    .await;
    rig.still_runs("registry.example/web:1").await;
}
