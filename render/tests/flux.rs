//! Flux's semantics, from its documentation.

use bytes::Bytes;
use model::{Desired, Revision, Tree};
use render::{Problem, RenderError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

fn revision() -> Revision {
    serde_json::from_value(serde_json::json!({
        "reference": "main", "commit": "a".repeat(40), "committedAt": "2026-01-01T00:00:00Z"
    }))
    .expect("a revision")
}

fn render(files: &[(&str, &str)], path: &str) -> Result<Desired, RenderError> {
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    let vars = BTreeMap::from([("DEVICE".to_owned(), "pi-1".to_owned())]);
    render::render(&tree, &revision(), path, &vars)
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: {value}\n")
}

fn kustomization(name: &str, path: &str, more: &str) -> String {
    format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: {name}\n  \
         namespace: flux-system\nspec:\n  interval: 10m\n  prune: true\n  path: {path}\n  sourceRef:\n    \
         kind: GitRepository\n    name: flux-system\n{more}"
    )
}

fn names(desired: &Desired) -> Vec<&str> {
    desired.objects.iter().map(|object| object.name()).collect()
}

#[test]
fn kustomizations_are_resolved_in_the_order_of_their_dependencies() {
    let desired = render(
        &[
            (
                "clusters/pi/a.yaml",
                &kustomization("a", "./apps", "  dependsOn:\n  - name: infra\n"),
            ),
            ("clusters/pi/infra.yaml", &kustomization("infra", "./infra", "")),
            ("apps/app.yaml", &config_map("app", "1")),
            ("infra/kustomization.yaml", "resources: [infra.yaml]\n"),
            ("infra/infra.yaml", &config_map("infra", "1")),
        ],
        "clusters/pi",
    )
    .unwrap();
    assert_eq!(names(&desired), ["infra", "app"]);
    let app = &desired.objects[1];
    assert_eq!(app.label("kustomize.toolkit.fluxcd.io/name"), Some("a"));
    assert_eq!(
        app.label("kustomize.toolkit.fluxcd.io/namespace"),
        Some("flux-system")
    );
}

#[test]
fn the_spec_is_merged_into_the_folders_kustomization() {
    let more = "  targetNamespace: edge\n  namePrefix: a-\n  nameSuffix: -z\n  commonMetadata:\n    labels:\n      \
                site: north\n  images:\n  - name: web\n    newTag: '2'\n  patches:\n  - patch: |\n      - op: \
                add\n        path: /spec/replicas\n        value: 3\n    target:\n      kind: Deployment\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      \
                      containers:\n      - name: web\n        image: web:1\n";
    let desired = render(
        &[
            ("c/k.yaml", &kustomization("a", "apps", more)),
            ("apps/web.yaml", deployment),
        ],
        "c",
    )
    .unwrap();
    let object = &desired.objects[0];
    assert_eq!((object.namespace(), object.name()), ("edge", "a-web-z"));
    assert_eq!(object.label("site"), Some("north"));
    let spec = object.spec();
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "web:2");
}

#[test]
fn variables_come_from_the_device_from_objects_and_from_the_spec() {
    let more = "  postBuild:\n    substitute:\n      zone: north\n    substituteFrom:\n    - kind: ConfigMap\n      \
                name: settings\n    - kind: Secret\n      name: none\n      optional: true\n";
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: flux-system\ndata:\n  \
                    count: \"3\"\n  zone: south\n";
    let app = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  device: ${DEVICE}\n  zone: ${zone}\n  \
               count: x${count}\n  default: ${nothing:-${zone}-1}\n  kept: $${zone}\n";
    let desired = render(
        &[
            ("c/k.yaml", &kustomization("a", "apps", more)),
            ("c/settings.yaml", settings),
            ("apps/app.yaml", app),
        ],
        "c",
    )
    .unwrap();
    assert_eq!(
        desired.objects[1].value()["data"],
        serde_json::json!({
            "device": "pi-1", "zone": "north", "count": "x3", "default": "north-1", "kept": "${zone}"
        })
    );
}

#[test]
fn a_variable_without_value_is_an_error_that_names_the_object() {
    let error = render(
        &[
            (
                "c/k.yaml",
                &kustomization("a", "apps", "  postBuild:\n    substitute: {}\n"),
            ),
            ("apps/app.yaml", &config_map("app", "${missing}")),
        ],
        "c",
    )
    .unwrap_err();
    assert_eq!(error.details().problem, Problem::Undefined);
    assert_eq!(error.details().object.as_deref(), Some("ConfigMap/app"));
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn suspended_and_foreign_kustomizations_are_left_out_with_a_warning() {
    let foreign = kustomization("b", "apps", "")
        .replace("kind: GitRepository", "kind: Bucket")
        .replace("name: flux-system\n", "name: elsewhere\n");
    let desired = render(
        &[
            ("c/a.yaml", &kustomization("a", "apps", "  suspend: true\n")),
            ("c/b.yaml", &foreign),
            ("apps/app.yaml", &config_map("app", "1")),
        ],
        "c",
    )
    .unwrap();
    assert!(desired.objects.is_empty());
    assert_eq!(desired.warnings.len(), 2, "{:?}", desired.warnings);
}

/// Gives one artifact for every source, and keeps what it was asked.
#[derive(Debug, Default)]
struct OneArtifact(RefCell<Vec<render::flux::FluxSource>>);

impl render::Remotes for OneArtifact {
    fn file(&self, url: &str) -> Result<Bytes, RenderError> {
        Err(RenderError::unreachable(url))
    }

    fn repository(&self, repository: &render::Repository) -> Result<Rc<dyn render::Files>, RenderError> {
        Err(RenderError::unreachable(&repository.raw))
    }

    fn source(&self, source: &render::flux::FluxSource) -> Result<render::flux::Sourced, RenderError> {
        self.0.borrow_mut().push(source.clone());
        let files = [
            ("deploy/one.yaml", config_map("one", "1")),
            ("deploy/bad.yaml.off", "{".to_owned()),
            ("broken/two.yaml", "kind: [".to_owned()),
        ];
        Ok(render::flux::Sourced::Other(Rc::new(render::flux::Artifact {
            tree: files.into_iter().collect(),
            revision: "v1@sha1:abc".to_owned(),
        })))
    }
}

const LIB: &str = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: lib, namespace: \
                   flux-system}\nspec: {interval: 1m, url: 'https://git.example/lib', secretRef: {name: login}}\n";

fn rendered_with(files: &[(&str, &str)], remotes: &dyn render::Remotes) -> Result<Desired, RenderError> {
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    let given = render::Given {
        vars: &BTreeMap::new(),
        keys: &sops::Keys::default(),
        remotes,
    };
    render::render_for(&tree, &revision(), "c", &given)
}

#[test]
fn another_source_is_asked_for_with_its_secret_and_built_beside_the_repository() {
    let of = |path: &str| kustomization("a", path, "").replace("name: flux-system\n", "name: lib\n");
    let login = "apiVersion: v1\nkind: Secret\nmetadata: {name: login, namespace: flux-system}\nstringData: {password: \
                 p}\ndata: {username: dQ==}\n";
    let remotes = OneArtifact::default();
    let files = [("c/a.yaml", of("./deploy")), ("c/lib.yaml", LIB.to_owned())];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let none = rendered_with(&files, &remotes).unwrap_err().to_string();
    assert!(
        none.contains("Kustomization/flux-system/a: spec.sourceRef: ")
            && none.contains("Secret flux-system/login"),
        "{none}"
    );
    let with = [files.as_slice(), &[("c/login.yaml", login)]].concat();
    let desired = rendered_with(&with, &remotes).unwrap();
    assert_eq!(names(&desired), ["login", "one"]);
    let place = desired.origins[1].as_ref().unwrap().to_string();
    assert_eq!(place, "GitRepository/flux-system/lib:deploy/one.yaml:1");
    assert_eq!(desired.kustomizations[0].revision.as_deref(), Some("v1@sha1:abc"));
    let asked = remotes.0.take();
    let secret = asked[0].secret.as_ref().unwrap();
    assert_eq!(
        (secret["username"].as_str(), secret["password"].as_str()),
        ("u", "p")
    );
    assert_eq!(asked.len(), 1, "without its Secret nobody is asked");

    let broken = of("./broken");
    let mut with = with;
    with[0].1 = &broken;
    let error = rendered_with(&with, &remotes).unwrap_err().to_string();
    assert!(
        error.contains("GitRepository/flux-system/lib:broken/two.yaml"),
        "{error}"
    );
    // Where nobody is asked for another source, its objects are left out; what is the only one is taken for the
    // repository itself.
    let second = LIB.replace("name: lib", "name: more").replace("lib'", "more'");
    let two = [with.as_slice(), &[("c/more.yaml", second.as_str())]].concat();
    let alone = rendered_with(&two, &render::NoRemotes).unwrap();
    assert_eq!(names(&alone), ["login"]);
    assert!(
        alone.warnings[0].contains("it reads GitRepository lib"),
        "{:?}",
        alone.warnings
    );
}

#[test]
fn a_folder_without_kustomization_takes_all_manifests_but_the_ignored() {
    let desired = render(
        &[
            ("c/one.yaml", &config_map("one", "1")),
            ("c/sub/two.yml", &config_map("two", "1")),
            (
                "c/unit/kustomization.yaml",
                "namePrefix: p-\nresources: [three.yaml]\n",
            ),
            ("c/unit/three.yaml", &config_map("three", "1")),
            ("c/unit/not-listed.yaml", &config_map("four", "1")),
            ("c/notes.txt", "not yaml"),
            ("c/draft/five.yaml", &config_map("five", "1")),
            ("c/draft/keep.yaml", &config_map("keep", "1")),
            ("c/.sourceignore", "# drafts\ndraft/*\n!draft/keep.yaml\n"),
        ],
        "c",
    )
    .unwrap();
    let mut names = names(&desired);
    names.sort_unstable();
    assert_eq!(names, ["keep", "one", "p-three", "two"]);
}

#[test]
fn the_kustomization_that_points_at_the_root_labels_the_roots_own_objects() {
    let desired = render(
        &[
            (
                "c/flux-system/sync.yaml",
                &kustomization("flux-system", "./c", ""),
            ),
            ("c/app.yaml", &config_map("app", "1")),
        ],
        "c",
    )
    .unwrap();
    assert_eq!(names(&desired), ["app"]);
    assert_eq!(
        desired.objects[0].label("kustomize.toolkit.fluxcd.io/name"),
        Some("flux-system")
    );
}

#[test]
fn wrong_flux_objects_say_what_is_wrong() {
    let circle = render(
        &[
            (
                "c/a.yaml",
                &kustomization("a", "apps", "  dependsOn: [{name: b}]\n"),
            ),
            (
                "c/b.yaml",
                &kustomization("b", "apps", "  dependsOn: [{name: a}]\n"),
            ),
            ("apps/app.yaml", &config_map("app", "1")),
        ],
        "c",
    );
    assert!(circle.unwrap_err().to_string().contains("depend on one another"));
    let unknown = render(
        &[("c/a.yaml", &kustomization("a", "apps", "  intervall: 1m\n"))],
        "c",
    );
    assert!(unknown.unwrap_err().to_string().contains("intervall"));
    let nowhere = render(&[("c/a.yaml", &kustomization("a", "no/such", ""))], "c").unwrap_err();
    assert_eq!(nowhere.details().field.as_deref(), Some("spec.path"));
    let twice = render(
        &[
            ("c/a.yaml", &kustomization("a", "apps", "")),
            ("c/b.yaml", &kustomization("b", "apps", "")),
            ("apps/app.yaml", &config_map("app", "1")),
        ],
        "c",
    );
    assert_eq!(twice.unwrap_err().details().problem, Problem::Conflict);
}

fn inspect(tree: &Tree, path: &str) -> render::Inspection {
    let given = render::Given {
        vars: &BTreeMap::new(),
        keys: &sops::Keys::default(),
        remotes: &render::NoRemotes,
    };
    render::inspect(tree, path, &given)
}

#[test]
fn an_inspection_goes_on_behind_faults_and_knows_where_objects_come_from() {
    let overlay = "resources: [../base]\nnamePrefix: my-\npatches:\n- path: patch.yaml\n\
                   - target: {kind: ConfigMap}\n  patch: '[{op: add, path: /data/more, value: x}]'\n";
    let two = format!("{}---\n{}", config_map("one", "1"), config_map("two", "2"));
    let files = [
        ("clusters/pi/a.yaml", kustomization("a", "./missing", "")),
        (
            "clusters/pi/b.yaml",
            kustomization("b", "./overlay", "  dependsOn: [{name: nobody}]\n"),
        ),
        (
            "clusters/pi/c.yaml",
            kustomization("c", "./overlay", "  unknown: 1\n"),
        ),
        ("overlay/kustomization.yaml", overlay.to_owned()),
        ("overlay/patch.yaml", config_map("two", "3")),
        ("base/kustomization.yaml", "resources: [maps.yaml]\n".to_owned()),
        ("base/maps.yaml", two),
    ];
    let tree: Tree = files.into_iter().collect();
    let found = inspect(&tree, "clusters/pi");
    let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert!(problems[0].contains("unknown field `unknown`"), "{problems:?}");
    assert!(
        problems[1].contains("there is no folder \"./missing\""),
        "{problems:?}"
    );
    assert!(
        problems[2].contains("there is no Kustomization nobody"),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(found.folders, ["clusters/pi", "overlay"]);
    let two = found
        .objects
        .iter()
        .find(|it| it.object.name() == "my-two")
        .unwrap();
    assert_eq!(two.trace.file.as_deref(), Some("base/maps.yaml"));
    assert_eq!(two.trace.line, 8);
    assert_eq!(
        two.trace.patches,
        ["overlay/patch.yaml", "overlay/kustomization.yaml"]
    );
    let flux = found.objects.iter().find(|it| it.object.name() == "b").unwrap();
    assert_eq!(flux.trace.file.as_deref(), Some("clusters/pi/b.yaml"));
}

#[test]
fn each_object_is_told_with_the_place_where_it_was_read() {
    let two = format!(
        "{}---\n{}",
        config_map("one", "1"),
        config_map("two", "${DEVICE}")
    );
    let desired = render(
        &[
            (
                "clusters/pi/apps.yaml",
                &kustomization("apps", "./apps/edge", "  postBuild: {substitute: {X: y}}\n"),
            ),
            (
                "apps/edge/kustomization.yaml",
                "resources: [../base]\nnamePrefix: edge-\nconfigMapGenerator:\n- {name: made, literals: [a=b]}\n",
            ),
            ("apps/base/kustomization.yaml", "resources: [both.yaml]\n"),
            ("apps/base/both.yaml", &two),
        ],
        "clusters/pi",
    )
    .unwrap();
    let places: Vec<(&str, Option<String>)> = desired
        .objects
        .iter()
        .zip(&desired.origins)
        .map(|(object, origin)| (object.name(), origin.as_ref().map(ToString::to_string)))
        .collect();
    assert_eq!(places.len(), 3, "{places:?}");
    let place_of = |name: &str| {
        let found = places.iter().find(|(of, _)| of.starts_with(name));
        found.and_then(|(_, place)| place.as_deref())
    };
    assert_eq!(place_of("edge-one"), Some("apps/base/both.yaml:1"));
    assert_eq!(place_of("edge-two"), Some("apps/base/both.yaml:8"));
    assert_eq!(place_of("edge-made-"), Some("apps/edge/kustomization.yaml"));
}
