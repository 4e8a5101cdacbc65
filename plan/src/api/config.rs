//! ConfigMap, Secret and Service.

use super::{Ignored, IntOrString};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigMap {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    #[serde(default)]
    pub data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub binary_data: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "immutable")]
    _immutable: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Secret {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub string_data: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "immutable")]
    _immutable: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Service {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Ignored,
    pub spec: ServiceSpec,
    #[serde(default, rename = "status")]
    _status: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceSpec {
    #[serde(default)]
    pub selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub ports: Vec<ServicePortSpec>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(default)]
    pub publish_not_ready_addresses: Option<bool>,
    #[serde(default)]
    pub external_name: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    _cluster_ips: Ignored,
    #[serde(default, rename = "ipFamilies")]
    _ip_families: Ignored,
    #[serde(default, rename = "ipFamilyPolicy")]
    _ip_family_policy: Ignored,
    #[serde(default, rename = "internalTrafficPolicy")]
    _internal_traffic_policy: Ignored,
    // All pods are this device's own and see the client's address: both policies come to the same.
    #[serde(default, rename = "externalTrafficPolicy")]
    _external_traffic_policy: Ignored,
    #[serde(default, rename = "allocateLoadBalancerNodePorts")]
    _allocate_node_ports: Ignored,
    #[serde(default, rename = "loadBalancerClass")]
    _load_balancer_class: Ignored,
    #[serde(default, rename = "sessionAffinity")]
    pub session_affinity: Option<String>,
    // The pod follows from the client's address, so there is no time after which it would not.
    #[serde(default, rename = "sessionAffinityConfig")]
    _session_affinity_config: Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServicePortSpec {
    #[serde(default)]
    pub name: Option<String>,
    pub port: u16,
    #[serde(default)]
    pub target_port: Option<IntOrString>,
    #[serde(default)]
    pub node_port: Option<u16>,
    #[serde(default)]
    pub protocol: Option<String>,
    #[serde(default, rename = "appProtocol")]
    _app_protocol: Ignored,
}
