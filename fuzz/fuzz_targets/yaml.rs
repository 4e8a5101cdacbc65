//! Any text as a manifest. What is printed has to be read back, and to be printed the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Tree;
use render::{BuildOptions, build};

fn printed(text: &str) -> Option<String> {
    let tree: Tree = [
        ("kustomization.yaml", "resources: [a.yaml]\nsortOptions: {order: fifo}\n".to_owned()),
        ("a.yaml", text.to_owned()),
    ]
    .into_iter()
    .collect();
    build(&tree, "", &BuildOptions::default()).ok().map(|build| build.to_yaml())
}

fuzz_target!(|text: &str| {
    if let Some(once) = printed(text) {
        let twice = printed(&once).expect("what is printed is read back");
        assert_eq!(once, twice);
    }
});
