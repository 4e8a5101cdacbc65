//! The YAML border: text to [`Node`] trees and back, with kustomize's reading of scalars.
//!
//! kustomize reads manifests with YAML 1.2-like rules, turns them into JSON, and prints that JSON with
//! YAML 1.1 rules. A node keeps a scalar's text until it is printed, because transformers work on the text.

mod emit;
mod json;
mod node;
mod parse;
mod scalar;
mod scan;
mod shared;

pub(crate) use emit::emit_document;
pub(crate) use json::{from_json, to_json, to_json_yaml11};
pub(crate) use node::{Map, Node, Scalar, Style};
pub(crate) use parse::{parse_documents, parse_lenient};
pub(crate) use scalar::Plain;
pub(crate) use shared::settle;
