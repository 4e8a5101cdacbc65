//! The order of the output.

use crate::{
    error::{RenderError, Result},
    kustomization::SortOptions,
    resource::{Resource, Resources},
};

const FIRST: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts as `sortOptions` say; by kinds in kustomize's old order where they say nothing.
pub(crate) fn sort(resources: &mut Resources, options: Option<&SortOptions>) -> Result<()> {
    let wrong = |message: &str| RenderError::configuration(message).field("sortOptions");
    let Some(options) = options else {
        by_kind(resources, FIRST, LAST);
        return Ok(());
    };
    match (options.order.as_str(), &options.legacy_sort_options) {
        ("fifo", None) => Ok(()),
        ("fifo", Some(_)) => Err(wrong("legacySortOptions need the order 'legacy'")),
        ("legacy", None) => {
            by_kind(resources, FIRST, LAST);
            Ok(())
        }
        ("legacy", Some(lists)) => {
            let first: Vec<&str> = lists.order_first.iter().map(String::as_str).collect();
            let last: Vec<&str> = lists.order_last.iter().map(String::as_str).collect();
            by_kind(resources, &first, &last);
            Ok(())
        }
        _ => Err(wrong("the order must be 'legacy' or 'fifo'")),
    }
}

fn by_kind(resources: &mut Resources, first: &[&str], last: &[&str]) {
    let rank = |kind: &str| {
        let index = |list: &[&str]| {
            list.iter()
                .rposition(|listed| *listed == kind)
                .map(|at| at as isize)
        };
        match (index(first), index(last)) {
            (_, Some(at)) => at + 1,
            (Some(at), None) => at - first.len() as isize,
            (None, None) => 0,
        }
    };
    resources
        .0
        .sort_by_cached_key(|resource| (rank(resource.kind()), type_key(resource), name_key(resource)));
}

fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.is_empty() { absent } else { text }
}

fn type_key(resource: &Resource) -> String {
    let (group, version) = resource.group_version();
    format!(
        "{}_{}_{}",
        or(group, "~G"),
        or(version, "~V"),
        or(resource.kind(), "~K")
    )
}

fn name_key(resource: &Resource) -> String {
    format!("{}|{}", or(resource.namespace(), "~X"), or(resource.name(), "~N"))
}
