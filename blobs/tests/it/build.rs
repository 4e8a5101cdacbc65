//! Built images, with skopeo and umoci as judges.

use crate::common::*;
use blobs::build::{ImageBuild, ImageFile, Source, export_layout, index};
use blobs::oci::ImageConfig;
use blobs::{Progress, UnpackOptions};
use model::{ImageRef, Platform, PullPolicy};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A static program of this machine, as Debian's busybox-static ships it.
fn busybox() -> Option<PathBuf> {
    let path = Path::new("/bin/busybox");
    let elf = fs::File::open(path)
        .ok()
        .and_then(|mut file| blobs::build::Elf::read(&mut file).ok()?);
    let found = elf.is_some_and(|elf| elf.loader.is_none());
    assert!(
        found || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "apt-get install busybox-static"
    );
    if !found {
        eprintln!("SKIPPED: busybox-static is not installed");
    }
    found.then(|| path.to_owned())
}

fn build(busybox: &Path) -> ImageBuild {
    let file = |path: &str, source, mode| ImageFile {
        path: path.to_owned(),
        source,
        mode,
    };
    ImageBuild {
        platform: Platform::host(),
        files: vec![
            file("/bin/busybox", Source::Path(busybox.to_owned()), None),
            file("/bin/sh", Source::Symlink("busybox".to_owned()), None),
            file("/etc/motd", Source::Bytes(b"hello\n".to_vec()), Some(0o600)),
            file("/tmp/x", Source::Bytes(Vec::new()), None),
        ],
        config: ImageConfig {
            entrypoint: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            cmd: vec!["/bin/busybox cat /etc/motd".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            exposed_ports: vec!["8080/tcp".to_owned()],
            working_dir: "/tmp".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..ImageConfig::default()
        },
        allow_dynamic: false,
    }
}

#[test]
fn root_others_understand_what_is_built_and_it_runs() {
    let Some(busybox) = busybox() else { return };
    if !have("skopeo") || !have("umoci") || !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let held = store(dir.path());
    let built = build(&busybox).build(&held).unwrap();
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    let top = index(&held, std::slice::from_ref(&built)).unwrap();
    let layout = dir.path().join("layout");
    export_layout(&held, &top, &layout, "v1").unwrap();

    let image = format!("oci:{}:v1", layout.display());
    let config = run(Command::new("skopeo").args(["inspect", "--config", &image]));
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/sh");
    assert_eq!(
        config["config"]["ExposedPorts"]["8080/tcp"],
        serde_json::json!({})
    );
    assert_eq!(config["architecture"], Platform::host().architecture.as_str());

    // umoci takes a manifest, not an index: skopeo chooses one as a device would.
    let single = format!("{}:v1", dir.path().join("single").display());
    run(Command::new("skopeo").args(["copy", &image, &format!("oci:{single}")]));
    let bundle = dir.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image", &single])
        .arg(&bundle));
    let root = bundle.join("rootfs");
    assert_eq!(
        fs::metadata(root.join("etc/motd")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        run(Command::new("chroot")
            .arg(&root)
            .args(["/bin/sh", "-c", "/bin/busybox cat /etc/motd"])),
        "hello\n"
    );
}

/// In a user namespace with a single user, as where nobody is root: pulled, unpacked, mounted, run.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_runs_in_a_user_namespace() {
    let Some(busybox) = busybox() else { return };
    let in_namespace = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-e", "-c", command]);
        unshare
    };
    if !in_namespace("true").status().is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "user namespaces are needed in CI"
        );
        eprintln!("SKIPPED: no user namespaces here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let source = store(&dir.path().join("source"));
    let built = build(&busybox).build(&source).unwrap();
    // A second layer that hides things of the first.
    let above = tar(&[
        ("etc/.wh.motd", Put::File(0, b"")),
        ("tmp/.wh..wh..opq", Put::File(0, b"")),
    ]);
    let manifest = source.read(&built.manifest.digest, 1 << 20).unwrap().unwrap();
    let mut manifest: blobs::oci::Manifest = serde_json::from_slice(&manifest).unwrap();
    let config = source.read(&manifest.config.digest, 1 << 20).unwrap().unwrap();
    let mut config: blobs::oci::ConfigFile = serde_json::from_slice(&config).unwrap();
    config.rootfs.diff_ids.push(model::Digest::of(&above));
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let size = above.len() as u64;
    manifest.layers.push(blobs::oci::Descriptor::new(
        kind,
        source.put(&above).unwrap(),
        size,
    ));
    let config = serde_json::to_vec(&config).unwrap();
    manifest.config.size = config.len() as u64;
    manifest.config.digest = source.put(&config).unwrap();
    let top = source.put(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let name: ImageRef = "r.test/apps/web:1".parse().unwrap();
    registries(&ours.url())
        .push(&source, &top, &name, None, Progress::none())
        .await
        .unwrap();

    let merged = dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let test = std::env::current_exe().unwrap();
    let script = format!(
        "'{test}' --exact build::child_pulls_for_a_namespace --ignored >&2; cd \"$TEST_DIR\"
         mount -t overlay overlay -o userxattr,lowerdir=$(cat lower) '{merged}'
         chroot '{merged}' /bin/busybox find / -mindepth 2 | sort",
        test = test.display(),
        merged = merged.display(),
    );
    let device = dir.path().join("device");
    fs::create_dir(&device).unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let mut command = in_namespace(&script);
        run(command.env("TEST_DIR", &device).env("TEST_URL", ours.url()))
    });
    assert_eq!(shown.await.unwrap(), "/bin/busybox\n/bin/sh\n");
}

#[tokio::test]
#[ignore = "a child process of another test"]
async fn child_pulls_for_a_namespace() {
    let dir = PathBuf::from(std::env::var_os("TEST_DIR").unwrap());
    assert_eq!(
        UnpackOptions::for_this_process().ownership,
        blobs::unpack::Ownership::Squash
    );
    let images_ = images(&dir, &registries(&std::env::var("TEST_URL").unwrap()));
    let name: ImageRef = "r.test/apps/web:1".parse().unwrap();
    let held = images_
        .ensure(&name, &Platform::host(), PullPolicy::Always, Progress::none())
        .await
        .unwrap();
    let lower: Vec<_> = held
        .layers
        .iter()
        .rev()
        .map(|layer| layer.to_str().unwrap())
        .collect();
    fs::write(dir.join("lower"), lower.join(":")).unwrap();
}
