//! Files that pages load, compiled in.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::Digest;
use std::sync::LazyLock;

const FILES: [(&str, &str, &str); 3] = [
    (
        "dashboard.css",
        "text/css; charset=utf-8",
        include_str!("../../assets/dashboard.css"),
    ),
    (
        "dashboard.js",
        "text/javascript; charset=utf-8",
        include_str!("../../assets/dashboard.js"),
    ),
    ("mark.svg", "image/svg+xml", include_str!("../../assets/mark.svg")),
];

/// Changes with any of the files: their addresses carry it, so that browsers may keep them for good.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = FILES.iter().map(|(_, _, text)| *text).collect();
    Digest::of(all.as_bytes()).short()
});

/// The address of an asset.
pub(super) fn path(file: &str) -> String {
    format!("/assets/{}/{file}", *VERSION)
}

/// `GET /assets/{version}/{file}`.
pub(super) async fn serve(Path((version, file)): Path<(String, String)>) -> Response {
    match FILES.iter().find(|(name, ..)| *name == file) {
        // A page of an older hub asks for what this one does not have: it gets the present file, not to be kept.
        Some((_, kind, text)) => {
            let keep = if version == *VERSION {
                "public, max-age=31536000, immutable"
            } else {
                "no-store"
            };
            (
                [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, keep)],
                *text,
            )
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
