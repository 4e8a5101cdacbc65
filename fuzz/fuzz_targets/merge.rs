//! Any text as a strategic merge over a Deployment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Tree;
use render::{BuildOptions, build};

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    spec:\n      containers:\n      \
- {name: x, image: i, ports: [{containerPort: 80}], env: [{name: A, value: b}]}\n";

fuzz_target!(|patch: &str| {
    let head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    let tree: Tree = [
        ("kustomization.yaml", "resources: [a.yaml]\npatches: [{path: p.yaml}]\n".to_owned()),
        ("a.yaml", DEPLOYMENT.to_owned()),
        ("p.yaml", format!("{head}{patch}")),
    ]
    .into_iter()
    .collect();
    let _ = build(&tree, "", &BuildOptions::default());
});
