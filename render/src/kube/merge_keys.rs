//! Which lists of Kubernetes objects merge by key: facts of the Kubernetes v1.21.2 API description,
//! the version that kustomize v5.8.1 carries. A kind that is not here gets a plain merge.

/// A field whose value, or something below it, merges by key.
#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    /// `Some` for a list that merges: the keys that identify an element, none for a list of plain values.
    pub keys: Option<&'static [&'static str]>,
    /// The type of the value, or of a list's elements: an index in [`TYPES`].
    pub below: Option<u8>,
}

const fn f(name: &'static str, keys: Option<&'static [&'static str]>, below: Option<u8>) -> Field {
    Field { name, keys, below }
}

pub(super) static TYPES: &[&[Field]] = &[
    // 0: ObjectMeta
    &[
        f("finalizers", Some(&[]), None),
        f("ownerReferences", Some(&["uid"]), None),
    ],
    // 1: MutatingWebhookConfiguration
    &[f("metadata", None, Some(0)), f("webhooks", Some(&["name"]), None)],
    // 2: CustomResourceDefinition
    &[f("metadata", None, Some(0))],
    // 3: APIServiceStatus
    &[f("conditions", Some(&["type"]), None)],
    // 4: APIService
    &[f("metadata", None, Some(0)), f("status", None, Some(3))],
    // 5: Container
    &[
        f("env", Some(&["name"]), None),
        f("ports", Some(&["containerPort", "protocol"]), None),
        f("volumeDevices", Some(&["devicePath"]), None),
        f("volumeMounts", Some(&["mountPath"]), None),
    ],
    // 6: EphemeralContainer
    &[
        f("env", Some(&["name"]), None),
        f("volumeDevices", Some(&["devicePath"]), None),
        f("volumeMounts", Some(&["mountPath"]), None),
    ],
    // 7: EphemeralVolumeSource
    &[f("volumeClaimTemplate", None, Some(2))],
    // 8: Volume
    &[f("ephemeral", None, Some(7))],
    // 9: PodSpec
    &[
        f("containers", Some(&["name"]), Some(5)),
        f("ephemeralContainers", Some(&["name"]), Some(6)),
        f("hostAliases", Some(&["ip"]), None),
        f("imagePullSecrets", Some(&["name"]), None),
        f("initContainers", Some(&["name"]), Some(5)),
        f(
            "topologySpreadConstraints",
            Some(&["topologyKey", "whenUnsatisfiable"]),
            None,
        ),
        f("volumes", Some(&["name"]), Some(8)),
    ],
    // 10: PodTemplateSpec
    &[f("metadata", None, Some(0)), f("spec", None, Some(9))],
    // 11: DaemonSetSpec
    &[f("template", None, Some(10))],
    // 12: DaemonSet
    &[
        f("metadata", None, Some(0)),
        f("spec", None, Some(11)),
        f("status", None, Some(3)),
    ],
    // 13: StatefulSetSpec
    &[
        f("template", None, Some(10)),
        f("volumeClaimTemplates", None, Some(4)),
    ],
    // 14: StatefulSet
    &[
        f("metadata", None, Some(0)),
        f("spec", None, Some(13)),
        f("status", None, Some(3)),
    ],
    // 15: JobTemplateSpec
    &[f("metadata", None, Some(0)), f("spec", None, Some(11))],
    // 16: CronJobSpec
    &[f("jobTemplate", None, Some(15))],
    // 17: CronJob
    &[f("metadata", None, Some(0)), f("spec", None, Some(16))],
    // 18: CSINodeSpec
    &[f("drivers", Some(&["name"]), None)],
    // 19: CSINode
    &[f("metadata", None, Some(0)), f("spec", None, Some(18))],
    // 20: ComponentStatus
    &[
        f("conditions", Some(&["type"]), None),
        f("metadata", None, Some(0)),
    ],
    // 21: NodeSpec
    &[f("podCIDRs", Some(&[]), None)],
    // 22: NodeStatus
    &[
        f("addresses", Some(&["type"]), None),
        f("conditions", Some(&["type"]), None),
    ],
    // 23: Node
    &[
        f("metadata", None, Some(0)),
        f("spec", None, Some(21)),
        f("status", None, Some(22)),
    ],
    // 24: PodStatus
    &[
        f("conditions", Some(&["type"]), None),
        f("podIPs", Some(&["ip"]), None),
    ],
    // 25: Pod
    &[
        f("metadata", None, Some(0)),
        f("spec", None, Some(9)),
        f("status", None, Some(24)),
    ],
    // 26: PodTemplate
    &[f("metadata", None, Some(0)), f("template", None, Some(10))],
    // 27: ServiceSpec
    &[f("ports", Some(&["port", "protocol"]), None)],
    // 28: Service
    &[
        f("metadata", None, Some(0)),
        f("spec", None, Some(27)),
        f("status", None, Some(3)),
    ],
    // 29: ServiceAccount
    &[f("metadata", None, Some(0)), f("secrets", Some(&["name"]), None)],
];

/// apiVersion, kind and its index in [`TYPES`]; sorted.
pub(super) static KINDS: &[(&str, &str, u8)] = &[
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        1,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        1,
    ),
    (
        "admissionregistration.k8s.io/v1beta1",
        "MutatingWebhookConfiguration",
        1,
    ),
    (
        "admissionregistration.k8s.io/v1beta1",
        "ValidatingWebhookConfiguration",
        1,
    ),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", 2),
    ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", 2),
    ("apiregistration.k8s.io/v1", "APIService", 4),
    ("apiregistration.k8s.io/v1beta1", "APIService", 4),
    ("apps/v1", "ControllerRevision", 2),
    ("apps/v1", "DaemonSet", 12),
    ("apps/v1", "Deployment", 12),
    ("apps/v1", "ReplicaSet", 12),
    ("apps/v1", "StatefulSet", 14),
    ("authentication.k8s.io/v1", "TokenRequest", 2),
    ("authentication.k8s.io/v1", "TokenReview", 2),
    ("authentication.k8s.io/v1beta1", "TokenReview", 2),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview", 2),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", 2),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", 2),
    ("authorization.k8s.io/v1", "SubjectAccessReview", 2),
    ("authorization.k8s.io/v1beta1", "LocalSubjectAccessReview", 2),
    ("authorization.k8s.io/v1beta1", "SelfSubjectAccessReview", 2),
    ("authorization.k8s.io/v1beta1", "SelfSubjectRulesReview", 2),
    ("authorization.k8s.io/v1beta1", "SubjectAccessReview", 2),
    ("autoscaling/v1", "HorizontalPodAutoscaler", 2),
    ("autoscaling/v1", "Scale", 2),
    ("autoscaling/v2beta1", "HorizontalPodAutoscaler", 2),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler", 2),
    ("batch/v1", "CronJob", 17),
    ("batch/v1", "Job", 12),
    ("batch/v1beta1", "CronJob", 17),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", 2),
    ("certificates.k8s.io/v1beta1", "CertificateSigningRequest", 2),
    ("coordination.k8s.io/v1", "Lease", 2),
    ("coordination.k8s.io/v1beta1", "Lease", 2),
    ("discovery.k8s.io/v1", "EndpointSlice", 2),
    ("discovery.k8s.io/v1beta1", "EndpointSlice", 2),
    ("events.k8s.io/v1", "Event", 2),
    ("events.k8s.io/v1beta1", "Event", 2),
    ("extensions/v1beta1", "Ingress", 2),
    ("flowcontrol.apiserver.k8s.io/v1beta1", "FlowSchema", 2),
    (
        "flowcontrol.apiserver.k8s.io/v1beta1",
        "PriorityLevelConfiguration",
        2,
    ),
    ("networking.k8s.io/v1", "Ingress", 2),
    ("networking.k8s.io/v1", "IngressClass", 2),
    ("networking.k8s.io/v1", "NetworkPolicy", 2),
    ("networking.k8s.io/v1beta1", "Ingress", 2),
    ("networking.k8s.io/v1beta1", "IngressClass", 2),
    ("node.k8s.io/v1", "RuntimeClass", 2),
    ("node.k8s.io/v1beta1", "RuntimeClass", 2),
    ("policy/v1", "PodDisruptionBudget", 4),
    ("policy/v1beta1", "Eviction", 2),
    ("policy/v1beta1", "PodDisruptionBudget", 4),
    ("policy/v1beta1", "PodSecurityPolicy", 2),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", 2),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", 2),
    ("rbac.authorization.k8s.io/v1", "Role", 2),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", 2),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRole", 2),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRoleBinding", 2),
    ("rbac.authorization.k8s.io/v1beta1", "Role", 2),
    ("rbac.authorization.k8s.io/v1beta1", "RoleBinding", 2),
    ("scheduling.k8s.io/v1", "PriorityClass", 2),
    ("scheduling.k8s.io/v1beta1", "PriorityClass", 2),
    ("storage.k8s.io/v1", "CSIDriver", 2),
    ("storage.k8s.io/v1", "CSINode", 19),
    ("storage.k8s.io/v1", "StorageClass", 2),
    ("storage.k8s.io/v1", "VolumeAttachment", 2),
    ("storage.k8s.io/v1beta1", "CSIDriver", 2),
    ("storage.k8s.io/v1beta1", "CSINode", 19),
    ("storage.k8s.io/v1beta1", "CSIStorageCapacity", 2),
    ("storage.k8s.io/v1beta1", "StorageClass", 2),
    ("storage.k8s.io/v1beta1", "VolumeAttachment", 2),
    ("v1", "Binding", 2),
    ("v1", "ComponentStatus", 20),
    ("v1", "ConfigMap", 2),
    ("v1", "Endpoints", 2),
    ("v1", "Event", 2),
    ("v1", "LimitRange", 2),
    ("v1", "Namespace", 4),
    ("v1", "Node", 23),
    ("v1", "PersistentVolume", 2),
    ("v1", "PersistentVolumeClaim", 4),
    ("v1", "Pod", 25),
    ("v1", "PodTemplate", 26),
    ("v1", "ReplicationController", 12),
    ("v1", "ResourceQuota", 2),
    ("v1", "Secret", 2),
    ("v1", "Service", 28),
    ("v1", "ServiceAccount", 29),
];

/// Definitions that an OpenAPI file of the user may refer to without having them; sorted.
pub(super) static DEFINITIONS: &[(&str, u8)] = &[
    ("io.k8s.api.core.v1.Container", 5),
    ("io.k8s.api.core.v1.EphemeralContainer", 6),
    ("io.k8s.api.core.v1.EphemeralVolumeSource", 7),
    ("io.k8s.api.core.v1.NamespaceStatus", 3),
    ("io.k8s.api.core.v1.NodeSpec", 21),
    ("io.k8s.api.core.v1.NodeStatus", 22),
    ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", 3),
    ("io.k8s.api.core.v1.PersistentVolumeClaimTemplate", 2),
    ("io.k8s.api.core.v1.PodSpec", 9),
    ("io.k8s.api.core.v1.PodStatus", 24),
    ("io.k8s.api.core.v1.PodTemplateSpec", 10),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", 11),
    ("io.k8s.api.core.v1.ReplicationControllerStatus", 3),
    ("io.k8s.api.core.v1.ServiceSpec", 27),
    ("io.k8s.api.core.v1.ServiceStatus", 3),
    ("io.k8s.api.core.v1.Volume", 8),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", 0),
];
