//! What a receiver has already: a device that crashed may give entries again, in other records.

use super::{FILE, UPTO};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

/// A record, and how far each of its files is when it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// The record without the entries that were held; as it came where none was.
    pub record: Bytes,
    /// Files and their places, to be kept together with the record.
    pub places: Vec<(String, u64)>,
}

/// Takes out the entries that lie before the place up to which `held` has their file.
///
/// A record that says nothing of files, or is none, comes back as it is.
pub fn trim<E>(record: Bytes, mut held: impl FnMut(&str) -> Result<Option<u64>, E>) -> Result<Trimmed, E> {
    let mut places = Vec::new();
    let Ok(mut request) = ExportLogsServiceRequest::decode(record.clone()) else {
        return Ok(Trimmed { record, places });
    };
    let mut changed = false;
    for resource in &mut request.resource_logs {
        let attributes = resource
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let Some(Value::StringValue(file)) = value(attributes, FILE) else {
            continue;
        };
        let from = held(file)?.unwrap_or(0);
        let mut upto = from;
        for scope in &mut resource.scope_logs {
            scope.log_records.retain(|entry| {
                let Some(Value::IntValue(place)) = value(&entry.attributes, UPTO) else {
                    return true;
                };
                let place = u64::try_from(*place).unwrap_or(0);
                upto = upto.max(place);
                changed |= place <= from;
                place > from
            });
        }
        if upto > from {
            places.push((file.clone(), upto));
        }
    }
    let record = if changed {
        Bytes::from(request.encode_to_vec())
    } else {
        record
    };
    Ok(Trimmed { record, places })
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|it| it.key == key)?;
    found.value.as_ref()?.value.as_ref()
}
