//! Alertmanager's API v2. An alert is known by its labels: told again, it is the same.

use super::{Item, Request, Unfit};
use serde_json::Value;

pub(super) fn encode(items: &[Item]) -> Result<Option<Request>, Unfit> {
    let mut all: Vec<Value> = Vec::new();
    for item in items {
        let mut alerts: Vec<Value> =
            serde_json::from_slice(&item.record.payload).map_err(|err| Unfit(err.to_string()))?;
        for alert in &mut alerts {
            let labels = alert.get_mut("labels").and_then(Value::as_object_mut);
            let Some(labels) = labels else {
                return Err(Unfit("an alert has no labels".into()));
            };
            for (name, value) in item.place.iter() {
                labels.insert(name.clone(), value.as_str().into());
            }
        }
        all.append(&mut alerts);
    }
    Ok((!all.is_empty()).then(|| Request {
        path: "/api/v2/alerts",
        headers: &[("content-type", "application/json")],
        body: Value::Array(all).to_string().into_bytes(),
    }))
}
