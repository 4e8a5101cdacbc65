//! Pods with what their templates say, and those that ask to be scraped by annotation.

use super::candidate::{Defaults, Place, finish, sanitize};
use super::{Found, Inputs};
use crate::metrics::relabel::LabelMap;
use model::{Object, PodObserved, PodPhase};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Annotations that Prometheus' example configuration for Kubernetes made a custom.
const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";

/// A pod that runs and has an address.
#[derive(Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub owner: String,
    pub owner_kind: String,
    pub ip: String,
    pub node: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub ports: Vec<Port>,
    pub containers: Vec<String>,
}

/// A port that a container says it has.
#[derive(Debug, Clone)]
pub struct Port {
    pub container: String,
    pub name: String,
    pub number: u16,
}

/// All pods that can be scraped.
pub fn all(inputs: &Inputs<'_>) -> Vec<Pod> {
    let running = |pod: &&PodObserved| pod.phase == PodPhase::Running && !pod.terminating;
    let pods = inputs.pods.iter().filter(running);
    pods.filter_map(|pod| read(pod, inputs)).collect()
}

fn read(pod: &PodObserved, inputs: &Inputs<'_>) -> Option<Pod> {
    let ip = pod.ip?;
    let owner = inputs.objects.iter().find(|object| object.key() == pod.owner);
    let template = owner.map(template).unwrap_or_default();
    let spec = template.get("spec");
    let containers: Vec<&Value> = spec
        .and_then(|spec| spec["containers"].as_array())
        .into_iter()
        .flatten()
        .collect();
    let name_of = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let ports = containers.iter().flat_map(|container| {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(move |port| {
            Some(Port {
                container: name_of(container),
                name: port["name"].as_str().unwrap_or_default().to_owned(),
                number: u16::try_from(port["containerPort"].as_u64()?).ok()?,
            })
        })
    });
    Some(Pod {
        namespace: pod.id.namespace.to_string(),
        name: pod.id.name.to_string(),
        owner: pod.owner.name.clone(),
        owner_kind: pod.owner.kind.clone(),
        ip: if ip.is_ipv6() {
            format!("[{ip}]")
        } else {
            ip.to_string()
        },
        node: inputs.node.to_owned(),
        labels: pod.labels.clone(),
        annotations: strings(&template["metadata"]["annotations"]),
        ports: ports.collect(),
        containers: containers.iter().map(|container| name_of(container)).collect(),
    })
}

/// What an object makes pods of: itself, or its template.
fn template(object: &Object) -> Value {
    let value = object.value();
    match object.kind() {
        "Pod" => value.clone(),
        "CronJob" => value["spec"]["jobTemplate"]["spec"]["template"].clone(),
        _ => value["spec"]["template"].clone(),
    }
}

pub fn strings(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

impl Pod {
    /// What Prometheus' discovery of pods says of one, without a port.
    pub fn meta(&self) -> LabelMap {
        let mut labels = LabelMap::new();
        let mut put = |name: &str, value: &str| {
            labels.insert(format!("__meta_kubernetes_{name}"), value.to_owned());
        };
        put("namespace", &self.namespace);
        put("pod_name", &self.name);
        put("pod_ip", &self.ip);
        put("pod_phase", "Running");
        put("pod_ready", "true");
        put("pod_node_name", &self.node);
        put("pod_controller_kind", &self.owner_kind);
        put("pod_controller_name", &self.owner);
        for (kind, pairs) in [("label", &self.labels), ("annotation", &self.annotations)] {
            for (name, value) in pairs {
                put(&format!("pod_{kind}_{}", sanitize(name)), value);
                put(&format!("pod_{kind}present_{}", sanitize(name)), "true");
            }
        }
        labels
    }

    /// One set of meta labels for each port, or one without where there is none.
    pub fn meta_of_ports(&self) -> Vec<LabelMap> {
        if self.ports.is_empty() {
            let mut labels = self.meta();
            labels.insert("__address__".to_owned(), self.ip.clone());
            return vec![labels];
        }
        self.ports.iter().map(|port| self.meta_of(port)).collect()
    }

    pub fn meta_of(&self, port: &Port) -> LabelMap {
        let mut labels = self.meta();
        let mut put = |name: &str, value: String| labels.insert(name.to_owned(), value);
        put("__address__", format!("{}:{}", self.ip, port.number));
        put("__meta_kubernetes_pod_container_name", port.container.clone());
        put("__meta_kubernetes_pod_container_port_name", port.name.clone());
        put(
            "__meta_kubernetes_pod_container_port_number",
            port.number.to_string(),
        );
        labels
    }
}

/// A pod that says `prometheus.io/scrape: "true"`.
pub fn annotated(pod: &Pod, defaults: Defaults, found: &mut Found) {
    let says = |name: &str| pod.annotations.get(name).map(String::as_str);
    if says(SCRAPE) != Some("true") {
        return;
    }
    let mut warn = |why: String| {
        found.warnings.push(format!(
            "pod {}/{} is not scraped: {why}",
            pod.namespace, pod.name
        ));
    };
    let port = match says(PORT) {
        Some(text) => match text.parse::<u16>() {
            Ok(port) => port,
            Err(_) => return warn(format!("annotation {PORT}: {text:?} is no port")),
        },
        None => match pod.ports.as_slice() {
            [only] => only.number,
            [] => return warn(format!("it names no port; add the annotation {PORT}")),
            _ => return warn(format!("it names several ports; add the annotation {PORT}")),
        },
    };
    let mut labels = LabelMap::from([
        ("__address__".to_owned(), format!("{}:{port}", pod.ip)),
        ("namespace".to_owned(), pod.namespace.clone()),
        ("pod".to_owned(), pod.name.clone()),
    ]);
    let container = match pod.ports.iter().find(|held| held.number == port) {
        Some(held) => Some(&held.container),
        None => pod.containers.first().filter(|_| pod.containers.len() == 1),
    };
    if let Some(container) = container {
        labels.insert("container".to_owned(), container.clone());
    }
    let place = Place {
        scheme: says(SCHEME).unwrap_or("http").to_owned(),
        path: says(PATH).unwrap_or("/metrics").to_owned(),
        ..Place::default()
    };
    match finish(labels, &place, &Arc::new(defaults.job("kubernetes-pods"))) {
        Ok(target) => found.targets.extend(target),
        Err(why) => warn(why),
    }
}
