//! Rules in CEL: of CRDs, of ValidatingAdmissionPolicies, of Flux.

use crate::support::checked;
use expect_test::{Expect, expect};

const CRD: &str = r#"//- clusters/x/kustomization.yaml
resources: [crd.yaml, gauge.yaml]
//- clusters/x/crd.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gauges.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Gauge, plural: gauges, singular: gauge, listKind: GaugeList}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                least: {type: integer, default: 1}
                most: {type: integer}
                every: {type: string}
              x-kubernetes-validations:
                - rule: self.least <= self.most
                  messageExpression: "'least is ' + string(self.least) + ', most only ' + string(self.most)"
                  fieldPath: .most
                - rule: self.most == oldSelf.most
                - rule: "!has(self.every) || duration(self.every) > duration('1s')"
                - rule: RULE
"#;

#[track_caller]
fn gauge(rule: &str, spec: &str, want: Expect) {
    let gauge = format!(
        "//- clusters/x/gauge.yaml\napiVersion: example.org/v1\nkind: Gauge\nmetadata:\n  name: one\nspec: {spec}\n"
    );
    want.assert_eq(&checked(&(CRD.replace("RULE", rule) + &gauge)));
}

#[test]
fn rules_of_crds() {
    gauge("'true == true'", "{most: 3}", expect![""]);
    gauge(
        "self.most < 100",
        "{most: 0}",
        expect![[r#"
        clusters/x/gauge.yaml:5:8: error: least is 1, most only 0 [validation]
          = the CRD asks for: self.least <= self.most
          in clusters/x
    "#]],
    );
    gauge(
        "self.most < 100",
        "{least: 5, most: 300}",
        expect![[r#"
        clusters/x/gauge.yaml:5:1: error: the rule self.most < 100 is not met [validation]
          = the CRD asks for: self.most < 100
          in clusters/x
    "#]],
    );
    gauge(
        "self.most <",
        "{most: 3}",
        expect![[r#"
        clusters/x/crd.yaml:28:25: error: the expression is no CEL: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER} at column 12 [validation]
          in clusters/x
    "#]],
    );
    gauge(
        "self.none > 3",
        "{most: 3}",
        expect![[r#"
        clusters/x/gauge.yaml:5:1: error: the CRD's rule self.none > 3 cannot be evaluated: there is no "none" at column 5; has(none) or none.?field tells whether it is there [validation]
          in clusters/x
    "#]],
    );
    gauge(
        "self.most < 100",
        "{most: 3, every: 5s}",
        expect![[r#"
        clusters/x/gauge.yaml:5:1: note: the CRD's rule !has(self.every) || duration(self.every) > duration('1s') is not checked: there is no "duration" at column 29; has(duration) or duration.?field tells whether it is there [validation]
          in clusters/x
    "#]],
    );
}

const POLICY: &str = r#"//- clusters/x/kustomization.yaml
resources: [policy.yaml, app.yaml]
//- clusters/x/policy.yaml
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
      - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  matchConditions:
    - {name: not-exempt, expression: "!has(object.metadata.labels) || !('exempt' in object.metadata.labels)"}
  variables:
    - {name: most, expression: "int(params.data.most)"}
  validations:
    - expression: object.spec.replicas <= variables.most
      messageExpression: "'at most ' + string(variables.most) + ' replicas in ' + namespaceObject.metadata.name"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec:
  policyName: replicas
  paramRef: {name: limits, parameterNotFoundAction: Deny}
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: shop}
data: {most: "3"}
//- clusters/x/app.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: shop, labels: {app: app}}
spec:
  replicas: 5
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: x}]}
"#;

#[track_caller]
fn policy(old: &str, new: &str, want: Expect) {
    assert!(POLICY.contains(old), "{old}");
    want.assert_eq(&checked(&POLICY.replace(old, new)));
}

#[test]
fn policies() {
    policy(
        "replicas: 5",
        "replicas: 5",
        expect![[r#"
        clusters/x/app.yaml:1:1: error: policy replicas: at most 3 replicas in shop [policy]
          = it asks for: object.spec.replicas <= variables.most
          in clusters/x
    "#]],
    );
    policy("replicas: 5", "replicas: 3", expect![""]);
    policy(
        "namespace: shop, labels: {app: app}",
        "namespace: shop, labels: {exempt: x}",
        expect![""],
    );
    policy(
        "name: app, namespace: shop",
        "name: app, namespace: other",
        expect![""],
    );
    policy(
        "[Deny]",
        "[Warn]",
        expect![[r#"
        clusters/x/app.yaml:1:1: warning: policy replicas: at most 3 replicas in shop [policy]
          = it asks for: object.spec.replicas <= variables.most
          in clusters/x
    "#]],
    );
    policy(
        "object.spec.replicas <=",
        "object.spec.replicas =<",
        expect![[r#"
        clusters/x/policy.yaml:14:19: error: the expression is no CEL: Syntax error: token recognition error at: '=<' at column 22 [policy]
          in clusters/x
    "#]],
    );
    policy(
        "operations: [CREATE, UPDATE]",
        "operations: [DELETE]",
        expect![""],
    );
    policy(
        "data: {most: \"3\"}",
        "data: {least: \"3\"}",
        expect![[r#"
        clusters/x/app.yaml:1:1: error: policy replicas: object.spec.replicas <= variables.most cannot be evaluated: there is no "most" at column 34; has(most) or most.?field tells whether it is there [policy]
          in clusters/x
    "#]],
    );
}

#[test]
fn expressions_of_flux() {
    let text = "//- clusters/x/a.yaml\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n\
                metadata: {name: a, namespace: flux-system}\nspec:\n  interval: 1m\n  prune: true\n  path: ./a\n\
                \x20 sourceRef: {kind: GitRepository, name: flux-system}\n  healthCheckExprs:\n\
                \x20   - {apiVersion: x/v1, kind: X, current: \"status.ready ==\"}\n\
                //- a/kustomization.yaml\nresources: []\n";
    expect![[r#"
        clusters/x/a.yaml:10:44: error: the expression is no CEL: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER} at column 16 [bad-value]
          in clusters/x
    "#]].assert_eq(&checked(text));
}
