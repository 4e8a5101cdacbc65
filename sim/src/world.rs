//! A hub, a Git server and a fleet of simulated devices on this machine.
//!
//! Everything is real but the boards: each device is a `leeward agent` process in its own network namespace and control
//! group, with a fixture of its class's `proc` and `sys`.

use crate::process::Process;
use crate::run::run_in;
use crate::shape::Shape;
use crate::{cgroups, net, rootless};
use anyhow::{Context as _, Result, bail, ensure};
use device::Class;
use model::{ClassName, DeviceName};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::ApiClient;
use wire::api::NewToken;

/// Port of the hub, where nothing else on this machine has it.
pub const HUB_PORT: u16 = 7443;
const GIT_PORT: u16 = 7418;
/// Registry name in the scaffold's manifests; each device maps it to its hub.
pub const REGISTRY: &str = "registry.leeward.internal";
/// What a world's folder remembers.
pub(crate) const LEDGER: &str = "world.json";
/// The bare repository.
const REPOSITORY: &str = "fleet.git";
/// How long a process may take to be there.
const START: Duration = Duration::from_secs(60);

/// One simulated device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SimDevice {
    /// Its name.
    pub name: DeviceName,
    /// Its class.
    pub class: ClassName,
    /// Its place in the address plan.
    pub index: u8,
    /// Its agent, where one was started.
    pub agent: Option<Process>,
    /// What its link is limited to.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// The process that disturbs its link, where the kernel cannot.
    #[serde(default)]
    relay: Option<Process>,
}

impl SimDevice {
    /// Its address on the simulated internet.
    pub fn address(&self) -> Ipv4Addr {
        net::address(self.index)
    }

    /// Whether its agent runs.
    pub fn alive(&self) -> bool {
        self.agent.is_some_and(Process::alive)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    hub: Option<Process>,
    /// Where the hub listens, once that is settled: devices know it.
    port: Option<u16>,
    git: Option<Process>,
    devices: Vec<SimDevice>,
}

/// There is no simulated device of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no simulated device {name}; there are: {}", if known.is_empty() { "none; `leeward dev up` starts some" } else { known })]
pub struct NoDevice {
    name: String,
    known: String,
}

/// The world, kept in a folder.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    program: PathBuf,
    agent_program: PathBuf,
    hub_config: Option<PathBuf>,
    ledger: Ledger,
}

/// Devices that `up` starts where none are named.
pub const FLEET: &[(&str, &str)] = &[
    ("jetson-1", "jetson-orin-nx"),
    ("pi5-1", "raspberry-pi-5"),
    ("pi5-2", "raspberry-pi-5"),
    ("pi4-1", "raspberry-pi-4"),
];

/// Names of the devices of the world in a folder, where there is one.
pub fn names(dir: &Path) -> Vec<String> {
    let ledger = kit::disk::read_if_there(&dir.join(LEDGER)).ok().flatten();
    let ledger: Option<Ledger> = ledger.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let devices = ledger.map(|ledger| ledger.devices).unwrap_or_default();
    devices
        .into_iter()
        .map(|device| device.name.to_string())
        .collect()
}

impl World {
    /// Opens the world of a folder; `program` is the `leeward` binary that its processes run.
    ///
    /// # Errors
    /// Where the user is not root, also in namespaces of its own (see [`crate::rootless`]).
    pub fn open(dir: &Path, program: &Path) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "simulated devices need a root of their own"
        );
        kit::disk::create_dir_all(dir)?;
        let dir = &dir.canonicalize()?;
        let path = dir.join(LEDGER);
        let ledger = match kit::disk::read_if_there(&path)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?
            }
            None => Ledger::default(),
        };
        Ok(Self {
            dir: dir.to_owned(),
            program: program.to_owned(),
            agent_program: program.to_owned(),
            hub_config: None,
            ledger,
        })
    }

    /// Agents that are started from now on run another program than the hub: what is shipped to devices.
    pub fn run_agents_with(&mut self, program: &Path) {
        program.clone_into(&mut self.agent_program);
    }

    /// A hub that is started from now on has this configuration.
    pub fn configure_hub(&mut self, file: Option<PathBuf>) {
        self.hub_config = file;
    }

    /// The `leeward` binary that everything here runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Work tree of the fleet's repository.
    pub fn work_tree(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// All devices.
    pub fn devices(&self) -> &[SimDevice] {
        &self.ledger.devices
    }

    /// One device.
    ///
    /// # Errors
    /// Where there is none of this name; names those that there are.
    pub fn device(&self, name: &str) -> Result<&SimDevice> {
        self.ledger
            .devices
            .iter()
            .find(|d| d.name.as_str() == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.ledger.devices.iter().map(|d| d.name.as_str()).collect();
                let (name, known) = (name.to_owned(), known.join(", "));
                NoDevice { name, known }.into()
            })
    }

    /// Whether the hub runs.
    pub fn hub_alive(&self) -> bool {
        self.ledger.hub.is_some_and(Process::alive)
    }

    /// The hub's port.
    pub fn port(&self) -> u16 {
        self.ledger.port.unwrap_or(HUB_PORT)
    }

    /// The hub's process.
    pub fn hub(&self) -> Option<Process> {
        self.ledger.hub
    }

    /// State folder of a device's agent.
    pub fn state_of(&self, device: &SimDevice) -> PathBuf {
        self.dir.join("devices").join(device.name.as_str()).join("state")
    }

    /// The file with which people talk to the hub.
    pub fn access_file(&self) -> PathBuf {
        self.dir.join("hub/access.yaml")
    }

    /// A client of the hub's API.
    ///
    /// # Errors
    /// Where the hub has not written its access file yet.
    pub fn api(&self) -> Result<ApiClient> {
        let access = self.access()?;
        Ok(ApiClient::new(
            access.hub.parse()?,
            identity::tls::person(&access.ca)?,
            &access.token,
        ))
    }

    /// The hub's address, authority and token, as its own file says.
    ///
    /// # Errors
    /// As [`World::api`].
    pub fn access(&self) -> Result<Access> {
        let path = self.access_file();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Starts network, hub and Git server.
    ///
    /// # Errors
    /// With the end of the log of what did not come up.
    pub async fn up(&mut self) -> Result<()> {
        self.up_with("2s").await
    }

    /// As [`World::up`], with the time between heartbeats on the links to the hub.
    ///
    /// # Errors
    /// As [`World::up`].
    pub async fn up_with(&mut self, heartbeat: &str) -> Result<()> {
        net::up(&self.dir).inspect_err(|_| {
            // A world that is refused leaves nothing; one that was there before has its ledger in the folder.
            let _ = fs::remove_dir(&self.dir);
        })?;
        if !self.hub_alive() {
            let port = self.settle_port()?;
            let mut hub = Command::new(&self.program);
            hub.arg("hub").arg("--data").arg(self.dir.join("hub"));
            hub.args(["--listen", &format!("0.0.0.0:{port}")]);
            if rootless::inside() {
                // The first name is the one for people, and they are outside.
                hub.args(["--name", "localhost"]);
            }
            hub.args(["--name", &net::CLOUD.to_string(), "--heartbeat", heartbeat]);
            if let Some(file) = &self.hub_config {
                hub.arg("--config").arg(file);
            }
            self.ledger.hub = Some(Process::start(&mut hub, &self.dir.join("hub.log"))?);
            self.save()?;
        }
        if !self.ledger.git.is_some_and(Process::alive) {
            let mut git = Command::new(&self.program);
            git.args(["dev", "serve-git", "--root"]).arg(self.dir.join("git"));
            git.args(["--listen", &format!("{}:{GIT_PORT}", net::CLOUD)]);
            self.ledger.git = Some(Process::start(&mut git, &self.dir.join("git.log"))?);
            self.save()?;
        }
        let until = Instant::now() + START;
        loop {
            if let Ok(api) = self.api()
                && api.devices().await.is_ok()
            {
                return Ok(());
            }
            if !self.hub_alive() || Instant::now() > until {
                bail!(
                    "the hub did not come up:\n{}",
                    tail(&self.dir.join("hub.log"), 20)
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The port that the hub had before, the one that is carried out of our namespaces, the usual one, or any.
    fn settle_port(&mut self) -> Result<u16> {
        let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let port = match (self.ledger.port, rootless::port()) {
            (Some(port), _) => {
                free(port).with_context(|| {
                    format!(
                        "port {port}, at which the devices of this world know their hub, is used by something else; \
                         end that, or start afresh with `leeward dev --dir {} down`",
                        self.dir.display()
                    )
                })?;
                port
            }
            (None, Some(port)) => port,
            (None, None) => free(HUB_PORT).or_else(|_| free(0))?.local_addr()?.port(),
        };
        self.ledger.port = Some(port);
        Ok(port)
    }

    /// The bare repository that the devices follow.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("git").join(REPOSITORY)
    }

    /// Makes the bare repository and pushes the work tree's history into it.
    ///
    /// # Errors
    /// What git says.
    pub fn publish_repository(&self) -> Result<()> {
        let bare = self.repository();
        if !bare.exists() {
            fs::create_dir_all(self.dir.join("git"))?;
            let path = bare.to_string_lossy();
            run_in(
                &self.dir,
                "git",
                &["init", "--quiet", "--bare", "--initial-branch=main", &path],
            )?;
            run_in(&self.work_tree(), "git", &["remote", "add", "origin", &path])?;
        }
        run_in(
            &self.work_tree(),
            "git",
            &["push", "--quiet", "--set-upstream", "origin", "HEAD:main"],
        )?;
        Ok(())
    }

    /// Commits everything in the work tree and pushes it. Returns the commit, or `None` where nothing changed.
    ///
    /// # Errors
    /// What git says.
    pub fn push(&self, message: &str) -> Result<Option<String>> {
        let tree = self.work_tree();
        run_in(&tree, "git", &["add", "--all"])?;
        if !run_in(&tree, "git", &["status", "--porcelain"])?.is_empty() {
            let author = ["-c", "user.name=Leeward", "-c", "user.email=dev@leeward.internal"];
            run_in(
                &tree,
                "git",
                &[&author[..], &["commit", "--quiet", "--message", message]].concat(),
            )?;
        } else if run_in(&tree, "git", &["log", "--oneline", "origin/main..HEAD"])?.is_empty() {
            return Ok(None);
        }
        run_in(&tree, "git", &["push", "--quiet", "origin", "HEAD:main"])?;
        Ok(Some(
            run_in(&tree, "git", &["rev-parse", "HEAD"])?.trim().to_owned(),
        ))
    }

    /// Adds a device: namespace, fixture, enrolment token, configuration.
    ///
    /// # Errors
    /// Where the class is not known or the hub gives no token.
    pub async fn add_device(&mut self, name: &str, class: &str) -> Result<()> {
        if let Ok(known) = self.device(name) {
            // After the machine was started again, its network is gone.
            net::add_device(name, known.index)?;
            return net::default_route(name, true);
        }
        let taken = |index: &u8| self.ledger.devices.iter().any(|device| device.index == *index);
        let index = (0..200u8)
            .find(|index| !taken(index))
            .context("200 devices are the most that fit")?;
        let device = SimDevice {
            name: name.parse()?,
            class: class.parse()?,
            index,
            agent: None,
            shape: None,
            relay: None,
        };
        let found = Class::find(&device.class)?;
        let home = self.dir.join("devices").join(name);
        fs::create_dir_all(&home)?;
        net::add_device(name, index)?;
        net::default_route(name, true)?;
        device::fixture::write(&device.class, &home.join("sysroot"))?;
        let new = NewToken {
            class: Some(device.class.clone()),
            site: Some("workbench".to_owned()),
            ttl_seconds: Some(3600),
            ..NewToken::default()
        };
        let token = self.api()?.create_token(&new).await?.token;
        kit::disk::replace_mode(&home.join("token"), token.as_bytes(), 0o600)?;
        fs::write(
            home.join("agent.yaml"),
            agent_config(&device, &home, &found.folder, self.port()),
        )?;
        self.ledger.devices.push(device);
        self.save()
    }

    /// Starts a device's agent, if it does not run.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn start_agent(&mut self, name: &str) -> Result<Vec<String>> {
        let device = self.device(name)?.clone();
        if device.alive() {
            return Ok(Vec::new());
        }
        let home = self.dir.join("devices").join(name);
        // `nsenter` changes the network alone; `ip netns exec` would hide the control groups behind a new /sys.
        let mut agent = Command::new("nsenter");
        agent.arg(format!("--net={}", net::namespace_path(name).display()));
        agent
            .env(cgroups::MARK, name)
            .arg(&self.agent_program)
            .args(["agent", "--config"])
            .arg(home.join("agent.yaml"));
        let process = Process::start(&mut agent, &home.join("agent.log"))?;
        let class = Class::find(&device.class)?;
        let gaps = cgroups::hold(name, process.pid, class.cpu_milli, class.memory)?;
        self.change(name, |device| device.agent = Some(process))?;
        Ok(gaps)
    }

    /// `kill -9` of a device's agent; its pods are nobody's child then, and live on.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn kill_agent(&mut self, name: &str) -> Result<()> {
        if let Some(agent) = self.device(name)?.agent {
            agent.kill();
        }
        self.change(name, |device| device.agent = None)
    }

    /// Cuts a device's link.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn cut(&self, name: &str) -> Result<()> {
        net::cut(self.device(name)?.index)
    }

    /// Restores it: neither cut nor limited.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn restore(&mut self, name: &str) -> Result<()> {
        let device = self.device(name)?.clone();
        if device.shape.is_some() {
            self.unshape(&device)?;
        }
        net::restore(device.index)
    }

    /// Whether a device's link is cut.
    ///
    /// # Errors
    /// What nft says.
    pub fn is_cut(&self, device: &SimDevice) -> Result<bool> {
        net::is_cut(device.index)
    }

    /// Limits a device's link, in place of what limited it before.
    ///
    /// # Errors
    /// Where there is no such device, what tc says, or where neither kernel nor process can disturb the link.
    pub fn shape(&mut self, name: &str, shape: Shape) -> Result<()> {
        let device = self.device(name)?.clone();
        self.unshape(&device)?;
        if net::shape(name, device.index, &shape)? {
            let log = self.dir.join("devices").join(name).join("link.log");
            let mut relay = Command::new(&self.program);
            let (delay, loss) = shape.disturbance();
            relay.args(["dev", "relay", &device.index.to_string()]);
            relay.args([format!("--delay={delay}"), format!("--loss={loss}")]);
            let relay = Process::start(&mut relay, &log)?;
            self.change(name, |device| device.relay = Some(relay))?;
            let until = Instant::now() + START;
            while !net::detour_leads_on(device.index) {
                if !relay.alive() || Instant::now() > until {
                    let why = tail(&log, 3);
                    self.unshape(&device)?;
                    bail!("the link of {name} is as it was: {why}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.change(name, |device| device.shape = Some(shape))
    }

    fn unshape(&mut self, device: &SimDevice) -> Result<()> {
        let name = device.name.as_str();
        if let Some(relay) = self.device(name)?.relay {
            relay.kill();
        }
        net::unshape(name, device.index)?;
        self.change(name, |device| (device.shape, device.relay) = (None, None))
    }

    /// How long a round trip between a device and its hub takes now.
    ///
    /// # Errors
    /// Where there is no such device, or no way through.
    pub fn round_trip(&self, device: &SimDevice) -> Result<Duration> {
        net::round_trip(device.name.as_str(), self.port())
    }

    /// Stops everything and removes all that was made, the folder included.
    ///
    /// # Errors
    /// Where the folder cannot be removed.
    pub fn down(&mut self) -> Result<()> {
        for device in &self.ledger.devices {
            let name = device.name.as_str();
            for process in [device.agent, device.relay].into_iter().flatten() {
                process.kill();
            }
            for pid in cgroups::processes(name) {
                // Shims and containers; each may have gone with the one before it.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        for process in [self.ledger.hub, self.ledger.git].into_iter().flatten() {
            process.stop(Duration::from_secs(5));
        }
        std::thread::sleep(Duration::from_millis(200));
        for device in &self.ledger.devices {
            let name = device.name.as_str();
            unmount_below(&self.dir.join("devices").join(name));
            net::remove_device(name, device.index);
            cgroups::remove(name);
        }
        net::down();
        self.ledger = Ledger::default();
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    fn change(&mut self, name: &str, edit: impl FnOnce(&mut SimDevice)) -> Result<()> {
        if let Some(device) = self
            .ledger
            .devices
            .iter_mut()
            .find(|device| device.name.as_str() == name)
        {
            edit(device);
        }
        self.save()
    }

    fn save(&self) -> Result<()> {
        kit::disk::replace(&self.dir.join(LEDGER), &serde_json::to_vec_pretty(&self.ledger)?)?;
        Ok(())
    }
}

/// See [`World::access`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `host:port`.
    pub hub: String,
    /// PEM.
    pub ca: String,
    /// Bearer token.
    pub token: String,
}

fn agent_config(device: &SimDevice, home: &Path, cluster_path: &str, port: u16) -> String {
    let home = home.display();
    let cloud = net::CLOUD;
    let third = 100 + u16::from(device.index);
    format!(
        "apiVersion: leeward.dev/v1alpha1
kind: Agent
device: {name}
class: {class}
site: workbench
state: {home}/state
sysroot: {home}/sysroot
cgroup: {cgroup}
heartbeat: 5s
hub:
  address: {cloud}:{port}
  tokenFile: {home}/token
source:
  url: http://{cloud}:{GIT_PORT}/{REPOSITORY}
  branch: main
  path: {cluster_path}
  interval: 2s
registries:
  - host: {REGISTRY}
    hub: true
network:
  podCIDR: 10.{third}.0.0/24
  serviceCIDR: 10.{third}.128.0/20
health:
  deadline: 60s
  settle: 2s
",
        name = device.name,
        class = device.class,
        cgroup = if cgroups::absent() {
            "none".to_owned()
        } else {
            format!("{}/pods", cgroups::name(device.name.as_str()))
        },
    )
}

/// The last lines of a log, for an error.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Takes away every mount below a folder.
pub fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(dir))
        .collect();
    below.reverse();
    for path in below {
        // Lazily: what still uses it was killed a moment ago.
        let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
    }
}
