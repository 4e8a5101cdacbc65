//! `POST /v1/query`: SQL from people, as any other reading.

use super::sources;
use crate::Hub;
use crate::caller::PersonCaller;
use crate::problem::Refusal;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use history::{Answer, Bounds, QueryError};
use http::StatusCode;
use std::sync::Arc;
use wire::api::{QueryAnswer, QueryAsk, QueryColumn, QueryTable};

/// Rows where the question names no number.
const USUAL_ROWS: usize = 1_000;
const MOST_ROWS: usize = 100_000;
/// Bytes of an answer.
const MOST_BYTES: usize = 64 << 20;
/// Records that wait for a file and are read by a query; more of them means that files cannot be written.
const STAGED_BYTES: usize = 64 << 20;

impl Hub {
    /// Answers one query.
    pub(crate) async fn query(&self, sql: &str, rows: usize) -> Result<Answer, Refusal> {
        let prepared = self.history.engine.prepare(sql)?;
        // Before the names of files are read: none of them is deleted while this lives.
        let _pin = self.history.pins.pin();
        let sources = sources(self.store(), prepared.tables(), STAGED_BYTES).await?;
        let Some(sources) = sources else {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "HistoryBehind",
                "too much telemetry waits to be filed; the hub's log says why",
            ));
        };
        let bounds = Bounds {
            rows,
            bytes: MOST_BYTES,
        };
        Ok(self.history.engine.run(prepared, sources, bounds).await?)
    }
}

pub(crate) async fn query(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    ask: Result<Json<QueryAsk>, JsonRejection>,
) -> Result<Json<QueryAnswer>, Refusal> {
    let Json(ask) = ask.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let rows = ask.limit.unwrap_or(USUAL_ROWS);
    if !(1..=MOST_ROWS).contains(&rows) {
        return Err(Refusal::bad_request(format!(
            "limit must be between 1 and {MOST_ROWS}"
        )));
    }
    let answer = hub.query(&ask.sql, rows).await?;
    let column = |column: history::Column| QueryColumn {
        name: column.name,
        kind: column.kind,
        about: String::new(),
    };
    Ok(Json(QueryAnswer {
        columns: answer.columns.into_iter().map(column).collect(),
        rows: answer.rows,
        truncated: answer.truncated,
    }))
}

/// `GET /v1/query/tables`
pub(crate) async fn tables(_: PersonCaller) -> Json<Vec<QueryTable>> {
    let table = |table: history::TableInfo| QueryTable {
        name: table.name.to_owned(),
        about: table.about.to_owned(),
        columns: table
            .columns
            .iter()
            .map(|column| QueryColumn {
                name: column.name.to_owned(),
                kind: column.kind.word().to_owned(),
                about: column.about.to_owned(),
            })
            .collect(),
    };
    Json(history::tables().into_iter().map(table).collect())
}

impl From<QueryError> for Refusal {
    fn from(err: QueryError) -> Self {
        let (status, reason) = match &err {
            QueryError::Sql(_) => (StatusCode::BAD_REQUEST, "BadQuery"),
            QueryError::ReadOnly(_) => (StatusCode::BAD_REQUEST, "ReadOnly"),
            QueryError::Memory(_) => (StatusCode::UNPROCESSABLE_ENTITY, "TooMuchMemory"),
            QueryError::Time(_) => (StatusCode::UNPROCESSABLE_ENTITY, "TooSlow"),
            QueryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Busy"),
            QueryError::Failed(_) => {
                tracing::error!(%err, "a query failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "QueryFailed")
            }
        };
        Self::new(status, reason, err.to_string())
    }
}
