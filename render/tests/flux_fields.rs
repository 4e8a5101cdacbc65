//! Fields of Flux's v1 API, one by one, against what its documentation says.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use model::{Desired, Object, Revision, Tree, WorkloadState, WorkloadStatus};
use render::RenderError;
use render::flux::{Health, Judge, SourceSpec, Standing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn render(files: &[(&str, &str)]) -> Result<Desired, RenderError> {
    let revision: Revision = serde_json::from_value(json!({
        "reference": "main", "commit": "a".repeat(40), "committedAt": "2026-01-01T00:00:00Z"
    }))
    .unwrap();
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    render::render(&tree, &revision, "c", &BTreeMap::new())
}

fn kustomization(name: &str, path: &str, more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: {name}\n  \
         namespace: flux-system\nspec:\n  interval: 10m\n  prune: true\n  path: {path}\n  sourceRef:\n    \
         kind: GitRepository\n    name: flux-system\n{more}"
    )
}

fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: edge\ndata:\n  key: \"{value}\"\n"
    )
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: edge\nspec:\n  replicas: 2\n"
    )
}

/// One Kustomization over one ConfigMap.
fn with(more: &str, value: &str) -> Result<Desired, RenderError> {
    render(&[
        ("c/k.yaml", &kustomization("apps", "apps", more)),
        ("apps/m.yaml", &config_map("m", value)),
    ])
}

fn state(name: &str, state: WorkloadState, ready: u32) -> WorkloadStatus {
    WorkloadStatus {
        key: format!("Deployment.apps/edge/{name}").parse().unwrap(),
        state,
        desired: 2,
        ready,
        reason: None,
        message: format!("{ready} of 2 ready"),
        images: Vec::new(),
        pods: Vec::new(),
    }
}

fn standing(health: &[Health], name: &str) -> (Standing, String, String) {
    let health = health.iter().find(|health| health.name == name).unwrap();
    (health.standing, health.reason.clone(), health.message.clone())
}

#[test]
fn values_that_the_api_does_not_have_are_refused_by_field() {
    for (more, field) in [
        ("  retryInterval: soon\n", "spec.retryInterval"),
        ("  timeout: 5 minutes\n", "spec.timeout"),
        ("  deletionPolicy: Keep\n", "spec.deletionPolicy"),
        (
            "  postBuild:\n    substituteStrategy: Never\n",
            "spec.postBuild.substituteStrategy",
        ),
        (
            "  postBuild:\n    substitute:\n      1st: x\n",
            "spec.postBuild.substitute",
        ),
        (
            "  postBuild:\n    substituteFrom:\n    - kind: Pod\n      name: x\n",
            "spec.postBuild.substituteFrom[0].kind",
        ),
        ("  healthChecks:\n  - kind: Deployment\n", "spec.healthChecks[0]"),
        ("  dependsOn:\n  - namespace: x\n", "spec.dependsOn[0].name"),
        (
            "  dependsOn:\n  - name: apps\n    readyExpr: 'dep.x =='\n",
            "spec.dependsOn[0].readyExpr",
        ),
        (
            "  healthCheckExprs:\n  - apiVersion: v1\n    kind: X\n",
            "spec.healthCheckExprs[0].current",
        ),
        (
            "  healthCheckExprs:\n  - apiVersion: v1\n    kind: X\n    current: 'a b'\n",
            "spec.healthCheckExprs[0].current",
        ),
        ("  targetNamespac: x\n", "targetNamespac"),
    ] {
        let told = with(more, "1").unwrap_err().to_string();
        assert!(told.contains(field) && told.contains("apps"), "{more}: {told}");
    }
    let valid = "  retryInterval: 1m30s\n  timeout: 2.5h\n  deletionPolicy: Orphan\n  force: true\n  \
                 serviceAccountName: x\n  ignore:\n  - paths: [/spec/replicas]\n    target:\n      kind: Deployment\n";
    assert_eq!(with(valid, "1").unwrap().objects.len(), 1);
}

#[test]
fn substitution_needs_variables_unless_it_is_always_asked_for() {
    let kept = with("  postBuild:\n    substitute: {}\n", "${missing}").unwrap();
    assert_eq!(kept.objects[0].value()["data"]["key"], "${missing}");
    let always = "  postBuild:\n    substituteStrategy: Always\n";
    let told = with(always, "${missing}").unwrap_err().to_string();
    assert!(told.contains("the variable missing"), "{told}");
    let defaults = with(always, "${missing:-here}").unwrap();
    assert_eq!(defaults.objects[0].value()["data"]["key"], "here");
    let switched = config_map("m", "${missing}").replace(
        "metadata:\n",
        "metadata:\n  labels:\n    kustomize.toolkit.fluxcd.io/substitute: disabled\n",
    );
    let kept = render(&[
        ("c/k.yaml", &kustomization("apps", "apps", always)),
        ("apps/m.yaml", &switched),
    ])
    .unwrap();
    assert_eq!(kept.objects[0].value()["data"]["key"], "${missing}");
}

#[test]
fn each_form_of_substitution() {
    let vars = BTreeMap::from(
        [("v", "abcABC.tar.gz"), ("e", ""), ("lines", "a\nb")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    for (form, wanted) in [
        ("${v}", "abcABC.tar.gz"),
        ("$v", "$v"),
        ("$${v}", "${v}"),
        ("${lines}", "ab"),
        ("${e:-d}|${e-d}|${n:-d}|${n-d}|${n:=d}|${n=d}", "d||d|d|d|d"),
        ("${v:3}|${v:3:3}|${v: -2}", "ABC.tar.gz|ABC|gz"),
        ("${#v}", "13"),
        ("${v#*.}|${v##*.}|${v%.*}|${v%%.*}", "tar.gz|gz|abcABC.tar|abcABC"),
        (
            "${v/a/x}|${v//a/x}|${v/#abc/x}|${v/%gz/x}",
            "xbcABC.tar.gz|xbcABC.txr.gz|xABC.tar.gz|abcABC.tar.x",
        ),
        (
            "${v^}|${v^^}|${v,}|${v,,}",
            "AbcABC.tar.gz|ABCABC.TAR.GZ|abcABC.tar.gz|abcabc.tar.gz",
        ),
        ("${n:-${v:0:1}}", "a"),
    ] {
        let found = render::flux::substitute(form, &vars).unwrap();
        assert_eq!(found, wanted, "{form}");
    }
}

#[test]
fn objects_and_kustomizations_that_are_not_for_the_device_are_left_out_and_told() {
    let switch = |text: &str| {
        config_map("off", "1").replace(
            "metadata:\n",
            &format!("metadata:\n  annotations:\n    kustomize.toolkit.fluxcd.io/{text}\n"),
        )
    };
    for (text, left) in [
        ("reconcile: disabled", 0),
        ("ssa: Ignore", 0),
        ("ssa: IfNotPresent", 1),
        ("ssa: Merge", 1),
        ("prune: disabled", 1),
        ("force: enabled", 1),
    ] {
        let desired = render(&[
            ("c/k.yaml", &kustomization("apps", "apps", "")),
            ("apps/o.yaml", &switch(text)),
        ])
        .unwrap();
        assert_eq!(desired.objects.len(), left, "{text}");
        assert_eq!(
            desired.warnings.iter().any(|w| w.contains("off is left out")),
            left == 0,
            "{text}"
        );
        // Flux keeps what it skips in the inventory.
        assert_eq!(desired.kustomizations[0].inventory.len(), 1, "{text}");
    }
    let elsewhere = with("  kubeConfig:\n    secretRef:\n      name: other\n", "1").unwrap();
    assert!(elsewhere.objects.is_empty() && elsewhere.warnings[0].contains("another cluster"));
    let suspended = with("  suspend: true\n", "1").unwrap();
    assert!(suspended.objects.is_empty());
    let health = Judge::new(&suspended).judge(&[]);
    assert_eq!(standing(&health, "apps").1, "Suspended");
}

#[test]
fn inventories_and_owners_are_those_of_flux() {
    let role =
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: system:view\n";
    let desired = render(&[
        ("c/k.yaml", &kustomization("apps", "apps", "")),
        ("apps/a.yaml", &deployment("web")),
        ("apps/b.yaml", &config_map("m", "1")),
        ("apps/c.yaml", role),
    ])
    .unwrap();
    let entries: Vec<(&str, &str)> = desired.kustomizations[0]
        .inventory
        .iter()
        .map(|entry| (entry.id.as_str(), entry.v.as_str()))
        .collect();
    assert_eq!(
        entries,
        [
            ("_system__view_rbac.authorization.k8s.io_ClusterRole", "v1"),
            ("edge_m__ConfigMap", "v1"),
            ("edge_web_apps_Deployment", "v1"),
        ]
    );
    for object in &desired.objects {
        assert_eq!(object.label("kustomize.toolkit.fluxcd.io/name"), Some("apps"));
        assert_eq!(
            object.label("kustomize.toolkit.fluxcd.io/namespace"),
            Some("flux-system")
        );
    }
}

#[test]
fn waits_and_health_checks() {
    let check = "  healthChecks:\n  - apiVersion: apps/v1\n    kind: Deployment\n    name: web\n    namespace: edge\n";
    for (more, checked) in [("", false), ("  wait: true\n", true), (check, true)] {
        let desired = render(&[
            ("c/k.yaml", &kustomization("apps", "apps", more)),
            ("apps/a.yaml", &deployment("web")),
        ])
        .unwrap();
        let judge = Judge::new(&desired);
        let of = |workload: WorkloadStatus| standing(&judge.judge(&[workload]), "apps");
        let (ready, reason, message) = of(state("web", WorkloadState::Current, 2));
        assert_eq!(
            (ready, reason.as_str()),
            (Standing::Ready, "ReconciliationSucceeded"),
            "{more}"
        );
        assert_eq!(message, format!("Applied revision: main@sha1:{}", "a".repeat(40)));
        let (moving, failed) = if checked {
            (
                (Standing::Progressing, "Progressing"),
                (Standing::Failed, "HealthCheckFailed"),
            )
        } else {
            (
                (Standing::Ready, "ReconciliationSucceeded"),
                (Standing::Ready, "ReconciliationSucceeded"),
            )
        };
        let (is, reason, _) = of(state("web", WorkloadState::InProgress, 1));
        assert_eq!((is, reason.as_str()), moving, "{more}");
        let (is, reason, message) = of(state("web", WorkloadState::Failed, 0));
        assert_eq!((is, reason.as_str()), failed, "{more}");
        assert!(
            !checked || message.contains("Deployment.apps/edge/web"),
            "{message}"
        );
    }
    let missing = check.replace("name: web", "name: other");
    let desired = render(&[
        ("c/k.yaml", &kustomization("apps", "apps", &missing)),
        ("apps/a.yaml", &deployment("web")),
    ])
    .unwrap();
    assert_eq!(
        standing(&Judge::new(&desired).judge(&[]), "apps").0,
        Standing::Progressing
    );
}

#[test]
fn health_expressions_take_the_place_of_the_built_in_rules() {
    let more = "  wait: true\n  healthCheckExprs:\n  - apiVersion: apps/v1\n    kind: Deployment\n    \
                inProgress: status.readyReplicas < 1\n    \
                failed: status.conditions.exists(c, c.type == 'Available' && c.message.contains('lost'))\n    \
                current: status.readyReplicas >= 1\n  - apiVersion: v1\n    kind: ConfigMap\n    \
                current: data.key == 'go'\n";
    let files = |value: &str| {
        render(&[
            ("c/k.yaml", &kustomization("apps", "apps", more)),
            ("apps/a.yaml", &deployment("web")),
            ("apps/m.yaml", &config_map("m", value)),
        ])
        .unwrap()
    };
    let desired = files("go");
    let judge = Judge::new(&desired);
    let of = |workload: WorkloadStatus| standing(&judge.judge(&[workload]), "apps").0;
    assert_eq!(of(state("web", WorkloadState::InProgress, 1)), Standing::Ready);
    assert_eq!(
        of(state("web", WorkloadState::InProgress, 0)),
        Standing::Progressing
    );
    let mut lost = state("web", WorkloadState::InProgress, 1);
    lost.message = "lost".to_owned();
    assert_eq!(of(lost), Standing::Failed);
    let desired = files("not yet");
    let health = Judge::new(&desired).judge(&[state("web", WorkloadState::Current, 2)]);
    let (is, _, message) = standing(&health, "apps");
    assert_eq!(is, Standing::Progressing);
    assert!(message.contains("ConfigMap/edge/m"), "{message}");
}

#[test]
fn dependencies_are_waited_for_and_ready_expressions_decide() {
    let files = |expression: &str| {
        let depends = format!("  dependsOn:\n  - name: base\n{expression}");
        render(&[
            ("c/a.yaml", &kustomization("apps", "apps", &depends)),
            ("c/b.yaml", &kustomization("base", "base", "  wait: true\n")),
            ("apps/a.yaml", &deployment("web")),
            ("base/a.yaml", &deployment("db")),
        ])
        .unwrap()
    };
    let judged = |desired: &Desired, db: WorkloadState| {
        let judge = Judge::new(desired);
        let health = judge.judge(&[state("db", db, 0), state("web", WorkloadState::InProgress, 0)]);
        let held = judge.held_back(&health);
        let web = "Deployment.apps/edge/web".parse().unwrap();
        (standing(&health, "apps"), held.contains(&web))
    };
    let plain = files("");
    let ((is, reason, message), held) = judged(&plain, WorkloadState::InProgress);
    assert_eq!((is, reason.as_str()), (Standing::Waiting, "DependencyNotReady"));
    assert!(
        message.contains("'flux-system/base' is not ready") && held,
        "{message}"
    );
    let ((is, ..), held) = judged(&plain, WorkloadState::Current);
    assert!(is == Standing::Ready && !held);

    let applied = "    readyExpr: dep.status.lastAppliedRevision == dep.status.lastAttemptedRevision && \
                   self.metadata.name == 'apps'\n";
    assert_eq!(
        judged(&files(applied), WorkloadState::InProgress).0.0,
        Standing::Ready
    );
    let never = "    readyExpr: dep.status.conditions.exists(c, c.type == 'Never')\n";
    let ((is, _, message), _) = judged(&files(never), WorkloadState::Current);
    assert_eq!(is, Standing::Waiting);
    assert!(message.contains("according to readyExpr"), "{message}");
    let ((is, _, message), _) = judged(
        &files("    readyExpr: dep.status.nothing\n"),
        WorkloadState::Current,
    );
    assert_eq!(is, Standing::Waiting);
    assert!(message.contains("nothing"), "{message}");
}

fn source(kind: &str, spec: Value) -> Result<Option<SourceSpec>, RenderError> {
    let object = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": kind,
        "metadata": {"name": "s", "namespace": "flux-system"}, "spec": spec});
    SourceSpec::decode(&Object::new(object).unwrap())
}

#[test]
fn sources_are_decoded_strictly_with_every_field() {
    let secret = json!({"name": "x"});
    let git = json!({
        "url": "ssh://git@host/fleet.git", "secretRef": secret, "provider": "generic", "serviceAccountName": "sa",
        "interval": "1m", "timeout": "60s", "ref": {"branch": "main", "tag": "v1", "semver": ">=1", "name": "refs/x",
        "commit": "abc"}, "verify": {"mode": "HEAD"}, "proxySecretRef": secret, "ignore": "/x", "suspend": false,
        "recurseSubmodules": true, "include": [], "sparseCheckout": ["apps"],
    });
    let Some(SourceSpec::Git(spec)) = source("GitRepository", git).unwrap() else {
        panic!()
    };
    assert_eq!(spec.r#ref.unwrap().commit.as_deref(), Some("abc"));
    let oci = json!({
        "url": "oci://registry/fleet", "ref": {"digest": "sha256:0", "semver": "1.x", "semverFilter": ".*", "tag": "t"},
        "layerSelector": {"mediaType": "x", "operation": "copy"}, "provider": "aws", "secretRef": secret,
        "verify": {"provider": "cosign"}, "serviceAccountName": "sa", "certSecretRef": secret, "proxySecretRef": secret,
        "interval": "5m", "timeout": "60s", "ignore": "/x", "insecure": true, "suspend": true,
    });
    assert!(matches!(
        source("OCIRepository", oci).unwrap(),
        Some(SourceSpec::Oci(_))
    ));
    let bucket = json!({
        "provider": "gcp", "bucketName": "b", "endpoint": "e", "sts": {"provider": "aws", "endpoint": "x"},
        "insecure": false, "region": "r", "prefix": "p", "secretRef": secret, "serviceAccountName": "sa",
        "certSecretRef": secret, "proxySecretRef": secret, "interval": "5m", "timeout": "60s", "ignore": "/x",
        "suspend": false,
    });
    assert!(matches!(
        source("Bucket", bucket).unwrap(),
        Some(SourceSpec::Bucket(_))
    ));
    for (kind, spec, wanted) in [
        (
            "GitRepository",
            json!({"url": "git@host:x", "interval": "1m"}),
            "spec.url",
        ),
        (
            "GitRepository",
            json!({"url": "https://x", "branch": "main"}),
            "branch",
        ),
        ("OCIRepository", json!({"url": "https://x"}), "oci://"),
        ("Bucket", json!({"bucketName": "b"}), "spec.endpoint"),
        (
            "Bucket",
            json!({"bucketName": "b", "endpoint": "e", "provider": "dropbox"}),
            "spec.provider",
        ),
    ] {
        let told = source(kind, spec).unwrap_err().to_string();
        assert!(told.contains(wanted) && told.contains(kind), "{told}");
    }
    assert!(source("HelmChart", json!({})).unwrap().is_none());
}
