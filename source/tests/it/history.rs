//! What a reference names, and how history moved.

use crate::support::{Device, Upstream, fetch, limits, text};
use model::Moved;
use source::{GitRef, Limits};

#[test]
fn forward_backward_and_rewritten_are_told_apart_though_the_repository_is_shallow() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "1");
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();

    let second = up.commit("a.yaml", "2");
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Forward);
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Unchanged);

    up.git(&["reset", "-q", "--hard", &first]);
    up.push();
    assert_eq!(
        fetch(&mut source).unwrap().moved,
        Moved::Backward { from: second.clone() }
    );

    let other = up.commit("a.yaml", "3");
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Forward);
    up.git(&["reset", "-q", "--hard", &second]);
    up.push();
    assert_eq!(
        fetch(&mut source).unwrap().moved,
        Moved::Rewritten { from: other }
    );

    up.git(&["checkout", "-q", "--orphan", "new"]);
    up.git(&["branch", "-q", "-D", "main"]);
    up.git(&["checkout", "-q", "-b", "main"]);
    up.commit("a.yaml", "no common history");
    assert_eq!(
        fetch(&mut source).unwrap().moved,
        Moved::Rewritten { from: second }
    );
}

#[test]
fn a_device_that_was_away_sees_a_hundred_commits_as_forward() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "first");
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    for i in 0..100 {
        up.git(&["commit", "-q", "--allow-empty", "-m", &format!("{i}")]);
    }
    let last = up.commit("a.yaml", "last");
    let fetched = fetch(&mut source).unwrap();
    assert_eq!(
        (fetched.moved, fetched.revision.commit.as_str()),
        (Moved::Forward, last.as_str())
    );

    up.git(&["reset", "-q", "--hard", &first]);
    up.push();
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Backward { from: last });
}

#[test]
fn beyond_the_bound_nothing_is_called_forward() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "first");
    let mut source = device.open(up.spec()).with_limits(Limits {
        ancestry: 10,
        ..limits()
    });
    fetch(&mut source).unwrap();
    for i in 0..30 {
        up.git(&["commit", "-q", "--allow-empty", "-m", &format!("{i}")]);
    }
    up.commit("a.yaml", "last");
    assert_eq!(
        fetch(&mut source).unwrap().moved,
        Moved::Rewritten { from: first }
    );
}

#[test]
fn a_merge_of_a_branch_is_forward() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    up.git(&["checkout", "-q", "-b", "feature"]);
    up.commit("b.yaml", "1");
    up.commit("b.yaml", "2");
    up.git(&["checkout", "-q", "main"]);
    up.git(&["merge", "-q", "--no-ff", "-m", "merge", "feature"]);
    up.push();
    assert_eq!(fetch(&mut source).unwrap().moved, Moved::Forward);
}

#[test]
fn a_move_that_is_not_accepted_is_told_again() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    let good = source.held().unwrap().clone();
    up.git(&["commit", "-q", "--amend", "-m", "rewritten"]);
    up.push();
    let rewritten = Moved::Rewritten {
        from: good.commit.clone(),
    };
    assert_eq!(fetch(&mut source).unwrap().moved, rewritten);
    source.hold(&good).unwrap();
    assert_eq!(
        fetch(&mut source).unwrap().moved,
        rewritten,
        "still compared with what was accepted"
    );
    source.hold(&good).unwrap();
    // One on top of the refused one is no better.
    up.commit("a.yaml", "2");
    assert_eq!(fetch(&mut source).unwrap().moved, rewritten);
    source.hold(&good).unwrap();
    drop(source);
    assert_eq!(device.open(up.spec()).held(), Some(&good));
}

#[test]
fn tags_and_version_ranges_lead_to_their_commits() {
    let (up, device) = (Upstream::new(), Device::new());
    let mut commits = vec![];
    for tag in ["v1.0.0", "v1.9.0", "v1.10.0", "v2.0.0-rc.1", "2.0.0", "nightly"] {
        commits.push(up.commit("version", tag));
        // Annotated and light ones in turn.
        match commits.len() % 2 {
            0 => up.git(&["tag", tag]),
            _ => up.git(&["tag", "-a", "-m", "release", tag]),
        };
    }
    up.git(&["push", "-q", "origin", "--tags"]);
    let check = |reference: GitRef, tag: &str, index: usize| {
        let mut spec = up.spec();
        spec.reference = reference;
        let fetched = fetch(&mut device.open(spec)).unwrap();
        assert_eq!(
            (fetched.revision.reference.as_str(), &fetched.revision.commit),
            (tag, &commits[index])
        );
        if let Some(tree) = fetched.tree {
            assert_eq!(text(&tree, "version").unwrap(), tag);
        }
    };
    check(GitRef::Tag("v1.0.0".to_owned()), "v1.0.0", 0);
    check(GitRef::Tag("refs/tags/v1.9.0".to_owned()), "v1.9.0", 1);
    check(GitRef::Semver("1.x".to_owned()), "v1.10.0", 2);
    check(GitRef::Semver("<2.0.0-rc.2".to_owned()), "v2.0.0-rc.1", 3);
    check(GitRef::Semver(">=1".to_owned()), "2.0.0", 4);
    check(GitRef::Semver("~1.9".to_owned()), "v1.9.0", 1);
}

#[test]
fn a_pinned_commit_is_fetched_without_history_and_then_needs_no_network() {
    let (up, device) = (Upstream::new(), Device::new());
    for i in 0..5 {
        up.commit("old.yaml", &format!("{i}"));
    }
    let pinned = up.head();
    up.commit("a.yaml", "newer");
    let mut spec = up.spec();
    spec.reference = GitRef::Commit(pinned.clone());
    let mut source = device.open(spec.clone());
    let fetched = fetch(&mut source).unwrap();
    assert_eq!(
        (
            fetched.revision.commit.as_str(),
            fetched.revision.reference.as_str()
        ),
        (pinned.as_str(), "")
    );
    let commits = crate::support::git(&device.repository(), &["rev-list", "--count", &pinned]);
    assert_eq!(commits, "1");
    std::fs::remove_dir_all(up.bare()).unwrap();
    let again = fetch(&mut source).unwrap();
    assert_eq!((again.moved, again.bytes_received), (Moved::Unchanged, 0));
}

#[test]
fn a_refused_rewrite_does_not_spoil_what_comes_after() {
    let (up, device) = (Upstream::new(), Device::new());
    for i in 0..20 {
        up.git(&["commit", "-q", "--allow-empty", "-m", &i.to_string()]);
    }
    let good = up.commit("a.yaml", &crate::support::noise(9_000, 1));
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    let accepted = source.held().unwrap().clone();
    up.git(&["checkout", "-q", "-b", "other", "HEAD~5"]);
    up.git(&["branch", "-q", "-f", "main", "HEAD"]);
    up.git(&["checkout", "-q", "main"]);
    for i in 0..3 {
        up.commit("a.yaml", &format!("rewritten {i}"));
        let moved = fetch(&mut source).unwrap().moved;
        assert_eq!(moved, Moved::Rewritten { from: good.clone() }, "{i}");
        source.hold(&accepted).unwrap();
        drop(source);
        source = device.open(up.spec());
        assert!(source.load(&good).is_ok());
    }
    // Put right: on top of what was accepted.
    up.git(&["reset", "-q", "--hard", &good]);
    let text = format!("{}\nmore\n", crate::support::noise(9_000, 1));
    let next = up.commit("a.yaml", &text);
    let fetched = fetch(&mut source).unwrap();
    assert_eq!((fetched.moved, fetched.revision.commit), (Moved::Forward, next));
    assert!(
        fetched.bytes_received < 2_000,
        "still a delta: {}",
        fetched.bytes_received
    );
}
