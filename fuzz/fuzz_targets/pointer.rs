//! Any text as the path of a JSON patch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Tree;
use render::{BuildOptions, build};

fuzz_target!(|input: (u8, &str, &str)| {
    let (operation, path, from) = input;
    let operation = ["add", "remove", "replace", "move", "copy", "test"][usize::from(operation) % 6];
    // Control characters are for the YAML target.
    let quoted = |text: &str| {
        let plain: String = text.chars().filter(|c| !c.is_control()).collect();
        format!("'/{}'", plain.replace('\'', "''"))
    };
    let patch = format!("- {{op: {operation}, path: {}, from: {}, value: [1, {{a: b}}]}}\n", quoted(path), quoted(from));
    let tree: Tree = [
        (
            "kustomization.yaml",
            "resources: [a.yaml]\npatches: [{path: p.yaml, target: {kind: ConfigMap}}]\n".to_owned(),
        ),
        (
            "a.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v, '~/': w}\nlist: [1, 2, {x: [3]}]\n".to_owned(),
        ),
        ("p.yaml", patch),
    ]
    .into_iter()
    .collect();
    let _ = build(&tree, "", &BuildOptions::default());
});
