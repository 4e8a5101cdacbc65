//! The `sops` part of a file: for whom, by which rules, under which MAC.

use crate::{Keys, SopsError, age::Unopened, cipher::DataKey, shamir};
use serde::Deserialize;
use serde_json::Value;

/// As SOPS writes it; key services that are not asked keep their names only.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metadata {
    pub lastmodified: String,
    pub mac: String,
    pub mac_only_encrypted: bool,
    pub unencrypted_suffix: Option<String>,
    pub encrypted_suffix: Option<String>,
    pub unencrypted_regex: Option<String>,
    pub encrypted_regex: Option<String>,
    pub unencrypted_comment_regex: Option<String>,
    pub encrypted_comment_regex: Option<String>,
    shamir_threshold: Option<usize>,
    key_groups: Option<Vec<Group>>,
    #[serde(flatten)]
    group: Group,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    age: Option<Vec<Age>>,
    pgp: Option<Vec<Pgp>>,
    kms: Option<Vec<Value>>,
    gcp_kms: Option<Vec<Value>>,
    azure_kv: Option<Vec<Value>>,
    hc_vault: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct Age {
    recipient: String,
    enc: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(feature = "pgp"),
    expect(dead_code, reason = "read to be named, opened only with PGP")
)]
struct Pgp {
    fp: String,
    enc: String,
}

impl Group {
    fn recipients(&self) -> Vec<String> {
        let age = self.age.iter().flatten().map(|age| age.recipient.clone());
        let pgp = self.pgp.iter().flatten().map(|pgp| format!("PGP {}", pgp.fp));
        let named = |list: &Option<Vec<Value>>, service: &str, field: &str| -> Vec<String> {
            list.iter()
                .flatten()
                .map(|key| {
                    format!(
                        "{service} {}",
                        key.get(field).and_then(Value::as_str).unwrap_or("?")
                    )
                })
                .collect()
        };
        age.chain(pgp)
            .chain(named(&self.kms, "AWS KMS", "arn"))
            .chain(named(&self.gcp_kms, "GCP KMS", "resource_id"))
            .chain(named(&self.azure_kv, "Azure Key Vault", "vault_url"))
            .chain(named(&self.hc_vault, "Vault", "vault_address"))
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.recipients().is_empty()
    }

    /// What is wrapped, by the first key held that is among the recipients.
    fn open(&self, keys: &Keys) -> Result<Option<Vec<u8>>, SopsError> {
        let mut damaged = None;
        for age in self.age.iter().flatten() {
            for key in &keys.age {
                match key.open(&age.enc) {
                    Ok(opened) => return Ok(Some(opened)),
                    Err(Unopened::Damaged(why)) if key.recipient() == age.recipient => {
                        damaged.get_or_insert(SopsError::DataKey {
                            recipient: age.recipient.clone(),
                            why: why.to_owned(),
                        });
                    }
                    Err(Unopened::NotOurs) if key.recipient() == age.recipient => {
                        damaged.get_or_insert(SopsError::DataKey {
                            recipient: age.recipient.clone(),
                            why: "it is wrapped for someone else".to_owned(),
                        });
                    }
                    Err(_) => {}
                }
            }
        }
        #[cfg(feature = "pgp")]
        for pgp in self.pgp.iter().flatten() {
            for key in &keys.pgp {
                match key.open(&pgp.enc) {
                    Ok(opened) => return Ok(Some(opened)),
                    Err(why) if key.has(&pgp.fp) => {
                        damaged.get_or_insert(SopsError::DataKey {
                            recipient: format!("PGP {}", pgp.fp),
                            why,
                        });
                    }
                    Err(_) => {}
                }
            }
        }
        damaged.map_or(Ok(None), Err)
    }
}

impl Metadata {
    /// From the lists and maps that the INI and dotenv formats write as flat names.
    pub fn from_flat<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Result<Self, SopsError> {
        let mut root = Value::Null;
        for (name, value) in pairs {
            let value = value.replace("\\n", "\n");
            let leaf = match name {
                "mac_only_encrypted" => Value::Bool(value == "true"),
                "shamir_threshold" => value.parse::<u64>().map_or(Value::Null, Value::from),
                _ => Value::String(value),
            };
            *place(&mut root, name).ok_or_else(|| SopsError::Metadata(format!("{name} fits nowhere")))? =
                leaf;
        }
        if root.is_null() {
            return Err(SopsError::NoMetadata);
        }
        serde_json::from_value(root).map_err(|error| SopsError::Metadata(error.to_string()))
    }

    fn recipients(&self) -> Vec<String> {
        let groups = self.key_groups.iter().flatten().flat_map(Group::recipients);
        self.group.recipients().into_iter().chain(groups).collect()
    }

    /// The data key, opened by one of the keys that are held.
    pub fn data_key(&self, keys: &Keys) -> Result<DataKey, SopsError> {
        let bytes = match &self.key_groups {
            Some(groups) if self.group.is_empty() && !groups.is_empty() => self.shared(groups, keys)?,
            _ => self.group.open(keys)?,
        };
        let bytes = bytes.ok_or_else(|| SopsError::NoKey {
            recipients: self.recipients(),
            held: keys.public(),
        })?;
        DataKey::new(&bytes)
            .ok_or_else(|| SopsError::Metadata(format!("the data key has {} bytes, not 32", bytes.len())))
    }

    fn shared(&self, groups: &[Group], keys: &Keys) -> Result<Option<Vec<u8>>, SopsError> {
        let opened: Vec<Option<Vec<u8>>> = groups
            .iter()
            .map(|group| group.open(keys))
            .collect::<Result<_, _>>()?;
        let mut opened: Vec<Vec<u8>> = opened.into_iter().flatten().collect();
        if groups.len() == 1 || opened.is_empty() {
            return Ok(opened.pop());
        }
        let needed = self
            .shamir_threshold
            .filter(|needed| *needed > 0)
            .unwrap_or(groups.len());
        if opened.len() < needed {
            return Err(SopsError::TooFewGroups {
                needed,
                opened: opened.len(),
                recipients: self.recipients(),
            });
        }
        match shamir::combine(&opened) {
            Some(key) => Ok(Some(key)),
            None => Err(SopsError::Metadata(
                "the shares of the data key do not fit together".to_owned(),
            )),
        }
    }
}

/// `age__list_0__map_enc` is the `enc` of the first of `age`.
fn place<'a>(root: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    const MOST: usize = 1000;
    let marked = name.replace("__map_", "\0m").replace("__list_", "\0l");
    let mut at = root;
    for (index, part) in marked.split('\0').enumerate() {
        let (kind, key) = if index == 0 {
            ("m", part)
        } else {
            part.split_at_checked(1)?
        };
        at = if kind == "m" {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            at.as_object_mut()?.entry(key).or_insert(Value::Null)
        } else {
            if at.is_null() {
                *at = Value::Array(Vec::new());
            }
            let list = at.as_array_mut()?;
            let key: usize = key.parse().ok().filter(|key| *key < MOST)?;
            if list.len() <= key {
                list.resize(key + 1, Value::Null);
            }
            &mut list[key]
        };
    }
    Some(at)
}
