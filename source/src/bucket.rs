//! A bucket of S3 objects as a source: what changed is fetched, object by object.

use crate::error::disk;
use crate::ignore::{self, Patterns};
use crate::oci::unchanged;
use crate::s3::{self, Listed, S3Keys};
use crate::web::{Answer, Web};
use crate::{Fetched, GitAuth, Limits, SourceError};
use bytes::Bytes;
use kit::disk as durable;
use kit::{Clock, SystemClock};
use model::{Digest, Moved, Revision, Tree};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// One bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSpec {
    /// `host[:port]` of a server that speaks S3.
    pub endpoint: String,
    /// The bucket's name.
    pub bucket: String,
    /// Region; `us-east-1` where absent.
    pub region: Option<String>,
    /// Only objects whose names begin so; their names stay whole.
    pub prefix: String,
    /// Who signs; nobody where absent.
    pub keys: Option<S3Keys>,
    /// CA certificates in PEM; where given, only these are trusted.
    pub ca: Option<Vec<u8>>,
    /// Plain HTTP.
    pub insecure: bool,
    /// Patterns of objects to leave out, beside `.sourceignore`, in place of those that Flux leaves out.
    pub ignore: Option<String>,
}

/// An object that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    etag: String,
    sum: Digest,
}

/// What `state.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Revision>,
    /// By revision: its objects, by their names.
    #[serde(default)]
    revisions: BTreeMap<String, BTreeMap<String, Kept>>,
}

/// More objects than manifests that anyone writes.
const MOST_OBJECTS: usize = 20_000;
/// Bytes of one page of the list.
const MOST_PAGE: u64 = 8 << 20;

/// One bucket followed by this device, in a folder of its own.
#[derive(Debug)]
pub struct BucketSource {
    spec: BucketSpec,
    dir: PathBuf,
    state: State,
    limits: Limits,
}

impl BucketSource {
    /// Opens or makes the source's folder. Nothing is asked of the network.
    pub fn open(dir: &Path, spec: BucketSpec) -> Result<Self, SourceError> {
        spec.url("", "")?;
        let objects = dir.join("objects");
        durable::create_dir_all(&objects).map_err(disk("create", &objects))?;
        let path = dir.join("state.json");
        let bytes = durable::read_if_there(&path).map_err(disk("read", &path))?;
        // One that does not parse costs a download, never the start.
        let state = bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Ok(Self {
            spec,
            dir: dir.to_owned(),
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

    /// The last state of the bucket that was fetched whole.
    pub fn held(&self) -> Option<&Revision> {
        self.state.held.as_ref()
    }

    /// The address for people.
    pub fn url(&self) -> String {
        format!(
            "s3://{}/{}/{}",
            self.spec.endpoint, self.spec.bucket, self.spec.prefix
        )
    }

    /// Fetches the objects that changed. What came before a connection broke is not fetched again.
    pub fn fetch(&mut self, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        let address = self.spec.url("", "")?;
        let limits = self.limits.clone();
        let web = Web::new(&address, self.spec.ca.as_deref(), &limits, stop)?;
        let listed = self.list(&web)?;
        let commit = revision_of(&listed);
        if let Some(held) = self.held()
            && held.commit == commit
            && self.load(&commit).is_ok()
        {
            return Ok(unchanged(held.clone(), web.wire.received()));
        }
        let mut kept = BTreeMap::new();
        let mut tree = Tree::default();
        for object in &listed {
            let (sum, data) = self.object(&web, object)?;
            tree.write(&object.key, data);
            let etag = object.etag.clone();
            kept.insert(object.key.clone(), Kept { etag, sum });
        }
        let moved = match self.held() {
            None => Moved::First,
            Some(held) if held.commit == commit => Moved::Unchanged,
            // A bucket knows no history.
            Some(_) => Moved::Forward,
        };
        let revision = Revision {
            reference: String::new(),
            commit,
            summary: format!("{} objects", listed.len()),
            author: String::new(),
            committed_at: SystemClock.now(),
        };
        self.hold_objects(&revision, kept)?;
        Ok(Fetched {
            revision,
            tree: Some(tree),
            moved,
            bytes_received: web.wire.received(),
            warnings: vec![],
        })
    }

    /// The objects of a revision that is here. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        let objects = self
            .state
            .revisions
            .get(commit)
            .ok_or_else(|| SourceError::NotHeld {
                commit: commit.to_owned(),
            })?;
        let mut tree = Tree::default();
        for (key, kept) in objects {
            let data = self.stored(&kept.sum)?.ok_or_else(|| SourceError::Damaged {
                commit: commit.to_owned(),
                why: format!("the object {key} is missing or damaged"),
            })?;
            tree.write(key, data);
        }
        Ok(tree)
    }

    /// Makes an earlier revision the held one again.
    pub fn hold(&mut self, revision: &Revision) -> Result<(), SourceError> {
        self.commit(State {
            held: Some(revision.clone()),
            ..self.state.clone()
        })
    }

    /// The objects that are wanted, sorted by name.
    fn list(&self, web: &Web<'_>) -> Result<Vec<Listed>, SourceError> {
        let mut all: Vec<Listed> = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = String::new();
            if let Some(token) = &next {
                query.push_str(&format!("continuation-token={}&", s3::encode(token, false)));
            }
            query.push_str("encoding-type=url&list-type=2&prefix=");
            query.push_str(&s3::encode(&self.spec.prefix, false));
            let body = self.get(web, "", &query, MOST_PAGE)?;
            let page = std::str::from_utf8(&body).ok().and_then(s3::page);
            let page = page.ok_or_else(|| SourceError::Server {
                url: self.url(),
                why: "the answer is no list of a bucket's objects".to_owned(),
            })?;
            all.extend(page.objects);
            if all.len() > MOST_OBJECTS {
                return Err(SourceError::TooMany {
                    what: format!("objects in {}", self.url()),
                    limit: MOST_OBJECTS,
                });
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        // Folders that consoles make.
        all.retain(|object| !object.key.ends_with('/'));
        let patterns = self.patterns(web, &all)?;
        all.retain(|object| !patterns.excludes(&object.key));
        if let Some(bad) = all.iter().find(|object| !is_path(&object.key)) {
            return Err(SourceError::BadArtifact {
                artifact: self.url(),
                why: format!("the object {:?} has no name that a file may have", bad.key),
            });
        }
        let bytes = all
            .iter()
            .fold(0, |sum: u64, object| sum.saturating_add(object.size));
        let large = all.iter().find(|object| object.size > self.limits.file);
        if bytes > self.limits.tree || large.is_some() {
            return Err(SourceError::TooLarge {
                what: large.map_or_else(|| self.url(), |object| format!("the object {}", object.key)),
                limit: large.map_or(self.limits.tree, |_| self.limits.file),
            });
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// What is left out: by the source's own patterns or Flux's, then by the bucket's `.sourceignore`.
    fn patterns(&self, web: &Web<'_>, all: &[Listed]) -> Result<Patterns, SourceError> {
        let mut patterns = Patterns::new(self.spec.ignore.as_deref());
        if let Some(file) = all.iter().find(|object| object.key == ignore::FILE) {
            patterns.add("", &self.object(web, file)?.1);
        }
        Ok(patterns)
    }

    /// An object's bytes, from here where they are here already.
    fn object(&self, web: &Web<'_>, object: &Listed) -> Result<(Digest, Bytes), SourceError> {
        let known = self
            .state
            .revisions
            .values()
            .filter_map(|objects| objects.get(&object.key));
        let memo = self.dir.join("objects").join(format!("{}.sum", name_of(object)));
        let mut sums: Vec<Digest> = known
            .filter(|kept| kept.etag == object.etag)
            .map(|kept| kept.sum)
            .collect();
        if let Some(text) = durable::read_if_there(&memo).map_err(disk("read", &memo))? {
            sums.extend(
                std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.parse::<Digest>().ok()),
            );
        }
        for sum in sums {
            if let Some(data) = self.stored(&sum)? {
                return Ok((sum, data));
            }
        }
        let data = self.get(web, &object.key, "", object.size.max(1))?;
        if data.len() as u64 != object.size {
            return Err(SourceError::Server {
                url: self.url(),
                why: format!("the object {} changed while it was fetched", object.key),
            });
        }
        let sum = Digest::of(&data);
        let path = self.stored_path(&sum);
        durable::replace(&path, &data).map_err(disk("write", &path))?;
        durable::replace(&memo, sum.to_string().as_bytes()).map_err(disk("write", &memo))?;
        Ok((sum, data))
    }

    fn get(&self, web: &Web<'_>, key: &str, query: &str, most: u64) -> Result<Bytes, SourceError> {
        let address = self.spec.url(key, query)?;
        let bad = |why: String| SourceError::BadUrl { url: self.url(), why };
        let url = Url::parse(&address).map_err(|err| bad(err.to_string()))?;
        let region = self.spec.region.as_deref().unwrap_or("us-east-1");
        let headers = match &self.spec.keys {
            Some(keys) => s3::sign(keys, region, &url, SystemClock.now()),
            None => vec![],
        };
        match web.get_with(&address, &GitAuth::None, &headers, most)? {
            Answer::Body { body, .. } => Ok(body),
            Answer::Unchanged => Err(bad("the server answers what it was not asked".to_owned())),
        }
    }

    fn stored_path(&self, sum: &Digest) -> PathBuf {
        self.dir.join("objects").join(sum.hex())
    }

    /// Bytes by their sum; `None` where they are not here, or not what was written.
    fn stored(&self, sum: &Digest) -> Result<Option<Bytes>, SourceError> {
        let path = self.stored_path(sum);
        let data = durable::read_if_there(&path).map_err(disk("read", &path))?;
        Ok(data.filter(|data| Digest::of(data) == *sum).map(Bytes::from))
    }

    /// Holds a revision; its objects and those of the one before stay here.
    fn hold_objects(
        &mut self,
        revision: &Revision,
        objects: BTreeMap<String, Kept>,
    ) -> Result<(), SourceError> {
        let before = self.held().map(|held| held.commit.clone());
        let mut revisions = BTreeMap::from([(revision.commit.clone(), objects)]);
        if let Some((commit, objects)) = before.and_then(|before| self.state.revisions.get_key_value(&before))
        {
            revisions.entry(commit.clone()).or_insert_with(|| objects.clone());
        }
        self.commit(State {
            held: Some(revision.clone()),
            revisions,
        })?;
        let folder = self.dir.join("objects");
        self.sweep(&folder).map_err(disk("clean", &folder))
    }

    /// Removes what no held revision names.
    fn sweep(&self, folder: &Path) -> std::io::Result<()> {
        let named: BTreeSet<String> = self
            .state
            .revisions
            .values()
            .flat_map(BTreeMap::values)
            .map(|kept| kept.sum.hex())
            .collect();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| named.contains(name))
            {
                durable::remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, state: State) -> Result<(), SourceError> {
        let path = self.dir.join("state.json");
        let bytes = serde_json::to_vec_pretty(&state).expect("plain data always serialises");
        durable::replace(&path, &bytes).map_err(disk("write", &path))?;
        self.state = state;
        Ok(())
    }
}

impl BucketSpec {
    /// The address of an object, or of the bucket.
    fn url(&self, key: &str, query: &str) -> Result<String, SourceError> {
        let bad = |why: &str| SourceError::BadUrl {
            url: self.endpoint.clone(),
            why: why.to_owned(),
        };
        if self.endpoint.is_empty() || self.endpoint.contains(['/', '@', '?', '#']) {
            return Err(bad("write the endpoint as host or host:port"));
        }
        let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
        if self.bucket.is_empty() || !self.bucket.bytes().all(name) {
            return Err(bad("a bucket's name has letters, digits, '-' and '.'"));
        }
        let scheme = if self.insecure { "http" } else { "https" };
        let mut url = format!("{scheme}://{}/{}", self.endpoint, self.bucket);
        if !key.is_empty() {
            url.push('/');
            url.push_str(&s3::encode(key, true));
        }
        if !query.is_empty() {
            url.push('?');
            url.push_str(query);
        }
        Ok(url)
    }
}

/// One sum over the names and tags of all objects.
fn revision_of(listed: &[Listed]) -> String {
    let lines: String = listed
        .iter()
        .map(|object| format!("{} {}\n", object.key, object.etag))
        .collect();
    Digest::of(lines.as_bytes()).hex()
}

fn name_of(object: &Listed) -> String {
    Digest::of(format!("{}\n{}", object.key, object.etag).as_bytes()).hex()
}

fn is_path(key: &str) -> bool {
    !key.contains('\0') && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
