//! `_bulk` of OpenSearch and Elasticsearch. Each line has an `_id` that follows from where it stands, and is created,
//! never replaced: 409 says that it is there already.

use super::otlp::lines;
use super::{Item, Outcome, Reply, Request, Unfit};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn encode(items: &[Item], index: &str) -> Result<Option<Request>, Unfit> {
    let mut body = String::new();
    for item in items {
        let record = &item.record;
        for (number, line) in lines(item)?.into_iter().enumerate() {
            let id = format!(
                "{}.{}.{}.{number}",
                record.device, record.ordinal, record.sequence
            );
            let time = i128::from(line.time);
            let time = Timestamp::from_nanosecond(time).unwrap_or(record.received_at);
            let mut document = json!({
                "@timestamp": time,
                "message": line.body,
                "log": { "level": line.severity },
                "attributes": line.attributes,
                "labels": *item.place,
            });
            for (field, value) in [("trace", &line.trace_id), ("span", &line.span_id)] {
                if !value.is_empty() {
                    document[field] = json!({ "id": value });
                }
            }
            body += &json!({ "create": { "_index": index, "_id": id } }).to_string();
            body.push('\n');
            body += &document.to_string();
            body.push('\n');
        }
    }
    Ok((!body.is_empty()).then(|| Request {
        path: "/_bulk?filter_path=errors,items.*.status,items.*.error",
        headers: &[("content-type", "application/x-ndjson")],
        body: body.into_bytes(),
    }))
}

#[derive(Debug, Deserialize)]
struct BulkReply {
    #[serde(default)]
    errors: bool,
    #[serde(default)]
    items: Vec<std::collections::BTreeMap<String, ItemReply>>,
}

#[derive(Debug, Deserialize)]
struct ItemReply {
    status: u16,
    #[serde(default)]
    error: Value,
}

/// The answer is 200 also where single lines were refused: each is told apart.
pub(super) fn judge(reply: &Reply) -> Outcome {
    if !(200..300).contains(&reply.status) {
        return reply.usual();
    }
    let Ok(bulk) = serde_json::from_slice::<BulkReply>(&reply.body) else {
        return Outcome::Later(None, format!("no answer of _bulk: {}", reply.words()));
    };
    if !bulk.errors {
        return Outcome::Done;
    }
    let (mut refused, mut why) = (0, String::new());
    for item in bulk.items.iter().flat_map(|item| item.values()) {
        match item.status {
            200..=299 | 409 => {}
            // Some of it was not taken for now: all of it again, what is there already answers 409.
            429 | 500..=599 => return Outcome::Later(reply.retry_after, item.error.to_string()),
            _ => {
                refused += 1;
                why = item.error.to_string();
            }
        }
    }
    if refused == 0 {
        Outcome::Done
    } else {
        Outcome::Partial(refused, why)
    }
}
