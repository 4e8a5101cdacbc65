//! Whether what objects name is there: ConfigMaps, Secrets and their keys, claims, accounts, Services, roles, and the
//! pods, ports and volumes that workloads and Services speak of.

use crate::{
    Rule,
    path::{Path, Step, meant},
    pods::{Container, Template, matches},
    schema::Fault,
};
use model::Object;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

/// The rendered objects of one cluster, by what they define.
pub(crate) struct Defined<'a> {
    objects: Vec<&'a Object>,
    /// Namespaces of each kind and name.
    names: HashMap<(&'a str, &'a str), BTreeSet<&'a str>>,
    /// Secrets that a controller makes from other objects: namespace and name.
    made: BTreeSet<(&'a str, &'a str)>,
}

/// A reference by name.
struct Reference<'a> {
    kind: &'static str,
    name: &'a str,
    namespace: &'a str,
    path: Path,
    /// The key that must be in it, and where that is said.
    key: Option<(&'a str, Path)>,
    /// Whether Kubernetes puts up with its absence.
    mild: bool,
}

fn namespace_of(object: &Object) -> &str {
    match object.namespace() {
        "" => "default",
        namespace => namespace,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn optional(value: &Value) -> bool {
    value["optional"] == Value::Bool(true)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value[key].as_array().into_iter().flatten().enumerate()
}

impl<'a> Defined<'a> {
    pub fn new(objects: impl Iterator<Item = &'a Object>) -> Self {
        let objects: Vec<&Object> = objects.collect();
        let mut names: HashMap<_, BTreeSet<&str>> = HashMap::new();
        let mut made = BTreeSet::new();
        for object in &objects {
            let namespace = namespace_of(object);
            names
                .entry((object.kind(), object.name()))
                .or_default()
                .insert(namespace);
            made.extend(makes(object).map(|name| (namespace, name)));
        }
        Self { objects, names, made }
    }

    fn has(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.names
            .get(&(kind, name))
            .is_some_and(|found| found.contains(namespace))
            || kind == "Secret" && self.made.contains(&(namespace, name))
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&'a Object> {
        let is_it = |object: &&&Object| {
            object.kind() == kind && object.name() == name && namespace_of(object) == namespace
        };
        self.objects.iter().find(is_it).copied()
    }

    /// All faults of one object.
    pub fn faults(&self, object: &'a Object) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut references = Vec::new();
        let namespace = namespace_of(object);
        if let Some(template) = Template::of(object) {
            in_pods(&template, namespace, &mut references);
            self.in_template(object, &template, &mut faults);
        }
        elsewhere(object, namespace, &mut references);
        for reference in references {
            faults.extend(self.fault(reference));
        }
        match object.kind() {
            "Service" if object.group().is_empty() => self.service(object, &mut faults),
            "Ingress" => self.ingress_ports(object, &mut faults),
            "PodDisruptionBudget" | "PodMonitor" => {
                let selector = &object.value()["spec"]["selector"]["matchLabels"];
                if let Some(selector) = selector.as_object().filter(|selector| !selector.is_empty()) {
                    let path = Path::fields("spec.selector.matchLabels");
                    self.selects_pods(object, selector, path, &mut faults);
                }
            }
            _ => {}
        }
        faults
    }

    fn fault(&self, reference: Reference<'_>) -> Option<Fault> {
        let Reference {
            kind,
            name,
            namespace,
            path,
            key,
            mild,
        } = reference;
        if made_by_kubernetes(kind, name) {
            return None;
        }
        if !self.has(kind, namespace, name) {
            let elsewhere = self.names.get(&(kind, name)).and_then(|found| found.first());
            let others = self
                .names
                .keys()
                .filter(|(k, _)| *k == kind)
                .map(|(_, name)| *name);
            let remedy = match (elsewhere, meant(name, others)) {
                (Some(other), _) => {
                    format!("there is one in namespace {other}; a reference stays in its own")
                }
                (None, Some(meant)) => format!("did you mean {meant:?}?"),
                (None, None) if matches!(kind, "ConfigMap" | "Secret") => {
                    "add it, correct the name, or set optional: true".to_owned()
                }
                (None, None) => "add it, or correct the name".to_owned(),
            };
            let message = format!("there is no {kind} {name:?} in namespace {namespace}");
            return Some(
                Fault::new(Rule::MissingReference, path, message)
                    .remedy(remedy)
                    .mild(mild),
            );
        }
        let (key, key_path) = key?;
        let target = self.find(kind, namespace, name)?;
        let fields = ["data", "stringData", "binaryData"];
        let keys: Vec<&str> = fields
            .iter()
            .filter_map(|field| target.value()[*field].as_object())
            .flat_map(|map| map.keys().map(String::as_str))
            .collect();
        if keys.contains(&key) {
            return None;
        }
        let fault = Fault::new(
            Rule::MissingKey,
            key_path,
            format!("{kind} {name:?} has no key {key:?}"),
        );
        Some(match meant(key, keys.iter().copied()) {
            Some(meant) => fault.remedy(format!("did you mean {meant:?}?")),
            None if keys.is_empty() => fault.remedy("it has no keys at all"),
            None => fault.remedy(format!("its keys are {}", keys.join(", "))),
        })
    }

    /// What a workload says of its own pods.
    fn in_template(&self, object: &Object, template: &Template<'_>, faults: &mut Vec<Fault>) {
        let selector = &object.value()["spec"]["selector"]["matchLabels"];
        let own = template.path.0.len() > 1 && object.kind() != "Job" && object.kind() != "CronJob";
        if let (true, Some(selector)) = (own, selector.as_object())
            && !matches(selector, template.labels())
        {
            let message = format!(
                "the selector does not match the labels of the {}'s own pods",
                object.kind()
            );
            let fault = Fault::new(
                Rule::SelectorMismatch,
                Path::fields("spec.selector.matchLabels"),
                message,
            );
            faults.push(
                fault
                    .at_key()
                    .remedy("give the template's metadata.labels the same labels"),
            );
        }
        restart_policy(object, template, faults);
        let volumes: Vec<&str> = list(template.spec(), "volumes")
            .filter_map(|(_, volume)| text(volume, "name"))
            .collect();
        let claims = list(&object.value()["spec"], "volumeClaimTemplates");
        let claims: Vec<&str> = claims
            .filter_map(|(_, claim)| text(&claim["metadata"], "name"))
            .collect();
        let mut names = BTreeSet::new();
        for container in template.containers() {
            if !container.name().is_empty() && !names.insert(container.name().to_owned()) {
                let message = format!("two containers of the pod are called {:?}", container.name());
                let path = container.path.key("name");
                faults.push(Fault::new(Rule::DuplicateItem, path, message).remedy("rename one"));
            }
            for field in ["volumeMounts", "volumeDevices"] {
                for (at, mount) in list(container.value, field) {
                    let Some(name) = text(mount, "name") else { continue };
                    if volumes.contains(&name) || claims.contains(&name) {
                        continue;
                    }
                    let path = container.path.key(field).index(at).key("name");
                    let known = volumes.iter().chain(&claims).copied();
                    let remedy = match meant(name, known) {
                        Some(meant) => format!("did you mean {meant:?}?"),
                        None => "add it to the pod's volumes, or take the mount out".to_owned(),
                    };
                    let message = format!("the pod has no volume {name:?}");
                    faults.push(Fault::new(Rule::UnknownVolume, path, message).remedy(remedy));
                }
            }
            probe_ports(&container, faults);
        }
    }

    /// The templates in a namespace whose pods a selector selects.
    fn selected(&self, namespace: &str, selector: &Map<String, Value>) -> Vec<Template<'a>> {
        self.objects
            .iter()
            .filter(|object| namespace_of(object) == namespace)
            .filter_map(|object| Template::of(object))
            .filter(|template| matches(selector, template.labels()))
            .collect()
    }

    fn selects_pods(
        &self,
        object: &Object,
        selector: &Map<String, Value>,
        path: Path,
        faults: &mut Vec<Fault>,
    ) -> Vec<Template<'a>> {
        let selected = self.selected(namespace_of(object), selector);
        if selected.is_empty() {
            let labels: Vec<String> = selector
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            let message = format!(
                "no pods in namespace {} have the labels {}",
                namespace_of(object),
                labels.join(",")
            );
            let remedy = "correct the selector, or the labels of the pods";
            faults.push(Fault::new(Rule::NoPods, path, message).at_key().remedy(remedy));
        }
        selected
    }

    fn service(&self, object: &Object, faults: &mut Vec<Fault>) {
        let spec = &object.value()["spec"];
        let Some(selector) = spec["selector"]
            .as_object()
            .filter(|selector| !selector.is_empty())
        else {
            return;
        };
        if spec["type"] == "ExternalName" {
            return;
        }
        let selected = self.selects_pods(object, selector, Path::fields("spec.selector"), faults);
        if selected.is_empty() {
            return;
        }
        for (at, port) in list(spec, "ports") {
            let target = &port["targetPort"];
            // A number need not be declared by the container; a name must.
            if target.as_str().is_none_or(|name| name.parse::<u16>().is_ok()) {
                continue;
            }
            let containers: Vec<Container<'_>> = selected.iter().flat_map(Template::containers).collect();
            if containers.iter().any(|container| container.has_port(target)) {
                continue;
            }
            let name = target.as_str().unwrap_or_default();
            let known: Vec<&str> = containers
                .iter()
                .flat_map(|container| list(container.value, "ports"))
                .filter_map(|(_, port)| text(port, "name"))
                .collect();
            let remedy = match meant(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None if known.is_empty() => {
                    "none of the containers' ports has a name: give one, or use its number".to_owned()
                }
                None => format!("the containers' ports are {}", known.join(", ")),
            };
            let path = Path::fields("spec.ports").index(at).key("targetPort");
            let message = format!("the selected pods have no port {name:?}");
            faults.push(Fault::new(Rule::UnknownPort, path, message).remedy(remedy));
        }
    }

    fn ingress_ports(&self, object: &Object, faults: &mut Vec<Fault>) {
        for (path, backend) in backends(object) {
            let Some(service) = text(&backend["service"], "name") else {
                continue;
            };
            let Some(service) = self.find("Service", namespace_of(object), service) else {
                continue;
            };
            let port = &backend["service"]["port"];
            let (field, wanted) = match (&port["name"], &port["number"]) {
                (Value::String(_), _) => ("name", &port["name"]),
                (_, Value::Number(_)) => ("number", &port["number"]),
                _ => continue,
            };
            let there = |(_, port): (usize, &Value)| port["name"] == *wanted || port["port"] == *wanted;
            if list(&service.value()["spec"], "ports").any(there) {
                continue;
            }
            let ports: Vec<String> = list(&service.value()["spec"], "ports")
                .map(|(_, port)| match text(port, "name") {
                    Some(name) => format!("{} ({name})", port["port"]),
                    None => port["port"].to_string(),
                })
                .collect();
            let message = format!("Service {:?} has no port {wanted}", service.name());
            let fault = Fault::new(Rule::UnknownPort, path.keys(&["service", "port", field]), message);
            faults.push(fault.remedy(format!("its ports are {}", ports.join(", "))));
        }
    }
}

/// Secrets that a controller makes out of this object.
fn makes(object: &Object) -> impl Iterator<Item = &str> {
    let spec = &object.value()["spec"];
    let name = match (object.group(), object.kind()) {
        ("bitnami.com", "SealedSecret") => Some(object.name()),
        ("external-secrets.io", "ExternalSecret") => text(&spec["target"], "name").or(Some(object.name())),
        ("cert-manager.io", "Certificate") => text(spec, "secretName"),
        ("onepassword.com", "OnePasswordItem") | ("secrets.infisical.com", "InfisicalSecret") => {
            Some(object.name())
        }
        _ => None,
    };
    // An ingress with an issuer's annotation gets its certificates made.
    let issued = object.kind() == "Ingress"
        && ["cert-manager.io/cluster-issuer", "cert-manager.io/issuer"]
            .iter()
            .any(|annotation| object.annotation(annotation).is_some());
    let tls = list(spec, "tls")
        .filter(move |_| issued)
        .filter_map(|(_, tls)| text(tls, "secretName"));
    name.into_iter().chain(tls)
}

fn made_by_kubernetes(kind: &str, name: &str) -> bool {
    match kind {
        "ServiceAccount" => name == "default",
        "ConfigMap" => name == "kube-root-ca.crt",
        "ClusterRole" => {
            name.starts_with("system:") || ["cluster-admin", "admin", "edit", "view"].contains(&name)
        }
        "Service" => name == "kubernetes",
        _ => false,
    }
}

/// What a pod refers to.
fn in_pods<'a>(template: &Template<'a>, namespace: &'a str, references: &mut Vec<Reference<'a>>) {
    let spec = template.spec();
    let root = template.spec_path();
    let mut add = |kind, value: &'a Value, field: &str, path: &Path, key: Option<(&'a str, Path)>| {
        let Some(name) = text(value, field).filter(|_| !optional(value)) else {
            return;
        };
        references.push(Reference {
            kind,
            name,
            namespace,
            mild: path
                .0
                .iter()
                .any(|step| *step == Step::Key("imagePullSecrets".to_owned())),
            path: path.key(field),
            key,
        });
    };
    add("ServiceAccount", spec, "serviceAccountName", &root, None);
    for (at, secret) in list(spec, "imagePullSecrets") {
        add(
            "Secret",
            secret,
            "name",
            &root.key("imagePullSecrets").index(at),
            None,
        );
    }
    for container in template.containers() {
        for (at, from) in list(container.value, "envFrom") {
            let path = container.path.key("envFrom").index(at);
            for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                add(kind, &from[field], "name", &path.key(field), None);
            }
        }
        for (at, env) in list(container.value, "env") {
            let path = container.path.key("env").index(at).key("valueFrom");
            for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
                let source = &env["valueFrom"][field];
                let key = text(source, "key").map(|key| (key, path.keys(&[field, "key"])));
                add(kind, source, "name", &path.key(field), key);
            }
        }
    }
    for (at, volume) in list(spec, "volumes") {
        let path = root.key("volumes").index(at);
        add(
            "PersistentVolumeClaim",
            &volume["persistentVolumeClaim"],
            "claimName",
            &path.key("persistentVolumeClaim"),
            None,
        );
        let mut sources = vec![
            (path.key("configMap"), "ConfigMap", "name", &volume["configMap"]),
            (path.key("secret"), "Secret", "secretName", &volume["secret"]),
        ];
        for (at, source) in list(&volume["projected"], "sources") {
            let path = path.keys(&["projected", "sources"]).index(at);
            sources.push((path.key("configMap"), "ConfigMap", "name", &source["configMap"]));
            sources.push((path.key("secret"), "Secret", "name", &source["secret"]));
        }
        for (path, kind, field, source) in sources {
            add(kind, source, field, &path, None);
            for (at, item) in list(source, "items") {
                let key_path = path.key("items").index(at).key("key");
                // The name is judged once, above; here it is only the key.
                let Some(key) = text(item, "key") else { continue };
                add(kind, source, field, &path, Some((key, key_path)));
            }
        }
    }
}

/// What other objects refer to.
fn elsewhere<'a>(object: &'a Object, namespace: &'a str, references: &mut Vec<Reference<'a>>) {
    let value = object.value();
    let spec = &value["spec"];
    let mut add = |kind, namespace, name: Option<&'a str>, path: Path| {
        references.extend(name.map(|name| Reference {
            kind,
            name,
            namespace,
            path,
            key: None,
            mild: matches!(
                object.kind(),
                "StatefulSet" | "RoleBinding" | "ClusterRoleBinding"
            ),
        }));
    };
    match (object.group(), object.kind()) {
        ("networking.k8s.io", "Ingress") => {
            for (path, backend) in backends(object) {
                let name = text(&backend["service"], "name");
                add("Service", namespace, name, path.keys(&["service", "name"]));
            }
            for (at, tls) in list(spec, "tls") {
                let path = Path::fields("spec.tls").index(at).key("secretName");
                add("Secret", namespace, text(tls, "secretName"), path);
            }
        }
        ("apiregistration.k8s.io", "APIService") => {
            let service = &spec["service"];
            let namespace = text(service, "namespace").unwrap_or("default");
            add(
                "Service",
                namespace,
                text(service, "name"),
                Path::fields("spec.service.name"),
            );
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => {
            for (at, webhook) in list(value, "webhooks") {
                let service = &webhook["clientConfig"]["service"];
                let path = Path::fields("webhooks")
                    .index(at)
                    .keys(&["clientConfig", "service", "name"]);
                let namespace = text(service, "namespace").unwrap_or("default");
                add("Service", namespace, text(service, "name"), path);
            }
        }
        ("apps", "StatefulSet") => {
            add(
                "Service",
                namespace,
                text(spec, "serviceName"),
                Path::fields("spec.serviceName"),
            );
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            let target = &spec["scaleTargetRef"];
            let kinds = ["Deployment", "StatefulSet", "ReplicaSet"];
            let kind = kinds.into_iter().find(|kind| target["kind"] == *kind);
            if let Some(kind) = kind {
                add(
                    kind,
                    namespace,
                    text(target, "name"),
                    Path::fields("spec.scaleTargetRef.name"),
                );
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            let role = &value["roleRef"];
            let path = Path::fields("roleRef.name");
            if role["kind"] == "Role" {
                add("Role", namespace, text(role, "name"), path);
            }
            for (at, subject) in
                list(value, "subjects").filter(|(_, subject)| subject["kind"] == "ServiceAccount")
            {
                let path = Path::fields("subjects").index(at).key("name");
                let namespace = text(subject, "namespace").unwrap_or(namespace);
                add("ServiceAccount", namespace, text(subject, "name"), path);
            }
        }
        _ => {}
    }
}

fn backends(object: &Object) -> Vec<(Path, &Value)> {
    let spec = &object.value()["spec"];
    let mut all = vec![(Path::fields("spec.defaultBackend"), &spec["defaultBackend"])];
    for (at, rule) in list(spec, "rules") {
        let path = Path::fields("spec.rules").index(at).keys(&["http", "paths"]);
        for (at, entry) in list(&rule["http"], "paths") {
            all.push((path.index(at).key("backend"), &entry["backend"]));
        }
    }
    all
}

fn probe_ports(container: &Container<'_>, faults: &mut Vec<Fault>) {
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        for action in ["httpGet", "tcpSocket"] {
            let port = &container.value[probe][action]["port"];
            let Some(name) = port.as_str().filter(|name| name.parse::<u16>().is_err()) else {
                continue;
            };
            if container.has_port(port) {
                continue;
            }
            let known: Vec<&str> = list(container.value, "ports")
                .filter_map(|(_, port)| text(port, "name"))
                .collect();
            let remedy = match meant(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "name one of the container's ports so, or use a number".to_owned(),
            };
            let path = container.path.keys(&[probe, action, "port"]);
            let message = format!("container {:?} has no port {name:?}", container.name());
            faults.push(Fault::new(Rule::UnknownPort, path, message).remedy(remedy));
        }
    }
}

/// Some workloads take only some restart policies.
fn restart_policy(object: &Object, template: &Template<'_>, faults: &mut Vec<Fault>) {
    let allowed: &[&str] = match object.kind() {
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => &["Always"],
        "Job" | "CronJob" => &["OnFailure", "Never"],
        _ => return,
    };
    let policy = template.spec()["restartPolicy"].as_str();
    // Absent means Always.
    if allowed.contains(&policy.unwrap_or("Always")) || template.spec().is_null() {
        return;
    }
    let path = match policy {
        Some(_) => template.spec_path().key("restartPolicy"),
        None => template.spec_path(),
    };
    let message = format!(
        "a {} takes no restartPolicy {}",
        object.kind(),
        policy.unwrap_or("Always (the default)")
    );
    let fault = Fault::new(Rule::BadValue, path, message);
    faults.push(
        if policy.is_some() { fault } else { fault.at_key() }.remedy(format!("use {}", allowed.join(" or "))),
    );
}
