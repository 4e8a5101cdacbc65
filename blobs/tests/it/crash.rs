//! Processes that are killed, disks that are full or damaged, callers that go away.

use crate::common::*;
use blobs::oci::{Descriptor, ImageConfig};
use blobs::store::CHUNK_BYTES;
use blobs::{Images, Progress, Quota, Store, UnpackOptions};
use model::{ImageRef, PullPolicy};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "r.test/apps/web:1";

/// An image whose one layer has `bytes` that do not compress.
async fn pushed(ours: &OurRegistry, dir: &Path, bytes: usize) -> Descriptor {
    let source = store(&dir.join("source"));
    let layer = tar(&[("file", Put::File(0o644, &noise(bytes, 1)))]);
    let built = image(
        &source,
        &platform("linux/amd64"),
        &[(layer, "")],
        ImageConfig::default(),
    );
    let registries = registries(&ours.url());
    registries
        .push(
            &source,
            &built.digest,
            &NAME.parse().unwrap(),
            None,
            Progress::none(),
        )
        .await
        .unwrap();
    let manifest = source.read(&built.digest, 1 << 20).unwrap().unwrap();
    serde_json::from_slice::<blobs::oci::Manifest>(&manifest)
        .unwrap()
        .layers[0]
        .clone()
}

async fn ensure(images: &Images) -> Result<blobs::LocalImage, blobs::ImageError> {
    let name: ImageRef = NAME.parse().unwrap();
    images
        .ensure(
            &name,
            &platform("linux/amd64"),
            PullPolicy::IfNotPresent,
            Progress::none(),
        )
        .await
}

/// What a child process does: pulls, and says the most memory that it ever held.
#[tokio::test]
#[ignore = "a child process of other tests"]
async fn child_pulls() {
    let dir = PathBuf::from(std::env::var_os("TEST_DIR").unwrap());
    let images_ = images(&dir, &registries(&std::env::var("TEST_URL").unwrap()));
    ensure(&images_).await.unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    fs::write(dir.join("peak"), peak.split_whitespace().nth(1).unwrap()).unwrap();
}

fn child(dir: &Path, url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_pulls", "--ignored", "--nocapture"])
        .envs([("TEST_DIR", dir.as_os_str()), ("TEST_URL", url.as_ref())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// F12 and F4: kill -9 in the middle of a pull, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_killed_at_any_moment_goes_on_with_its_last_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let blob = pushed(&ours, dir.path(), usize::try_from(6 * CHUNK_BYTES).unwrap()).await;
    let link = Link::to(ours.address);
    link.hang_instead();
    let device = dir.path().join("device");
    fs::create_dir(&device).unwrap();
    let partial = device.join("store/partial").join(blob.digest.hex());
    let length = || fs::metadata(&partial).map_or(0, |meta| meta.len());
    let mut at = 0;
    for upto in [
        1000,
        CHUNK_BYTES + 1,
        2 * CHUNK_BYTES - 1,
        4 * CHUNK_BYTES + 12_345,
    ] {
        // The manifest and the configuration come over the same connection first.
        link.cut_at([upto - at + 4000]);
        let mut child = child(&device, &link.url());
        let deadline = Instant::now() + Duration::from_secs(60);
        while length() < upto {
            assert!(Instant::now() < deadline, "{} of {upto} bytes came", length());
            assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let came = length();
        at = store(&device).partial(&blob.digest, blob.size).unwrap().at();
        assert!(came - at <= CHUNK_BYTES, "{came} bytes came, it goes on at {at}");
        assert_eq!(fs::read_dir(device.join("images/layers")).unwrap().count(), 0);
    }
    link.take_counts();
    assert!(child(&device, &link.url()).wait().unwrap().success());
    let (carried, _) = link.take_counts();
    assert!(
        carried <= blob.size - at + 4096,
        "{carried} bytes where {} were missing",
        blob.size - at
    );
    ensure(&images(&device, &registries("http://127.0.0.1:1")))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_64_mib_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    pushed(&ours, dir.path(), 64 << 20).await;
    let device = dir.path().join("device");
    fs::create_dir(&device).unwrap();
    let started = Instant::now();
    assert!(child(&device, &ours.url()).wait().unwrap().success());
    let peak: u64 = fs::read_to_string(device.join("peak")).unwrap().parse().unwrap();
    eprintln!(
        "64 MiB layer pulled and unpacked in {:?}, peak {peak} KiB",
        started.elapsed()
    );
    assert!(peak < 40 * 1024, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_share_a_pull_and_may_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let blob = pushed(&ours, dir.path(), 3_000_000).await;
    let link = Link::to(ours.address);
    let images_ = images(&dir.path().join("device"), &registries(&link.url()));
    let (one, two, three) = tokio::join!(ensure(&images_), ensure(&images_), ensure(&images_));
    assert_eq!(one.unwrap().layers, two.unwrap().layers);
    three.unwrap();
    let (carried, _) = link.take_counts();
    assert!(
        carried < blob.size + 20_000,
        "{carried} bytes for one layer of {}",
        blob.size
    );

    // Callers that lose patience again and again leave nothing broken behind.
    let images_ = images(&dir.path().join("other"), &registries(&link.url()));
    for patience in 0..40 {
        let _ = tokio::time::timeout(Duration::from_millis(patience), ensure(&images_)).await;
    }
    ensure(&images_).await.unwrap();
}

/// F1 for `imagePullPolicy: Always`: a registry that says nothing costs one short wait, not one for each pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_does_not_hold_up_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    pushed(&ours, dir.path(), 10_000).await;
    let patient = blobs::Registries::new(blobs::Patience::default());
    let place = blobs::RegistryConfig::at(blobs::Endpoint::plain(&ours.url()));
    patient.configure("r.test", place).unwrap();
    let images_ = images(&dir.path().join("device"), &patient);
    let held = ensure(&images_).await.unwrap();
    // From now on connections are accepted, and nothing is said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", silent.local_addr().unwrap());
    patient
        .configure(
            "r.test",
            blobs::RegistryConfig::at(blobs::Endpoint::plain(&nowhere)),
        )
        .unwrap();
    let name: ImageRef = NAME.parse().unwrap();
    let started = Instant::now();
    for _ in 0..20 {
        let again = images_
            .ensure(
                &name,
                &platform("linux/amd64"),
                PullPolicy::Always,
                Progress::none(),
            )
            .await;
        assert_eq!(again.unwrap(), held);
    }
    // Twenty waits would be a minute; the bound is far from both.
    assert!(
        started.elapsed() < Duration::from_secs(25),
        "{:?}",
        started.elapsed()
    );
}

/// F5: what a power cut may leave of the images' own files.
#[tokio::test(flavor = "multi_thread")]
async fn torn_files_of_images_are_cleaned_or_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    pushed(&ours, dir.path(), 10_000).await;
    let device = dir.path().join("device");
    let held = ensure(&images(&device, &registries(&ours.url()))).await.unwrap();
    let list = device.join("images/images.json");
    let whole = fs::read(&list).unwrap();
    for end in (0..whole.len()).step_by(37) {
        fs::write(&list, &whole[..end]).unwrap();
        fs::write(list.with_extension("json.tmp"), &whole[..end]).unwrap();
        fs::create_dir_all(device.join("images/tmp/0123456789abcdef/half")).unwrap();
        // The second copy serves without a network; without both, the registry is asked.
        let first = end % 2 == 0;
        if !first {
            fs::write(device.join("images/images.second.json"), &whole[..end]).unwrap();
        }
        let url = if first {
            "http://127.0.0.1:1".to_owned()
        } else {
            ours.url()
        };
        let images_ = images(&device, &registries(&url));
        assert!(!device.join("images/tmp/0123456789abcdef").exists());
        assert_eq!(ensure(&images_).await.unwrap(), held, "list of {end} bytes");
        if !first {
            assert_eq!(fs::read(&list).unwrap(), whole);
        }
    }
    // A document damaged on disk: absent, and fetched again.
    let manifest = device.join("store/blobs/sha256").join(held.manifest.hex());
    fs::write(&manifest, b"{}").unwrap();
    let images_ = images(&device, &registries(&ours.url()));
    assert!(
        images_
            .local(&NAME.parse().unwrap(), &platform("linux/amd64"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(ensure(&images_).await.unwrap(), held);
    // A layer that is gone is made again from its blob, or from the registry without it.
    fs::remove_dir_all(&held.layers[0]).unwrap();
    assert_eq!(ensure(&images_).await.unwrap(), held);
    assert!(held.layers[0].join("file").exists());
}

/// A blob that rots between its download and its unpacking is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_blob_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let blob = pushed(&ours, dir.path(), 100_000).await;
    let device = dir.path().join("device");
    let store_ = store(&device);
    let name: ImageRef = NAME.parse().unwrap();
    registries(&ours.url())
        .fetch_blob(&store_, &name, &blob, None, Progress::none())
        .await
        .unwrap();
    let path = store_.path(&blob.digest).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(store_);
    ensure(&images(&device, &registries(&ours.url()))).await.unwrap();
    assert!(device.join("store/bad").join(blob.digest.hex()).exists());
}

/// A file system of its own, of so many bytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path()));
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// F7: a pull that cannot fit is refused before it starts, one that fills the disk leaves nothing, and both come
/// right by themselves when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_refuses_pulls_and_recovers() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ours = OurRegistry::start(&dir.path().join("hub")).await;
    let mib = 1 << 20;
    let blob = pushed(&ours, dir.path(), 4 * mib).await;
    let link = Link::to(ours.address);
    let disk = SmallDisk::new(16 * mib as u64);
    let at = disk.0.path();
    let quota = Quota {
        max_bytes: u64::MAX,
        keep_free: 2 * mib as u64,
    };
    let store_ = Store::open(&at.join("store"), quota).unwrap();
    let options = UnpackOptions {
        keep_free: 0,
        ..UnpackOptions::for_this_process()
    };
    let images_ = Images::open(
        &at.join("images"),
        store_.clone(),
        registries(&link.url()),
        options,
    )
    .unwrap();
    let ballast = at.join("ballast");

    fs::write(&ballast, vec![1; 12 * mib]).unwrap();
    let err = ensure(&images_).await.unwrap_err();
    assert!(err.is_full() && err.is_transient(), "{err}");
    assert!(kit::chain(&err).contains("no room for"), "{err}");
    let (carried, _) = link.take_counts();
    assert!(carried < 10_000, "{carried} bytes came though there was no room");
    assert!(!store_.has(&blob.digest));

    // Room for the blob, but not for what it unpacks to.
    fs::write(&ballast, vec![1; 9 * mib]).unwrap();
    let err = ensure(&images_).await.unwrap_err();
    assert!(err.is_full(), "{}", kit::chain(&err));
    assert_eq!(fs::read_dir(images_.layers_dir()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at.join("images/tmp")).unwrap().count(), 0);

    fs::remove_file(&ballast).unwrap();
    link.take_counts();
    ensure(&images_).await.unwrap();
    let (carried, _) = link.take_counts();
    assert!(carried < 10_000, "the blob came again");
}
