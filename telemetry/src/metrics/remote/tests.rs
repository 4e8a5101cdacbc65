use super::*;
use crate::http::{Trust, client};
use crate::metrics::{Batch, Labels, Sample, Series};
use kit::SystemClock;
use kit::varint::Reader;
use spool::Patience;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// Fields of a message: number, and the bytes or the number that it holds.
fn fields(bytes: &[u8]) -> Vec<(u64, &[u8], u64)> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    while let Some(tag) = reader.u64() {
        out.push(match tag & 7 {
            0 => (tag >> 3, &[][..], reader.u64().unwrap()),
            1 => {
                let bytes = reader.take(8).unwrap();
                (tag >> 3, bytes, u64::from_le_bytes(bytes.try_into().unwrap()))
            }
            2 => {
                let len = reader.u64().unwrap();
                (tag >> 3, reader.take(usize::try_from(len).unwrap()).unwrap(), 0)
            }
            kind => panic!("wire type {kind}"),
        });
    }
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Number of a field with its default.
fn number(bytes: &[u8], field: u64) -> u64 {
    fields(bytes)
        .iter()
        .find(|(n, ..)| *n == field)
        .map_or(0, |f| f.2)
}

/// Series and its samples, read without the code that wrote them.
fn read(content_type: &str, body: &[u8]) -> Vec<(String, Vec<(i64, u64)>)> {
    let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let all = fields(&plain);
    let v2 = content_type.contains("v2");
    let symbols: Vec<String> = all.iter().filter(|f| f.0 == 4).map(|f| text(f.1)).collect();
    let series = all.iter().filter(|f| f.0 == if v2 { 5 } else { 1 });
    series
        .map(|(_, one, _)| {
            let parts = fields(one);
            let labels: Vec<String> = if v2 {
                let packed = parts.iter().find(|f| f.0 == 1).unwrap().1;
                let mut reader = Reader::new(packed);
                let refs: Vec<u64> = std::iter::from_fn(|| reader.u64()).collect();
                refs.iter()
                    .map(|r| symbols[usize::try_from(*r).unwrap()].clone())
                    .collect()
            } else {
                let labels = parts.iter().filter(|f| f.0 == 1);
                labels
                    .flat_map(|f| fields(f.1).into_iter().map(|f| text(f.1)))
                    .collect()
            };
            let samples = parts.iter().filter(|f| f.0 == 2);
            let samples = samples
                .map(|f| (number(f.1, 2).cast_signed(), number(f.1, 1)))
                .collect();
            (labels.join(" "), samples)
        })
        .collect()
}

/// What a receiver answers: status line's rest and headers.
type Say = Box<dyn FnMut(&str, &[(String, Vec<(i64, u64)>)]) -> String + Send>;
type Held = Arc<Mutex<BTreeMap<(String, i64), Vec<u64>>>>;

/// A receiver that counts every sample of requests that it answers with 2xx.
async fn receiver(mut say: Say) -> (String, Held) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/write", listener.local_addr().unwrap());
    let held = Held::default();
    let kept = Arc::clone(&held);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (half, mut writer) = socket.split();
            let mut lines = BufReader::new(half);
            loop {
                let (mut kind, mut len) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    if lines.read_line(&mut line).await.unwrap_or(0) == 0 || line.trim().is_empty() {
                        break;
                    }
                    let lower = line.to_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        len = value.trim().parse().unwrap();
                    }
                    if let Some(value) = lower.strip_prefix("content-type:") {
                        kind = value.trim().to_owned();
                    }
                }
                if kind.is_empty() {
                    break;
                }
                let mut body = vec![0; len];
                lines.read_exact(&mut body).await.unwrap();
                let series = read(&kind, &body);
                let answer = say(&kind, &series);
                if answer.starts_with('2') {
                    let mut held = kept.lock().unwrap();
                    for (labels, samples) in series {
                        for (time, bits) in samples {
                            held.entry((labels.clone(), time)).or_default().push(bits);
                        }
                    }
                }
                let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                writer.write_all(text.as_bytes()).await.unwrap();
            }
        }
    });
    (url, held)
}

fn batch(count: usize, scrapes: i64) -> Batch {
    let series = (0..count).map(|n| {
        let number = n.to_string();
        let mut one = Series::new(Labels::new([("__name__", "m"), ("n", number.as_str())]).unwrap());
        one.samples = (0..scrapes)
            .map(|time| Sample {
                time,
                value: n as f64 + 0.5,
            })
            .collect();
        one
    });
    Batch {
        series: series.collect(),
    }
}

fn exporter(url: &str, version: Option<Version>) -> Exporter {
    let client = client(&Trust::System).unwrap();
    let extra = vec![("device".to_owned(), "pi-1".to_owned())];
    let quick = Patience {
        first: Duration::from_millis(5),
        ..Patience::default()
    };
    Exporter::new(client, url, extra, version, Arc::new(SystemClock)).patient(quick)
}

/// Each sample once.
#[track_caller]
fn check(held: &Held, want: usize) {
    let held = held.lock().unwrap();
    assert!(held.values().all(|values| values.len() == 1), "twice");
    assert_eq!(held.len(), want);
}

#[tokio::test]
async fn several_scrapes_go_in_one_request_with_the_senders_labels() {
    for version in [Version::V1, Version::V2] {
        let (url, held) = receiver(Box::new(|_, _| {
            "204 No Content\r\nx-prometheus-remote-write-samples-written: 30".to_owned()
        }))
        .await;
        let mut exporter = exporter(&url, Some(version));
        exporter.deliver(&batch(10, 3)).await;
        check(&held, 30);
        let tally = exporter.tally();
        assert_eq!((tally.delivered, tally.refused, tally.requests), (30, 0, 1));
        let held = held.lock().unwrap();
        assert_eq!(
            held[&("__name__ m device pi-1 n 3".to_owned(), 2)],
            [3.5f64.to_bits()]
        );
    }
}

#[tokio::test]
async fn the_series_to_blame_stands_alone_in_the_end() {
    let bad =
        |series: &[(String, Vec<(i64, u64)>)]| series.iter().any(|(labels, _)| labels.ends_with("n 37"));
    let (url, held) = receiver(Box::new(move |_, series| {
        if series.len() > 40 {
            return "413 Payload Too Large".to_owned();
        }
        if bad(series) { "400 Bad Request" } else { "200 OK" }.to_owned()
    }))
    .await;
    let mut exporter = exporter(&url, Some(Version::V1));
    exporter.deliver(&batch(100, 2)).await;
    check(&held, 198);
    let tally = exporter.tally();
    assert_eq!((tally.delivered, tally.refused), (198, 2));
    // Two halvings for the size, about log2(25) for the series.
    assert!(tally.requests < 20, "{tally:?}");
}

#[tokio::test]
async fn bad_days_pass_and_an_old_receiver_is_spoken_to_in_its_form() {
    let mut answers = vec![
        "415 Unsupported Media Type",
        "503 Service Unavailable\r\nretry-after: 0",
        "429 Too Many",
        "500 Oops",
    ]
    .into_iter();
    let (url, held) = receiver(Box::new(move |kind, _| {
        let ready = answers.next().map(str::to_owned);
        ready.unwrap_or_else(|| {
            if kind.contains("v2") {
                "415 No"
            } else {
                "204 No Content"
            }
            .to_owned()
        })
    }))
    .await;
    let mut exporter = exporter(&url, None);
    exporter.deliver(&batch(5, 1)).await;
    check(&held, 5);
    assert_eq!(exporter.tally().requests, 5);

    // It takes the body and finds nothing in it: no counts.
    let (url, held) = receiver(Box::new(|kind, _| {
        if kind.contains("v2") {
            "299 Nothing"
        } else {
            "204 No Content"
        }
        .to_owned()
    }))
    .await;
    let mut exporter = self::exporter(&url, None);
    exporter.deliver(&batch(5, 1)).await;
    assert_eq!(exporter.tally().delivered, 5);
    assert_eq!(held.lock().unwrap().len(), 5);
}

#[test]
fn answers_say_what_to_do() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let read = |version, status, headers: &[(&str, &'static str)]| {
        let headers: BTreeMap<_, _> = headers.iter().copied().collect();
        Answer::read(version, status, |name| headers.get(name).copied(), "told", now)
    };
    let samples = "x-prometheus-remote-write-samples-written";
    let later =
        |seconds, status| Answer::Later(Some(Duration::from_secs(seconds)), format!("{status}: told"));
    for (version, status, headers, want) in [
        (Version::V1, 204, vec![], Answer::Done),
        (Version::V2, 204, vec![(samples, "0")], Answer::Done),
        (Version::V2, 204, vec![], Answer::OtherVersion),
        (Version::V2, 415, vec![], Answer::OtherVersion),
        (Version::V1, 415, vec![], Answer::Bad("415: told".to_owned())),
        (Version::V1, 400, vec![], Answer::Bad("400: told".to_owned())),
        (
            Version::V2,
            400,
            vec![(samples, "0")],
            Answer::Bad("400: told".to_owned()),
        ),
        (
            Version::V2,
            400,
            vec![(samples, "7")],
            Answer::Partial(
                Written {
                    samples: 7,
                    ..Written::default()
                },
                "400: told".to_owned(),
            ),
        ),
        (Version::V1, 413, vec![], Answer::TooLarge),
        (Version::V1, 429, vec![("retry-after", "7")], later(7, 429)),
        (
            Version::V1,
            503,
            vec![("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT")],
            later(60, 503),
        ),
        (
            Version::V1,
            500,
            vec![],
            Answer::Later(None, "500: told".to_owned()),
        ),
        (Version::V1, 401, vec![], later(60, 401)),
    ] {
        assert_eq!(
            read(version, status, &headers),
            want,
            "{version:?} {status} {headers:?}"
        );
    }
}
