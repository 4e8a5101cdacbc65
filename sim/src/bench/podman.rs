//! The peer: `podman kube play` of the same manifests, with the same image, in a storage of its own.

use super::PATIENT;
use super::single::{count_reaches, image, layout, manifests, of_program};
use crate::cgroups;
use crate::progress::Progress;
use crate::world::World;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// Control group that podman puts its containers below.
const GROUP: &str = "/libpod_parent";

/// Podman, with the image in its storage and shown to work.
#[derive(Debug)]
pub(super) struct Podman {
    /// With its version.
    pub(super) name: String,
    dir: PathBuf,
}

impl Podman {
    /// Loads the image and plays one pod, so that what it makes once is made.
    pub(super) async fn prepare(world: &World, progress: &Progress) -> Result<Self> {
        let dir = home(world.dir());
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("containers.conf"), limits()?)?;
        let mut podman = Self {
            name: String::new(),
            dir,
        };
        let version = podman.run(&["--version"]).await?;
        podman.name = format!("{} kube play", version.trim().replace(" version", ""));
        let id = podman
            .run(&["pull", "--quiet", &format!("oci:{}", layout(world).display())])
            .await?;
        podman.run(&["tag", id.trim(), &image()]).await?;
        let time = podman.play(1, "warm").await?;
        progress.step(&format!(
            "the peer is {}; its first pod took {time:.2} s",
            podman.name
        ));
        Ok(podman)
    }

    /// Seconds from the start of the command to that many processes running; the pods are removed again.
    pub(super) async fn play(&self, pods: usize, mark: &str) -> Result<f64> {
        let file = self.dir.join("pods.yaml");
        fs::write(&file, manifests(pods, mark))?;
        let file = file.to_string_lossy();
        let start = Instant::now();
        let words = ["kube", "play", "--quiet", &file];
        let running = count_reaches(pods, start, || of_program(cgroups::processes_below(GROUP)).len());
        let both = tokio::try_join!(running, self.run(&words));
        let down = self.run(&["kube", "down", &file]).await;
        let (time, _) = both?;
        down?;
        count_reaches(0, Instant::now(), || {
            of_program(cgroups::processes_below(GROUP)).len()
        })
        .await?;
        Ok(time)
    }

    async fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command
            .args(options(&self.dir))
            .args(words)
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let out = tokio::time::timeout(PATIENT, command.output())
            .await
            .with_context(|| format!("podman {} takes too long", words.join(" ")))?
            .context("cannot start podman; is it installed?")?;
        if !out.status.success() {
            bail!(
                "podman {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

fn home(world: &Path) -> PathBuf {
    world.join("podman")
}

fn options(dir: &Path) -> Vec<String> {
    let root = dir.join("root").to_string_lossy().into_owned();
    let run = dir.join("run").to_string_lossy().into_owned();
    [
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "--root",
        &root,
        "--runroot",
        &run,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Podman asks for more than a root without `CAP_SYS_RESOURCE` may give: its limits are held to our own hard ones, and
/// its processes to the kernel's numbers, as podman holds itself to them before it starts a container.
fn limits() -> Result<String> {
    use nix::sys::resource::{Resource, getrlimit};
    const PID_MAX: &str = "/proc/sys/kernel/pid_max";
    let numbers: u64 = fs::read_to_string(PID_MAX)
        .context(PID_MAX)?
        .trim()
        .parse()
        .context(PID_MAX)?;
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let (_, processes) = getrlimit(Resource::RLIMIT_NPROC)?;
    let processes = processes.min(numbers);
    Ok(format!(
        "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n"
    ))
}

/// Removes what is left of podman's pods; its storage goes with the world's folder.
pub(super) fn remove(world: &Path) {
    let dir = home(world);
    if !dir.is_dir() {
        return;
    }
    // Best effort: podman may not be there at all.
    let _ = std::process::Command::new("podman")
        .args(options(&dir))
        .args(["pod", "rm", "--all", "--force", "--time", "0"])
        .env("CONTAINERS_CONF", dir.join("containers.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    crate::world::unmount_below(&dir);
    // Stays where someone else's podman has containers in it.
    cgroups::remove_empty(GROUP);
}
