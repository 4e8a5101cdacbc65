//! What several tests need: trees from folders.

use model::{Tree, TreeEntry};
use std::path::Path;

/// All files below a folder.
pub fn tree_of(dir: &Path) -> Tree {
    let mut tree = Tree::default();
    fill(&mut tree, dir, "");
    tree
}

fn fill(tree: &mut Tree, dir: &Path, prefix: &str) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("a UTF-8 name"));
        let kind = entry.file_type().expect("a known type");
        if kind.is_dir() {
            fill(tree, &entry.path(), &format!("{name}/"));
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).expect("a readable link");
            tree.insert(
                &name,
                TreeEntry::Link(target.to_str().expect("a UTF-8 target").to_owned()),
            );
        } else {
            tree.write(&name, std::fs::read(entry.path()).expect("a readable file"));
        }
    }
}
