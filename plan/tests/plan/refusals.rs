//! What a device refuses, and in which words.

use crate::support::{LIMITS, desired, told};
use expect_test::{Expect, expect};
use plan::{Limits, expand};

#[track_caller]
fn check(yaml: &str, want: Expect) {
    check_with(yaml, &LIMITS, want);
}

#[track_caller]
fn check_with(yaml: &str, limits: &Limits, want: Expect) {
    let got = match expand(&desired(yaml), limits) {
        Ok(wanted) => format!("accepted; notes: {:?}\n", wanted.notes),
        Err(refusals) => told(&refusals),
    };
    want.assert_eq(&got);
}

fn deployment(pod: &str) -> String {
    let pod = pod.replace('\n', "\n      ");
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      {pod}"
    )
}

#[test]
fn an_unknown_field_is_named() {
    check(
        &deployment("containers:\n- {name: web, image: r.example/web:1, imagePullPolice: Always}"),
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.containers[0].imagePullPolice: unknown field `imagePullPolice`, expected one of `name`, `image`, `imagePullPolicy`, `command`, `args`, `env`, `envFrom`, `workingDir`, `ports`, `resources`, `volumeMounts`, `livenessProbe`, `readinessProbe`, `startupProbe`, `securityContext`, `terminationMessagePath`, `terminationMessagePolicy`, `tty`, `stdin`; correct the field, or run this object on K3s if it needs it
        "#]],
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    check(
        &deployment(
            "containers:
- name: web
  image: r.example/Web:1
- name: side
  image: r.example/side:1
  env:
  - {name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: a}}}
  volumeMounts: [{name: data, mountPath: data}]
  livenessProbe: {httpGet: {port: http}}
  resources: {limits: {memory: 64Mb, nvidia.com/gpu: 1}}",
        ),
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.containers[web].image: image "r.example/Web:1" is not valid: each part of the name takes lower-case letters, digits, '.', '_' and '-'; write registry/name:tag
            Deployment.apps/shop/web: spec.template.spec.containers[side].resources.limits.memory: quantity "64Mb" is not valid: use a number with a suffix such as 500m, 2, 64Mi or 1G
            Deployment.apps/shop/web: spec.template.spec.containers[side].resources.limits.nvidia.com/gpu: this device has no resource nvidia.com/gpu; remove it, or run the workload on a class that has it
            Deployment.apps/shop/web: spec.template.spec.containers[side].env[A]: there is no ConfigMap nowhere in namespace shop; add it to the repository, correct the name, or mark the reference optional
            Deployment.apps/shop/web: spec.template.spec.containers[side].livenessProbe: is no probe that the embedded engine can run; give exactly one of exec, httpGet or tcpSocket, without host, with a port that the container declares
            Deployment.apps/shop/web: spec.template.spec.containers[side].volumeMounts[data].mountPath: "data" is not an absolute path; write an absolute path without '..'
            Deployment.apps/shop/web: spec.template.spec.containers[side].volumeMounts: there is no volume named data; add it under volumes, or correct the name
        "#]],
    );
}

#[test]
fn a_host_port_has_one_owner() {
    check(
        &deployment(
            "containers:\n- {name: web, image: r.example/web:1, ports: [{containerPort: 80, hostPort: 8080}]}",
        ),
        expect![[r#"
            Deployment.apps/shop/web: spec.replicas: 2 replicas ask for the one host port 8080 of this device; use one replica, or a Service with a nodePort in place of hostPort
        "#]],
    );
}

#[test]
fn requests_must_fit_the_device() {
    check_with(
        &deployment(
            "containers:\n- {name: web, image: r.example/web:1, resources: {requests: {memory: 3Gi}}}",
        ),
        &LIMITS,
        expect![[r#"
            Deployment.apps/shop/web: resources.requests.memory: the generation asks for 6144 Mi of the 4096 Mi that this device gives to workloads; lower the requests or the replicas, or choose a larger device class
        "#]],
    );
}

#[test]
fn what_would_be_left_out_is_refused_and_what_means_nothing_is_noted() {
    check(
        "apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec: {}
---
apiVersion: v1
kind: Sevice
metadata: {name: typo}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}",
        expect![[r#"
            CronJob.batch/nightly: kind: CronJob is not run by the embedded engine; use a Job, or run this object on K3s
            Sevice/typo: kind: v1 has no kind Sevice; check apiVersion and kind
        "#]],
    );
    check(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: tls}",
        expect![[r#"
            accepted; notes: ["NetworkPolicy.networking.k8s.io/deny: NOT ENFORCED by this engine yet", "Certificate.cert-manager.io/tls: no controller for cert-manager.io on this device"]
        "#]],
    );
}

#[test]
fn a_limit_that_nothing_enforces_is_noted() {
    check(
        &deployment(
            "volumes: [{name: cache, emptyDir: {sizeLimit: 1Gi}}, {name: ram, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]\ncontainers: [{name: web, image: r.example/web:1}]",
        ),
        expect![[r#"
            accepted; notes: ["Deployment.apps/shop/web: volume cache: emptyDir.sizeLimit is NOT ENFORCED on disk; medium Memory is held to it"]
        "#]],
    );
}

#[test]
fn a_profile_that_cannot_be_enforced_is_not_pretended() {
    let yaml = deployment(
        "securityContext: {seccompProfile: {type: RuntimeDefault}}\ncontainers: [{name: web, image: r.example/web:1}]",
    );
    check(
        &yaml,
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.containers[web].securityContext.seccompProfile: RuntimeDefault cannot be enforced by this engine, and is not pretended; use Unconfined, or run this workload on K3s
        "#]],
    );
    check_with(
        &yaml,
        &Limits {
            seccomp: true,
            ..LIMITS
        },
        expect![[r#"
            accepted; notes: []
        "#]],
    );
}

#[test]
fn a_refusal_says_where_its_object_was_read() {
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n---\n{}",
        deployment("containers: []").replace(", namespace: shop", "")
    );
    let mut desired = desired(&yaml);
    desired.origins = vec![
        None,
        Some(model::Origin {
            file: "apps/base/web.yaml".to_owned(),
            line: Some(7),
        }),
    ];
    let refusals = expand(&desired, &LIMITS).unwrap_err();
    expect![[r#"
        apps/base/web.yaml:7: Deployment.apps/web: spec.template.spec.containers: is empty; name at least one container
    "#]]
    .assert_eq(&told(&refusals));
}

#[test]
fn a_pull_secret_must_be_there_and_be_one() {
    let pod = "imagePullSecrets: [{name: registry}]\ncontainers: [{name: web, image: r.example/web:1}]";
    let with = |secret: &str| {
        format!(
            "{}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: registry, namespace: shop}}\n{secret}",
            deployment(pod)
        )
    };
    check(
        &deployment(pod),
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.imagePullSecrets[0].name: there is no Secret registry in namespace shop; make it with `kubectl create secret docker-registry NAME --dry-run=client -o yaml ...`, or leave the reference out
        "#]],
    );
    check(
        &with("stringData: {a: b}"),
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.imagePullSecrets[0].name: Secret registry has no type, not type kubernetes.io/dockerconfigjson; make it with `kubectl create secret docker-registry NAME --dry-run=client -o yaml ...`, or leave the reference out
        "#]],
    );
    check(
        &with("type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{}'}"),
        expect![[r#"
            Deployment.apps/shop/web: spec.template.spec.imagePullSecrets[0].name: .dockerconfigjson of Secret registry is not the JSON of a Docker configuration with `auths`; make it with `kubectl create secret docker-registry NAME --dry-run=client -o yaml ...`, or leave the reference out
        "#]],
    );
    let good = |text: &str| {
        let secret = format!(
            "type: kubernetes.io/dockerconfigjson\nstringData: {{.dockerconfigjson: '{{\"auths\": {{\"{text}\": {{}}}}}}'}}"
        );
        expand(&desired(&with(&secret)), &LIMITS).unwrap()
    };
    let (one, other) = (good("r.example"), good("s.example"));
    assert_eq!(one.images()[0].secrets.len(), 1);
    assert_ne!(one.images()[0].secrets, other.images()[0].secrets);
    // A password that changes is no reason to replace what runs.
    assert_eq!(
        one.workloads[0].template.template,
        other.workloads[0].template.template
    );
    assert!(
        !format!("{one:?}").contains("r.example\":"),
        "a secret is never shown"
    );
}
