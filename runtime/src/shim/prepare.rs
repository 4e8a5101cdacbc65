//! From what the pod asks for to bundles that an OCI runtime can run.

use super::cgroup::{self, Cgroups};
use super::protocol::{Handover, Place, container_cgroup};
use super::rootfs::{self, Overlay};
use super::spec::{Bind, Host, SpecOf};
use super::volumes::{Volumes, fs_group};
use model::{ContainerRun, Volume};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A pod being prepared.
#[derive(Debug)]
pub(crate) struct Preparation<'a> {
    pub(crate) handover: &'a Handover,
    pub(crate) place: &'a Place,
    /// In memory, private to the shim and its children.
    pub(crate) run: &'a Path,
    /// The pod's folder.
    pub(crate) dir: &'a Path,
    pub(crate) cgroup: &'a str,
    pub(crate) pid_namespace_of: Option<i32>,
}

impl Preparation<'_> {
    /// What all containers share: volumes, `/dev/shm`, name files, the pod's control group.
    pub(crate) fn pod(&self, cgroups: &Cgroups) -> Result<(), String> {
        let run = &self.handover.run;
        cgroups
            .limit_pod(self.cgroup, run)
            .map_err(|err| format!("control group {}: {err}", self.cgroup))?;
        self.volumes().prepare(&run.volumes)?;
        self.shared()
            .map_err(|err| format!("files shared by the containers: {err}"))
    }

    fn volumes(&self) -> Volumes<'_> {
        Volumes {
            run: self.run,
            disk: self.dir,
            claims: &self.handover.claims,
            fs_group: fs_group(self.handover),
        }
    }

    fn shared(&self) -> io::Result<()> {
        let shm = self.run.join("shm");
        fs::create_dir_all(&shm)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("shm"),
            &shm,
            Some("tmpfs"),
            flags,
            Some("mode=1777,size=65536k"),
        )?;
        let etc = self.run.join("etc");
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("resolv.conf"), &self.place.resolv_conf)?;
        fs::write(etc.join("hostname"), format!("{}\n", hostname(self.handover)))?;
        fs::write(etc.join("hosts"), self.hosts())
    }

    fn hosts(&self) -> String {
        let run = &self.handover.run;
        let mut text = if run.host_network {
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            let own = self
                .place
                .ip
                .map_or_else(String::new, |ip| format!("{ip}\t{}\n", hostname(self.handover)));
            format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")
        };
        for (address, names) in &run.host_aliases {
            text += &format!("{address}\t{}\n", names.join("\t"));
        }
        text
    }

    /// Writes a container's bundle and mounts its root file system; gives the folder of the bundle.
    pub(crate) fn container(&self, container: &ContainerRun, host: &Host) -> Result<PathBuf, String> {
        let image = self
            .handover
            .images
            .get(&container.name)
            .ok_or_else(|| format!("no image was handed over for container {:?}", container.name))?;
        let bundle = bundle(self.run, &container.name);
        let overlay = Overlay {
            run: &bundle,
            disk: &disk(self.dir, &container.name),
        };
        overlay
            .link(image)
            .and_then(|()| overlay.mount())
            .map_err(|err| err.to_string())?;
        let rootfs = bundle.join("rootfs");
        let security = &container.security;
        let user = image.user.as_deref().unwrap_or("");
        let ids = rootfs::ids(&rootfs, user, security.run_as_user, security.run_as_group)?;
        let binds = self.binds(container, &bundle)?;
        let spec = SpecOf {
            container,
            image,
            ids: &ids,
            place: self.place,
            hostname: &hostname(self.handover),
            rootfs: &rootfs,
            binds: &binds,
            cgroup: &container_cgroup(self.cgroup, &container.name),
            qos: cgroup::qos(&self.handover.run),
            namespaces_of: std::process::id().cast_signed(),
            pid_namespace_of: self.pid_namespace_of,
            host,
        };
        let text = serde_json::to_vec(&spec.json()?).map_err(|err| err.to_string())?;
        fs::write(bundle.join("config.json"), text).map_err(|err| err.to_string())?;
        Ok(bundle)
    }

    fn binds(&self, container: &ContainerRun, bundle: &Path) -> Result<Vec<Bind>, String> {
        let mut binds = Vec::new();
        for (number, at) in container.mounts.iter().enumerate() {
            let volume = self.volume(&at.volume)?;
            if !at.path.starts_with('/') || at.path.split('/').any(|part| part == "..") {
                return Err(format!(
                    "mountPath {:?} must be absolute and without '..'",
                    at.path
                ));
            }
            let pin = bundle.join("pins").join(number.to_string());
            let source = self
                .volumes()
                .mount_source(volume, at, &pin)
                .map_err(|why| format!("volume {:?}: {why}", at.volume))?;
            // What the planner wrote is not the container's to change, as in Kubernetes.
            let files = matches!(volume.source, model::VolumeSource::Files { .. });
            binds.push(Bind {
                source,
                path: at.path.clone(),
                read_only: at.read_only || files,
            });
        }
        for (name, path) in [
            ("etc/hosts", "/etc/hosts"),
            ("etc/hostname", "/etc/hostname"),
            ("etc/resolv.conf", "/etc/resolv.conf"),
            ("shm", "/dev/shm"),
        ] {
            if binds.iter().all(|bind| bind.path.trim_end_matches('/') != path) {
                binds.push(Bind {
                    source: self.run.join(name),
                    path: path.to_owned(),
                    read_only: false,
                });
            }
        }
        Ok(binds)
    }

    fn volume(&self, name: &str) -> Result<&Volume, String> {
        let known = &self.handover.run.volumes;
        known
            .iter()
            .find(|volume| volume.name == name)
            .ok_or_else(|| format!("volumeMounts names volume {name:?}, which the pod does not have"))
    }
}

/// The pod's host name: 63 characters at most.
pub(crate) fn hostname(handover: &Handover) -> String {
    let run = &handover.run;
    let name = run.hostname.as_ref().unwrap_or(&run.id.name);
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// Folder of a container's bundle.
pub(crate) fn bundle(run: &Path, container: &str) -> PathBuf {
    run.join("c").join(container)
}

/// Folder of what a container writes.
pub(crate) fn disk(dir: &Path, container: &str) -> PathBuf {
    dir.join("c").join(container)
}
