//! Waiting for a condition, with a deadline and with what was last seen where it does not come.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// Looks every 100 ms until `look` gives a value; `Err` is what is still missing.
pub async fn until<T, F, Fut>(what: &str, most: Duration, mut look: F) -> Result<(T, Duration)>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(missing) if start.elapsed() > most => {
                bail!("{what}: not within {} s: {missing:#}", most.as_secs())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
