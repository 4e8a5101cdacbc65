//! Volumes of a pod, with the files of ConfigMaps and Secrets filled in.

use super::configs::{Data, Kind};
use super::container::lookup;
use super::pod::Place;
use crate::api;
use crate::refusal::Complaints;
use model::{FileEntry, HostPathType, PodId, Volume, VolumeSource, parse_bytes};
use std::collections::BTreeMap;

const DEFAULT_MODE: u32 = 0o644;

pub(super) fn read(
    place: &Place<'_>,
    list: Vec<api::VolumeSpec>,
    complaints: &mut Complaints<'_>,
) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::with_capacity(list.len());
    for spec in list {
        let at = format!("{}.volumes[{}]", place.at, spec.name);
        if volumes.iter().any(|v| v.name == spec.name) {
            complaints.add(&at, "two volumes have this name", "give each its own name");
        }
        let name = spec.name.clone();
        if let Some(source) = source(place, &at, spec, complaints) {
            volumes.push(Volume { name, source });
        }
    }
    volumes
}

fn source(
    place: &Place<'_>,
    at: &str,
    spec: api::VolumeSpec,
    complaints: &mut Complaints<'_>,
) -> Option<VolumeSource> {
    if let Some(given) = spec.host_path {
        return host_path(at, given, complaints);
    }
    if let Some(given) = spec.persistent_volume_claim {
        let claim = PodId {
            namespace: place.namespace.to_owned(),
            name: given.claim_name,
        };
        if claim.name.is_empty() || claim.name.contains('/') || claim.name.starts_with('.') {
            complaints.add(
                format!("{at}.persistentVolumeClaim.claimName"),
                "is no claim's name",
                "name a claim",
            );
            return None;
        }
        return Some(VolumeSource::Claim { claim });
    }
    let mut files = Files {
        place,
        at,
        files: BTreeMap::new(),
        complaints,
    };
    if let Some(given) = spec.config_map {
        let mode = given.default_mode.unwrap_or(DEFAULT_MODE);
        files.add(Kind::ConfigMap, &given.name, given.optional, &given.items, mode);
        return Some(VolumeSource::Files {
            files: files.files,
            secret: false,
        });
    }
    if let Some(given) = spec.secret {
        let mode = given.default_mode.unwrap_or(DEFAULT_MODE);
        files.add(
            Kind::Secret,
            &given.secret_name,
            given.optional,
            &given.items,
            mode,
        );
        return Some(VolumeSource::Files {
            files: files.files,
            secret: true,
        });
    }
    if let Some(given) = spec.projected {
        let mode = given.default_mode.unwrap_or(DEFAULT_MODE);
        let mut secret = false;
        for projection in given.sources {
            let parts = [
                (Kind::ConfigMap, projection.config_map),
                (Kind::Secret, projection.secret),
            ];
            for (kind, part) in parts {
                if let Some(part) = part {
                    secret |= kind == Kind::Secret;
                    files.add(kind, &part.name, part.optional, &part.items, mode);
                }
            }
        }
        return Some(VolumeSource::Files {
            files: files.files,
            secret,
        });
    }
    empty_dir(at, spec.empty_dir, complaints)
}

fn empty_dir(
    at: &str,
    given: Option<api::EmptyDirSpec>,
    complaints: &mut Complaints<'_>,
) -> Option<VolumeSource> {
    let Some(given) = given else {
        return Some(VolumeSource::EmptyDir {
            memory: false,
            size_limit: None,
        });
    };
    let memory = match given.medium.as_deref() {
        None | Some("") => false,
        Some("Memory") => true,
        Some(other) => {
            complaints.add(
                format!("{at}.emptyDir.medium"),
                format!("{other} is not there"),
                "use Memory, or none",
            );
            return None;
        }
    };
    let size_limit = match given
        .size_limit
        .map(|quantity| parse_bytes(&quantity.text()))
        .transpose()
    {
        Ok(limit) => limit,
        Err(err) => {
            complaints.add(format!("{at}.emptyDir.sizeLimit"), err.to_string(), "");
            return None;
        }
    };
    Some(VolumeSource::EmptyDir { memory, size_limit })
}

fn host_path(at: &str, given: api::HostPathSpec, complaints: &mut Complaints<'_>) -> Option<VolumeSource> {
    if !given.path.starts_with('/') || given.path.split('/').any(|part| part == "..") {
        complaints.add(
            format!("{at}.hostPath.path"),
            format!("{:?} is not an absolute path", given.path),
            "write an absolute path without '..'",
        );
        return None;
    }
    let kind = match given.kind.as_deref() {
        None | Some("") => HostPathType::Any,
        Some("DirectoryOrCreate") => HostPathType::DirectoryOrCreate,
        Some("Directory") => HostPathType::Directory,
        Some("FileOrCreate") => HostPathType::FileOrCreate,
        Some("File") => HostPathType::File,
        Some("Socket") => HostPathType::Socket,
        Some("CharDevice") => HostPathType::CharDevice,
        Some("BlockDevice") => HostPathType::BlockDevice,
        Some(other) => {
            complaints.add(
                format!("{at}.hostPath.type"),
                format!("{other} is no type"),
                "use DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice or BlockDevice",
            );
            return None;
        }
    };
    Some(VolumeSource::HostPath {
        path: given.path,
        kind,
    })
}

/// Gathers the files of one volume.
struct Files<'a, 'b, 'c> {
    place: &'a Place<'a>,
    at: &'a str,
    files: BTreeMap<String, FileEntry>,
    complaints: &'b mut Complaints<'c>,
}

impl Files<'_, '_, '_> {
    fn add(&mut self, kind: Kind, name: &str, optional: Option<bool>, items: &[api::KeyToPath], mode: u32) {
        let optional = optional.unwrap_or(false);
        let Some(data) = lookup(self.place, self.at, kind, name, optional, self.complaints) else {
            return;
        };
        if items.is_empty() {
            let all = data.iter().map(|(key, value)| {
                (
                    key.clone(),
                    FileEntry {
                        data: value.clone(),
                        mode,
                    },
                )
            });
            self.files.extend(all);
            return;
        }
        for item in items {
            self.item(kind, name, data, item, optional, mode);
        }
    }

    fn item(
        &mut self,
        kind: Kind,
        name: &str,
        data: &Data,
        item: &api::KeyToPath,
        optional: bool,
        mode: u32,
    ) {
        let inside =
            !item.path.is_empty() && !item.path.starts_with('/') && !item.path.split('/').any(|p| p == "..");
        if !inside {
            self.complaints.add(
                format!("{}.items[{}].path", self.at, item.key),
                format!("{:?} leads out of the volume", item.path),
                "write a relative path without '..'",
            );
            return;
        }
        match data.get(&item.key) {
            Some(value) => {
                let entry = FileEntry {
                    data: value.clone(),
                    mode: item.mode.unwrap_or(mode),
                };
                self.files.insert(item.path.clone(), entry);
            }
            None if optional => {}
            None => self.complaints.add(
                format!("{}.items[{}]", self.at, item.key),
                format!("{} {name} has no such key", kind.name()),
                "add the key, or mark the volume optional",
            ),
        }
    }
}
