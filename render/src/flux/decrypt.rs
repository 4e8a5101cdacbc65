//! SOPS in a repository: files are decrypted when they are read, with the keys of the `Kustomization` that reads them.
//!
//! Flux decrypts generator inputs before the build and Secrets behind it, and so cannot check their MAC; here every
//! file is decrypted as it was encrypted, and checked.

use super::types::{Decryption, KustomizationSpec};
use crate::{
    error::{Problem, RenderError, Result},
    files::{Entry, Files},
    trace::Made,
    yaml::Node,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use model::Object;
use sops::{Format, Keys, SopsError};

/// Says of an object that it is not decrypted.
const SWITCH: &str = "kustomize.toolkit.fluxcd.io/decrypt";

/// Files, decrypted where they are encrypted.
#[derive(Debug)]
pub(super) struct Decrypting<'a> {
    pub files: &'a dyn Files,
    pub keys: &'a Keys,
}

impl Files for Decrypting<'_> {
    fn look(&self, path: &str) -> Result<Option<Entry>> {
        self.files.look(path)
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        let data = self.files.read(path)?;
        let Some(format) = format_of(path, &data).filter(|_| !is_switched_off(&data)) else {
            return Ok(data);
        };
        match sops::decrypt(format, &data, self.keys) {
            Ok(plain) => Ok(plain.into()),
            Err(error) => Err(refused(error).in_file(path)),
        }
    }

    fn is_file_system(&self) -> bool {
        self.files.is_file_system()
    }
}

/// The format of an encrypted file: what its name says where that fits, else what its content says.
fn format_of(name: &str, data: &[u8]) -> Option<Format> {
    Some(Format::of_name(name))
        .filter(|format| format.is_encrypted(data))
        .or_else(|| Format::of_encrypted(data))
}

fn is_switched_off(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    text.lines().any(|line| {
        let (key, value) = line.trim().split_once(':').unwrap_or_default();
        let bare = |text: &str| text.trim().trim_matches(['"', '\'', ',']).to_ascii_lowercase();
        bare(key) == SWITCH && bare(value) == "disabled"
    })
}

fn refused(error: SopsError) -> RenderError {
    let remedy = match &error {
        SopsError::NoKey { .. } | SopsError::TooFewGroups { .. } => Some(
            "give the device a key of one of them with 'leeward secret key add', or encrypt the file for it too",
        ),
        SopsError::Mac | SopsError::Value { .. } => {
            Some("restore the file, or encrypt it anew from its plain text")
        }
        _ => None,
    };
    let error = RenderError::new(Problem::Sealed, error.to_string());
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// The keys that a `Kustomization` decrypts with: the device's own, and those of the Secret that it names.
pub(super) fn keys_for(
    decryption: &Decryption,
    namespace: &str,
    device: &Keys,
    rendered: &[Object],
) -> Result<Keys> {
    if decryption.provider != "sops" {
        return Err(RenderError::configuration(format!(
            "the provider {:?} is not known",
            decryption.provider
        ))
        .field("spec.decryption.provider")
        .remedy("write sops"));
    }
    let mut keys = device.clone();
    let Some(reference) = &decryption.secret_ref else {
        return Ok(keys);
    };
    let secret = rendered.iter().find(|object| {
        object.kind() == "Secret"
            && object.group().is_empty()
            && (object.namespace(), object.name()) == (namespace, reference.name.as_str())
    });
    // In a cluster the Secret is made by hand; here the device's own store stands for it.
    let Some(secret) = secret else {
        return Ok(keys);
    };
    for (name, text) in super::kustomize::raw_data(secret)? {
        let known = [".agekey", ".asc"].iter().any(|end| name.ends_with(end));
        if known {
            keys.add(&text).map_err(|error| {
                RenderError::new(Problem::Sealed, error.to_string())
                    .on(secret.key())
                    .field(format!("data.{name}"))
            })?;
        }
    }
    Ok(keys)
}

/// Decrypts what lies encrypted in the data of Secrets, as whole files in base64.
pub(super) fn open_data(node: &mut Node, keys: &Keys) -> Result<()> {
    if node.get("kind").map_or("", Node::value) != "Secret" || is_annotated(node) {
        return Ok(());
    }
    let Some(data) = node
        .as_map_mut()
        .and_then(|map| map.get_mut("data"))
        .and_then(Node::as_map_mut)
    else {
        return Ok(());
    };
    for (key, value) in &mut data.0 {
        let compact: String = value.value().split_whitespace().collect();
        let Some((format, sealed)) = STANDARD
            .decode(compact)
            .ok()
            .and_then(|sealed| Some((format_of(key, &sealed)?, sealed)))
        else {
            continue;
        };
        let plain = sops::decrypt(format, &sealed, keys)
            .map_err(|error| refused(error).field(format!("data.{key}")))?;
        *value = Node::text(STANDARD.encode(plain));
    }
    Ok(())
}

/// Whether anything was left encrypted: nobody is to run with ciphertext in place of a password.
pub(super) fn refuse_sealed(made: &[Made], spec: Option<&KustomizationSpec>) -> Result<()> {
    let sealed = made
        .iter()
        .find(|made| is_sealed(&made.node) && !is_annotated(&made.node));
    let Some(made) = sealed else { return Ok(()) };
    let error = RenderError::new(Problem::Sealed, "the object is encrypted with SOPS");
    let error = match spec {
        Some(spec) if spec.decryption.is_none() => error
            .field("spec.decryption")
            .remedy("set 'decryption: {provider: sops}' in the Kustomization that it belongs to"),
        _ => error.remedy("encrypt it as a file of its own: a part of a file cannot be decrypted"),
    };
    Err(made.blame(error))
}

/// Whether any object is encrypted, or was generated from what is.
pub(super) fn any_sealed(made: &[Made]) -> bool {
    made.iter()
        .any(|made| is_sealed(&made.node) || holds_sealed(&made.node))
}

fn holds_sealed(node: &Node) -> bool {
    let data = node.get("data").and_then(Node::as_map);
    let sealed = |key: &str, value: &Node| {
        let decoded = STANDARD.decode(value.value().split_whitespace().collect::<String>());
        key == "sops_mac" || decoded.is_ok_and(|data| format_of(key, &data).is_some())
    };
    node.get("kind").map_or("", Node::value) == "Secret"
        && data.is_some_and(|data| data.0.iter().any(|(key, value)| sealed(key, value)))
}

fn is_sealed(node: &Node) -> bool {
    node.at(["sops", "mac"])
        .is_some_and(|mac| mac.value().starts_with("ENC["))
}

fn is_annotated(node: &Node) -> bool {
    node.at(["metadata", "annotations", SWITCH])
        .is_some_and(|value| value.value().eq_ignore_ascii_case("disabled"))
}
