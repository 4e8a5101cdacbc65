//! `leeward dev` by a user who is not root: a hub, a device, a container, a bad link, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod user;

use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use user::{PATIENCE, User, is_root, namespaces};

/// A user that no system has.
const USER: u32 = 61_234;
const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: sleeper
spec:
  selector:
    matchLabels:
      app: sleeper
  template:
    metadata:
      labels:
        app: sleeper
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: sleeper
          image: registry.leeward.internal/test/busybox:1
          args: [\"sleep\", \"100000\"]
          resources:
            limits:
              memory: 32Mi
";

/// Processes of the user; nobody else has it.
fn processes() -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;

    let mine = |dir: &fs::DirEntry| dir.metadata().is_ok_and(|meta| meta.uid() == USER);
    let pids = fs::read_dir("/proc").unwrap().flatten().filter(mine);
    let line = |dir: fs::DirEntry| fs::read_to_string(dir.path().join("cmdline")).unwrap_or_default();
    pids.map(line).filter(|line| !line.is_empty()).collect()
}

#[test]
fn root_a_user_who_is_not_root_has_a_world_of_their_own() {
    let user = User::new(USER);
    if !namespaces(&user) {
        return;
    }
    let (code, _, said) = user.try_leeward(&["dev", "up", "pi-1=raspberry-pi-5"]);
    assert_eq!(code, Some(0), "{said}{}", user.logs());
    assert!(
        said.contains("no memory limits") && said.contains("no CPU limits"),
        "{said}"
    );
    // The hub is reached from outside the world's network.
    user.push_busybox();
    user.push_workload(DEPLOYMENT);
    user.device_becomes("running a container", |device| {
        device["phase"] == "ready" && device["workloads"] == 1 && device["workloadsReady"] == 1
    });

    let (code, _, said) = user.try_leeward(&["dev", "cut", "pi-2"]);
    assert!(code == Some(5) && said.contains("pi-1"), "{code:?} {said}");
    let (code, _, said) = user.try_leeward(&["dev", "shape", "pi-1", "--delay", "100"]);
    assert!(code == Some(2) && said.contains("200ms"), "{code:?} {said}");
    user.leeward(&[
        "dev",
        "shape",
        "pi-1",
        "--rate=1mbit",
        "--delay=100ms",
        "--loss=1%",
    ]);
    let link = &user.json(&["dev", "status", "-o", "json"])[0];
    assert_eq!(link["shape"], "1mbit 100ms 1%");
    assert!(link["roundTrip"].as_f64().unwrap() >= 200.0, "{link}");
    // A pull goes through all the same.
    let before = user.json(&["get", "devices", "-o", "json"])[0]["generation"]["revision"].clone();
    user.push_workload(&DEPLOYMENT.replace("32Mi", "33Mi"));
    user.device_becomes("on the next revision", |device| {
        device["generation"]["revision"] != before && device["phase"] == "ready"
    });
    user.leeward(&["dev", "restore", "pi-1"]);
    assert_eq!(user.json(&["dev", "status", "-o", "json"])[0]["shape"], "");

    // The hub's authority rolls over; neither the device nor this person is shut out.
    user.leeward(&["hub", "authority", "roll"]);
    let state = user.json(&["hub", "authority", "list", "-o", "json"]);
    let roles: Vec<&Value> = state["authorities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["role"])
        .collect();
    assert_eq!(roles, ["old", "issuing"]);
    let (code, _, said) = user.try_leeward(&["hub", "authority", "retire"]);
    assert!(code == Some(3) && said.contains("pi-1"), "{code:?} {said}");
    user.device_becomes("connected again", |device| device["link"] == "Connected");

    user.leeward(&["dev", "down"]);
    assert!(!user.world().exists());
    if is_root() {
        let start = Instant::now();
        while !processes().is_empty() {
            assert!(start.elapsed() < PATIENCE, "left behind: {:?}", processes());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
