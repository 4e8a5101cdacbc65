//! kustomize's own test-suite, recorded: every case builds as `kubectl kustomize` does.

mod support;

use render::{BuildOptions, LoadRestrictor};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, panic, path::PathBuf};

#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    load_restrictor: String,
    expect: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Byte for byte, or an error where one is due.
    Equal,
    /// The same objects, written otherwise.
    SameObjects,
    Differs(String),
}

fn folder() -> PathBuf {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
        .join("../../shared/conformance/kustomize");
    assert!(
        folder.is_dir(),
        "{} is not there: the conformance cases belong beside the workspace",
        folder.display()
    );
    folder
}

fn run(case: &Case) -> Outcome {
    let dir = folder().join(&case.name);
    let tree = support::tree_of(&dir);
    let load_restrictor = match case.load_restrictor.as_str() {
        "none" => LoadRestrictor::None,
        _ => LoadRestrictor::RootOnly,
    };
    let built = panic::catch_unwind(|| {
        let options = BuildOptions {
            load_restrictor,
            ..BuildOptions::default()
        };
        render::build(&tree, &case.path, &options).map(|build| build.to_yaml())
    });
    let built = match built {
        Ok(built) => built,
        Err(_) => return Outcome::Differs("panicked".to_owned()),
    };
    match (built, case.expect.as_str()) {
        (Err(error), "error") => {
            assert!(!error.to_string().is_empty());
            Outcome::Equal
        }
        (Ok(_), "error") => Outcome::Differs("built, but should fail".to_owned()),
        (Err(error), _) => Outcome::Differs(format!("failed: {error}")),
        (Ok(text), _) => {
            let expected = std::fs::read_to_string(dir.join("expected.yaml")).expect("an expected output");
            if text == expected {
                Outcome::Equal
            } else if documents(&text) == documents(&expected) {
                Outcome::SameObjects
            } else {
                Outcome::Differs("other objects".to_owned())
            }
        }
    }
}

/// The documents of a YAML stream, sorted, so that only their content counts.
fn documents(text: &str) -> Vec<Value> {
    let mut all: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    all.sort_by_key(|value| value.to_string());
    all
}

/// The cases that are known to differ, from the table in the documentation.
fn known_misses() -> BTreeMap<String, String> {
    let path = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
        .join("../docs/kustomize-conformance.md");
    let text = std::fs::read_to_string(path).expect("the list of known misses");
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .map(|(name, cause)| (name.to_owned(), cause.to_owned()))
        .collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "the scores are for people")]
fn every_case_is_equal_or_a_known_miss() {
    let index = std::fs::read_to_string(folder().join("index.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&index).unwrap();
    assert_eq!(cases.len(), 404);
    let known = known_misses();
    let (mut equal, mut same) = (0, 0);
    let mut wrong = Vec::new();
    for case in &cases {
        let outcome = run(case);
        match (&outcome, known.contains_key(&case.name)) {
            (Outcome::Equal, true) => wrong.push(format!("{} is equal now: take it off the list", case.name)),
            (Outcome::Equal, false) | (_, true) => {}
            (other, false) => wrong.push(format!("{}: {other:?}", case.name)),
        }
        equal += usize::from(outcome == Outcome::Equal);
        same += usize::from(matches!(outcome, Outcome::Equal | Outcome::SameObjects));
    }
    println!("byte-equal: {equal} of {}", cases.len());
    println!("equal after parsing: {same} of {}", cases.len());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
