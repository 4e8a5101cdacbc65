//! A web service: says who it is, and fails on request.

use crate::{ending, env, json, version};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Longest request head that is read, in bytes.
const MOST_HEAD: u64 = 16 << 10;
/// Connections served at the same time; more wait in the kernel's queue.
const MOST_CONNECTIONS: u64 = 64;

#[derive(Default)]
struct State {
    requests: AtomicU64,
    open: AtomicU64,
    /// Set by `/fail`: the liveness probe then fails until the container is restarted.
    failing: AtomicBool,
}

/// Serves until the pod ends.
#[expect(clippy::print_stdout, reason = "a container speaks through its output")]
pub(crate) fn run() -> Result<(), String> {
    let port = env("PORT", "8080");
    let address = format!("0.0.0.0:{port}");
    let listener = TcpListener::bind(&address).map_err(|err| format!("cannot listen at {address}: {err}"))?;
    println!("hello {} listens at {address}", version());
    let state = Arc::new(State::default());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        while state.open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            std::thread::sleep(Duration::from_millis(5));
        }
        state.open.fetch_add(1, Ordering::Relaxed);
        let state = Arc::clone(&state);
        std::thread::spawn(move || {
            // A client that goes away is that client's affair.
            let _ = answer(&state, &stream);
            state.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a container speaks through its output")]
fn answer(state: &State, mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.take(MOST_HEAD)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let (status, kind, body) = page(state, &path);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    if !matches!(path.as_str(), "/healthz" | "/readyz") {
        println!("{first} -> {status}");
    }
    if path == "/crash" {
        println!("crashing, as asked");
        std::process::exit(1);
    }
    Ok(())
}

fn page(state: &State, path: &str) -> (&'static str, &'static str, String) {
    let text = "text/plain; charset=utf-8";
    let failing = state.failing.load(Ordering::Relaxed);
    match path.split('?').next().unwrap_or(path) {
        "/" => (
            "200 OK",
            text,
            greeting(state.requests.fetch_add(1, Ordering::Relaxed) + 1),
        ),
        "/api" => (
            "200 OK",
            "application/json",
            facts(state.requests.fetch_add(1, Ordering::Relaxed) + 1),
        ),
        "/version" => ("200 OK", text, version() + "\n"),
        "/healthz" if failing => (
            "500 Internal Server Error",
            text,
            "failing, as asked\n".to_owned(),
        ),
        "/healthz" => ("200 OK", text, "ok\n".to_owned()),
        "/readyz" if failing || ending() => ("503 Service Unavailable", text, "not ready\n".to_owned()),
        "/readyz" => ("200 OK", text, "ready\n".to_owned()),
        "/metrics" => {
            let count = state.requests.load(Ordering::Relaxed);
            let body = format!("# TYPE hello_requests_total counter\nhello_requests_total {count}\n");
            ("200 OK", "text/plain; version=0.0.4", body)
        }
        "/fail" => {
            state.failing.store(true, Ordering::Relaxed);
            (
                "200 OK",
                text,
                "the liveness probe fails from here on\n".to_owned(),
            )
        }
        "/crash" => ("200 OK", text, "going down\n".to_owned()),
        _ => ("404 Not Found", text, "not found\n".to_owned()),
    }
}

fn greeting(count: u64) -> String {
    let folder = env("CONFIG_DIR", "/config");
    let words = std::fs::read_to_string(format!("{folder}/greeting"));
    format!(
        "{}\nversion {}\npod {}\ndevice {} ({}, {})\nrequest {count}\n",
        words.as_deref().unwrap_or("Hello.").trim_end(),
        version(),
        hostname(),
        env("DEVICE", "unknown"),
        env("CLASS", "unknown"),
        env("SITE", "unknown"),
    )
}

fn hostname() -> String {
    // Not every runtime sets the variable; the kernel knows the pod's name too.
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    std::env::var("HOSTNAME").unwrap_or_else(|_| kernel().trim().to_owned())
}

fn facts(count: u64) -> String {
    let fields = ["DEVICE", "CLASS", "SITE", "ARCH", "CLUSTER"]
        .map(|name| format!("{}:{}", json(&name.to_lowercase()), json(&env(name, ""))));
    format!(
        "{{\"version\":{},\"pod\":{},{},\"requests\":{count}}}\n",
        json(&version()),
        json(&hostname()),
        fields.join(",")
    )
}
