//! Hostile and broken input: an error, never a panic, never without bound.

use model::{Revision, Tree};
use proptest::prelude::*;
use render::{BuildOptions, Problem, RenderError, flux::substitute};
use std::collections::BTreeMap;

fn build(files: &[(&str, &str)]) -> Result<String, RenderError> {
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect();
    render::build(&tree, "", &BuildOptions::default()).map(|build| build.to_yaml())
}

fn of_manifest(text: &str) -> Result<String, RenderError> {
    build(&[("kustomization.yaml", "resources: [a.yaml]\n"), ("a.yaml", text)])
}

#[test]
fn an_alias_bomb_is_refused_with_its_place() {
    let mut text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\na: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ["a", "b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .zip(["b", "c", "d", "e", "f", "g", "h", "i"])
    {
        let all = vec![format!("*{from}"); 10].join(",");
        text += &format!("{to}: &{to} [{all}]\n");
    }
    let error = of_manifest(&text).unwrap_err();
    assert!(error.to_string().contains("aliases repeat too much"), "{error}");
    assert_eq!(error.details().file.as_deref(), Some("a.yaml"));
    assert!(error.details().line.is_some());
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        assert!(of_manifest(&text).is_err());
    }
    let deep = format!(
        "apiVersion: v1\nkind: X\nmetadata: {{name: a}}\nx: {}1{}\n",
        "[".repeat(150),
        "]".repeat(150)
    );
    assert!(of_manifest(&deep).is_ok());
}

#[test]
fn cycles_and_paths_out_of_the_tree_are_refused() {
    let cycle = build(&[
        ("kustomization.yaml", "resources: [a]\n"),
        ("a/kustomization.yaml", "resources: [..]\n"),
    ]);
    assert!(cycle.unwrap_err().to_string().contains("cycle"));
    let out = build(&[("kustomization.yaml", "resources: [../x.yaml]\n")]).unwrap_err();
    assert_eq!(out.details().problem, Problem::NotFound);
    let remote = build(&[("kustomization.yaml", "resources: [https://example.com/x.yaml]\n")]).unwrap_err();
    assert_eq!(remote.details().problem, Problem::Unsupported);
    let helm = build(&[("kustomization.yaml", "helmCharts: [{name: x}]\n")]).unwrap_err();
    assert_eq!(helm.details().problem, Problem::Unsupported);
}

#[test]
fn errors_name_file_line_object_field_and_remedy() {
    let error = build(&[
        (
            "kustomization.yaml",
            "resources: [a.yaml]\npatches:\n- path: p.yaml\n",
        ),
        (
            "a.yaml",
            "# one\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n",
        ),
        (
            "p.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n",
        ),
    ])
    .unwrap_err();
    let details = error.details();
    assert_eq!(details.problem, Problem::Patch);
    assert_eq!(details.file.as_deref(), Some("p.yaml"));
    assert_eq!(details.object.as_deref(), Some("ConfigMap/other"));
    assert!(details.remedy.is_some());
    let twice = of_manifest("apiVersion: v1\nkind: A\nmetadata:\n  name: x\n  name: y\n").unwrap_err();
    assert_eq!(
        (twice.details().file.as_deref(), twice.details().line),
        (Some("a.yaml"), Some(5))
    );
    let unknown = build(&[("kustomization.yaml", "resource: [a.yaml]\n")]).unwrap_err();
    assert!(
        unknown.to_string().contains("unknown field `resource`"),
        "{unknown}"
    );
}

/// Pieces that YAML, patches and substitutions are made of.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        ":",
        " ",
        "\n",
        "  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x",
        "*x",
        "!!int ",
        "|",
        ">",
        "|+2",
        "'",
        "\"",
        "\\",
        "#",
        "---\n",
        "...",
        "? ",
        "<<",
        "$patch",
        ": ",
        "null",
        "~",
        "0x",
        "1e9",
        "\t",
        "\r\n",
        "é",
        "apiVersion: v1\n",
        "kind: ConfigMap\n",
        "kind: List\n",
        "metadata:\n  name: a\n",
        "items:\n",
        "data:\n",
        "%",
        "@",
        "`",
        "\u{feff}",
        "\u{85}",
        "${",
        "$${",
        ":-",
        "//",
        "##",
        "%%",
        "^^",
        "/",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_as_manifest_kustomization_or_patch_ends_in_a_result(text in soup()) {
        let _ = of_manifest(&text);
        let _ = build(&[("kustomization.yaml", &text)]);
        let object = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers: [{name: x}]\n";
        let target = "resources: [a.yaml]\npatches:\n- path: p.yaml\n  target: {kind: Deployment}\n";
        let _ = build(&[("kustomization.yaml", target), ("a.yaml", object), ("p.yaml", &text)]);
        let merge = format!("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n      - {{name: x, x: {}}}\n", text.replace('\n', " "));
        let _ = build(&[("kustomization.yaml", target), ("a.yaml", object), ("p.yaml", &merge)]);
    }

    #[test]
    fn any_pointer_ends_in_a_result(path in "(/([a-z]{1,3}|-?[0-9]{1,3}|-|~0|~1|)){0,5}", op in "(add|remove|replace|move|copy|test)") {
        let patch = format!("- {{op: {op}, path: '{path}', from: '/data/a', value: 1}}\n");
        let _ = build(&[
            ("kustomization.yaml", "resources: [a.yaml]\npatches:\n- path: p.yaml\n  target: {kind: ConfigMap}\n"),
            ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: [x, y]}\n"),
            ("p.yaml", &patch),
        ]);
    }

    #[test]
    fn any_substitution_ends_in_a_result(text in soup()) {
        let variables = BTreeMap::from([("a".to_owned(), "välue/b.c".to_owned())]);
        let _ = substitute(&text, &variables);
        let _ = substitute(&format!("${{a{text}}}"), &variables);
        let revision: Revision = serde_json::from_value(serde_json::json!({
            "commit": "c", "committedAt": "2026-01-01T00:00:00Z"
        }))
        .unwrap();
        let tree: Tree = [("a.yaml", text)].into_iter().collect();
        let _ = render::render(&tree, &revision, "", &variables);
    }
}

#[test]
fn the_forms_of_bash() {
    let variables: BTreeMap<String, String> = [
        ("v", "a/b/c.tar.gz"),
        ("empty", ""),
        ("two", "one\ntwo"),
        ("w", "word"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (form, wanted) in [
        ("${v}", "a/b/c.tar.gz"),
        ("${none:-x}", "x"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${none:=x}", "x"),
        ("${none=x}", "x"),
        ("${none:-${w}}", "word"),
        ("${#w}", "4"),
        ("${v:2}", "b/c.tar.gz"),
        ("${w:1:2}", "or"),
        ("${w:-1}", "word"),
        ("${v#*/}", "b/c.tar.gz"),
        ("${v##*/}", "c.tar.gz"),
        ("${v%.*}", "a/b/c.tar"),
        ("${v%%.*}", "a/b/c"),
        ("${v/\\//-}", "a/b/c.tar.gz"),
        ("${w/o/0}", "w0rd"),
        ("${v//a/A}", "A/b/c.tAr.gz"),
        ("${w/#w/W}", "Word"),
        ("${w/%d/D}", "worD"),
        ("${w^}", "Word"),
        ("${w^^}", "WORD"),
        ("${w,}", "word"),
        ("${w,,}", "word"),
        ("${two}", "onetwo"),
        ("$${v} $v $", "${v} $v $"),
    ] {
        assert_eq!(substitute(form, &variables).as_deref(), Ok(wanted), "{form}");
    }
    for wrong in ["${none}", "${", "${1x}", "${w!}", "${w:x}"] {
        assert!(substitute(wrong, &variables).is_err(), "{wrong}");
    }
}
