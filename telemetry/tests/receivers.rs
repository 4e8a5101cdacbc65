//! Samples of a real exporter, through the scraper, the spool and remote write, into real receivers: each once.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skips"
)]

use kit::{Clock, SystemClock};
use serde_json::Value;
use spool::{Class, Durability, Options, Patience, Spool, Stream};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use telemetry::http::{Trust, client};
use telemetry::metrics::remote::{Exporter, Tally, Version, deliver_stream};
use telemetry::metrics::{Batch, Job, Labels, Scraper, Source, Target, Window, is_stale};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, words: &[String]) -> Running {
    let mut command = Command::new(program);
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

/// Whether what the test needs is here; in CI it must be.
fn here(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !Path::new("/usr/bin").join(program).exists())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?}");
    false
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn get(url: &str) -> Option<String> {
    let answer = client(&Trust::System).unwrap().get(url).send().await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn prometheus(dir: &Path, port: u16) -> Running {
    let config = dir.join("prometheus.yml");
    // Without the window it refuses what a device kept for more than an hour.
    std::fs::write(&config, "storage: {tsdb: {out_of_order_time_window: 24h}}\n").unwrap();
    start(
        "prometheus",
        &[
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ],
    )
}

/// How many samples of each series there are, markers of an end aside.
fn counted(stream: &Stream) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut after = 0;
    loop {
        let records = stream.read(after, 1 << 20).unwrap();
        let Some(last) = records.last() else { return counts };
        after = last.seq;
        for record in &records {
            for series in Batch::decode(&record.payload).unwrap().series {
                let count = series
                    .samples
                    .iter()
                    .filter(|sample| !is_stale(sample.value))
                    .count();
                *counts.entry(series.labels.to_string()).or_default() += count;
            }
        }
    }
}

fn shown(metric: &Value) -> String {
    let pairs = metric.as_object().unwrap();
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
    Labels::new(pairs).unwrap().to_string()
}

/// Every sample by series, as the export of raw data gives them.
async fn held_by_victoria(port: u16) -> Option<BTreeMap<String, usize>> {
    let text = get(&format!(
        "http://127.0.0.1:{port}/api/v1/export?match%5B%5D=%7Bjob%3D%22node%22%7D"
    ))
    .await?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let one: Value = serde_json::from_str(line).ok()?;
        // A marker of an end is written as null.
        let values = one["values"]
            .as_array()?
            .iter()
            .filter(|value| value.is_number())
            .count();
        *counts.entry(shown(&one["metric"])).or_default() += values;
    }
    Some(counts)
}

fn export(
    stream: &Stream,
    name: &'static str,
    url: String,
    version: Option<Version>,
) -> tokio::task::JoinHandle<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let quick = Patience {
        first: Duration::from_millis(100),
        most: Duration::from_secs(1),
        ..Patience::default()
    };
    let exporter =
        Exporter::new(client(&Trust::System).unwrap(), &url, Vec::new(), version, clock).patient(quick);
    stream.attach(name).unwrap();
    tokio::spawn(deliver_stream(
        stream.clone(),
        name.to_owned(),
        exporter,
        |_: Tally| {},
    ))
}

#[tokio::test]
async fn each_sample_of_a_real_exporter_is_in_real_receivers_once_across_an_outage() {
    if !here(&["prometheus", "victoria-metrics", "prometheus-node-exporter"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (node, prom, victoria) = (free_port(), free_port(), free_port());
    let _node = start(
        "prometheus-node-exporter",
        &[format!("--web.listen-address=127.0.0.1:{node}")],
    );
    let _victoria = start(
        "victoria-metrics",
        &[
            format!("-httpListenAddr=127.0.0.1:{victoria}"),
            format!("-storageDataPath={}", dir.path().join("victoria").display()),
        ],
    );
    let first = prometheus(dir.path(), prom);
    eventually("the exporter", || {
        get_owned(format!("http://127.0.0.1:{node}/metrics"))
    })
    .await;
    eventually("VictoriaMetrics", || {
        get_owned(format!("http://127.0.0.1:{victoria}/health"))
    })
    .await;
    eventually("Prometheus", || {
        get_owned(format!("http://127.0.0.1:{prom}/-/ready"))
    })
    .await;

    let (spool, _) = Spool::open(&dir.path().join("spool"), Options::default()).unwrap();
    let stream = spool.stream("metrics", Durability::Sampled, Class::Bulk).unwrap();
    // Keeps the records here, to be counted.
    stream.attach("counter").unwrap();
    let sinks = [
        export(
            &stream,
            "prometheus",
            format!("http://127.0.0.1:{prom}/api/v1/write"),
            None,
        ),
        export(
            &stream,
            "victoria",
            format!("http://127.0.0.1:{victoria}/api/v1/write"),
            Some(Version::V1),
        ),
    ];
    let target = Target {
        source: Source::Url(format!("http://127.0.0.1:{node}/metrics")),
        labels: Labels::new([("job", "node"), ("instance", "here")]).unwrap(),
        job: Arc::new(Job::new("node", Duration::from_millis(500))),
    };
    let (_list, targets) = watch::channel(Arc::new(vec![target]));
    let stop = CancellationToken::new();
    let window = Window {
        time: Duration::from_secs(1),
        ..Window::default()
    };
    let scraper = Scraper::new(Arc::new(SystemClock), window, "pi-1");
    let kept = stream.clone();
    let scraping = tokio::spawn(scraper.run(targets, stop.clone(), move |batch| {
        let pending = kept.append(&batch.encode().unwrap(), None);
        drop(pending.unwrap());
    }));
    eventually("a first delivery", || async {
        (stream.acked("prometheus") >= 2).then_some(())
    })
    .await;
    // A receiver that dies and comes back.
    drop(first);
    let seen = stream.last();
    eventually("records meanwhile", || async {
        (stream.last() >= seen + 3).then_some(())
    })
    .await;
    let _second = prometheus(dir.path(), prom);
    stop.cancel();
    scraping.await.unwrap();
    for sink in ["prometheus", "victoria"] {
        eventually("everything acknowledged", || async {
            (stream.acked(sink) == stream.last()).then_some(())
        })
        .await;
    }
    let wanted = counted(&stream);
    assert!(wanted.len() > 200, "{}", wanted.len());
    eventually("VictoriaMetrics shows what it has", || async {
        (held_by_victoria(victoria).await? == wanted).then_some(())
    })
    .await;
    let total: usize = wanted
        .iter()
        .filter(|(name, _)| name.starts_with("node_cpu_seconds_total"))
        .map(|(_, n)| n)
        .sum();
    let query = "sum(count_over_time(node_cpu_seconds_total%5B1h%5D))";
    eventually("Prometheus has each sample once", || async {
        let text = get(&format!("http://127.0.0.1:{prom}/api/v1/query?query={query}")).await?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let found: usize = answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        (found == total).then_some(())
    })
    .await;
    for sink in sinks {
        sink.abort();
    }
}

async fn get_owned(url: String) -> Option<String> {
    get(&url).await
}
