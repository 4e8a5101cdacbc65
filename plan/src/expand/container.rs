//! One container: image, environment, ports, resources, probes, security.

use super::configs::{Data, Kind};
use super::pod::Place;
use crate::api::{self, IntOrString};
use crate::refusal::Complaints;
use model::{
    ContainerRun, EnvVar, Mount, PortRun, Probe, ProbeKind, Protocol, PullPolicy, Resources, Security,
    parse_bytes, parse_cpu_milli,
};
use std::collections::BTreeMap;

pub(super) fn read(
    place: &Place<'_>,
    at: &str,
    given: api::Container,
    pod: &api::PodSecurityContext,
    complaints: &mut Complaints<'_>,
) -> Option<ContainerRun> {
    let image = match given.image.parse::<model::ImageRef>() {
        Ok(image) => image,
        Err(err) => {
            complaints.add(format!("{at}.image"), err.to_string(), "write registry/name:tag");
            return None;
        }
    };
    let pull = match given.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        None if image.digest.is_none() && image.tag.as_deref() == Some("latest") => PullPolicy::Always,
        None => PullPolicy::IfNotPresent,
        Some(other) => {
            complaints.add(
                format!("{at}.imagePullPolicy"),
                format!("{other} is no pull policy"),
                "use Always, IfNotPresent or Never",
            );
            PullPolicy::IfNotPresent
        }
    };
    let ports = ports(at, given.ports, complaints);
    let resources = resources(at, given.resources, complaints);
    let env = environment(place, at, given.env, given.env_from, &resources, complaints);
    let known: BTreeMap<String, String> = env
        .iter()
        .filter_map(|v| match v {
            EnvVar::Value { name, value } => Some((name.clone(), value.clone())),
            EnvVar::Field { .. } => None,
        })
        .collect();
    let expanded = |words: Vec<String>| words.iter().map(|word| substitute(word, &known)).collect();
    let mut probe = |spec: Option<api::ProbeSpec>, field: &str| {
        spec.and_then(|spec| probe(&format!("{at}.{field}"), spec, &ports, complaints))
    };
    let (liveness, readiness, startup) = (
        probe(given.liveness_probe, "livenessProbe"),
        probe(given.readiness_probe, "readinessProbe"),
        probe(given.startup_probe, "startupProbe"),
    );
    let security = security(
        place,
        at,
        given.security_context.unwrap_or_default(),
        pod,
        complaints,
    );
    let mounts = given
        .volume_mounts
        .into_iter()
        .map(|mount| Mount {
            volume: mount.name,
            path: mount.mount_path,
            sub_path: mount.sub_path.filter(|path| !path.is_empty()),
            read_only: mount.read_only.unwrap_or(false),
        })
        .collect::<Vec<_>>();
    for mount in &mounts {
        if !mount.path.starts_with('/') || mount.path.split('/').any(|part| part == "..") {
            complaints.add(
                format!("{at}.volumeMounts[{}].mountPath", mount.volume),
                format!("{:?} is not an absolute path", mount.path),
                "write an absolute path without '..'",
            );
        }
        if mount
            .sub_path
            .as_deref()
            .is_some_and(|path| path.starts_with('/') || path.split('/').any(|p| p == ".."))
        {
            complaints.add(
                format!("{at}.volumeMounts[{}].subPath", mount.volume),
                "leads out of the volume",
                "write a relative path without '..'",
            );
        }
    }
    Some(ContainerRun {
        image,
        pull,
        command: expanded(given.command),
        args: expanded(given.args),
        env,
        working_dir: given.working_dir,
        ports,
        resources,
        mounts,
        liveness,
        readiness,
        startup,
        security,
        name: given.name,
    })
}

fn ports(at: &str, given: Vec<api::ContainerPort>, complaints: &mut Complaints<'_>) -> Vec<PortRun> {
    let mut ports = Vec::with_capacity(given.len());
    for port in given {
        let field = format!("{at}.ports[{}]", port.container_port);
        if port.container_port == 0 || port.host_port == Some(0) && port.host_ip.is_some() {
            complaints.add(
                &field,
                "port 0 cannot be listened at",
                "use a port from 1 to 65535",
            );
        }
        ports.push(PortRun {
            name: port.name,
            container_port: port.container_port,
            host_port: port.host_port.filter(|p| *p != 0),
            host_ip: port.host_ip.filter(|ip| !ip.is_empty() && ip != "0.0.0.0"),
            protocol: protocol(&field, port.protocol.as_deref(), complaints),
        });
    }
    ports
}

pub(super) fn protocol(at: &str, given: Option<&str>, complaints: &mut Complaints<'_>) -> Protocol {
    match given {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(other) => {
            complaints.add(
                format!("{at}.protocol"),
                format!("{other} is not carried"),
                "use TCP or UDP",
            );
            Protocol::Tcp
        }
    }
}

fn resources(at: &str, given: Option<api::ResourceSpec>, complaints: &mut Complaints<'_>) -> Resources {
    let mut resources = Resources::default();
    let Some(given) = given else { return resources };
    let mut read = |side: &str, table: Option<BTreeMap<String, api::Quantity>>| {
        let (mut cpu, mut memory) = (None, None);
        for (name, quantity) in table.unwrap_or_default() {
            let field = format!("{at}.resources.{side}.{name}");
            let parsed = match name.as_str() {
                "cpu" => parse_cpu_milli(&quantity.text()).map(|milli| cpu = Some(milli)),
                "memory" => parse_bytes(&quantity.text()).map(|bytes| memory = Some(bytes)),
                "ephemeral-storage" => Ok(()),
                other => {
                    complaints.add(
                        field,
                        format!("this device has no resource {other}"),
                        "remove it, or run the workload on a class that has it",
                    );
                    continue;
                }
            };
            if let Err(err) = parsed {
                complaints.add(field, err.to_string(), "");
            }
        }
        (cpu, memory)
    };
    (resources.cpu_limit_milli, resources.memory_limit) = read("limits", given.limits);
    (resources.cpu_request_milli, resources.memory_request) = read("requests", given.requests);
    // As in Kubernetes, a limit without a request is the request too.
    resources.cpu_request_milli = resources.cpu_request_milli.or(resources.cpu_limit_milli);
    resources.memory_request = resources.memory_request.or(resources.memory_limit);
    let above = |request: Option<u64>, limit: Option<u64>| request.zip(limit).is_some_and(|(r, l)| r > l);
    if above(resources.cpu_request_milli, resources.cpu_limit_milli)
        || above(resources.memory_request, resources.memory_limit)
    {
        complaints.add(
            format!("{at}.resources"),
            "a request is above its limit",
            "raise the limit",
        );
    }
    resources
}

/// `envFrom` first, then `env` in order; later names win, and `$(NAME)` sees the earlier ones.
fn environment(
    place: &Place<'_>,
    at: &str,
    env: Vec<api::Env>,
    env_from: Vec<api::EnvFrom>,
    resources: &Resources,
    complaints: &mut Complaints<'_>,
) -> Vec<EnvVar> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<EnvVar> = Vec::new();
    for from in env_from {
        let (kind, reference) = match (from.config_map_ref, from.secret_ref) {
            (Some(reference), None) => (Kind::ConfigMap, reference),
            (None, Some(reference)) => (Kind::Secret, reference),
            _ => {
                complaints.add(
                    format!("{at}.envFrom"),
                    "names no source",
                    "give configMapRef or secretRef",
                );
                continue;
            }
        };
        let optional = reference.optional.unwrap_or(false);
        let Some(data) = lookup(
            place,
            &format!("{at}.envFrom"),
            kind,
            &reference.name,
            optional,
            complaints,
        ) else {
            continue;
        };
        for (key, value) in data {
            let name = format!("{}{key}", from.prefix.as_deref().unwrap_or_default());
            let value = String::from_utf8_lossy(value).into_owned();
            values.insert(name.clone(), value.clone());
            put(&mut order, EnvVar::Value { name, value });
        }
    }
    for var in env {
        let field = format!("{at}.env[{}]", var.name);
        let value = match (var.value, var.value_from) {
            (value, None) => Some(substitute(&value.unwrap_or_default(), &values)),
            (_, Some(source)) => match from_source(place, &field, source, resources, complaints) {
                Some(Source::Text(text)) => Some(text),
                Some(Source::AtRunTime(path)) => {
                    put(
                        &mut order,
                        EnvVar::Field {
                            name: var.name,
                            field: path,
                        },
                    );
                    continue;
                }
                None => None,
            },
        };
        if let Some(value) = value {
            values.insert(var.name.clone(), value.clone());
            put(
                &mut order,
                EnvVar::Value {
                    name: var.name,
                    value,
                },
            );
        }
    }
    order
}

fn put(order: &mut Vec<EnvVar>, var: EnvVar) {
    let name_of = |v: &EnvVar| match v {
        EnvVar::Value { name, .. } | EnvVar::Field { name, .. } => name.clone(),
    };
    let name = name_of(&var);
    order.retain(|v| name_of(v) != name);
    order.push(var);
}

enum Source {
    Text(String),
    AtRunTime(String),
}

fn from_source(
    place: &Place<'_>,
    at: &str,
    source: api::EnvSource,
    resources: &Resources,
    complaints: &mut Complaints<'_>,
) -> Option<Source> {
    let keyed = source
        .config_map_key_ref
        .map(|r| (Kind::ConfigMap, r))
        .or_else(|| source.secret_key_ref.map(|r| (Kind::Secret, r)));
    if let Some((kind, reference)) = keyed {
        let optional = reference.optional.unwrap_or(false);
        let data = lookup(place, at, kind, &reference.name, optional, complaints)?;
        let value = data.get(&reference.key);
        if value.is_none() && !optional {
            complaints.add(
                at,
                format!("{} {} has no key {}", kind.name(), reference.name, reference.key),
                "add the key, correct its name, or mark the reference optional",
            );
        }
        return value.map(|bytes| Source::Text(String::from_utf8_lossy(bytes).into_owned()));
    }
    if let Some(field) = source.field_ref {
        return field_value(place, at, &field.field_path, complaints);
    }
    if let Some(reference) = source.resource_field_ref {
        let number = match reference.resource.as_str() {
            "limits.cpu" => resources.cpu_limit_milli.map(|milli| milli.div_ceil(1000)),
            "requests.cpu" => resources.cpu_request_milli.map(|milli| milli.div_ceil(1000)),
            "limits.memory" => resources.memory_limit,
            "requests.memory" => resources.memory_request,
            other => {
                complaints.add(
                    at,
                    format!("{other} is no resource field"),
                    "use limits.cpu, limits.memory, ...",
                );
                None
            }
        };
        return Some(Source::Text(number.unwrap_or(0).to_string()));
    }
    complaints.add(
        at,
        "names no source",
        "give configMapKeyRef, secretKeyRef or fieldRef",
    );
    None
}

/// The downward API (Kubernetes, "Available fields").
fn field_value(place: &Place<'_>, at: &str, path: &str, complaints: &mut Complaints<'_>) -> Option<Source> {
    let keyed = |table: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(table.get(key).cloned().unwrap_or_default())
    };
    let text = match path {
        "metadata.namespace" => Some(place.namespace.to_owned()),
        "metadata.name" | "metadata.uid" | "status.podIP" | "status.podIPs" | "status.hostIP"
        | "spec.nodeName" => {
            return Some(Source::AtRunTime(path.to_owned()));
        }
        "spec.serviceAccountName" => Some("default".to_owned()),
        _ => keyed(place.labels, "metadata.labels['")
            .or_else(|| keyed(place.annotations, "metadata.annotations['")),
    };
    if text.is_none() {
        complaints.add(
            format!("{at}.valueFrom.fieldRef"),
            format!("{path} of {} is not known here", place.pod_name),
            "use metadata.name, metadata.namespace, metadata.labels['...'], status.podIP, status.hostIP or spec.nodeName",
        );
    }
    text.map(Source::Text)
}

/// A ConfigMap or Secret by name; one that is absent is a complaint unless it is optional.
pub(super) fn lookup<'a>(
    place: &Place<'a>,
    at: &str,
    kind: Kind,
    name: &str,
    optional: bool,
    complaints: &mut Complaints<'_>,
) -> Option<&'a Data> {
    let data = place.reader.configs.get(kind, place.namespace, name);
    if data.is_none() && !optional {
        complaints.add(
            at,
            format!(
                "there is no {} {name} in namespace {}",
                kind.name(),
                place.namespace
            ),
            "add it to the repository, correct the name, or mark the reference optional",
        );
    }
    data
}

/// `$(NAME)` becomes the value of NAME where it is known; `$$(NAME)` is a literal `$(NAME)`.
fn substitute(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|r| r.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

fn probe(
    at: &str,
    spec: api::ProbeSpec,
    ports: &[PortRun],
    complaints: &mut Complaints<'_>,
) -> Option<Probe> {
    let numbered = |given: &IntOrString| match given {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|n| *n != 0),
        IntOrString::Text(name) => ports
            .iter()
            .find(|p| p.name.as_ref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    let kind = match (spec.exec, spec.http_get, spec.tcp_socket) {
        (Some(exec), None, None) => Some(ProbeKind::Exec {
            command: exec.command,
        }),
        (None, Some(get), None) if get.host.is_none() => numbered(&get.port).map(|port| ProbeKind::HttpGet {
            path: get.path.unwrap_or_else(|| "/".to_owned()),
            port,
            headers: get.http_headers.into_iter().map(|h| (h.name, h.value)).collect(),
            https: get.scheme.as_deref() == Some("HTTPS"),
        }),
        (None, None, Some(tcp)) if tcp.host.is_none() => {
            numbered(&tcp.port).map(|port| ProbeKind::TcpSocket { port })
        }
        _ => None,
    };
    let Some(kind) = kind else {
        complaints.add(
            at,
            "is no probe that the embedded engine can run",
            "give exactly one of exec, httpGet or tcpSocket, without host, with a port that the container declares",
        );
        return None;
    };
    Some(Probe {
        kind,
        initial_delay_seconds: spec.initial_delay_seconds.unwrap_or(0),
        period_seconds: spec.period_seconds.unwrap_or(10).max(1),
        timeout_seconds: spec.timeout_seconds.unwrap_or(1).max(1),
        failure_threshold: spec.failure_threshold.unwrap_or(3).max(1),
        success_threshold: spec.success_threshold.unwrap_or(1).max(1),
    })
}

fn security(
    place: &Place<'_>,
    at: &str,
    own: api::SecurityContext,
    pod: &api::PodSecurityContext,
    complaints: &mut Complaints<'_>,
) -> Security {
    let profile = own
        .seccomp_profile
        .as_ref()
        .or(pod.seccomp_profile.as_ref())
        .map(|p| p.kind.as_str());
    let seccomp_default = match profile {
        None | Some("Unconfined") => false,
        Some("RuntimeDefault") if place.reader.limits.seccomp => true,
        Some(other) => {
            complaints.add(
                format!("{at}.securityContext.seccompProfile"),
                format!("{other} cannot be enforced by this engine, and is not pretended"),
                "use Unconfined, or run this workload on K3s",
            );
            false
        }
    };
    let capabilities = own.capabilities.unwrap_or(api::Capabilities {
        add: Vec::new(),
        drop: Vec::new(),
    });
    Security {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false),
        fs_group: pod.fs_group,
        privileged: own.privileged.unwrap_or(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        allow_privilege_escalation: own.allow_privilege_escalation.unwrap_or(true),
        cap_add: capabilities.add,
        cap_drop: capabilities.drop,
        seccomp_default,
    }
}
