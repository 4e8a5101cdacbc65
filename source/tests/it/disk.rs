//! The folder on the device: what is read from it, and what it survives.

use crate::support::{Device, Upstream, fetch, limits, link, paths, text};
use model::{Moved, TreeEntry};
use source::{GitRef, GitSource, Limits, SourceError};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn a_fetched_revision_is_read_with_the_server_gone() {
    let (up, device) = (Upstream::new(), Device::new());
    let commit = up.commit("apps/a.yaml", "a: 1\n");
    let mut source = device.open(up.spec());
    assert!(source.held().is_none());

    let fetched = fetch(&mut source).unwrap();
    assert_eq!(
        (fetched.moved, fetched.revision.commit.as_str()),
        (Moved::First, commit.as_str())
    );
    assert_eq!(fetched.revision.reference, "main");
    assert_eq!(fetched.revision.summary, "Change apps/a.yaml");
    assert_eq!(fetched.revision.author, "Ada <ada@example.com>");
    assert_eq!(text(&fetched.tree.unwrap(), "apps/a.yaml").unwrap(), "a: 1\n");
    assert!(fetched.bytes_received > 0);

    drop(source);
    fs::remove_dir_all(up.bare()).unwrap();
    let mut source = device.open(up.spec());
    assert_eq!(source.held().unwrap().commit, commit);
    assert_eq!(
        text(&source.load(&commit).unwrap(), "apps/a.yaml").unwrap(),
        "a: 1\n"
    );
    let err = fetch(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::NotFound { .. }), "{err}");
    assert_eq!(
        source.held().unwrap().commit,
        commit,
        "an error leaves what is held"
    );
    let err = source.load(&"0".repeat(40)).unwrap_err();
    assert!(matches!(err, SourceError::NotHeld { .. }), "{err}");
}

#[test]
fn the_tree_holds_what_include_and_sourceignore_let_through() {
    let (up, device) = (Upstream::new(), Device::new());
    let inner = Upstream::new();
    inner.commit("x", "x");
    let work = up.work();
    for (path, body) in [
        ("clusters/pi/a.yaml", "a"),
        ("apps/b.yaml", "b"),
        ("apps/secret/c.yaml", "c"),
        ("apps/secret/keep.yaml", "k"),
        ("apps/logo.png", "png"),
        ("docs/d.md", "d"),
        (".github/workflows/ci.yaml", "ci"),
        (".sourceignore", "/docs/\n"),
        ("apps/.sourceignore", "secret/\n!secret/keep.yaml\n"),
        ("bin/run.sh", "#!/bin/sh\n"),
    ] {
        fs::create_dir_all(work.join(path).parent().unwrap()).unwrap();
        fs::write(work.join(path), body).unwrap();
    }
    std::os::unix::fs::symlink("../apps/b.yaml", work.join("clusters/link.yaml")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", work.join("clusters/out")).unwrap();
    up.git(&["add", "-A"]);
    up.git(&["update-index", "--chmod=+x", "bin/run.sh"]);
    up.git(&[
        "submodule",
        "--quiet",
        "add",
        inner.bare().to_str().unwrap(),
        "apps/sub",
    ]);
    up.git(&["commit", "-q", "-m", "all"]);
    up.push();

    let fetched = fetch(&mut device.open(up.spec())).unwrap();
    let tree = fetched.tree.unwrap();
    assert_eq!(
        paths(&tree),
        [
            ".sourceignore",
            "apps/.sourceignore",
            "apps/b.yaml",
            "apps/secret/keep.yaml",
            "bin/run.sh",
            "clusters/link.yaml",
            "clusters/out",
            "clusters/pi/a.yaml"
        ]
    );
    assert_eq!(link(&tree, "clusters/link.yaml").unwrap(), "../apps/b.yaml");
    assert_eq!(
        link(&tree, "clusters/out").unwrap(),
        "/etc/passwd",
        "kept as a link, never followed"
    );
    assert!(matches!(
        tree.get("bin/run.sh"),
        Some(TreeEntry::File { executable: true, .. })
    ));
    assert_eq!(fetched.warnings.len(), 1);
    assert!(
        fetched.warnings[0].contains("apps/sub is a submodule"),
        "{:?}",
        fetched.warnings
    );

    let mut spec = up.spec();
    spec.include = vec!["clusters/pi".to_owned(), "apps/b.yaml".to_owned()];
    let source = device.open(spec);
    assert_eq!(
        paths(&source.load(&up.head()).unwrap()),
        ["apps/b.yaml", "clusters/pi/a.yaml"]
    );
}

#[test]
fn sizes_are_bounded_before_anything_is_unpacked() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "a");
    let mut source = device.open(up.spec()).with_limits(Limits {
        file: 1000,
        tree: 1500,
        ..limits()
    });
    fetch(&mut source).unwrap();
    up.commit("big.yaml", &"x".repeat(2000));
    let err = fetch(&mut source).unwrap_err().to_string();
    assert!(
        err.contains("the file big.yaml is larger than 1000 bytes"),
        "{err}"
    );
    up.commit("big.yaml", &"x".repeat(900));
    up.commit("big2.yaml", &"y".repeat(900));
    let err = fetch(&mut source).unwrap_err().to_string();
    assert!(err.contains("larger than 1500 bytes"), "{err}");
    assert_eq!(source.held().unwrap().commit, first);
    let mut source = source.with_limits(Limits {
        received: 100,
        ..limits()
    });
    let err = fetch(&mut source).unwrap_err().to_string();
    assert!(err.contains("larger than 100 bytes"), "{err}");

    // Five megabytes of zeros are a few kilobytes in the pack.
    let bomb = up.commit("zeros", &"\0".repeat(5 << 20));
    let mut source = source.with_limits(Limits {
        object: 1 << 20,
        ..limits()
    });
    let err = fetch(&mut source).unwrap_err();
    assert!(
        matches!(&err, SourceError::TooLarge { limit, .. } if *limit == 1 << 20),
        "{err:?}"
    );
    let err = fetch(&mut Device::new().open(up.spec()).with_limits(Limits {
        object: 1 << 20,
        ..limits()
    }));
    assert!(matches!(err, Err(SourceError::TooLarge { .. })), "{err:?}");
    assert_eq!(
        fetch(&mut source.with_limits(limits())).unwrap().revision.commit,
        bomb
    );
}

#[test]
fn what_a_power_cut_leaves_behind_is_cleared_at_the_next_start() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "a");
    fetch(&mut device.open(up.spec())).unwrap();
    let repository = device.repository();
    let pack = repository.join("objects/pack");
    // Half a pack under a temporary name, a whole one that was not indexed yet, locks, torn references, a torn
    // list of shallow commits, a repository that was never swapped in, half a state file.
    fs::write(pack.join(".tmpAbCdEf"), b"PACK half").unwrap();
    fs::write(pack.join(format!("pack-{}.pack", "a".repeat(40))), b"PACK").unwrap();
    fs::write(pack.join(format!("pack-{}.keep", "b".repeat(40))), b"").unwrap();
    fs::write(repository.join("shallow.lock"), b"").unwrap();
    fs::write(repository.join("shallow"), b"12").unwrap();
    fs::write(repository.join("refs/heads/main"), b"").unwrap();
    fs::create_dir(device.path().join("git-9")).unwrap();
    fs::write(device.path().join("state.json.tmp"), b"{").unwrap();

    let second = up.commit("a.yaml", "b");
    let mut source = device.open(up.spec());
    assert_eq!(text(&source.load(&first).unwrap(), "a.yaml").unwrap(), "a");
    let fetched = fetch(&mut source).unwrap();
    assert_eq!((fetched.moved, fetched.revision.commit), (Moved::Forward, second));
    let left: Vec<_> = fs::read_dir(&pack)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter()
            .all(|name| name.ends_with(".pack") || name.ends_with(".idx")),
        "{left:?}"
    );
    assert!(!device.path().join("git-9").exists() && !repository.join("shallow.lock").exists());
}

#[test]
fn a_store_that_does_not_read_back_is_fetched_anew() {
    let (up, device) = (Upstream::new(), Device::new());
    let commit = up.commit("a.yaml", "a");
    fetch(&mut device.open(up.spec())).unwrap();
    for entry in fs::read_dir(device.repository().join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "pack") {
            let mut bytes = fs::read(&path).unwrap();
            bytes[12..].fill(0);
            let mut permissions = fs::metadata(&path).unwrap().permissions();
            #[expect(
                clippy::permissions_set_readonly_false,
                reason = "the file is removed with the test's folder"
            )]
            permissions.set_readonly(false);
            fs::set_permissions(&path, permissions).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
    let mut source = device.open(up.spec());
    let err = source.load(&commit).unwrap_err();
    assert!(matches!(err, SourceError::Damaged { .. }), "{err}");
    let fetched = fetch(&mut source).unwrap();
    assert_eq!(
        (fetched.moved, fetched.revision.commit.as_str()),
        (Moved::Unchanged, commit.as_str())
    );
    assert_eq!(text(&source.load(&commit).unwrap(), "a.yaml").unwrap(), "a");
}

#[test]
fn a_delta_upon_a_damaged_file_heals_the_store() {
    let (up, device) = (Upstream::new(), Device::new());
    let text = crate::support::noise(20_000, 3);
    up.commit("a.yaml", &text);
    fetch(&mut device.open(up.spec())).unwrap();
    let packs = device.repository().join("objects/pack");
    let pack = fs::read_dir(&packs)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|path| path.extension().is_some_and(|ext| ext == "pack"))
        .unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let end = bytes.len() - 20;
    bytes[end - 10_000..end].fill(0);
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();

    let second = up.commit("a.yaml", &format!("{text}\nmore\n"));
    let mut source = device.open(up.spec());
    let fetched = fetch(&mut source).unwrap();
    assert_eq!(
        (fetched.moved, fetched.revision.commit),
        (Moved::Forward, second.clone())
    );
    assert!(source.load(&second).is_ok());
}

#[test]
fn a_file_torn_at_any_length_is_noticed_and_fetched_anew() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", &crate::support::noise(5_000, 3));
    fetch(&mut device.open(up.spec())).unwrap();
    let second = up.commit("b.yaml", "b");
    fetch(&mut device.open(up.spec())).unwrap();
    let packs = device.repository().join("objects/pack");
    let names: Vec<_> = fs::read_dir(&packs)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    let state = fs::read(device.path().join("state.json")).unwrap();
    for name in names {
        let whole = fs::read(packs.join(&name)).unwrap();
        for length in [
            0,
            1,
            11,
            12,
            40,
            whole.len() / 2,
            whole.len() - 21,
            whole.len() - 1,
        ] {
            let torn = Device::new();
            let copy = torn.path().join("git-0/objects/pack");
            copy_dir(&device.path(), &torn.path());
            fs::remove_file(copy.join(&name)).unwrap();
            fs::write(copy.join(&name), &whole[..length]).unwrap();
            fs::write(torn.path().join("state.json"), &state).unwrap();
            let mut source = torn.open(up.spec());
            let loaded = source.load(&second);
            assert!(
                matches!(loaded, Ok(_) | Err(SourceError::Damaged { .. })),
                "{name:?} {length}: {loaded:?}"
            );
            let fetched = fetch(&mut source).unwrap();
            assert_eq!(fetched.moved, Moved::Unchanged, "{name:?} {length}");
            let tree = source.load(&second).unwrap();
            assert_eq!(paths(&tree), ["a.yaml", "b.yaml"], "{name:?} {length}");
        }
    }
    assert_ne!(first, second);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_lost_store_or_state_costs_a_clone_and_nothing_else() {
    let (up, device) = (Upstream::new(), Device::new());
    let commit = up.commit("a.yaml", "a");
    fetch(&mut device.open(up.spec())).unwrap();
    fs::remove_dir_all(device.repository()).unwrap();
    let mut source = device.open(up.spec());
    assert_eq!(
        source.held().unwrap().commit,
        commit,
        "what was held is remembered"
    );
    assert!(source.load(&commit).is_err());
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Unchanged);
    assert!(source.load(&commit).is_ok());
    drop(source);
    fs::write(device.path().join("state.json"), b"\0\0\0").unwrap();
    assert_eq!(fetch(&mut device.open(up.spec())).unwrap().moved, Moved::First);
}

#[test]
fn old_packs_are_written_into_one_and_kept_commits_stay() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("apps/a.yaml", "0");
    let limits = Limits { packs: 3, ..limits() };
    let mut source = device.open(up.spec()).with_limits(limits);
    fetch(&mut source).unwrap();
    source.keep(BTreeSet::from([first.clone()])).unwrap();
    let mut most = 0;
    let mut dropped = String::new();
    for i in 1..=9 {
        let commit = up.commit("apps/a.yaml", &i.to_string());
        let fetched = fetch(&mut source).unwrap();
        assert_eq!(
            (fetched.moved, &fetched.revision.commit),
            (Moved::Forward, &commit)
        );
        let files = fs::read_dir(device.repository().join("objects/pack"))
            .unwrap()
            .count();
        most = most.max(files);
        assert_eq!(
            text(&source.load(&commit).unwrap(), "apps/a.yaml").unwrap(),
            i.to_string()
        );
        if i == 1 {
            dropped = commit;
        }
    }
    assert!(
        most <= 6,
        "three packs and their indices at most, there were {most} files"
    );
    assert_eq!(text(&source.load(&first).unwrap(), "apps/a.yaml").unwrap(), "0");
    assert!(matches!(
        source.load(&dropped).unwrap_err(),
        SourceError::NotHeld { .. }
    ));
    drop(source);
    let source = device.open(up.spec());
    assert!(source.load(&first).is_ok() && source.load(&up.head()).is_ok());
}

#[test]
fn one_process_has_the_folder() {
    let (up, device) = (Upstream::new(), Device::new());
    let _first = device.open(up.spec());
    let err = GitSource::open(&device.path(), up.spec()).unwrap_err();
    assert!(matches!(err, SourceError::InUse { .. }), "{err}");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "a");
    up.git(&["tag", "v1.0.0"]);
    up.git(&["push", "-q", "origin", "v1.0.0"]);
    let check = |reference: GitRef, words: &[&str]| {
        let mut spec = up.spec();
        spec.reference = reference;
        let err = fetch(&mut device.open(spec)).unwrap_err().to_string();
        assert!(words.iter().all(|word| err.contains(word)), "{err}");
    };
    check(
        GitRef::Branch("prod".to_owned()),
        &["no branch \"prod\"", "there are main"],
    );
    check(
        GitRef::Tag("v9".to_owned()),
        &["no tag \"v9\"", "there are v1.0.0"],
    );
    check(
        GitRef::Semver(">=2".to_owned()),
        &["none of the 1 tags", ">=2", "there are 1.0.0"],
    );
    check(
        GitRef::Commit("1".repeat(40)),
        &["does not give commit 1111", "allowAnySHA1InWant"],
    );
}
