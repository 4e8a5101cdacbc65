//! The dashboard on loopback with a seeded fleet: `cargo run -p hub --example dashboard_fixture [PORT]`.
#![expect(clippy::print_stdout, reason = "it tells where to look")]

#[path = "../tests/dashboard/seed.rs"]
mod seed;

use hub::dashboard::{Dashboard, router};
use hub::store::{Options, PassKind};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args()
        .nth(1)
        .map_or(Ok(0), |text| text.parse::<u16>())?;
    let dir = tempfile::tempdir()?;
    let store = seed::seed(dir.path(), Options::default()).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let soon = Timestamp::now() + SignedDuration::from_hours(1);
    store.give_pass("ann", PassKind::Login, "look", soon).await?;
    println!(
        "http://{}/login?code=look (once), or token {}",
        listener.local_addr()?,
        seed::TOKEN
    );
    tokio::spawn(live(store.clone()));
    let dashboard = Dashboard::new(store, Arc::new(seed::Logs), false, CancellationToken::new())
        .with_charts(Arc::new(seed::Past))
        .with_lines(Arc::new(seed::Past));
    axum::serve(listener, router(dashboard)).await?;
    Ok(())
}

/// Every connected device says something new now and then.
async fn live(store: hub::store::Store) {
    for n in 0_u32.. {
        for made in seed::fleet().iter().filter(|made| made.silent.is_none()) {
            let mut told = seed::status(made, Timestamp::now());
            let wave = f64::from(n % 7) - 3.0;
            told.facts.cpu_percent = Some(made.cpu + wave);
            told.facts.temperature_celsius = Some(made.celsius + wave / 4.0);
            seed::say(&store, &told).await;
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
}
