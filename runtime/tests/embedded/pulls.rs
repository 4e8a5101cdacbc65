//! Images from a registry with passwords: Debian's docker-registry, and the real image store of a device.

use crate::contract::{pod, start, stop};
use crate::rig::{Rig, skipped};
use blobs::build::{ImageBuild, ImageFile, Source};
use blobs::{
    Credentials, Endpoint, Images, Patience, Progress, Quota, Registries, RegistryConfig, Store,
    UnpackOptions,
};
use model::{ImageRef, Platform, PullSecret, RestartPolicy};
use runtime::embedded::Embedded;
use runtime::{Engine as _, Pulls};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const IMAGE: &str = "r.test/team/app:1";

/// Stopped when dropped.
struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    /// Lets in `user` with password `pw` only.
    fn start(dir: &Path) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            assert!(std::env::var("CI").is_err(), "docker-registry is not installed");
            skipped("docker-registry is not installed");
            return None;
        }
        fs::create_dir_all(dir).unwrap();
        let root = dir.display();
        // By bcrypt.
        let line = "user:$2b$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q\n";
        fs::write(dir.join("passwords"), line).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"{address}\"}}\n\
             auth: {{htpasswd: {{realm: test, path: {root}/passwords}}}}\n"
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let registry = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "docker-registry does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn client(&self) -> Registries {
        let registries = Registries::new(Patience::default());
        let endpoint = Endpoint::plain(&format!("http://{}", self.address));
        registries
            .configure("r.test", RegistryConfig::at(endpoint))
            .unwrap();
        registries
    }

    /// Builds an image of busybox and pushes it.
    async fn fill(&self, dir: &Path) {
        let store = Store::open(&dir.join("publisher"), Quota::default()).unwrap();
        let file = |path: &str, source| ImageFile {
            path: path.to_owned(),
            source,
            mode: None,
        };
        let build = ImageBuild {
            platform: Platform::host(),
            files: vec![
                file("bin/busybox", Source::Path("/bin/busybox".into())),
                file("bin/sh", Source::Symlink("busybox".to_owned())),
                file("bin/sleep", Source::Symlink("busybox".to_owned())),
            ],
            config: blobs::oci::ImageConfig::default(),
            allow_dynamic: false,
        };
        let built = build.build(&store).unwrap();
        let who = Credentials::Basic {
            user: "user".to_owned(),
            password: "pw".to_owned(),
        };
        let image: ImageRef = IMAGE.parse().unwrap();
        self.client()
            .push(
                &store,
                &built.manifest.digest,
                &image,
                Some(&who),
                Progress::none(),
            )
            .await
            .unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn secret(password: &str) -> PullSecret {
    let entry = format!(r#"{{"username": "user", "password": "{password}"}}"#);
    PullSecret(format!(r#"{{"auths": {{"r.test/team": {entry}}}}}"#))
}

/// Reasons and messages of what was told since.
async fn told(engine: &Embedded, read: &mut BTreeMap<String, u64>) -> Vec<(String, String)> {
    let events = engine.events(read).await.unwrap();
    events
        .into_iter()
        .map(|told| {
            read.insert(told.source, told.position);
            (told.event.reason, told.event.message)
        })
        .collect()
}

fn reasons(told: &[(String, String)]) -> Vec<&str> {
    told.iter().map(|(reason, _)| reason.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pull_secret_opens_the_registry_and_what_is_kept_needs_none_again() {
    let Some(rig) = Rig::new() else { return };
    let dir = rig.dir.path().join("images");
    let Some(registry) = Registry::start(&dir.join("registry")) else {
        return;
    };
    registry.fill(&dir).await;
    let store = Store::open(&dir.join("blobs"), Quota::default()).unwrap();
    let options = UnpackOptions::for_this_process();
    let images = Images::open(&dir.join("device"), store, registry.client(), options).unwrap();
    let engine = Embedded::open(rig.config(), Arc::new(images.clone()), None)
        .await
        .unwrap();
    let mut read = BTreeMap::new();
    let mut run = pod("app", RestartPolicy::Always, "sleep 1000");
    run.containers[0].image = IMAGE.parse().unwrap();

    for (secrets, why) in [
        (vec![], "imagePullSecret"),
        (vec![secret("wrong")], "credentials"),
    ] {
        run.pull_secrets = secrets;
        let refusal = engine.apply(&start(&run)).await.unwrap_err().to_string();
        assert!(refusal.contains(IMAGE) && refusal.contains(why), "{refusal}");
        let told = told(&engine, &mut read).await;
        assert_eq!(reasons(&told), ["Pulling", "Failed"]);
        assert!(told[1].1.starts_with("Failed to pull image"), "{told:?}");
        assert!(!told[1].1.contains("wrong"), "{told:?}");
    }

    run.pull_secrets = vec![secret("pw")];
    let mut pulls = engine.pulls();
    let furthest = tokio::spawn(async move {
        let mut furthest = Pulls::new();
        while pulls.changed().await.is_ok() {
            let now = pulls.borrow_and_update().clone();
            if now.is_empty() {
                break;
            }
            furthest = now;
        }
        furthest
    });
    engine.apply(&start(&run)).await.unwrap();
    let told_of = told(&engine, &mut read).await;
    let mut seen = reasons(&told_of);
    // The engine's own journal and the pod's have no order between them.
    seen.sort_unstable();
    assert_eq!(seen, ["Created", "Pulled", "Pulling", "Started"]);
    let furthest = furthest.await.unwrap();
    let last = furthest[&IMAGE.parse::<ImageRef>().unwrap()];
    assert!(last.total > 0 && last.done == last.total, "{last:?}");
    engine.apply(&stop("app")).await.unwrap();

    // Nobody runs it any more; a generation that the device may go back to still keeps it, without any registry.
    engine
        .keep(&BTreeSet::from([IMAGE.parse().unwrap()]))
        .await
        .unwrap();
    drop(registry);
    images.collect(Duration::ZERO).unwrap();
    run.pull_secrets = Vec::new();
    engine.apply(&start(&run)).await.unwrap();
    engine.apply(&stop("app")).await.unwrap();
    engine.keep(&BTreeSet::new()).await.unwrap();
    let gone = images.collect(Duration::ZERO).unwrap();
    assert_eq!(gone.images, 1);
    drop(engine);
    rig.nothing_is_left();
}
