//! A repository without a fault, spoilt in one place each: what is told, and where.

use crate::support::{GOOD, checked, options, spoilt, told, tree};
use check::{Options, check};
use expect_test::{Expect, expect};

#[track_caller]
fn one(old: &str, new: &str, want: Expect) {
    want.assert_eq(&checked(&spoilt(old, new)));
}

#[test]
fn a_good_repository_has_no_findings() {
    let report = check(&tree(GOOD), &options());
    assert_eq!(told(&report), "");
    assert_eq!(report.clusters, ["clusters/cloud", "clusters/pi"]);
    assert_eq!(report.folders, [""; 0]);
    assert_eq!(report.objects, 19);
    let needs: Vec<String> = report
        .images
        .needs()
        .map(|(need, _)| format!("{need:?}"))
        .collect();
    assert_eq!(
        needs,
        [r#"ImageNeed { image: "registry.example.org/web:1", architecture: Some("arm64") }"#]
    );
}

#[test]
fn fields() {
    one(
        "  replicas: 2\n",
        "  replica: 2\n",
        expect![[r#"
        apps/base/web.yaml:6:3: error: spec has no field "replica" [unknown-field]
          = did you mean "replicas"?
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "  replicas: 2\n",
        "  replicas: \"2\"\n",
        expect![[r#"
        apps/base/web.yaml:6:13: error: replicas should be a whole number, but is the text "2" [wrong-type]
          = take the quotes away: 2
          in clusters/cloud
        apps/pi/patch.yaml:6:13: error: replicas should be a whole number, but is the text "1" [wrong-type]
          = take the quotes away: 1
          = apps/base/web.yaml:1:1: the object that is patched
          in clusters/pi
    "#]],
    );
    one(
        "        - name: web\n          image:",
        "        - image:",
        expect![[r#"
            apps/base/web.yaml:15:11: error: spec.template.spec.containers[0] needs the field "name" [missing-field]
              = add name: TEXT
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "requests: {cpu: 100m",
        "requests: {cpu: 100 m",
        expect![[r#"
        apps/base/web.yaml:29:29: error: "100 m" is no quantity [bad-value]
          = write a number with or without a suffix, such as 500m, 1.5, 128Mi, 1Gi
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "{name: http, containerPort: 8080}",
        "{name: http, containerPort: 80800}",
        expect![[r#"
            apps/base/web.yaml:18:43: error: 80800 is out of bounds [bad-value]
              = use 1 to 65535
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "accessModes: [ReadWriteOnce]",
        "accessModes: [ReadWriteOnec]",
        expect![[r#"
            apps/base/web.yaml:58:17: error: ReadWriteOnec is none of the values that spec.accessModes[0] may have [bad-value]
              = did you mean ReadWriteOnce? (it may be ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod)
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "            - {name: http, containerPort: 8080}\n",
        "            - {name: http, containerPort: 8080}\n            - {name: metrics, containerPort: 8080}\n",
        expect![[r#"
            apps/base/web.yaml:19:16: error: spec.template.spec.containers[0].ports has two items with containerPort 8080, protocol TCP [duplicate-item]
              = leave one of them out
              in clusters/cloud
            apps/base/web.yaml:28:38: error: container "web" has no port "http" [unknown-port]
              = name one of the container's ports so, or use a number
              in clusters/pi
            apps/base/web.yaml:47:42: error: the selected pods have no port "http" [unknown-port]
              = the containers' ports are metrics
              in clusters/pi
        "#]],
    );
    one(
        "labels: {app: web}\n    spec",
        "labels: {app: web, count: 3}\n    spec",
        expect![[r#"
            apps/base/web.yaml:11:33: error: count should be a text, but is the number 3 [wrong-type]
              = put it in quotes: "3"
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "kind: PersistentVolumeClaim",
        "kind: PersistentVolumeClaims",
        expect![[r#"
            apps/base/web.yaml:37:46: error: there is no PersistentVolumeClaim "data" in namespace default [missing-reference]
              = add it, or correct the name
              in clusters/cloud, clusters/pi
            apps/base/web.yaml:54:7: error: Kubernetes 1.37 has no PersistentVolumeClaims in v1 [removed-api]
              = correct apiVersion or kind
              in clusters/cloud, clusters/pi
        "#]],
    );
}

#[test]
fn patches() {
    one(
        "replicas: 1\n",
        "replicas: one\n",
        expect![[r#"
        apps/pi/patch.yaml:6:13: error: replicas should be a whole number, but is the text "one" [wrong-type]
          = apps/base/web.yaml:1:1: the object that is patched
          in clusters/pi
    "#]],
    );
    one(
        "workingDir: /srv",
        "workDir: /srv",
        expect![[r#"
        apps/pi/patch.yaml:11:11: error: spec.template.spec.containers[0] has no field "workDir" [unknown-field]
          = take it out, or move it to where it belongs
          = apps/base/web.yaml:1:1: the object that is patched
          in clusters/pi
    "#]],
    );
    one(
        "        value: Always\n",
        "        value: Alwys\n",
        expect![[r#"
        apps/pi/kustomization.yaml:10:16: error: Alwys is none of the values that imagePullPolicy may have [bad-value]
          = did you mean Always? (it may be Always, IfNotPresent, Never)
          = apps/base/web.yaml:1:1: the object that is patched
          in clusters/pi
    "#]],
    );
}

#[test]
fn custom_kinds() {
    one(
        "  size: 3\n",
        "  size: 30\n",
        expect![[r#"
        clusters/cloud/widget.yaml:6:9: error: 30 is too large [bad-value]
          = the most is 10
          in clusters/cloud
    "#]],
    );
    one(
        "  size: 3\n",
        "  size: big\n",
        expect![[r#"
        clusters/cloud/widget.yaml:6:9: error: size should be a whole number, but is the text "big" [wrong-type]
          in clusters/cloud
    "#]],
    );
    one(
        "  size: 3\n",
        "  sise: 3\n",
        expect![[r#"
        clusters/cloud/widget.yaml:5:1: error: spec needs the field "size" [missing-field]
          = add size: NUMBER
          in clusters/cloud
        clusters/cloud/widget.yaml:6:3: error: spec has no field "sise" [unknown-field]
          = did you mean "size"?
          in clusters/cloud
    "#]],
    );
    one(
        "mode: fast\n",
        "mode: fats\n",
        expect![[r#"
        clusters/cloud/widget.yaml:7:9: error: fats is none of the values that mode may have [bad-value]
          = did you mean fast? (it may be fast, slow)
          in clusters/cloud
    "#]],
    );
    one(
        "code: abc\n",
        "code: ABCDEF\n",
        expect![[r#"
        clusters/cloud/widget.yaml:8:9: error: code has 6 characters [bad-value]
          = it may have at most 5
          in clusters/cloud
        clusters/cloud/widget.yaml:8:9: error: "ABCDEF" does not match the pattern ^[a-z]+$ [bad-value]
          = correct the value
          in clusters/cloud
    "#]],
    );
    one(
        "tags: [red, green]",
        "tags: [red, red]",
        expect![[r#"
        clusters/cloud/widget.yaml:9:15: error: spec.tags has two items with "red" [duplicate-item]
          = leave one of them out
          in clusters/cloud
    "#]],
    );
    one(
        "port: http\n",
        "port: true\n",
        expect![[r#"
        clusters/cloud/widget.yaml:10:9: error: port should be a whole number or a text, but is true [wrong-type]
          in clusters/cloud
    "#]],
    );
    one(
        "source: {git: here}",
        "source: {git: here, oci: there}",
        expect![[r#"
            clusters/cloud/widget.yaml:12:3: error: source fits more than one of the forms of which it must have one [bad-value]
              = it is about git; or oci
              in clusters/cloud
        "#]],
    );
    one(
        "apiVersion: example.org/v1\n",
        "apiVersion: example.org/v1alpha1\n",
        expect![[r#"
            clusters/cloud/widget.yaml:1:13: error: the CRD of Widget serves no version v1alpha1 [removed-api]
              = use example.org/v1
              in clusters/cloud
        "#]],
    );
    one(
        "apiVersion: example.org/v1\n",
        "apiVersion: other.org/v1\n",
        expect![[r#"
            clusters/cloud/widget.yaml:2:7: note: there is no schema for Widget of other.org/v1: 1 object not checked [unknown-kind]
              = add its CustomResourceDefinition to the repository to have it checked
              in clusters/cloud
        "#]],
    );
}

#[test]
fn references() {
    one(
        "configMapKeyRef: {name: settings,",
        "configMapKeyRef: {name: setings,",
        expect![[r#"
            apps/base/web.yaml:22:41: error: there is no ConfigMap "setings" in namespace default [missing-reference]
              = did you mean "settings"?
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "key: greeting}",
        "key: greting}",
        expect![[r#"
        apps/base/web.yaml:22:56: error: ConfigMap "settings" has no key "greting" [missing-key]
          = did you mean "greeting"?
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "secretRef: {name: token}",
        "secretRef: {name: none}",
        expect![[r#"
        apps/base/web.yaml:24:33: error: there is no Secret "none" in namespace default [missing-reference]
          = add it, correct the name, or set optional: true
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "serviceAccountName: web",
        "serviceAccountName: robot",
        expect![[r#"
            apps/base/web.yaml:13:27: error: there is no ServiceAccount "robot" in namespace default [missing-reference]
              = add it, or correct the name
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "claimName: data",
        "claimName: date",
        expect![[r#"
        apps/base/web.yaml:37:46: error: there is no PersistentVolumeClaim "date" in namespace default [missing-reference]
          = did you mean "data"?
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "{name: data, mountPath",
        "{name: dat, mountPath",
        expect![[r#"
        apps/base/web.yaml:32:22: error: the pod has no volume "dat" [unknown-volume]
          = did you mean "data"?
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "httpGet: {path: /, port: http}",
        "httpGet: {path: /, port: htp}",
        expect![[r#"
            apps/base/web.yaml:27:38: error: container "web" has no port "htp" [unknown-port]
              = did you mean "http"?
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "targetPort: http",
        "targetPort: web",
        expect![[r#"
        apps/base/web.yaml:46:42: error: the selected pods have no port "web" [unknown-port]
          = the containers' ports are http
          in clusters/cloud, clusters/pi
    "#]],
    );
    one(
        "selector: {app: web}\n  ports",
        "selector: {app: wed}\n  ports",
        expect![[r#"
            apps/base/web.yaml:44:3: warning: no pods in namespace default have the labels app=wed [no-pods]
              = correct the selector, or the labels of the pods
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "{service: {name: web, port: {name: http}}}",
        "{service: {name: web, port: {number: 81}}}",
        expect![[r#"
            clusters/cloud/ingress.yaml:12:59: error: Service "web" has no port 81 [unknown-port]
              = its ports are 80 (http)
              in clusters/cloud
        "#]],
    );
    one(
        "{service: {name: web, port: {name: http}}}",
        "{service: {name: wob, port: {name: http}}}",
        expect![[r#"
            clusters/cloud/ingress.yaml:12:39: error: there is no Service "wob" in namespace default [missing-reference]
              = did you mean "web"?
              in clusters/cloud
        "#]],
    );
    one(
        "matchLabels: {app: web}",
        "matchLabels: {app: wab}",
        expect![[r#"
        apps/base/web.yaml:8:5: error: the selector does not match the labels of the Deployment's own pods [selector-mismatch]
          = give the template's metadata.labels the same labels
          in clusters/cloud, clusters/pi
    "#]],
    );
}

#[test]
fn flux_objects() {
    one(
        "  interval: 10m\n",
        "  intervall: 10m\n",
        expect![[r#"
            clusters/pi/apps.yaml:6:1: error: spec needs the field "interval" [missing-field]
              = add interval: TEXT
              in clusters/pi
            clusters/pi/apps.yaml:7:3: error: spec has no field "intervall" [unknown-field]
              = did you mean "interval"?
              in clusters/pi
        "#]],
    );
    one(
        "  interval: 5m\n",
        "  interval: 5 minutes\n",
        expect![[r#"
        clusters/pi/apps.yaml:22:13: error: "5 minutes" does not match the pattern ^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$ [bad-value]
          = correct the value
          in clusters/pi
    "#]],
    );
    one(
        "  path: ./apps/pi\n",
        "  path: ./apps/py\n",
        expect![[r#"
            clusters/pi/apps.yaml:9:9: error: there is no folder "./apps/py" in the repository [render]
              in clusters/pi
        "#]],
    );
    one(
        "    - name: base-config\n",
        "    - name: base\n",
        expect![[r#"
        clusters/pi/apps.yaml:14:13: error: there is no Kustomization "base" in namespace flux-system to depend on [flux-dependency]
          = add it to the cluster, or take the dependency out
          in clusters/pi
    "#]],
    );
    one(
        "  path: ./config\n",
        "  path: ./config\n  dependsOn: [{name: apps}]\n",
        expect![[r#"
            clusters/pi/apps.yaml:14:13: error: the Kustomizations wait for one another: apps -> base-config -> apps [flux-dependency]
              = break the circle
              in clusters/pi
        "#]],
    );
    one(
        "  path: ./config\n  sourceRef:\n    kind: GitRepository\n    name: flux-system\n",
        "  path: ./config\n  sourceRef:\n    kind: GitRepository\n    name: fleet\n",
        expect![[r#"
            clusters/pi/apps.yaml:27:11: error: there is no GitRepository "fleet" in namespace flux-system [flux-source]
              = add it to the repository, or correct kind, name and namespace
              in clusters/pi
        "#]],
    );
    one(
        "greeting: ${GREETING:=hi}",
        "greeting: ${GRETING}",
        expect![[r#"
            config/config.yaml:6:13: error: the variable GRETING in ${GRETING} has no value [render]
              = give it one, a default as in ${GRETING:-default}, or write $${GRETING} to keep the text
              in clusters/pi
        "#]],
    );
}

#[test]
fn kustomizations() {
    one(
        "resources: [config.yaml]",
        "resources: [confg.yaml]",
        expect![[r#"
            config/kustomization.yaml:3:13: error: there is no file or folder "confg.yaml" [render]
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "resources: [config.yaml]",
        "resorces: [config.yaml]",
        expect![[r#"
            config/kustomization.yaml:3:1: error: there is no field "resorces" here [render]
              = did you mean "resources"?
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "  greeting: ${",
        "  greeting: [${",
        expect![[r#"
            config/config.yaml:6:1: error: ',' or ']' is expected here [render]
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "patch: |\n      - op: add\n",
        "patch: |\n      - op: ad\n",
        expect![[r#"
            apps/base/web.yaml:1:1: error: Deployment.apps/web: cannot ad /spec/template/spec/containers/0/imagePullPolicy: "ad" is no operation; use add, remove, replace, move, copy or test [render]
              in clusters/pi
        "#]],
    );
}

#[test]
fn devices() {
    one(
        "requests: {cpu: 100m, memory: 64Mi}",
        "requests: {cpu: 100m, memory: 4Gi}",
        expect![[r#"
            apps/base/web.yaml:29:43: error: raspberry-pi-4 does not hold it: the generation asks for 4096 Mi of the 3072 Mi that this device gives to workloads [resources]
              = lower the requests or the replicas, or choose a larger device class
              in clusters/pi
        "#]],
    );
    one(
        "          workingDir: /srv",
        "          workingDir: /srv\n          stdinOnce: true",
        expect![[r#"
            apps/pi/patch.yaml:12:22: error: Leeward does not run it: there is no field "stdinOnce" here [engine]
              = correct the field, or run this object on K3s if it needs it
              = apps/base/web.yaml:1:1: the object that is patched
              in clusters/pi
        "#]],
    );
}

#[test]
fn api_versions() {
    one(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2",
        "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2",
        expect![[r#"
            apps/base/web.yaml:1:13: error: Deployment of apps/v1beta1 was removed in Kubernetes 1.16 [removed-api]
              = use apps/v1
              in clusters/cloud
            apps/pi/patch.yaml:1:1: error: Deployment.apps/web: no object is named by this patch [render]
              = check apiVersion, kind, name and namespace, or give a target
              in clusters/pi
        "#]],
    );
    let flow = "//- clusters/x/kustomization.yaml\nresources: [flow.yaml]\n//- clusters/x/flow.yaml\n\
                apiVersion: flowcontrol.apiserver.k8s.io/v1beta3\nkind: FlowSchema\nmetadata: {name: x}\n\
                spec: {priorityLevelConfiguration: {name: y}}\n";
    let at = |version: &str| {
        let options = Options {
            kubernetes: version.parse().unwrap(),
            ..Options::default()
        };
        told(&check(&tree(flow), &options))
    };
    expect![""].assert_eq(&at("1.28"));
    expect![[r#"
        clusters/x/flow.yaml:1:13: warning: FlowSchema of flowcontrol.apiserver.k8s.io/v1beta3 is deprecated and goes in 1.32 [deprecated-api]
          = use flowcontrol.apiserver.k8s.io/v1
          in clusters/x
    "#]].assert_eq(&at("1.30"));
    expect![[r#"
        clusters/x/flow.yaml:1:13: error: FlowSchema of flowcontrol.apiserver.k8s.io/v1beta3 was removed in Kubernetes 1.32 [removed-api]
          = use flowcontrol.apiserver.k8s.io/v1
          in clusters/x
    "#]].assert_eq(&at("1.37"));
    expect![[r#"
        clusters/x/flow.yaml:1:13: error: Kubernetes 1.25 has no FlowSchema in flowcontrol.apiserver.k8s.io/v1beta3 [removed-api]
          = use flowcontrol.apiserver.k8s.io/v1beta1
          in clusters/x
    "#]].assert_eq(&at("1.25"));
}

#[test]
fn folders_outside_of_clusters_are_checked_with_more_patience() {
    let text = format!(
        "{GOOD}//- extra/kustomization.yaml\nresources: [pod.yaml]\n//- extra/pod.yaml\napiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  serviceAccountName: other\n  containers: [{{name: x, image: y, prots: []}}]\n"
    );
    expect![[r#"
        extra/pod.yaml:5:23: warning: there is no ServiceAccount "other" in namespace default [missing-reference]
          = add it, or correct the name
          in extra
        extra/pod.yaml:6:36: error: spec.containers[0] has no field "prots" [unknown-field]
          = did you mean "ports"?
          in extra
    "#]].assert_eq(&checked(&text));
}

#[test]
fn comments_silence_rules() {
    let silent = [
        (
            "  replicas: 2\n",
            "  replica: 2 # leeward:ignore unknown-field it is so\n",
        ),
        (
            "  replicas: 2\n",
            "  # leeward:ignore unknown-field, wrong-type\n\n  # More.\n  replica: 2\n",
        ),
        (
            "spec:\n  replicas: 2\n",
            "spec: # leeward:ignore unknown-field\n  replica: 2\n",
        ),
        (
            "//- apps/base/web.yaml\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n",
            "//- apps/base/web.yaml\n# leeward:ignore unknown-field\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replica: 2\n",
        ),
        ("replicas: 1\n", "replicas: one # leeward:ignore wrong-type\n"),
    ];
    for (old, new) in silent {
        assert_eq!(checked(&spoilt(old, new)), "", "{new}");
    }
    one(
        "  replicas: 2\n",
        "  replica: 2 # leeward:ignore wrong-type\n",
        expect![[r#"
            apps/base/web.yaml:6:3: error: spec has no field "replica" [unknown-field]
              = did you mean "replicas"?
              in clusters/cloud, clusters/pi
        "#]],
    );
    one(
        "  replicas: 2\n",
        "  replicas: 2 # leeward:ignore unkown-field\n",
        expect![[r#"
            apps/base/web.yaml:6:15: warning: there is no rule "unkown-field" to ignore [unknown-field]
              = did you mean "unknown-field"?
              in 
        "#]],
    );
}

#[test]
fn faults_do_not_hide_one_another() {
    let text = spoilt("  replicas: 2\n", "  replica: 2\n")
        .replace("  size: 3\n", "  size: 30\n")
        .replace("  path: ./config\n", "  path: ./nowhere\n");
    expect![[r#"
        apps/base/web.yaml:6:3: error: spec has no field "replica" [unknown-field]
          = did you mean "replicas"?
          in clusters/cloud, clusters/pi
        clusters/cloud/widget.yaml:6:9: error: 30 is too large [bad-value]
          = the most is 10
          in clusters/cloud
        clusters/pi/apps.yaml:24:9: error: there is no folder "./nowhere" in the repository [render]
          in clusters/pi
    "#]]
    .assert_eq(&checked(&text));
}

#[test]
fn what_nobody_here_can_decrypt_is_judged_by_its_form() {
    let sealed = "stringData:\n  token: ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\nsops:\n  version: 3.11.0\n  mac: ENC[x]\n  age: []\n";
    let good = spoilt("stringData:\n  token: secret\n", sealed);
    assert_eq!(checked(&good), "");
    let as_data = good.replace("stringData:\n", "data:\n");
    assert_eq!(checked(&as_data), "");
    let wrong = good.replace("stringData:\n", "stringDate:\n");
    expect![[r#"
        config/config.yaml:12:1: error: the object has no field "stringDate" [unknown-field]
          = did you mean "stringData"?
          in clusters/cloud, clusters/pi
    "#]]
    .assert_eq(&checked(&wrong));
}
