//! A hub's dashboard to look at.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use crate::browser::Browser;
use crate::seed;
use hub::dashboard::{Dashboard, router};
use hub::store::{Options, PassKind, Store};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A hub's dashboard with the seeded fleet, on loopback.
pub struct Site {
    pub store: Store,
    pub base: String,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Site {
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = seed::seed(dir.path(), options).await;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let dashboard = Dashboard::new(
            store.clone(),
            Arc::new(seed::Logs),
            false,
            CancellationToken::new(),
        )
        .with_charts(Arc::new(seed::Past))
        .with_lines(Arc::new(seed::Past));
        let server = tokio::spawn(async move { axum::serve(listener, router(dashboard)).await.unwrap() });
        Self {
            store,
            base,
            server,
            _dir: dir,
        }
    }

    /// Heartbeats so rare that no device of the fleet goes stale during a test.
    pub async fn calm() -> Self {
        Self::start(Options {
            heartbeat: Duration::from_secs(600),
            ..Options::default()
        })
        .await
    }

    pub async fn log_in(&self, browser: &Browser, next: &str) {
        let soon = Timestamp::now() + SignedDuration::from_mins(5);
        let code = format!("code-{next}");
        self.store
            .give_pass("ann", PassKind::Login, &code, soon)
            .await
            .unwrap();
        browser
            .open(&format!("{}/login?code={code}&next={next}", self.base))
            .await;
    }
}

/// A device of the fleet.
pub fn made(name: &str) -> seed::Made {
    seed::fleet().into_iter().find(|made| made.name == name).unwrap()
}
