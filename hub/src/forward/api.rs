//! `GET /v1/forwarders`: how far each is, and why it waits.

use crate::Hub;
use crate::caller::PersonCaller;
use crate::problem::Refusal;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use wire::api::{ForwarderAside, ForwarderRow};

/// Records set aside that are told.
const ASIDE: usize = 20;

pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
) -> Result<Json<Vec<ForwarderRow>>, Refusal> {
    let held = hub.store().forwarders().await?;
    let mut rows = Vec::new();
    for config in &hub.config.forwarders {
        let Some(far) = held.iter().find(|far| far.name == config.name) else {
            continue;
        };
        let trouble = hub.board.of(&config.name);
        let aside = hub.store().forward_aside(&config.name, ASIDE).await?;
        let state = match (&trouble, far.waiting) {
            (Some(_), _) => "Waiting",
            (None, 0) => "UpToDate",
            (None, _) => "Sending",
        };
        let (why, retry_at) =
            trouble.map_or_else(Default::default, |trouble| (trouble.why, trouble.retry_at));
        rows.push(ForwarderRow {
            name: config.name.clone(),
            kind: config.kind.word().to_owned(),
            url: config.url.to_string(),
            streams: config.streams().into_iter().map(str::to_owned).collect(),
            state: state.to_owned(),
            message: why,
            retry_at,
            waiting: far.waiting,
            waiting_bytes: far.waiting_bytes,
            lag_seconds: far.waiting_since.map_or(0, |since| hub.age(since)),
            sent: far.sent,
            dropped: far.dropped,
            set_aside: far.set_aside,
            last_sent_at: far.last_sent_at,
            newest_set_aside: aside
                .into_iter()
                .map(|(device, record)| ForwarderAside {
                    device,
                    stream: record.stream,
                    sequence: record.sequence,
                    at: record.received_at,
                    why: record.why,
                })
                .collect(),
        });
    }
    Ok(Json(rows))
}
