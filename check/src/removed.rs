//! API versions that Kubernetes gave up or will give up, from its deprecation guide.

use crate::{KubernetesVersion, Rule, kubernetes::Api, path::Path, schema::Fault};
use model::Object;

/// apiVersion, kinds (empty for all), minor version in which it was deprecated and removed (0: not yet), and what to use.
type Row = (&'static str, &'static [&'static str], u16, u16, &'static str);

const TABLE: &[Row] = &[
    (
        "extensions/v1beta1",
        &["Deployment", "DaemonSet", "ReplicaSet"],
        8,
        16,
        "apps/v1",
    ),
    (
        "extensions/v1beta1",
        &["NetworkPolicy"],
        9,
        16,
        "networking.k8s.io/v1",
    ),
    ("extensions/v1beta1", &["Ingress"], 14, 22, "networking.k8s.io/v1"),
    ("extensions/v1beta1", &["PodSecurityPolicy"], 10, 16, ""),
    ("apps/v1beta1", &[], 9, 16, "apps/v1"),
    ("apps/v1beta2", &[], 9, 16, "apps/v1"),
    (
        "networking.k8s.io/v1beta1",
        &["Ingress", "IngressClass"],
        19,
        22,
        "networking.k8s.io/v1",
    ),
    (
        "networking.k8s.io/v1beta1",
        &["IPAddress", "ServiceCIDR"],
        34,
        37,
        "networking.k8s.io/v1",
    ),
    (
        "apiextensions.k8s.io/v1beta1",
        &[],
        16,
        22,
        "apiextensions.k8s.io/v1",
    ),
    (
        "apiregistration.k8s.io/v1beta1",
        &[],
        19,
        22,
        "apiregistration.k8s.io/v1",
    ),
    (
        "admissionregistration.k8s.io/v1beta1",
        &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"],
        16,
        22,
        "admissionregistration.k8s.io/v1",
    ),
    (
        "admissionregistration.k8s.io/v1beta1",
        &["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"],
        30,
        34,
        "admissionregistration.k8s.io/v1",
    ),
    (
        "authentication.k8s.io/v1beta1",
        &["TokenReview"],
        19,
        22,
        "authentication.k8s.io/v1",
    ),
    (
        "authorization.k8s.io/v1beta1",
        &[],
        19,
        22,
        "authorization.k8s.io/v1",
    ),
    (
        "certificates.k8s.io/v1beta1",
        &["CertificateSigningRequest"],
        19,
        22,
        "certificates.k8s.io/v1",
    ),
    (
        "coordination.k8s.io/v1beta1",
        &["Lease"],
        19,
        22,
        "coordination.k8s.io/v1",
    ),
    (
        "rbac.authorization.k8s.io/v1beta1",
        &[],
        17,
        22,
        "rbac.authorization.k8s.io/v1",
    ),
    (
        "rbac.authorization.k8s.io/v1alpha1",
        &[],
        17,
        23,
        "rbac.authorization.k8s.io/v1",
    ),
    (
        "scheduling.k8s.io/v1beta1",
        &["PriorityClass"],
        14,
        22,
        "scheduling.k8s.io/v1",
    ),
    (
        "storage.k8s.io/v1beta1",
        &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"],
        19,
        22,
        "storage.k8s.io/v1",
    ),
    (
        "storage.k8s.io/v1beta1",
        &["CSIStorageCapacity"],
        24,
        27,
        "storage.k8s.io/v1",
    ),
    ("batch/v2alpha1", &["CronJob"], 8, 21, "batch/v1"),
    ("batch/v1beta1", &["CronJob"], 21, 25, "batch/v1"),
    (
        "discovery.k8s.io/v1beta1",
        &["EndpointSlice"],
        21,
        25,
        "discovery.k8s.io/v1",
    ),
    ("events.k8s.io/v1beta1", &["Event"], 19, 25, "events.k8s.io/v1"),
    (
        "autoscaling/v2beta1",
        &["HorizontalPodAutoscaler"],
        22,
        25,
        "autoscaling/v2",
    ),
    (
        "autoscaling/v2beta2",
        &["HorizontalPodAutoscaler"],
        23,
        26,
        "autoscaling/v2",
    ),
    ("policy/v1beta1", &["PodDisruptionBudget"], 21, 25, "policy/v1"),
    ("policy/v1beta1", &["PodSecurityPolicy"], 21, 25, ""),
    ("node.k8s.io/v1beta1", &["RuntimeClass"], 20, 25, "node.k8s.io/v1"),
    (
        "flowcontrol.apiserver.k8s.io/v1beta1",
        &[],
        23,
        26,
        "flowcontrol.apiserver.k8s.io/v1",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1beta2",
        &[],
        26,
        29,
        "flowcontrol.apiserver.k8s.io/v1",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1beta3",
        &[],
        29,
        32,
        "flowcontrol.apiserver.k8s.io/v1",
    ),
    ("v1", &["ComponentStatus"], 19, 0, ""),
    ("v1", &["Endpoints"], 33, 0, "discovery.k8s.io/v1 (EndpointSlice)"),
    // Flux's own, removed with Flux 2.7 or deprecated.
    (
        "kustomize.toolkit.fluxcd.io/v1beta1",
        &[],
        0,
        1,
        "kustomize.toolkit.fluxcd.io/v1",
    ),
    (
        "kustomize.toolkit.fluxcd.io/v1beta2",
        &[],
        0,
        1,
        "kustomize.toolkit.fluxcd.io/v1",
    ),
    (
        "source.toolkit.fluxcd.io/v1beta1",
        &[],
        0,
        1,
        "source.toolkit.fluxcd.io/v1",
    ),
    (
        "source.toolkit.fluxcd.io/v1beta2",
        &[],
        1,
        0,
        "source.toolkit.fluxcd.io/v1",
    ),
    (
        "helm.toolkit.fluxcd.io/v2beta1",
        &[],
        0,
        1,
        "helm.toolkit.fluxcd.io/v2",
    ),
    (
        "helm.toolkit.fluxcd.io/v2beta2",
        &[],
        1,
        0,
        "helm.toolkit.fluxcd.io/v2",
    ),
];

/// What is wrong with the object's API version; nothing for kinds that are not Kubernetes' own.
pub(crate) fn fault(object: &Object, version: KubernetesVersion) -> Option<Fault> {
    let (api_version, kind) = (object.api_version(), object.kind());
    let place = Path::fields("apiVersion");
    let row = TABLE
        .iter()
        .find(|(api, kinds, ..)| *api == api_version && (kinds.is_empty() || kinds.contains(&kind)));
    if let Some((_, _, deprecated, removed, instead)) = row {
        let remedy = match *instead {
            "" => "there is nothing in its place".to_owned(),
            instead => format!("use {instead}"),
        };
        let flux = api_version.contains("fluxcd.io");
        let (rule, message) = match (*removed, *deprecated) {
            (1.., _) if flux => (
                Rule::RemovedApi,
                format!("Flux serves no {kind} of {api_version} any more"),
            ),
            (removed @ 1.., _) if removed <= version.minor() => (
                Rule::RemovedApi,
                format!("{kind} of {api_version} was removed in Kubernetes 1.{removed}"),
            ),
            (_, deprecated) if flux || deprecated <= version.minor() => {
                let until = if *removed > 1 {
                    format!(" and goes in 1.{removed}")
                } else {
                    String::new()
                };
                (
                    Rule::DeprecatedApi,
                    format!("{kind} of {api_version} is deprecated{until}"),
                )
            }
            _ => return None,
        };
        return Some(Fault::new(rule, place, message).remedy(remedy));
    }
    let api = Api::of(version);
    if api.kind(api_version, kind).is_some() {
        return None;
    }
    if let Some((first, last)) = Api::served_elsewhere(api_version, kind) {
        let message = if last < version {
            format!("{kind} of {api_version} was served until Kubernetes {last}, not by {version}")
        } else {
            format!("{kind} of {api_version} is served from Kubernetes {first} on, not by {version}")
        };
        let fault = Fault::new(Rule::RemovedApi, place, message);
        let others = api.versions_of(kind);
        return Some(match others.first() {
            Some(other) => fault.remedy(format!("use {other}")),
            None => fault,
        });
    }
    None
}
