//! `PodMonitor` and `ServiceMonitor` of the Prometheus operator: the part that needs no Secret.

use super::Found;
use super::candidate::{Defaults, Place, duration, finish, sanitize, size};
use super::config::rules;
use super::pods::{Pod, Port, strings};
use crate::metrics::relabel::{LabelMap, RawRule};
use crate::metrics::target::Job;
use model::Object;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMonitor {
    #[serde(default)]
    job_label: String,
    #[serde(default)]
    pod_target_labels: Vec<String>,
    #[serde(default)]
    target_labels: Vec<String>,
    #[serde(default, alias = "podMetricsEndpoints")]
    endpoints: Vec<RawEndpoint>,
    #[serde(default)]
    selector: Selector,
    #[serde(default)]
    namespace_selector: Namespaces,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    body_size_limit: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEndpoint {
    port: Option<String>,
    target_port: Option<Value>,
    port_number: Option<u16>,
    path: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    interval: Option<String>,
    scrape_timeout: Option<String>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    #[serde(default)]
    relabelings: Vec<RawRule>,
    #[serde(default)]
    metric_relabelings: Vec<RawRule>,
    #[serde(default)]
    tls_config: RawTls,
    /// Only running pods are looked at, always.
    #[expect(dead_code, reason = "accepted in objects that say it")]
    filter_running: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawTls {
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// Kubernetes' label selector.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Namespaces {
    #[serde(default)]
    any: bool,
    #[serde(default)]
    match_names: Vec<String>,
}

impl Selector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = |(name, value): (&String, &String)| labels.get(name) == Some(value);
        let holds = |expression: &Expression| {
            let held = labels.get(&expression.key);
            match expression.operator {
                Operator::In => held.is_some_and(|held| expression.values.contains(held)),
                Operator::NotIn => held.is_none_or(|held| !expression.values.contains(held)),
                Operator::Exists => held.is_some(),
                Operator::DoesNotExist => held.is_none(),
            }
        };
        self.match_labels.iter().all(equal) && self.match_expressions.iter().all(holds)
    }
}

/// A monitor that could be read.
struct Monitor<'a> {
    object: &'a Object,
    raw: RawMonitor,
}

impl<'a> Monitor<'a> {
    fn read(object: &'a Object, found: &mut Found) -> Option<Self> {
        match serde_json::from_value(object.spec()) {
            Ok(raw) => Some(Self { object, raw }),
            Err(err) => {
                found
                    .warnings
                    .push(format!("{} is left out: {err}", shown(object)));
                None
            }
        }
    }

    fn looks_into(&self, namespace: &str) -> bool {
        let said = &self.raw.namespace_selector;
        if said.any || !said.match_names.is_empty() {
            return said.any || said.match_names.iter().any(|name| name == namespace);
        }
        self.object.namespace() == namespace
    }

    /// Place and job of an endpoint, but for the job's name.
    fn endpoint(&self, endpoint: &RawEndpoint, defaults: Defaults) -> Result<(Place, Job), String> {
        let mut job = defaults.job(&format!("{}/{}", self.object.namespace(), self.object.name()));
        if let Some(text) = &endpoint.interval {
            job.interval = duration(text)?;
        }
        let timeout = endpoint.scrape_timeout.as_deref().map(duration).transpose()?;
        job.timeout = timeout.unwrap_or(job.timeout).min(job.interval);
        job.honor_labels = endpoint.honor_labels;
        job.honor_timestamps = endpoint.honor_timestamps.unwrap_or(true);
        let wrong = |list: &'static str| move |(number, err)| format!("{list}, rule {number}: {err}");
        job.metric_relabel =
            rules(endpoint.metric_relabelings.clone()).map_err(wrong("metricRelabelings"))?;
        job.access.insecure_skip_verify = endpoint.tls_config.insecure_skip_verify;
        let raw = &self.raw;
        let limits = &mut job.limits;
        limits.samples = raw.sample_limit.unwrap_or(limits.samples);
        limits.labels = raw.label_limit.unwrap_or(limits.labels);
        limits.name_bytes = raw.label_name_length_limit.unwrap_or(limits.name_bytes);
        limits.value_bytes = raw.label_value_length_limit.unwrap_or(limits.value_bytes);
        if let Some(text) = &raw.body_size_limit {
            limits.body_bytes = size(text)?;
        }
        let place = Place {
            scheme: endpoint
                .scheme
                .clone()
                .unwrap_or_else(|| "http".to_owned())
                .to_lowercase(),
            path: endpoint.path.clone().unwrap_or_else(|| "/metrics".to_owned()),
            params: endpoint
                .params
                .iter()
                .filter_map(|(name, values)| Some((name.clone(), values.first()?.clone())))
                .collect(),
            rules: rules(endpoint.relabelings.clone()).map_err(wrong("relabelings"))?,
        };
        Ok((place, job))
    }

    /// Labels that the operator gives to every target of a pod.
    fn labels(&self, pod: &Pod, port: &Port, endpoint: &RawEndpoint) -> LabelMap {
        let mut labels = pod.meta_of(port);
        let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        put("namespace", &pod.namespace);
        put("pod", &pod.name);
        if !port.container.is_empty() {
            put("container", &port.container);
        }
        let shown = endpoint.port.clone().unwrap_or_else(|| port.number.to_string());
        put("endpoint", &shown);
        for name in &self.raw.pod_target_labels {
            if let Some(value) = pod.labels.get(name) {
                put(&sanitize(name), value);
            }
        }
        labels
    }
}

fn shown(object: &Object) -> String {
    format!("{} {}/{}", object.kind(), object.namespace(), object.name())
}

/// Targets of a `PodMonitor`.
pub fn pods(object: &Object, pods: &[Pod], defaults: Defaults, found: &mut Found) {
    let Some(monitor) = Monitor::read(object, found) else {
        return;
    };
    let chosen: Vec<&Pod> = pods
        .iter()
        .filter(|pod| monitor.looks_into(&pod.namespace) && monitor.raw.selector.matches(&pod.labels))
        .collect();
    for (number, endpoint) in monitor.raw.endpoints.iter().enumerate() {
        let told = |why: &str| format!("{}, endpoint {}: {why}", shown(object), number + 1);
        let (place, job) = match monitor.endpoint(endpoint, defaults) {
            Ok(held) => held,
            Err(why) => {
                found.warnings.push(told(&why));
                continue;
            }
        };
        let job = Arc::new(job);
        for pod in &chosen {
            let Some(port) = port_of(pod, endpoint) else {
                found.warnings.push(told(&format!(
                    "pod {}/{} has no such port",
                    pod.namespace, pod.name
                )));
                continue;
            };
            let mut labels = monitor.labels(pod, &port, endpoint);
            if let Some(job) = pod.labels.get(&monitor.raw.job_label) {
                labels.insert("job".to_owned(), job.clone());
            }
            match finish(labels, &place, &job) {
                Ok(target) => found.targets.extend(target),
                Err(why) => found.warnings.push(told(&why)),
            }
        }
    }
}

/// The pod's port that an endpoint means: by name or number.
fn port_of(pod: &Pod, endpoint: &RawEndpoint) -> Option<Port> {
    let by_number = |number: u16| {
        let declared = pod.ports.iter().find(|port| port.number == number).cloned();
        declared.unwrap_or(Port {
            container: String::new(),
            name: String::new(),
            number,
        })
    };
    let by_name = |name: &str| pod.ports.iter().find(|port| port.name == name).cloned();
    match (&endpoint.port, endpoint.port_number, &endpoint.target_port) {
        (Some(name), ..) => by_name(name),
        (None, Some(number), _) => Some(by_number(number)),
        (None, None, Some(Value::String(name))) => by_name(name),
        (None, None, Some(number)) => Some(by_number(u16::try_from(number.as_u64()?).ok()?)),
        (None, None, None) => match pod.ports.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
    }
}

/// Targets of a `ServiceMonitor`: the pods behind the Services that it selects.
pub fn services(object: &Object, objects: &[Object], pods: &[Pod], defaults: Defaults, found: &mut Found) {
    let Some(monitor) = Monitor::read(object, found) else {
        return;
    };
    let services = objects.iter().filter(|service| {
        service.kind() == "Service"
            && service.group().is_empty()
            && monitor.looks_into(service.namespace())
            && monitor
                .raw
                .selector
                .matches(&strings(&service.value()["metadata"]["labels"]))
    });
    let services: Vec<&Object> = services.collect();
    for (number, endpoint) in monitor.raw.endpoints.iter().enumerate() {
        let told = |why: &str| format!("{}, endpoint {}: {why}", shown(object), number + 1);
        let (place, job) = match monitor.endpoint(endpoint, defaults) {
            Ok(held) => held,
            Err(why) => {
                found.warnings.push(told(&why));
                continue;
            }
        };
        let job = Arc::new(job);
        for service in &services {
            for (pod, port) in behind(service, endpoint, pods) {
                let labels = service_labels(&monitor, service, pod, &port, endpoint);
                match finish(labels, &place, &job) {
                    Ok(target) => found.targets.extend(target),
                    Err(why) => found.warnings.push(told(&why)),
                }
            }
        }
    }
}

fn service_labels(
    monitor: &Monitor<'_>,
    service: &Object,
    pod: &Pod,
    port: &Port,
    endpoint: &RawEndpoint,
) -> LabelMap {
    let mut labels = monitor.labels(pod, port, endpoint);
    let of_service = strings(&service.value()["metadata"]["labels"]);
    let mut put = |name: String, value: &str| labels.insert(name, value.to_owned());
    put("__meta_kubernetes_service_name".to_owned(), service.name());
    for (name, value) in &of_service {
        put(
            format!("__meta_kubernetes_service_label_{}", sanitize(name)),
            value,
        );
    }
    put("service".to_owned(), service.name());
    let job = of_service
        .get(&monitor.raw.job_label)
        .map_or(service.name(), String::as_str);
    put("job".to_owned(), job);
    for name in &monitor.raw.target_labels {
        if let Some(value) = of_service.get(name) {
            put(sanitize(name), value);
        }
    }
    labels
}

/// Pods behind a Service's port, with the port of each.
fn behind<'a>(service: &Object, endpoint: &RawEndpoint, pods: &'a [Pod]) -> Vec<(&'a Pod, Port)> {
    let selector = strings(&service.value()["spec"]["selector"]);
    if selector.is_empty() {
        return Vec::new();
    }
    let chosen = pods.iter().filter(|pod| {
        pod.namespace == service.namespace()
            && selector
                .iter()
                .all(|(name, value)| pod.labels.get(name) == Some(value))
    });
    let ports = service.value()["spec"]["ports"].as_array();
    let named = endpoint.port.as_ref().and_then(|name| {
        let mut ports = ports.into_iter().flatten();
        ports.find(|port| port["name"].as_str().unwrap_or_default() == name)
    });
    if endpoint.port.is_some() && named.is_none() {
        return Vec::new();
    }
    // A Service's port leads to the pod's port of that name or number; without one, to its own number.
    let target = named.map(|port| match &port["targetPort"] {
        Value::Null => port["port"].clone(),
        said => said.clone(),
    });
    let meant = RawEndpoint {
        port: None,
        target_port: target.or_else(|| endpoint.target_port.clone()),
        ..endpoint.clone()
    };
    chosen
        .filter_map(|pod| Some((pod, port_of(pod, &meant)?)))
        .collect()
}
