//! One device: idle, with ten pods, from apply to running, after a reboot.

use super::podman::Podman;
use super::report::Row;
use super::{PATIENT, Plan, RUNS, idle, median};
use crate::progress::Progress;
use crate::run::run;
use crate::until::until;
use crate::world::{REGISTRY, World};
use crate::{cgroups, local, process};
use anyhow::{Context as _, Result, ensure};
use model::{Phase, WorkloadState};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The device; its name stays apart from those of the fleet.
const DEVICE: &str = "bench-1";
/// The folders that the classes of the demo read.
const FOLDERS: [&str; 2] = ["clusters/edge-pi", "clusters/edge-jetson"];
/// Program of the containers.
const PROGRAM: &[u8] = b"/demo-app";

/// Figures that are measured in turns with podman.
pub(super) const APPLY: [&str; 2] = ["apply-one", "apply-ten"];
/// Figures of ten pods.
pub(super) const TEN: [&str; 3] = ["ten-pss", "shim-pss", "reboot-ten"];

/// Image of every container here.
pub(super) fn image() -> String {
    format!("{REGISTRY}/bench/app:1")
}

/// Where the image's layout is, for peers.
pub(super) fn layout(world: &World) -> PathBuf {
    world.dir().join("layout")
}

/// A repository without workloads, and the image.
pub(super) fn prepare(world: &World, app: &Path) -> Result<()> {
    let (program, tree) = (world.program().to_string_lossy(), world.work_tree());
    fs::create_dir_all(&tree)?;
    run(
        "git",
        &[
            "init",
            "--quiet",
            "--initial-branch=main",
            &tree.to_string_lossy(),
        ],
    )?;
    deploy(world, 0, "first")?;
    let author = ["-c", "user.name=Leeward", "-c", "user.email=dev@leeward.internal"];
    crate::run::run_in(&tree, "git", &["add", "--all"])?;
    crate::run::run_in(
        &tree,
        "git",
        &[&author[..], &["commit", "--quiet", "--message", "Nothing yet"]].concat(),
    )?;
    world.publish_repository()?;
    let (access, layout) = (world.access_file(), layout(world));
    let words = [
        "--access",
        &access.to_string_lossy(),
        "image",
        "build",
        "--tag",
        &image(),
        "--add",
        &format!("{}:/demo-app", app.display()),
        "--entrypoint",
        "/demo-app",
        "--push",
        "--layout",
        &layout.to_string_lossy(),
    ];
    run(&program, &words)?;
    Ok(())
}

/// The manifests of so many pods; a different `mark` makes them other pods.
pub(super) fn manifests(pods: usize, mark: &str) -> String {
    let image = image();
    (0..pods)
        .map(|number| {
            format!(
                "apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-{number}
spec:
  replicas: 1
  selector:
    matchLabels:
      app: app-{number}
  template:
    metadata:
      labels:
        app: app-{number}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: app
          image: {image}
          imagePullPolicy: IfNotPresent
          command: [\"/demo-app\", \"hello\"]
          env:
            - name: MARK
              value: {mark:?}
"
            )
        })
        .collect::<Vec<_>>()
        .join("---\n")
}

/// Writes a revision with so many pods into the work tree.
pub(super) fn deploy(world: &World, pods: usize, mark: &str) -> Result<()> {
    let note = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mark\ndata:\n  mark: {mark:?}\n");
    let list = if pods == 0 { "" } else { "  - pods.yaml\n" };
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - mark.yaml\n{list}"
    );
    for folder in FOLDERS {
        let dir = world.work_tree().join(folder);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("kustomization.yaml"), &kustomization)?;
        fs::write(dir.join("mark.yaml"), &note)?;
        let file = dir.join("pods.yaml");
        if pods == 0 {
            kit::disk::remove_if_there(&file)?;
        } else {
            fs::write(file, manifests(pods, mark))?;
        }
    }
    Ok(())
}

/// Everything that one device tells.
pub(super) async fn measure(
    world: &mut World,
    plan: &Plan,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    progress.chapter("One device");
    world.add_device(DEVICE, "raspberry-pi-5").await?;
    as_in_the_field(world)?;
    world.start_agent(DEVICE)?;
    settled(world, None, 0).await?;
    progress.step("enrolled, with one generation and no containers");
    if plan.wants_any(&idle::NAMES) {
        idle::measure(world, DEVICE, plan, progress, rows).await?;
    }
    if plan.wants_any(&APPLY) {
        apply(world, plan, progress, rows).await?;
    }
    if plan.wants_any(&TEN) {
        to(world, 10, "ten").await?;
        if plan.wants_any(&["ten-pss", "shim-pss"]) {
            memory(world, plan, progress, rows).await?;
        }
        if plan.wants("reboot-ten") {
            reboot(world, progress, rows).await?;
        }
    }
    world.kill_agent(DEVICE)?;
    kill_pods()
}

/// The agent's own defaults instead of the demo's short intervals, and a repository on its own disk: podman is given a
/// file too. What a Git server takes is in the fleet's figure.
fn as_in_the_field(world: &World) -> Result<()> {
    let file = world.dir().join("devices").join(DEVICE).join("agent.yaml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let short = ["  interval: 2s\n", "heartbeat: 5s\n"];
    let mut kept = text.clone();
    for line in short {
        ensure!(text.contains(line), "{} does not hold {line:?}", file.display());
        kept = kept.replace(line, "");
    }
    let here = format!("  url: file://{}\n", world.repository().display());
    let lines: Vec<&str> = kept.split_inclusive('\n').collect();
    let kept: String = lines
        .iter()
        .map(|line| if line.starts_with("  url: ") { &here } else { *line })
        .collect();
    ensure!(kept.contains(&here), "{} names no repository", file.display());
    fs::write(&file, kept)?;
    Ok(())
}

/// Pushes a revision with so many pods, lets the device look, and gives the time from that to all processes running.
async fn to(world: &World, pods: usize, mark: &str) -> Result<f64> {
    deploy(world, pods, mark)?;
    let commit = world.push(&format!("{pods} pods, {mark}"))?.context("a change")?;
    let device = world.device(DEVICE)?;
    let start = Instant::now();
    local::sync(world, device)?;
    let time = count_reaches(pods, start, || containers().len()).await?;
    settled(world, Some(&commit), pods).await?;
    Ok(time)
}

/// Seconds since `start` once `count` gives that many.
pub(super) async fn count_reaches(wanted: usize, start: Instant, count: impl Fn() -> usize) -> Result<f64> {
    loop {
        let now = count();
        if now == wanted {
            return Ok(start.elapsed().as_secs_f64());
        }
        ensure!(
            start.elapsed() < PATIENT,
            "{now} of {wanted} container processes run after {} s",
            PATIENT.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the device is healthy with this commit.
async fn settled(world: &World, commit: Option<&str>, pods: usize) -> Result<()> {
    let device = world.device(DEVICE)?;
    until("the device", PATIENT, || async {
        let status = local::status(world, device)?;
        let runs = status
            .generation
            .revision
            .as_ref()
            .map(|revision| revision.commit.as_str());
        ensure!(runs.is_some(), "no generation yet: {:?}", status.source.error);
        ensure!(
            commit.is_none() || runs == commit,
            "it runs {runs:?} and not {commit:?}"
        );
        ensure!(status.phase == Phase::Ready, "it is {:?}", status.phase);
        let current = status
            .workloads
            .iter()
            .filter(|w| w.state == WorkloadState::Current)
            .count();
        ensure!(current == pods, "{current} of {pods} workloads are current");
        let left = containers().len();
        ensure!(left == pods, "{left} container processes run, of {pods}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Processes of the device that run the containers' program.
fn containers() -> Vec<i32> {
    of_program(cgroups::processes(DEVICE))
}

/// Those of some processes that run the containers' program.
pub(super) fn of_program(pids: Vec<i32>) -> Vec<i32> {
    let runs = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(PROGRAM)
    };
    pids.into_iter().filter(runs).collect()
}

async fn apply(world: &World, plan: &Plan, progress: &Progress, rows: &mut Vec<Row>) -> Result<()> {
    let peer = match Podman::prepare(world, progress).await {
        Ok(peer) => Some(peer),
        Err(why) => {
            progress.step(&format!("no peer: podman does not run here: {why:#}"));
            None
        }
    };
    // Pulls and unpacks the image; every run after this has it.
    to(world, 1, "warm").await?;
    to(world, 0, "warm").await?;
    for (name, pods) in [(APPLY[0], 1), (APPLY[1], 10)] {
        if !plan.wants(name) {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for number in 0..RUNS {
            let mark = format!("{name} {number}");
            ours.push(to(world, pods, &mark).await?);
            to(world, 0, &mark).await?;
            if let Some(podman) = &peer {
                theirs.push(podman.play(pods, &mark).await?);
            }
        }
        progress.step(&format!("{name}: ours {ours:.3?} s, podman {theirs:.3?} s"));
        let ours = median(ours).context("a run")?;
        let peer = peer
            .as_ref()
            .map(|podman| podman.name.clone())
            .zip(median(theirs));
        rows.push(Row::beside(name, ours, peer));
    }
    Ok(())
}

async fn memory(world: &World, plan: &Plan, progress: &Progress, rows: &mut Vec<Row>) -> Result<()> {
    progress.step("ten pods: memory is looked at for 60 s, a minute from now");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let agent = world.device(DEVICE)?.agent.context("the agent was started")?;
    let (mut all, mut each) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let shims: Vec<u64> = cgroups::processes(DEVICE)
            .into_iter()
            .filter(|pid| process::is_shim(*pid))
            .filter_map(process::pss)
            .collect();
        ensure!(shims.len() >= 10, "{} shims serve ten pods", shims.len());
        let shims = mib(shims.iter().sum());
        each.push(shims / 10.0);
        all.push(shims + mib(agent.pss().context("memory of the agent")?));
    }
    for (name, values) in [("ten-pss", all), ("shim-pss", each)] {
        if plan.wants(name) {
            rows.push(Row::alone(name, median(values).context("a sample")?));
        }
    }
    Ok(())
}

/// The link is cut, every process killed and the boot another one; then the agent starts.
async fn reboot(world: &mut World, progress: &Progress, rows: &mut Vec<Row>) -> Result<()> {
    let mut times = Vec::new();
    for number in 0..RUNS {
        world.cut(DEVICE)?;
        world.kill_agent(DEVICE)?;
        kill_pods()?;
        let sysroot = world.dir().join("devices").join(DEVICE).join("sysroot");
        device::fixture::set_boot_id(&sysroot, &format!("00000000-0000-4000-8000-{number:012}"))?;
        let start = Instant::now();
        world.start_agent(DEVICE)?;
        times.push(count_reaches(10, start, || containers().len()).await?);
        settled(world, None, 10).await?;
        world.restore(DEVICE)?;
    }
    progress.step(&format!("reboot-ten: {times:.2?} s"));
    rows.push(Row::alone("reboot-ten", median(times).context("a run")?));
    Ok(())
}

/// Kills shims and containers, and waits until none is left.
fn kill_pods() -> Result<()> {
    let start = Instant::now();
    loop {
        let left = cgroups::processes(DEVICE);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENT, "processes {left:?} do not end");
        for pid in left {
            // It may have gone with the one before it.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
