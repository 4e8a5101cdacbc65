use super::*;
use serde_json::{Value, json};

const APP: &str = "apps/v1";

fn object(value: Value) -> Object {
    Object::new(value).unwrap()
}

/// A Deployment `web` with a named and an unnamed port, and a Service in front of it.
fn objects() -> Vec<Object> {
    let ports = json!([{"name": "http", "containerPort": 8080}, {"containerPort": 9100}]);
    vec![
        object(
            json!({"apiVersion": APP, "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}, "annotations": {
                "prometheus.io/scrape": "true", "prometheus.io/port": "9100", "prometheus.io/path": "/m"}},
                "spec": {"containers": [{"name": "app", "ports": ports}]}}}}),
        ),
        object(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": "shop",
            "labels": {"app": "web", "team": "a"}}, "spec": {"selector": {"app": "web"},
            "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}}),
        ),
    ]
}

fn pod(name: &str, labels: Value, ip: Option<&str>) -> PodObserved {
    let zeros = format!("sha256:{}", "0".repeat(64));
    serde_json::from_value(json!({
        "id": {"namespace": "shop", "name": name},
        "owner": {"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "web"},
        "template": zeros, "labels": labels, "files": zeros, "phase": "Running", "ip": ip,
        "createdAt": "2026-01-01T00:00:00Z", "containers": [],
    }))
    .unwrap_or_else(|err| panic!("{err}"))
}

/// Targets as lines, then warnings.
fn found(objects: &[Object], configs: &str) -> String {
    let pods = [
        pod("web-1", json!({"app": "web"}), Some("10.0.0.5")),
        pod("web-2", json!({"app": "web"}), None),
    ];
    let configs = scrape_configs(configs).unwrap();
    let found = discover(&Inputs {
        objects,
        pods: &pods,
        node: "pi-1",
        configs: &configs,
        interval: Duration::from_secs(15),
    });
    let targets = found.targets.iter().map(|target| {
        let job = &target.job;
        format!("{} {} every {:?}", target.source, target.labels, job.interval)
    });
    let lines: Vec<String> = targets
        .chain(found.warnings.iter().map(|why| format!("! {why}")))
        .collect();
    lines.join("\n")
}

#[test]
fn annotations_of_a_template_make_targets_of_its_pods_that_have_an_address() {
    assert_eq!(
        found(&objects(), ""),
        "http://10.0.0.5:9100/m {container=\"app\",instance=\"10.0.0.5:9100\",job=\"kubernetes-pods\",\
         namespace=\"shop\",pod=\"web-1\"} every 15s"
    );
}

fn monitors(kind: &str, spec: Value) -> Vec<Object> {
    let mut objects = objects();
    let mut web = objects.remove(0).into_value();
    web["spec"]["template"]["metadata"]["annotations"] = json!({});
    objects.push(object(web));
    objects.push(object(
        json!({"apiVersion": "monitoring.coreos.com/v1", "kind": kind,
        "metadata": {"name": "m", "namespace": "shop"}, "spec": spec}),
    ));
    objects
}

#[test]
fn monitors_find_pods_and_what_is_behind_services() {
    let spec = json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
        "podTargetLabels": ["app"], "podMetricsEndpoints": [{"port": "http", "interval": "1m", "path": "/x",
        "params": {"a b": ["c&d"]}, "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"],
        "targetLabel": "node"}]}]});
    assert_eq!(
        found(&monitors("PodMonitor", spec), ""),
        "http://10.0.0.5:8080/x?a%20b=c%26d {app=\"web\",container=\"app\",endpoint=\"http\",\
         instance=\"10.0.0.5:8080\",job=\"shop/m\",namespace=\"shop\",node=\"pi-1\",pod=\"web-1\"} every 60s"
    );
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "targetLabels": ["team"],
        "endpoints": [{"port": "web"}]});
    assert_eq!(
        found(&monitors("ServiceMonitor", spec), ""),
        "http://10.0.0.5:8080/metrics {container=\"app\",endpoint=\"web\",instance=\"10.0.0.5:8080\",\
         job=\"front\",namespace=\"shop\",pod=\"web-1\",service=\"front\",team=\"a\"} every 15s"
    );
}

#[test]
fn what_is_not_supported_is_said_with_the_object() {
    let spec = json!({"selector": {}, "podMetricsEndpoints": [{"port": "http", "basicAuth": {}}]});
    let told = found(&monitors("PodMonitor", spec), "");
    assert!(
        told.contains("! PodMonitor shop/m is left out: unknown field `basicAuth`"),
        "{told}"
    );
    let spec = json!({"selector": {}, "podMetricsEndpoints": [{"port": "grpc"}, {"port": "http",
        "relabelings": [{"action": "explode"}]}]});
    let told = found(&monitors("PodMonitor", spec), "");
    assert!(
        told.contains("endpoint 1: pod shop/web-1 has no such port"),
        "{told}"
    );
    assert!(
        told.contains("endpoint 2: relabelings, rule 1: action \"explode\" does not exist"),
        "{told}"
    );
}

#[test]
fn prometheus_own_configuration() {
    let text = "global: {scrape_interval: 30s}\nscrape_configs:\n- job_name: node\n  static_configs:\n  \
        - targets: ['localhost:9100', 'other']\n    labels: {zone: a}\n- job_name: pods\n  scheme: https\n  \
        kubernetes_sd_configs: [{role: pod}]\n  relabel_configs:\n  \
        - source_labels: [__meta_kubernetes_pod_container_port_name]\n    regex: http\n    action: keep\n";
    let told = found(&objects()[1..], text);
    assert_eq!(
        told,
        "http://localhost:9100/metrics {instance=\"localhost:9100\",job=\"node\",zone=\"a\"} every 30s\n\
         http://other:80/metrics {instance=\"other:80\",job=\"node\",zone=\"a\"} every 30s"
    );
    let told = found(&objects(), text);
    assert!(
        told.contains("https://10.0.0.5:8080/metrics {instance=\"10.0.0.5:8080\",job=\"pods\"}"),
        "{told}"
    );
    for (text, want) in [
        (
            "scrape_configs: [{job_name: a, consul_sd_configs: []}]",
            "consul_sd_configs",
        ),
        (
            "scrape_configs: [{job_name: a, scrape_interval: 5}]",
            "\"5\" is no duration",
        ),
        (
            "scrape_configs: [{job_name: a, scrape_interval: 5s, scrape_timeout: 6s}]",
            "longer than",
        ),
        (
            "scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: node}]}]",
            "role node",
        ),
    ] {
        let err = scrape_configs(text).unwrap_err().to_string();
        assert!(err.contains(want), "{text}: {err}");
    }
}
