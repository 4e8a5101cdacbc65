//! The OCI runtime configuration of a container (runtime-spec 1.0, `config.json`).

use super::cgroup::{self, Cgroups, MOST_PIDS, Qos};
use super::protocol::{LocalImage, Place};
use super::rootfs::Ids;
use super::seccomp;
use model::{ContainerRun, EnvVar};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What Docker and containerd leave to a container.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All capabilities by their number (linux/capability.h).
const ALL_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A folder or file of the device in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) path: String,
    pub(crate) read_only: bool,
}

/// All that a configuration is made of.
#[derive(Debug)]
pub(crate) struct SpecOf<'a> {
    pub(crate) container: &'a ContainerRun,
    pub(crate) image: &'a LocalImage,
    pub(crate) ids: &'a Ids,
    pub(crate) place: &'a Place,
    pub(crate) hostname: &'a str,
    pub(crate) rootfs: &'a Path,
    pub(crate) binds: &'a [Bind],
    pub(crate) cgroup: &'a str,
    pub(crate) qos: Qos,
    /// Process whose uts, ipc and net namespaces the pod has.
    pub(crate) namespaces_of: i32,
    /// Process whose pid namespace the pod shares, where it does.
    pub(crate) pid_namespace_of: Option<i32>,
    pub(crate) host: &'a Host,
}

/// The group of terminals, `tty`, on every Linux.
const TERMINALS: u64 = 5;

/// Whether a map of groups (user_namespaces(7)) holds one.
fn knows_group(map: &str, group: u64) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        matches!((fields.next(), fields.nth(1)), (Some(Ok(first)), Some(Ok(count)))
            if (first..first.saturating_add(count)).contains(&group))
    })
}

/// Facts of the device that bound what can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Bounding set of this process: what it lacks itself it cannot give.
    pub(crate) bounding: u64,
    pub(crate) cgroup_v2: bool,
    /// Whether there are control groups at all.
    pub(crate) limits: bool,
    /// Whether the group of terminals is known here: a user's own namespaces may have root's alone.
    pub(crate) terminals: bool,
    pub(crate) memory: u64,
    pub(crate) oom_score_adj: i64,
}

impl Host {
    /// Looks.
    pub(crate) fn detect(cgroups: &Cgroups) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> Option<String> {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let bounding = field(&read("/proc/self/status"), "CapBnd:");
        let memory = field(&read("/proc/meminfo"), "MemTotal:");
        Self {
            bounding: bounding
                .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
                .unwrap_or(0),
            cgroup_v2: cgroups.is_v2(),
            limits: !cgroups.is_absent(),
            terminals: knows_group(&read("/proc/self/gid_map"), TERMINALS),
            memory: memory
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024,
            oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        }
    }

    fn may_give(&self, capability: &str) -> bool {
        ALL_CAPABILITIES
            .iter()
            .position(|known| *known == capability)
            .is_some_and(|number| self.bounding >> number & 1 == 1)
    }
}

impl SpecOf<'_> {
    /// The process's arguments: `command` replaces the entrypoint and with it the image's `cmd`.
    pub(crate) fn args(&self) -> Vec<String> {
        let (container, image) = (self.container, self.image);
        let (first, rest) = match (container.command.is_empty(), container.args.is_empty()) {
            (true, true) => (&image.entrypoint, &image.cmd),
            (true, false) => (&image.entrypoint, &container.args),
            (false, _) => (&container.command, &container.args),
        };
        first.iter().chain(rest).cloned().collect()
    }

    /// The image's variables, the pod's over them.
    pub(crate) fn env(&self) -> Vec<String> {
        let mut env: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: String| match env.iter_mut().find(|(held, _)| held == name) {
            Some((_, held)) => *held = value,
            None => env.push((name.to_owned(), value)),
        };
        set(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        );
        set("HOSTNAME", self.hostname.to_owned());
        if let Some(home) = &self.ids.home {
            set("HOME", home.clone());
        }
        if let Some(otlp) = &self.place.otlp {
            set("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.clone());
        }
        for pair in &self.image.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            set(name, value.to_owned());
        }
        for var in &self.container.env {
            match var {
                EnvVar::Value { name, value } => set(name, value.clone()),
                EnvVar::Field { name, field } => set(name, self.field(field)),
            }
        }
        env.into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn field(&self, field: &str) -> String {
        let address = match field {
            "status.podIP" | "status.podIPs" => self.place.ip,
            "status.hostIP" | "status.hostIPs" => self.place.host_ip,
            _ => None,
        };
        address.map_or_else(String::new, |ip| ip.to_string())
    }

    fn capabilities(&self) -> Vec<String> {
        let security = &self.container.security;
        let plain = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
        let add: Vec<String> = security.cap_add.iter().map(plain).collect();
        let drop: Vec<String> = security.cap_drop.iter().map(plain).collect();
        let all = |list: &[String]| list.iter().any(|name| name == "ALL");
        let default = |name: &str| {
            // Without device rules every node that a container can make is one it can use.
            CAPABILITIES.contains(&name) && !(name == "MKNOD" && self.host.cgroup_v2)
        };
        let given = |name: &&&str| {
            let named = |list: &[String]| list.iter().any(|held| held == **name);
            security.privileged
                || named(&add)
                || (all(&add) && !named(&drop))
                || (default(name) && !all(&drop) && !named(&drop))
        };
        ALL_CAPABILITIES
            .iter()
            .filter(given)
            .filter(|name| self.host.may_give(name))
            .map(|name| format!("CAP_{name}"))
            .collect()
    }

    fn mounts(&self) -> Vec<Value> {
        let privileged = self.container.security.privileged;
        let sys = if privileged { "rw" } else { "ro" };
        let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.host.terminals {
            terminals.push("gid=5");
        }
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": terminals}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                   "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                   "options": ["nosuid", "noexec", "nodev", sys]}),
        ];
        if self.host.limits {
            mounts.push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                       "options": ["nosuid", "noexec", "nodev", "relatime", sys]}),
            );
        }
        // A path's parents first, so that a volume in a volume is not hidden by it.
        let mut binds: Vec<&Bind> = self.binds.iter().collect();
        binds.sort_by_key(|bind| bind.path.matches('/').count());
        mounts.extend(binds.iter().map(|bind| {
            let mode = if bind.read_only { "ro" } else { "rw" };
            json!({"destination": bind.path, "type": "bind", "source": bind.source,
                   "options": ["rbind", "rprivate", mode]})
        }));
        mounts
    }

    fn namespaces(&self) -> Vec<Value> {
        let of = |pid: i32, kind: &str| format!("/proc/{pid}/ns/{kind}");
        let pod = self.namespaces_of;
        let pid = match self.pid_namespace_of {
            Some(holder) => json!({"type": "pid", "path": of(holder, "pid")}),
            None => json!({"type": "pid"}),
        };
        vec![
            pid,
            json!({"type": "mount"}),
            json!({"type": "cgroup"}),
            json!({"type": "ipc", "path": of(pod, "ipc")}),
            json!({"type": "uts", "path": of(pod, "uts")}),
            json!({"type": "network", "path": of(pod, "net")}),
        ]
    }

    fn resources(&self) -> Value {
        let resources = &self.container.resources;
        let mut cpu = json!({"shares": cgroup::shares(cgroup::cpu_request(resources))});
        if let Some(milli) = resources.cpu_limit_milli {
            cpu["quota"] = json!(cgroup::quota(milli));
            cpu["period"] = json!(100_000);
        }
        let mut value = json!({"cpu": cpu, "pids": {"limit": MOST_PIDS}, "devices": self.device_rules()});
        if let Some(bytes) = resources.memory_limit {
            value["memory"] = json!({"limit": bytes});
        }
        value
    }

    fn device_rules(&self) -> Value {
        if self.container.security.privileged {
            return json!([{"allow": true, "access": "rwm"}]);
        }
        // The runtime itself adds the nodes that every container has.
        json!([{"allow": false, "access": "rwm"}])
    }

    /// The whole configuration.
    pub(crate) fn json(&self) -> Result<Value, String> {
        let (container, ids) = (self.container, self.ids);
        let security = &container.security;
        let args = self.args();
        if args.is_empty() {
            return Err("neither the pod nor the image names a command; set command".to_owned());
        }
        if security.run_as_non_root && ids.uid == 0 {
            return Err("runAsNonRoot is set and the user is 0; set runAsUser".to_owned());
        }
        let capabilities = self.capabilities();
        // As elsewhere, a privileged container is not confined.
        let confined = security.seccomp_default && !security.privileged;
        // libcontainer has dropped the capabilities by the time that the filter can be set, which then takes this.
        let no_new_privileges = confined || (!security.allow_privilege_escalation && !security.privileged);
        let cwd = container
            .working_dir
            .as_deref()
            .or(self.image.working_dir.as_deref());
        let mut groups = ids.groups.clone();
        groups.extend(security.fs_group);
        let wanted = cgroup::oom_score_adj(self.qos, &container.resources, self.host.memory);
        // Lowering it takes CAP_SYS_RESOURCE, which root does not have everywhere.
        let adj = if self.host.may_give("SYS_RESOURCE") {
            wanted
        } else {
            wanted.max(self.host.oom_score_adj)
        };
        let (masked, read_only) = if security.privileged {
            (&[][..], &[][..])
        } else {
            (MASKED, READ_ONLY)
        };
        let devices = if security.privileged {
            host_devices()
        } else {
            Vec::new()
        };
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": ids.uid, "gid": ids.gid, "additionalGids": groups},
                "args": args,
                "env": self.env(),
                "cwd": cwd.filter(|cwd| !cwd.is_empty()).unwrap_or("/"),
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": no_new_privileges,
                "oomScoreAdj": adj,
            },
            "root": {"path": self.rootfs, "readonly": security.read_only_root},
            "mounts": self.mounts(),
            "linux": {
                "namespaces": self.namespaces(),
                "devices": devices,
                "maskedPaths": masked,
                "readonlyPaths": read_only,
            },
        });
        if self.host.limits {
            config["linux"]["cgroupsPath"] = json!(self.cgroup);
            config["linux"]["resources"] = self.resources();
        }
        if confined {
            config["linux"]["seccomp"] = seccomp::oci(&seccomp::refused(&capabilities));
        }
        Ok(config)
    }
}

/// The device nodes of the device, for privileged containers.
fn host_devices() -> Vec<Value> {
    let mut found = Vec::new();
    walk_devices(Path::new("/dev"), &mut found);
    found
}

fn walk_devices(dir: &Path, found: &mut Vec<Value>) {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    // Every container has its own.
    const OWN: &[&str] = &[
        "pts", "shm", "mqueue", "console", "ptmx", "tty", "null", "zero", "full", "random", "urandom",
    ];
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if OWN.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            walk_devices(&entry.path(), found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let number = meta.rdev();
            found.push(json!({
                "path": entry.path(),
                "type": if kind.is_char_device() { "c" } else { "b" },
                "major": rustix::fs::major(number),
                "minor": rustix::fs::minor(number),
                "fileMode": meta.mode() & 0o777,
                "uid": meta.uid(),
                "gid": meta.gid(),
            }));
        }
    }
}
