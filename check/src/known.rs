//! What Kubernetes checks in its own kinds beyond what its published OpenAPI says: closed sets of words, bounds of
//! numbers, fields that only its validation asks for. From the API reference.

/// Values of a text field (or of a list's items): definition, field, values.
const WORDS: &[(&str, &str, &[&str])] = &[
    (
        "core.v1.Container",
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
    ),
    (
        "core.v1.Container",
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
    ),
    ("core.v1.ContainerPort", "protocol", PROTOCOLS),
    ("core.v1.ServicePort", "protocol", PROTOCOLS),
    (
        "core.v1.PodSpec",
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
    ),
    (
        "core.v1.PodSpec",
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    ),
    (
        "core.v1.PodSpec",
        "preemptionPolicy",
        &["PreemptLowerPriority", "Never"],
    ),
    (
        "core.v1.PodSecurityContext",
        "fsGroupChangePolicy",
        &["OnRootMismatch", "Always"],
    ),
    (
        "core.v1.SeccompProfile",
        "type",
        &["RuntimeDefault", "Localhost", "Unconfined"],
    ),
    (
        "core.v1.ServiceSpec",
        "type",
        &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
    ),
    ("core.v1.ServiceSpec", "sessionAffinity", &["None", "ClientIP"]),
    (
        "core.v1.ServiceSpec",
        "externalTrafficPolicy",
        &["Cluster", "Local"],
    ),
    (
        "core.v1.ServiceSpec",
        "internalTrafficPolicy",
        &["Cluster", "Local"],
    ),
    (
        "core.v1.ServiceSpec",
        "ipFamilyPolicy",
        &["SingleStack", "PreferDualStack", "RequireDualStack"],
    ),
    ("core.v1.ServiceSpec", "ipFamilies", &["IPv4", "IPv6"]),
    ("core.v1.Toleration", "operator", &["Equal", "Exists", "Lt", "Gt"]),
    ("core.v1.Toleration", "effect", EFFECTS),
    ("core.v1.Taint", "effect", EFFECTS),
    (
        "core.v1.NodeSelectorRequirement",
        "operator",
        &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
    ),
    ("core.v1.HTTPGetAction", "scheme", &["HTTP", "HTTPS"]),
    (
        "core.v1.HostPathVolumeSource",
        "type",
        &[
            "",
            "DirectoryOrCreate",
            "Directory",
            "FileOrCreate",
            "File",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ],
    ),
    (
        "core.v1.VolumeMount",
        "mountPropagation",
        &["None", "HostToContainer", "Bidirectional"],
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "persistentVolumeReclaimPolicy",
        &["Retain", "Recycle", "Delete"],
    ),
    ("core.v1.PersistentVolumeSpec", "accessModes", ACCESS),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeMode",
        &["Filesystem", "Block"],
    ),
    ("core.v1.PersistentVolumeClaimSpec", "accessModes", ACCESS),
    (
        "core.v1.PersistentVolumeClaimSpec",
        "volumeMode",
        &["Filesystem", "Block"],
    ),
    (
        "core.v1.TopologySpreadConstraint",
        "whenUnsatisfiable",
        &["DoNotSchedule", "ScheduleAnyway"],
    ),
    (
        "meta.v1.LabelSelectorRequirement",
        "operator",
        &["In", "NotIn", "Exists", "DoesNotExist"],
    ),
    (
        "apps.v1.DeploymentStrategy",
        "type",
        &["RollingUpdate", "Recreate"],
    ),
    (
        "apps.v1.DaemonSetUpdateStrategy",
        "type",
        &["RollingUpdate", "OnDelete"],
    ),
    (
        "apps.v1.StatefulSetUpdateStrategy",
        "type",
        &["RollingUpdate", "OnDelete"],
    ),
    (
        "apps.v1.StatefulSetSpec",
        "podManagementPolicy",
        &["OrderedReady", "Parallel"],
    ),
    (
        "batch.v1.CronJobSpec",
        "concurrencyPolicy",
        &["Allow", "Forbid", "Replace"],
    ),
    ("batch.v1.JobSpec", "completionMode", &["NonIndexed", "Indexed"]),
    (
        "networking.v1.HTTPIngressPath",
        "pathType",
        &["Prefix", "Exact", "ImplementationSpecific"],
    ),
    (
        "networking.v1.NetworkPolicySpec",
        "policyTypes",
        &["Ingress", "Egress"],
    ),
    ("networking.v1.NetworkPolicyPort", "protocol", PROTOCOLS),
    ("rbac.v1.RoleRef", "kind", &["Role", "ClusterRole"]),
    ("rbac.v1.Subject", "kind", &["User", "Group", "ServiceAccount"]),
    (
        "storage.v1.StorageClass",
        "volumeBindingMode",
        &["Immediate", "WaitForFirstConsumer"],
    ),
    ("storage.v1.StorageClass", "reclaimPolicy", &["Delete", "Retain"]),
    (
        "autoscaling.v2.MetricSpec",
        "type",
        &["Resource", "Pods", "Object", "External", "ContainerResource"],
    ),
    (
        "admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "failurePolicy",
        &["Fail", "Ignore"],
    ),
    (
        "admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
        &["Deny", "Warn", "Audit"],
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "failurePolicy",
        &["Fail", "Ignore"],
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "failurePolicy",
        &["Fail", "Ignore"],
    ),
    (
        "apiextensions.v1.CustomResourceDefinitionSpec",
        "scope",
        &["Namespaced", "Cluster"],
    ),
];

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const ACCESS: &[&str] = &[
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];

/// Bounds of a whole number: definition, field, least, most.
const BOUNDS: &[(&str, &str, i64, i64)] = &[
    ("core.v1.ContainerPort", "containerPort", 1, 65535),
    ("core.v1.ContainerPort", "hostPort", 0, 65535),
    ("core.v1.ServicePort", "port", 1, 65535),
    ("core.v1.ServicePort", "nodePort", 0, 65535),
    ("core.v1.ServicePort", "targetPort", 1, 65535),
    ("core.v1.HTTPGetAction", "port", 1, 65535),
    ("core.v1.TCPSocketAction", "port", 1, 65535),
    ("core.v1.GRPCAction", "port", 1, 65535),
    ("core.v1.Probe", "failureThreshold", 1, i64::MAX),
    ("core.v1.Probe", "successThreshold", 1, i64::MAX),
    ("core.v1.Probe", "periodSeconds", 1, i64::MAX),
    ("core.v1.Probe", "timeoutSeconds", 1, i64::MAX),
    ("core.v1.Probe", "initialDelaySeconds", 0, i64::MAX),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", 0, i64::MAX),
    ("core.v1.PodSpec", "activeDeadlineSeconds", 1, i64::MAX),
    ("apps.v1.DeploymentSpec", "replicas", 0, i64::MAX),
    ("apps.v1.StatefulSetSpec", "replicas", 0, i64::MAX),
    ("apps.v1.ReplicaSetSpec", "replicas", 0, i64::MAX),
    ("batch.v1.JobSpec", "backoffLimit", 0, i64::MAX),
    ("batch.v1.JobSpec", "completions", 0, i64::MAX),
    ("batch.v1.JobSpec", "parallelism", 0, i64::MAX),
    ("networking.v1.ServiceBackendPort", "number", 1, 65535),
];

/// Fields that the schema leaves open and the API server asks for.
const ASKED_FOR: &[(&str, &str)] = &[("core.v1.Container", "image")];

/// `core.v1.Container` of `io.k8s.api.core.v1.Container`.
fn short(definition: &str) -> &str {
    let mut dots = definition.rmatch_indices('.').map(|(at, _)| at + 1);
    let third = dots.nth(2);
    third.map_or(definition, |at| &definition[at..])
}

/// The values that a field may have.
pub(crate) fn words(definition: &str, field: &str) -> Option<&'static [&'static str]> {
    let definition = short(definition);
    let found = WORDS.iter().find(|(d, f, _)| *d == definition && *f == field);
    found.map(|(_, _, words)| *words)
}

/// The least and the most that a field may be.
pub(crate) fn bounds(definition: &str, field: &str) -> Option<(i64, i64)> {
    let definition = short(definition);
    let found = BOUNDS.iter().find(|(d, f, ..)| *d == definition && *f == field);
    found.map(|(_, _, least, most)| (*least, *most))
}

/// Fields that must be there beside those that the schema requires.
pub(crate) fn asked_for(definition: &str) -> impl Iterator<Item = &'static str> {
    let definition = short(definition);
    ASKED_FOR
        .iter()
        .filter(move |(d, _)| *d == definition)
        .map(|(_, field)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{Api, KubernetesVersion};

    /// A slip in a table would mean that nothing is checked.
    #[test]
    fn every_row_names_a_field_that_there_is() {
        let api = Api::of(KubernetesVersion::LATEST);
        let words = WORDS.iter().map(|(d, f, _)| (*d, *f));
        let bounds = BOUNDS.iter().map(|(d, f, ..)| (*d, *f));
        for (definition, field) in words.chain(bounds).chain(ASKED_FOR.iter().copied()) {
            let full = [
                "io.k8s.api.",
                "io.k8s.apimachinery.pkg.apis.",
                "io.k8s.apiextensions-apiserver.pkg.apis.",
            ]
            .iter()
            .find_map(|prefix| api.definition(&format!("{prefix}{definition}")));
            let schema = full.unwrap_or_else(|| panic!("{definition}")).schema;
            assert!(schema["properties"].get(field).is_some(), "{definition}.{field}");
        }
    }
}
