//! Rows, as `cargo xtask bench` takes them: it knows units and targets, and judges.

use anyhow::Result;
use serde::Serialize;
use std::io::Write as _;

/// One measured figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Row {
    /// A figure without a peer.
    pub(super) fn alone(name: &'static str, ours: f64) -> Self {
        Self::beside(name, ours, None)
    }

    /// A figure beside its peer's name and value, where it could be measured.
    pub(super) fn beside(name: &'static str, ours: f64, peer: Option<(String, f64)>) -> Self {
        let (peer_name, peer) = peer.unzip();
        Self {
            name,
            ours,
            peer_name,
            peer,
            note: None,
        }
    }

    /// With a remark on how it was measured.
    pub(super) fn noted(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }
}

/// Prints the rows as one JSON list.
pub(super) fn tell(rows: &[Row]) -> Result<()> {
    let mut text = serde_json::to_vec(rows)?;
    text.push(b'\n');
    // The one who asked may have been interrupted, and gone.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}
