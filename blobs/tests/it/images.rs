//! Images end to end with a real registry.

use crate::common::*;
use blobs::oci::ImageConfig;
use blobs::{ImageError, Progress};
use model::{ImageRef, PullPolicy};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Three layers with everything that a layer may do to those below.
fn layers() -> Vec<(Vec<u8>, &'static str)> {
    let long = format!("usr/{}/name", "long-".repeat(40));
    let base = tar(&[
        ("etc/", Put::Dir(0o755)),
        ("etc/old", Put::File(0o644, b"old")),
        ("etc/kept", Put::File(0o600, b"kept")),
        ("srv/data/", Put::Dir(0o750)),
        ("srv/data/a", Put::File(0o644, b"a")),
        ("tmp/", Put::Dir(0o1777)),
        ("usr/bin/", Put::Dir(0o755)),
        ("usr/bin/su", Put::File(0o4755, b"set-user-id")),
        ("usr/bin/su-too", Put::Hardlink("usr/bin/su")),
        ("usr/lib/", Put::Dir(0o755)),
        ("bin", Put::Symlink("usr/bin")),
        (&long, Put::File(0o644, b"long")),
    ]);
    let second = tar(&[
        ("etc/.wh.old", Put::File(0, b"")),
        ("srv/data/.wh..wh..opq", Put::File(0, b"")),
        ("srv/data/b", Put::File(0o644, b"b")),
        ("tmp/x", Put::File(0o644, b"x")),
    ]);
    let third = tar(&[
        ("etc/new", Put::File(0o644, b"new")),
        ("bin/tool", Put::File(0o755, b"tool")),
    ]);
    vec![(base, "+gzip"), (second, "+zstd"), (third, "")]
}

fn config() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/bin/tool".to_owned()],
        env: vec!["A=b".to_owned()],
        exposed_ports: vec!["80/tcp".to_owned()],
        ..ImageConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_once_and_serves_without_a_network() {
    if !have("docker-registry") {
        return;
    }
    let mut registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let registries = registries(&registry.url());
    let source = store(&dir.path().join("source"));
    let (amd64, arm64) = (platform("linux/amd64"), platform("linux/arm64/v8"));
    let first = image(&source, &amd64, &layers(), config());
    let second = image(&source, &arm64, &layers()[..1], config());
    let top = index(&source, vec![first.clone(), second]);
    let name: ImageRef = "r.test/apps/web:1".parse().unwrap();
    registries
        .push(&source, &top, &name, None, Progress::none())
        .await
        .unwrap();

    let device = dir.path().join("device");
    let images_ = images(&device, &registries);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let progress = Progress::new(move |done, total| told.lock().unwrap().push((done, total)));
    let held = images_
        .ensure(&name, &amd64, PullPolicy::IfNotPresent, progress)
        .await
        .unwrap();
    assert_eq!(held.manifest, first.digest);
    assert_eq!(held.config, config());
    assert_eq!(held.layers.len(), 3);
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.is_sorted()
            && seen
                .last()
                .is_some_and(|(done, total)| done == total && *total > 500),
        "{seen:?}"
    );

    // What layers only pass through is as it is below, links included.
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&held.layers[0].join("usr/bin/su")), 0o4755);
    assert_eq!(
        fs::metadata(held.layers[0].join("usr/bin/su")).unwrap().nlink(),
        2
    );
    assert_eq!(mode(&held.layers[1].join("tmp")), 0o1777);
    assert!(
        fs::metadata(held.layers[1].join("etc/old"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert_eq!(fs::read(held.layers[2].join("usr/bin/tool")).unwrap(), b"tool");
    assert!(!held.layers[2].join("bin").exists());

    registry.stop();
    // The tag, the digest of the index and that of the manifest, at each policy, over a restart.
    drop(images_);
    let images_ = images(&device, &registries);
    for reference in [
        name.to_string(),
        format!("r.test/apps/web@{top}"),
        format!("r.test/apps/web@{}", first.digest),
    ] {
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            let again = images_
                .ensure(&reference.parse().unwrap(), &amd64, policy, Progress::none())
                .await
                .unwrap();
            assert_eq!(again, held);
        }
    }
    let err = images_
        .ensure(&name, &arm64, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap_err();
    assert!(err.is_transient(), "{err}");
    let err = images_
        .ensure(&name, &arm64, PullPolicy::Never, Progress::none())
        .await
        .unwrap_err();
    assert!(matches!(err, ImageError::NotPresent { .. }), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_pins_is_collected_and_what_is_pinned_stays() {
    if !have("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let registries = registries(&registry.url());
    let source = store(&dir.path().join("source"));
    let amd64 = platform("linux/amd64");
    let big = image(&source, &amd64, &layers(), config());
    let small = image(&source, &amd64, &layers()[..1], config());
    let (one, two): (ImageRef, ImageRef) = ("r.test/a:1".parse().unwrap(), "r.test/b:1".parse().unwrap());
    registries
        .push(&source, &big.digest, &one, None, Progress::none())
        .await
        .unwrap();
    registries
        .push(&source, &small.digest, &two, None, Progress::none())
        .await
        .unwrap();

    let images_ = images(dir.path(), &registries);
    let held = images_
        .ensure(&one, &amd64, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap();
    images_.pin("pod-1", &held).unwrap();
    let small = images_
        .ensure(&two, &amd64, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap();
    assert_eq!(small.layers[0], held.layers[0], "shared");
    assert_eq!(
        images_.collect(Duration::from_secs(3600)).unwrap().images,
        0,
        "asked for just now"
    );
    let collected = images_.collect(Duration::ZERO).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 0));
    assert!(images_.local(&two, &amd64).await.unwrap().is_none());
    assert_eq!(images_.local(&one, &amd64).await.unwrap(), Some(held));
    assert_eq!(images_.owners(), ["pod-1"]);
    images_.unpin("pod-1").unwrap();
    let collected = images_.collect(Duration::ZERO).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 3));
    assert_eq!(fs::read_dir(images_.layers_dir()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_what_is_wrong_and_the_remedy() {
    if !have("docker-registry") {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let registries = registries(&registry.url());
    let source = store(&dir.path().join("source"));
    let pi = image(&source, &platform("linux/arm/v7"), &layers()[..1], config());
    let pc = image(&source, &platform("linux/amd64"), &layers()[..1], config());
    let both = index(&source, vec![pi.clone(), pc]);
    for (name, digest) in [("r.test/index:1", both), ("r.test/single:1", pi.digest)] {
        registries
            .push(&source, &digest, &name.parse().unwrap(), None, Progress::none())
            .await
            .unwrap();
    }
    let images_ = images(dir.path(), &registries);
    let check = async |name: &str, words: &[&str]| {
        let wanted = platform("linux/arm64");
        let result = images_
            .ensure(
                &name.parse().unwrap(),
                &wanted,
                PullPolicy::Always,
                Progress::none(),
            )
            .await;
        let text = kit::chain(&result.unwrap_err());
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    check(
        "r.test/index:1",
        &["r.test/index:1", "linux/arm64", "linux/arm/v7, linux/amd64"],
    )
    .await;
    check("r.test/single:1", &["linux/arm/v7", "linux/arm64", "build it"]).await;
    check(
        "r.test/nothing:1",
        &["image r.test/nothing:1 does not exist", "check its name and tag"],
    )
    .await;
    check(
        "127.0.0.1:1/x:1",
        &["https://127.0.0.1:1/v2/x/manifests/1", "cannot be reached"],
    )
    .await;
    assert_eq!(fs::read_dir(images_.layers_dir()).unwrap().count(), 0);
}

/// Mounts the layers as the engine does and compares with what umoci unpacks of the same image.
#[tokio::test(flavor = "multi_thread")]
async fn root_overlayfs_shows_what_umoci_unpacks() {
    if !have("docker-registry") || !have("skopeo") || !have("umoci") || !is_root() {
        return;
    }
    let registry = DockerRegistry::start();
    let dir = tempfile::tempdir().unwrap();
    let registries = registries(&registry.url());
    let source = store(&dir.path().join("source"));
    let amd64 = platform("linux/amd64");
    // umoci writes through a link of a layer below where we follow it too; it knows no zstd.
    let gzipped: Vec<_> = layers().into_iter().map(|(plain, _)| (plain, "+gzip")).collect();
    let top = image(&source, &amd64, &gzipped[..2], config());
    let name: ImageRef = "r.test/apps/web:1".parse().unwrap();
    registries
        .push(&source, &top.digest, &name, None, Progress::none())
        .await
        .unwrap();
    let images_ = images(dir.path(), &registries);
    let held = images_
        .ensure(&name, &amd64, PullPolicy::IfNotPresent, Progress::none())
        .await
        .unwrap();

    let layout = dir.path().join("layout");
    let from = format!("docker://{}/apps/web:1", registry.address);
    run(Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", &from])
        .arg(format!("oci:{}:1", layout.display())));
    let bundle = dir.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:1", layout.display()))
        .arg(&bundle));

    let merged = dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let lower: Vec<_> = held
        .layers
        .iter()
        .rev()
        .map(|layer| layer.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let options = format!("lowerdir={}", lower.join(":"));
    run(Command::new("mount")
        .current_dir(images_.layers_dir())
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged));
    let list = |root: &Path| {
        run(Command::new("find").current_dir(root).args([
            ".",
            "-mindepth",
            "1",
            "-printf",
            "%P %y %m %U:%G %l %T@\n",
        ]))
    };
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (ours, theirs) = (sorted(list(&merged)), sorted(list(&bundle.join("rootfs"))));
    run(Command::new("umount").arg(&merged));
    // Times of folders that no layer describes are the moment's with umoci.
    let timeless = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .map(|line| {
                if line.contains(" d ") {
                    line.rsplit_once(' ').unwrap().0.to_owned()
                } else {
                    line.clone()
                }
            })
            .collect()
    };
    assert_eq!(timeless(&ours), timeless(&theirs));
    assert!(
        ours.iter().any(|line| line.starts_with("srv/data/b "))
            && !ours.iter().any(|line| line.contains("data/a"))
    );
}
