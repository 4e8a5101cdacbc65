//! What `leeward init` writes to watch a fleet: its configurations as the programs themselves read them, its dashboards and
//! rules beside the names that devices really send.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn scaffold() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("scaffold")
}

fn cloud(path: &str) -> PathBuf {
    scaffold().join("infrastructure/monitoring/cloud").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Whether the program is there; said aloud where it is not.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn have(program: &str, package: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        assert!(
            std::env::var_os("CI").is_none(),
            "{program} is not installed (Debian: {package})"
        );
        eprintln!("SKIPPED: {program} is not installed (Debian: {package})");
    }
    there
}

/// Runs it; what it says is shown where it refuses.
fn accepts(program: &str, words: &[&str], file: &Path) {
    let out = Command::new(program).args(words).arg(file).output().unwrap();
    assert!(
        out.status.success(),
        "{program} {words:?} {}:\n{}{}",
        file.display(),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// An expression of a dashboard and the panel or variable that asks it.
struct Asked {
    place: String,
    source: String,
    expression: String,
}

fn dashboards() -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = fs::read_dir(cloud("grafana/dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&read(&path)).unwrap())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all.len(), 4);
    all
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn asked() -> Vec<Asked> {
    let mut all = Vec::new();
    for (file, board) in dashboards() {
        for panel in list(&board, "/panels") {
            for target in list(panel, "/targets") {
                all.push(Asked {
                    place: format!("{file}: {}", panel["title"]),
                    source: target["datasource"]["uid"].as_str().unwrap().to_owned(),
                    expression: target["expr"].as_str().unwrap().to_owned(),
                });
            }
        }
        for variable in list(&board, "/templating/list") {
            let query = variable["query"]["query"].as_str().unwrap();
            let of = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.rsplit_once(','))
                .unwrap();
            all.push(Asked {
                place: format!("{file}: variable {}", variable["name"]),
                source: variable["datasource"]["uid"].as_str().unwrap().to_owned(),
                expression: of.0.to_owned(),
            });
        }
    }
    all
}

/// Words of PromQL that may stand where a metric's name may, without a bracket behind them.
const WORDS: &[&str] = &[
    "and", "bool", "by", "count", "ignoring", "max", "min", "offset", "on", "or", "sum", "topk", "unless",
    "avg", "without",
];

/// The names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let mut rest = expression;
    let mut found = BTreeSet::new();
    let skip = |rest: &str, end: char| rest.split_once(end).unwrap().1.to_owned();
    let mut owned;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            let bracket = after.trim_start().starts_with('(');
            if ["by", "without", "on", "ignoring"].contains(&word) {
                owned = skip(after, ')');
                rest = &owned;
            } else if !bracket && !WORDS.contains(&word) {
                found.insert(word.to_owned());
            }
        } else if let Some(end) = match first {
            '{' => Some('}'),
            '[' => Some(']'),
            _ => None,
        } {
            owned = skip(rest, end);
            rest = &owned;
        } else {
            rest = &rest[first.len_utf8()..];
            // A number is no name, whatever its unit.
            if first.is_ascii_digit() {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            }
        }
    }
    found
}

#[test]
fn names_are_found_in_expressions() {
    let of = |expression| metrics(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of(r#"100 * (1 - avg by (device) (rate(a_total{mode="idle", x=~"b.c"}[5m])))"#),
        ["a_total"]
    );
    assert_eq!(
        of("sum without(pod) (a) / on (device) b unless c offset 1h > 1e3"),
        ["a", "b", "c"]
    );
}

/// Every name that the figures of a simulated Jetson and Pi, of this machine, of containers and of the agent can have.
fn sent() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let of_page = |page: &str, names: &mut BTreeSet<String>| {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        names.extend(lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()));
    };
    for class in ["jetson-orin-nx", "raspberry-pi-5"] {
        let dir = tempfile::tempdir().unwrap();
        device::fixture::write(&class.parse().unwrap(), dir.path()).unwrap();
        of_page(
            &device::HostMetrics::new(dir.path(), Path::new("/nowhere")).text(),
            &mut names,
        );
    }
    of_page(
        &device::HostMetrics::new(Path::new("/"), Path::new("/nowhere")).text(),
        &mut names,
    );
    // These need control groups, and a whole agent: their names stand in the code as they are sent.
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let root = Path::new(&crate_dir).parent().unwrap();
    for file in [
        "device/src/metrics/containers.rs",
        "device/src/metrics/process.rs",
        "device/src/metrics/storage.rs",
        "device/src/metrics/board.rs",
        "agent/src/telemetry/own.rs",
    ] {
        let code = read(&root.join(file));
        let words = code.split('"').skip(1).step_by(2);
        let ours = ["container_", "leeward_", "process_"];
        names.extend(
            words
                .filter(|word| ours.iter().any(|start| word.starts_with(start)))
                .map(str::to_owned),
        );
    }
    names
}

fn rules() -> Vec<(String, String)> {
    let rules: Value = serde_saphyr::from_str(&read(&cloud("prometheus/rules.yml"))).unwrap();
    let groups = list(&rules, "/groups").iter();
    groups
        .flat_map(|group| list(group, "/rules"))
        .map(|rule| {
            let text = |key: &str| rule[key].as_str().unwrap().to_owned();
            (text("alert"), text("expr"))
        })
        .collect()
}

#[test]
fn dashboards_and_rules_ask_for_what_devices_send() {
    let sent = sent();
    let mut wrong = Vec::new();
    let mut count = 0;
    let of_boards = asked()
        .into_iter()
        .filter(|asked| asked.source == "prometheus")
        .map(|asked| (asked.place, asked.expression));
    for (place, expression) in of_boards.chain(rules()) {
        let names = metrics(&expression);
        assert!(!names.is_empty(), "{place}: no metric in {expression}");
        count += names.len();
        let unknown = names.difference(&sent);
        wrong.extend(unknown.map(|name| format!("{place}: {name}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 80, "{count}");
}

#[test]
fn dashboards_are_whole() {
    let sources: Value = serde_saphyr::from_str(&read(&cloud("grafana/datasources.yaml"))).unwrap();
    let known: BTreeSet<&str> = list(&sources, "/datasources")
        .iter()
        .map(|source| source["uid"].as_str().unwrap())
        .collect();
    for asked in asked() {
        assert!(
            known.contains(asked.source.as_str()),
            "{}: {}",
            asked.place,
            asked.source
        );
    }
    let listed = read(&cloud("grafana/kustomization.yaml"));
    let mut uids = BTreeSet::new();
    for (file, board) in dashboards() {
        assert!(listed.contains(&format!("- dashboards/{file}\n")), "{file}");
        assert!(uids.insert(board["uid"].to_string()), "{file}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&board, "/panels") {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}");
            let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{file}: {title} is too wide");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{file}: {title} lies over another panel");
                }
            }
        }
        // A variable that is asked for is one of the dashboard, or Grafana's own.
        let vars: BTreeSet<&str> = list(&board, "/templating/list")
            .iter()
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        for panel in list(&board, "/panels") {
            for target in list(panel, "/targets") {
                for used in target["expr"].as_str().unwrap().split('$').skip(1) {
                    let name = used
                        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                        .next()
                        .unwrap();
                    assert!(
                        vars.contains(name) || ["__rate_interval", "__interval"].contains(&name),
                        "{file}: {} asks for ${name}",
                        panel["title"]
                    );
                }
            }
        }
    }
}

#[test]
fn prometheus_takes_its_configuration_and_every_expression() {
    if !have("promtool", "prometheus") {
        return;
    }
    let config = cloud("prometheus/prometheus.yml");
    accepts("promtool", &["check", "config"], &config);
    assert!(read(&config).contains("out_of_order_time_window: "));
    // What panels ask is checked as if rules recorded it.
    let rules: Vec<Value> = asked()
        .into_iter()
        .filter(|asked| asked.source == "prometheus")
        .map(|asked| {
            let expression = asked
                .expression
                .replace("$__rate_interval", "1m")
                .replace("$__interval", "1m");
            serde_json::json!({"record": "asked", "labels": {"place": asked.place}, "expr": expression})
        })
        .collect();
    assert!(rules.len() > 50, "{}", rules.len());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("asked.yml");
    let groups = serde_json::json!({"groups": [{"name": "asked", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    accepts("promtool", &["check", "rules", "--lint=none"], &file);
}

/// Which alerts a fleet raises: `crane` is well, `gate` is hot, full, lossy and rolled back, `tide` falls silent.
const STORY: &str = r#"
rule_files: [RULES]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'leeward_generation_info{device="crane",class="pi",site="quay",revision="a"}', values: '1x60'}
  - {series: 'leeward_generation_info{device="gate",class="pi",site="quay",revision="a"}', values: '1x60'}
  - {series: 'leeward_generation_info{device="tide",class="pi",site="quay",revision="a"}', values: '1x10 stale'}
  - {series: 'leeward_phase_info{device="crane",class="pi",site="quay",phase="Ready"}', values: '1x60'}
  - {series: 'leeward_phase_info{device="gate",class="pi",site="quay",phase="RolledBack"}', values: '1x60'}
  - {series: 'node_thermal_zone_temp{device="crane",class="pi",site="quay",zone="0"}', values: '60x60'}
  - {series: 'node_thermal_zone_temp{device="gate",class="pi",site="quay",zone="0"}', values: '91x60'}
  - {series: 'leeward_spool_records{device="crane",class="pi",site="quay",stream="logs",state="lost"}', values: '0x60'}
  - {series: 'leeward_spool_records{device="gate",class="pi",site="quay",stream="logs",state="lost"}', values: '0x20 7x40'}
  - {series: 'node_filesystem_avail_bytes{device="gate",class="pi",site="quay",mountpoint="/"}', values: '5x60'}
  - {series: 'node_filesystem_size_bytes{device="gate",class="pi",site="quay",mountpoint="/"}', values: '100x60'}
  - {series: 'node_filesystem_readonly{device="gate",class="pi",site="quay",mountpoint="/"}', values: '0x60'}
  alert_rule_test:
  - {eval_time: 5m, alertname: DeviceSilent}
  - eval_time: 40m
    alertname: DeviceSilent
    exp_alerts:
    - exp_labels: {severity: warning, device: tide, class: pi, site: quay}
      exp_annotations: {summary: "tide has sent no measurements for a quarter of an hour"}
  - eval_time: 40m
    alertname: DeviceNotHealthy
    exp_alerts:
    - exp_labels: {severity: warning, device: gate, class: pi, site: quay, phase: RolledBack}
      exp_annotations: {summary: "gate is RolledBack"}
  - eval_time: 40m
    alertname: DeviceHot
    exp_alerts:
    - exp_labels: {severity: warning, device: gate, class: pi, site: quay}
      exp_annotations: {summary: "gate is at 91 degrees"}
  - eval_time: 40m
    alertname: RecordsLost
    exp_alerts:
    - exp_labels: {severity: warning, device: gate, class: pi, site: quay, stream: logs}
      exp_annotations: {summary: "gate has lost records of its stream logs"}
  - eval_time: 40m
    alertname: DiskNearlyFull
    exp_alerts:
    - exp_labels: {severity: warning, device: gate, class: pi, site: quay, mountpoint: /}
      exp_annotations: {summary: "/ of gate has 5% left"}
  - {eval_time: 40m, alertname: UnderVoltage}
  - {eval_time: 40m, alertname: OutOfMemory}
"#;

#[test]
fn alerts_are_raised_for_those_who_deserve_them_and_for_nobody_else() {
    if !have("promtool", "prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("story.yml");
    let rules = cloud("prometheus/rules.yml");
    fs::write(&file, STORY.replace("RULES", rules.to_str().unwrap())).unwrap();
    accepts("promtool", &["test", "rules"], &file);
}

#[test]
fn alertmanager_takes_its_configuration() {
    if have("amtool", "prometheus-alertmanager") {
        accepts(
            "amtool",
            &["check-config"],
            &cloud("alertmanager/alertmanager.yml"),
        );
    }
}

fn cloud_objects() -> Vec<model::Object> {
    let mut files = Vec::new();
    let mut folders = vec![scaffold()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(scaffold())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.push((name, fs::read(path).unwrap()));
            }
        }
    }
    let tree: model::Tree = files.into_iter().collect();
    let revision = model::Revision {
        reference: "main".to_owned(),
        commit: "0".repeat(40),
        summary: String::new(),
        author: String::new(),
        committed_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let rendered = render::render(&tree, &revision, "clusters/cloud", &Default::default()).unwrap();
    rendered.objects
}

#[test]
fn images_are_pinned_and_every_container_is_bounded() {
    let mut images = BTreeSet::new();
    for object in cloud_objects() {
        for container in list(object.value(), "/spec/template/spec/containers") {
            let image = container["image"].as_str().unwrap();
            let (_, tag) = image
                .rsplit_once(':')
                .unwrap_or_else(|| panic!("{image} has no tag"));
            assert!(tag.chars().any(|c| c.is_ascii_digit()), "{image}");
            for amount in ["requests/cpu", "requests/memory", "limits/cpu", "limits/memory"] {
                let at = format!("/resources/{amount}");
                assert!(container.pointer(&at).is_some(), "{image} has no {amount}");
            }
            images.insert(image.to_owned());
        }
    }
    for part in ["prometheus", "alertmanager", "grafana", "loki", "jaeger"] {
        assert!(
            images.iter().any(|image| image.contains(part)),
            "{part} in {images:?}"
        );
    }
}

#[test]
fn the_hub_sends_to_services_that_are_there() {
    let path = scaffold().join("bootstrap/hub/hub.yaml");
    let config = hub::FileConfig::read(&path).unwrap();
    let mut ports = BTreeSet::new();
    for object in cloud_objects() {
        if object.kind() == "Service" {
            let namespace = object.value()["metadata"]["namespace"].as_str().unwrap();
            for port in list(object.value(), "/spec/ports") {
                ports.insert(format!("{}.{namespace}:{}", object.name(), port["port"]));
            }
        }
    }
    assert_eq!(config.forwarders.len(), 4);
    for forwarder in &config.forwarders {
        let url = forwarder.url.to_string();
        let address = url.trim_start_matches("http://").split('/').next().unwrap();
        assert!(ports.contains(address), "{address} is none of {ports:?}");
    }
}

#[test]
fn the_stack_asks_only_for_services_that_are_there() {
    let names: BTreeSet<String> = cloud_objects()
        .into_iter()
        .filter(|object| {
            object.kind() == "Service" && object.value()["metadata"]["namespace"] == "monitoring"
        })
        .flat_map(|object| {
            let name = object.name().to_owned();
            let ports = list(object.value(), "/spec/ports").to_vec();
            ports
                .into_iter()
                .map(move |port| format!("{name}:{}", port["port"]))
        })
        .collect();
    let sources: Value = serde_saphyr::from_str(&read(&cloud("grafana/datasources.yaml"))).unwrap();
    for source in list(&sources, "/datasources") {
        let address = source["url"].as_str().unwrap().trim_start_matches("http://");
        assert!(names.contains(address), "{address} is none of {names:?}");
    }
    let config: Value = serde_saphyr::from_str(&read(&cloud("prometheus/prometheus.yml"))).unwrap();
    let scraped = list(&config, "/scrape_configs/0/static_configs/0/targets");
    let alerting = list(&config, "/alerting/alertmanagers/0/static_configs/0/targets");
    for target in scraped.iter().chain(alerting) {
        let address = target.as_str().unwrap().replace("localhost", "prometheus");
        assert!(names.contains(&address), "{address} is none of {names:?}");
    }
}
