//! Volumes in containers.

use crate::contract::{container, find, id, key, pod, start, stop};
use crate::rig::{Rig, eventually};
use crate::run_to_end;
use bytes::Bytes;
use model::{
    Action, Because, FileEntry, HostPathType, Mount, PodId, RestartPolicy, Step, Volume, VolumeSource,
};
use runtime::Engine as _;
use std::fs;

fn volume(name: &str, source: VolumeSource) -> Volume {
    Volume {
        name: name.to_owned(),
        source,
    }
}

fn mount(volume: &str, path: &str) -> Mount {
    Mount {
        volume: volume.to_owned(),
        path: path.to_owned(),
        sub_path: None,
        read_only: false,
    }
}

fn files(list: &[(&str, &str)]) -> VolumeSource {
    let entry = |data: &str| FileEntry {
        data: Bytes::from(data.to_owned()),
        mode: 0o400,
    };
    let files = list
        .iter()
        .map(|(path, data)| ((*path).to_owned(), entry(data)))
        .collect();
    VolumeSource::Files { files, secret: true }
}

#[tokio::test]
async fn root_containers_share_volumes_and_claims_outlive_pods() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let claim = || VolumeSource::Claim {
        claim: PodId {
            namespace: "default".to_owned(),
            name: "data".to_owned(),
        },
    };
    let mut run = pod(
        "writer",
        RestartPolicy::Never,
        "cat /disk/a /memory/b; echo kept > /data/file; stat -f -c %T /memory",
    );
    run.init_containers = vec![container("first", "echo one > /d/a; echo two > /m/b")];
    run.volumes = vec![
        volume(
            "disk",
            VolumeSource::EmptyDir {
                memory: false,
                size_limit: None,
            },
        ),
        volume(
            "memory",
            VolumeSource::EmptyDir {
                memory: true,
                size_limit: Some(1 << 20),
            },
        ),
        volume("data", claim()),
    ];
    run.init_containers[0].mounts = vec![mount("disk", "/d"), mount("memory", "/m")];
    run.containers[0].mounts = vec![
        mount("disk", "/disk"),
        mount("memory", "/memory"),
        mount("data", "/data"),
    ];
    assert_eq!(run_to_end(&engine, &run).await.1, "one\ntwo\ntmpfs\n");

    let mut run = pod(
        "reader",
        RestartPolicy::Never,
        "cat /data/file; touch /data/x 2>/dev/null || echo read-only",
    );
    run.volumes = vec![volume("data", claim())];
    run.containers[0].mounts = vec![Mount {
        read_only: true,
        ..mount("data", "/data")
    }];
    let (_, text) = run_to_end(&engine, &run).await;
    assert!(
        text.starts_with("kept\n") && text.ends_with("read-only\n"),
        "{text}"
    );
    drop(engine);
    rig.nothing_is_left();
}

/// Secrets are refreshed in a running container at once, and nothing of them is on disk.
#[tokio::test]
async fn root_files_are_refreshed_and_secrets_stay_in_memory() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let script = "cat /secret/key; echo; while ! grep -q second /secret/key; do sleep 0.05; done; echo; cat /secret/key; \
                  ls /secret; touch /secret/x 2>/dev/null || echo read-only; sleep 1000";
    let mut run = pod("secret", RestartPolicy::Always, script);
    run.volumes = vec![volume(
        "secret",
        files(&[("key", "first-c0nfidential"), ("old", "x")]),
    )];
    run.containers[0].mounts = vec![mount("secret", "/secret")];
    run.containers[0].env = vec![model::EnvVar::Value {
        name: "PASSWORD".to_owned(),
        value: "env-c0nfidential".to_owned(),
    }];
    engine.apply(&start(&run)).await.unwrap();
    let log = rig.pod_dir().join("logs/main/0.log");
    let reads = |what: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(what));
    eventually("the old secret", || reads("first-c0nfidential")).await;
    let before = find(&engine.observe().await.unwrap(), "secret").unwrap().files;
    assert_eq!(before, model::files_digest(&run.volumes));

    let fresh = vec![volume(
        "secret",
        files(&[("key", "second-c0nfidential"), ("new", "y")]),
    )];
    let step = Step {
        action: Action::RefreshFiles {
            pod: id("secret"),
            volumes: fresh.clone(),
        },
        about: key("secret"),
        because: Because::Changed,
    };
    engine.apply(&step).await.unwrap();
    assert_eq!(
        find(&engine.observe().await.unwrap(), "secret").unwrap().files,
        model::files_digest(&fresh)
    );
    eventually("the new secret", || reads("F read-only")).await;
    let text = fs::read_to_string(&log).unwrap();
    let words: Vec<_> = text.lines().filter_map(|line| line.split(" F ").nth(1)).collect();
    assert_eq!(
        words[..4],
        ["first-c0nfidential", "", "second-c0nfidentialkey", "new"]
    );
    fs::remove_file(&log).unwrap();
    assert_eq!(
        holding(rig.dir.path(), b"c0nfidential"),
        Vec::<std::path::PathBuf>::new()
    );
    engine.apply(&stop("secret")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

fn holding(dir: &std::path::Path, what: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holding(&path, what));
        } else if entry.file_type().unwrap().is_file()
            && fs::read(&path)
                .unwrap()
                .windows(what.len())
                .any(|window| window == what)
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn root_host_paths_and_sub_paths() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let host = rig.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the device\n").unwrap();
    std::os::unix::fs::symlink("/etc", host.join("way-out")).unwrap();
    let path = host.to_str().unwrap().to_owned();
    let mut run = pod(
        "paths",
        RestartPolicy::Never,
        "cat /one; echo made > /sub/x; cat /conf.txt",
    );
    run.volumes = vec![
        volume(
            "host",
            VolumeSource::HostPath {
                path: path.clone(),
                kind: HostPathType::Directory,
            },
        ),
        volume("conf", files(&[("a/conf.txt", "configured\n")])),
    ];
    let sub = |volume: &str, at: &str, path: &str| Mount {
        sub_path: Some(path.to_owned()),
        ..mount(volume, at)
    };
    run.containers[0].mounts = vec![
        sub("host", "/one", "file"),
        sub("host", "/sub", "deep/er"),
        sub("conf", "/conf.txt", "a/conf.txt"),
    ];
    assert_eq!(run_to_end(&engine, &run).await.1, "from the device\nconfigured\n");
    assert_eq!(fs::read_to_string(host.join("deep/er/x")).unwrap(), "made\n");

    // A link in the volume leads nowhere but into the volume.
    run.id = id("escape");
    run.containers[0].args = vec!["cat /out/passwd".to_owned()];
    run.containers[0].mounts = vec![sub("host", "/out", "way-out")];
    run.restart = RestartPolicy::Always;
    engine.apply(&start(&run)).await.unwrap();
    let seen = engine.observe().await.unwrap();
    let trouble = find(&seen, "escape").unwrap().trouble.clone();
    assert!(
        trouble.is_some_and(|trouble| trouble.contains("subPath \"way-out\"")),
        "{seen:?}"
    );
    engine.apply(&stop("escape")).await.unwrap();

    // A path that is not what its type says keeps the pod from starting, with the reason.
    run.id = id("wrong");
    run.containers[0].mounts = vec![mount("host", "/h")];
    run.volumes[0].source = VolumeSource::HostPath {
        path: format!("{path}/file"),
        kind: HostPathType::Directory,
    };
    engine.apply(&start(&run)).await.unwrap();
    let seen = engine.observe().await.unwrap();
    let trouble = find(&seen, "wrong").unwrap().trouble.clone();
    assert!(
        trouble.is_some_and(|trouble| trouble.contains("is not a folder")),
        "{seen:?}"
    );
    engine.apply(&stop("wrong")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}
