//! Artifacts in OCI registries, as `flux push artifact` makes them.

use crate::ignore::Patterns;
use crate::range::version_of_tag;
use crate::transport::chain;
use crate::{Fetched, Limits, Range, SourceError, archive};
use blobs::oci::Descriptor;
use blobs::{
    Credentials, DockerConfig, Endpoint, Keep, Patience, Progress, Quota, Registries, RegistryConfig,
    RegistryError, Store, Tls,
};
use kit::disk as durable;
use model::{Digest, ImageRef, Moved, Platform, Revision, Tree};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One artifact in a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct OciSpec {
    /// `oci://host[:port]/repository`.
    pub url: String,
    /// What to follow.
    pub reference: OciRef,
    /// Media type of the layer that is read; the first layer where absent.
    pub media_type: Option<String>,
    /// Docker's configuration (`.dockerconfigjson`) with the credentials.
    pub docker_config: Option<Vec<u8>>,
    /// User and password or token; they win over `docker_config`.
    pub login: Option<(String, String)>,
    /// CA certificates in PEM; where given, only these are trusted.
    pub ca: Option<Vec<u8>>,
    /// Plain HTTP.
    pub insecure: bool,
    /// Patterns of files to leave out, in the words of `.gitignore`, in place of those that Flux leaves out.
    pub ignore: Option<String>,
}

/// What a source in a registry follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciRef {
    /// A tag.
    Tag(String),
    /// The highest tag that is a version within a [`Range`], of those that match a regular expression.
    Semver {
        /// The range.
        range: String,
        /// All tags where absent.
        filter: Option<String>,
    },
    /// A manifest's digest; once held the network is not asked again.
    Digest(Digest),
}

impl std::fmt::Debug for OciSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OciSpec")
            .field("url", &self.url)
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// What `state.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Revision>,
    /// The layer of each manifest whose files are here, both as digests.
    #[serde(default)]
    layers: BTreeMap<String, Digest>,
}

/// One artifact followed by this device, in a folder of its own.
#[derive(Debug)]
pub struct OciSource {
    spec: OciSpec,
    image: ImageRef,
    dir: PathBuf,
    store: Store,
    state: State,
    limits: Limits,
}

/// Owner of the pins in the store, which is this source's alone.
const OWNER: &str = "source";

/// What a tag or range names now.
struct Found {
    reference: String,
    image: ImageRef,
}

impl OciSource {
    /// Opens or makes the source's folder. Nothing is asked of the network.
    pub fn open(dir: &Path, spec: OciSpec) -> Result<Self, SourceError> {
        let image = spec.image()?;
        durable::create_dir_all(dir).map_err(crate::error::disk("create", dir))?;
        let store =
            Store::open(&dir.join("blobs"), Quota::default()).map_err(|err| failed(&spec.url, &err))?;
        let path = dir.join("state.json");
        let bytes = durable::read_if_there(&path).map_err(crate::error::disk("read", &path))?;
        // One that does not parse costs a download, never the start.
        let state = bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Ok(Self {
            spec,
            image,
            dir: dir.to_owned(),
            store,
            state,
            limits: Limits::default(),
        })
    }

    /// With other bounds on time and size.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The last artifact that was fetched whole.
    pub fn held(&self) -> Option<&Revision> {
        self.state.held.as_ref()
    }

    /// The address for people.
    pub fn url(&self) -> String {
        self.spec.url.clone()
    }

    /// Fetches what the reference names now; a download goes on where an earlier one broke.
    pub fn fetch(&mut self, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        if let (OciRef::Digest(digest), Some(held)) = (&self.spec.reference, self.held())
            && held.commit == digest.hex()
            && self.is_here(&held.commit)
        {
            return Ok(unchanged(held.clone(), 0));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(crate::error::disk("start the client for", &self.dir))?;
        let total = self.limits.total;
        runtime.block_on(async {
            let url = self.spec.url.clone();
            tokio::select! {
                () = tokio::time::sleep(total) => Err(SourceError::Server {
                    url,
                    why: format!("not fetched within {} s", total.as_secs()),
                }),
                fetched = self.fetch_now() => fetched,
                () = stopped(stop) => Err(SourceError::Stopped),
            }
        })
    }

    /// [`OciSource::fetch`], this once of what another reference names.
    pub(crate) fn fetch_as(&mut self, reference: OciRef, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        let usual = std::mem::replace(&mut self.spec.reference, reference);
        let fetched = self.fetch(stop);
        self.spec.reference = usual;
        fetched
    }

    async fn fetch_now(&mut self) -> Result<Fetched, SourceError> {
        let url = self.spec.url.clone();
        let credentials = self.spec.credentials(&self.image)?;
        let registries = self.spec.registries(&self.image)?;
        let found = self.find(&registries, credentials.as_ref()).await?;
        let resolved = registries
            .resolve(&found.image, &Platform::host(), credentials.as_ref())
            .await
            .map_err(|err| explain(&url, err))?;
        let commit = resolved.digest.hex();
        let read = resolved.bytes.len() as u64;
        if let Some(held) = self.held()
            && (held.commit == commit && held.reference == found.reference)
            && self.is_here(&commit)
        {
            return Ok(unchanged(held.clone(), read));
        }
        let layer = self.layer(&resolved.manifest.layers)?;
        if layer.size > self.limits.received {
            let what = format!("the artifact {url}");
            return Err(SourceError::TooLarge {
                what,
                limit: self.limits.received,
            });
        }
        let _lease = self.store.lease([layer.digest]);
        let here = self.store.has(&layer.digest);
        registries
            .fetch_blob(
                &self.store,
                &found.image,
                &layer,
                credentials.as_ref(),
                Progress::none(),
            )
            .await
            .map_err(|err| explain(&url, err))?;
        let tree = self.read(&layer.digest, &commit)?;
        let moved = match self.held() {
            None => Moved::First,
            Some(held) if held.commit == commit => Moved::Unchanged,
            // A registry knows no history.
            Some(_) => Moved::Forward,
        };
        let revision = revision(&found.reference, &commit, &resolved.bytes);
        self.hold_layer(&revision, layer.digest)?;
        Ok(Fetched {
            revision,
            tree: Some(tree),
            moved,
            bytes_received: read + if here { 0 } else { layer.size },
            warnings: vec![],
        })
    }

    /// The files of a manifest that is here. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        let not_held = || SourceError::NotHeld {
            commit: commit.to_owned(),
        };
        let layer = self.state.layers.get(commit).ok_or_else(not_held)?;
        self.read(layer, commit)
    }

    /// Makes an earlier revision the held one again.
    pub fn hold(&mut self, revision: &Revision) -> Result<(), SourceError> {
        let state = State {
            held: Some(revision.clone()),
            ..self.state.clone()
        };
        self.commit(state)
    }

    async fn find(
        &self,
        registries: &Registries,
        credentials: Option<&Credentials>,
    ) -> Result<Found, SourceError> {
        let at = |tag: Option<String>, digest: Option<Digest>| ImageRef {
            tag,
            digest,
            ..self.image.clone()
        };
        let (range, filter) = match &self.spec.reference {
            OciRef::Digest(digest) => {
                return Ok(Found {
                    reference: String::new(),
                    image: at(None, Some(*digest)),
                });
            }
            OciRef::Tag(tag) => {
                return Ok(Found {
                    reference: tag.clone(),
                    image: at(Some(tag.clone()), None),
                });
            }
            OciRef::Semver { range, filter } => (range, filter),
        };
        let bad = |why: String| SourceError::BadReference {
            kind: "version range",
            reference: range.clone(),
            why,
        };
        let wanted: Range = range
            .parse()
            .map_err(|err: crate::BadRange| bad(err.to_string()))?;
        let filter = filter
            .as_deref()
            .map(Regex::new)
            .transpose()
            .map_err(|err| bad(format!("semverFilter: {err}")))?;
        let tags = registries
            .tags(&self.image, credentials)
            .await
            .map_err(|err| explain(&self.spec.url, err))?;
        let count = tags.len();
        let mut versions: Vec<_> = tags
            .into_iter()
            .filter(|tag| filter.as_ref().is_none_or(|filter| filter.is_match(tag)))
            .filter_map(|tag| Some((version_of_tag(&tag)?, tag)))
            .collect();
        versions.sort_by(|a, b| b.0.cmp(&a.0));
        match versions.iter().position(|(version, _)| wanted.matches(version)) {
            Some(newest) => {
                let tag = versions.swap_remove(newest).1;
                Ok(Found {
                    reference: tag.clone(),
                    image: at(Some(tag), None),
                })
            }
            None => Err(SourceError::NoVersion {
                url: self.spec.url.clone(),
                range: range.clone(),
                tags: count,
                newest: versions
                    .iter()
                    .take(5)
                    .map(|(version, _)| version.to_string())
                    .collect(),
            }),
        }
    }

    fn layer(&self, layers: &[Descriptor]) -> Result<Descriptor, SourceError> {
        let wanted = self.spec.media_type.as_deref();
        let found = layers
            .iter()
            .find(|layer| wanted.is_none_or(|wanted| layer.media_type == wanted));
        found.cloned().ok_or_else(|| SourceError::BadArtifact {
            artifact: self.spec.url.clone(),
            why: match wanted {
                Some(wanted) => format!(
                    "no layer has the media type {wanted}; there are {}",
                    layers
                        .iter()
                        .map(|layer| layer.media_type.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                None => "it has no layer".to_owned(),
            },
        })
    }

    fn read(&self, layer: &Digest, commit: &str) -> Result<Tree, SourceError> {
        // Read to its end, a blob is checked against its digest.
        let damaged = |why: String| SourceError::Damaged {
            commit: commit.to_owned(),
            why,
        };
        if !self.store.verify(layer).map_err(|err| damaged(chain(&err)))? {
            return Err(damaged("its layer is missing".to_owned()));
        }
        let path = self
            .store
            .path(layer)
            .ok_or_else(|| damaged("its layer is missing".to_owned()))?;
        let file = File::open(&path).map_err(crate::error::disk("read", &path))?;
        let patterns = Patterns::new(self.spec.ignore.as_deref());
        archive::read(file, &self.spec.url, &patterns, &self.limits)
    }

    fn is_here(&self, commit: &str) -> bool {
        self.state
            .layers
            .get(commit)
            .is_some_and(|layer| self.store.has(layer))
    }

    /// Holds a revision; its layer and that of the one before stay here, all others may go.
    fn hold_layer(&mut self, revision: &Revision, layer: Digest) -> Result<(), SourceError> {
        let before = self.held().map(|held| held.commit.clone());
        let mut layers = BTreeMap::from([(revision.commit.clone(), layer)]);
        if let Some((commit, layer)) = before.and_then(|before| self.state.layers.get_key_value(&before)) {
            layers.insert(commit.clone(), *layer);
        }
        let pins: Vec<_> = layers.values().map(|layer| (*layer, Keep::Alone)).collect();
        self.store
            .set_pins(OWNER, pins)
            .map_err(|err| failed(&self.spec.url, &err))?;
        self.commit(State {
            held: Some(revision.clone()),
            layers,
        })?;
        self.store
            .collect(Duration::ZERO)
            .map(drop)
            .map_err(|err| failed(&self.spec.url, &err))
    }

    fn commit(&mut self, state: State) -> Result<(), SourceError> {
        let path = self.dir.join("state.json");
        let bytes = serde_json::to_vec_pretty(&state).expect("plain data always serialises");
        durable::replace(&path, &bytes).map_err(crate::error::disk("write", &path))?;
        self.state = state;
        Ok(())
    }
}

impl OciSpec {
    fn image(&self) -> Result<ImageRef, SourceError> {
        let bad = |why: String| SourceError::BadUrl {
            url: self.url.clone(),
            why,
        };
        let rest = self
            .url
            .strip_prefix("oci://")
            .ok_or_else(|| bad("write oci://host/repository".to_owned()))?;
        // The host may have a port; behind it a colon begins a tag.
        let named = rest.split_once('/').map_or("", |(_, repository)| repository);
        if named.contains([':', '@']) {
            return Err(bad(
                "the tag or digest belongs into the source's reference".to_owned()
            ));
        }
        rest.parse()
            .map_err(|err: model::BadImageRef| bad(err.to_string()))
    }

    fn credentials(&self, image: &ImageRef) -> Result<Option<Credentials>, SourceError> {
        if let Some((user, password)) = &self.login {
            let (user, password) = (user.clone(), password.clone());
            return Ok(Some(Credentials::Basic { user, password }));
        }
        let Some(json) = &self.docker_config else {
            return Ok(None);
        };
        let config = DockerConfig::parse(json).map_err(|err| SourceError::Authentication {
            url: self.url.clone(),
            why: chain(&err),
        })?;
        Ok(config.find(image).cloned())
    }

    fn registries(&self, image: &ImageRef) -> Result<Registries, SourceError> {
        // The source is asked again soon enough; what came stays.
        let registries = Registries::new(Patience {
            failures: 2,
            ..Patience::default()
        });
        let host = &image.registry;
        let endpoint = match (&self.ca, self.insecure) {
            (_, true) => Endpoint::plain(&format!("http://{host}")),
            (Some(pem), false) => Endpoint {
                tls: Tls::Config(Arc::new(crate::transport::tls_with(Some(pem), &self.url)?)),
                ..Endpoint::new(&format!("https://{host}"))
            },
            (None, false) => return Ok(registries),
        };
        registries
            .configure(host, RegistryConfig::at(endpoint))
            .map_err(|err| explain(&self.url, err))?;
        Ok(registries)
    }
}

/// What Flux writes into a manifest's annotations.
fn revision(reference: &str, commit: &str, manifest: &[u8]) -> Revision {
    #[derive(Default, Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let annotated: Annotated = serde_json::from_slice(manifest).unwrap_or_default();
    let said = |name: &str| {
        let key = format!("org.opencontainers.image.{name}");
        annotated.annotations.get(&key).cloned().unwrap_or_default()
    };
    Revision {
        reference: reference.to_owned(),
        commit: commit.to_owned(),
        summary: said("revision"),
        author: said("source"),
        committed_at: said("created").parse().unwrap_or_default(),
    }
}

pub(crate) fn unchanged(revision: Revision, bytes_received: u64) -> Fetched {
    Fetched {
        revision,
        tree: None,
        moved: Moved::Unchanged,
        bytes_received,
        warnings: vec![],
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn failed(url: &str, err: &(dyn std::error::Error + 'static)) -> SourceError {
    SourceError::Server {
        url: url.to_owned(),
        why: chain(err),
    }
}

fn explain(url: &str, err: RegistryError) -> SourceError {
    let (url, why) = (url.to_owned(), chain(&err));
    match err {
        RegistryError::NotFound { .. } => SourceError::NotFound { url, why },
        RegistryError::Denied { .. } => SourceError::Authentication { url, why },
        RegistryError::Unreachable { .. } | RegistryError::Silent { .. } => SourceError::Connect { url, why },
        _ => SourceError::Server { url, why },
    }
}
