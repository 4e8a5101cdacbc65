//! The applications of the example repository, as one small program for container images.
//!
//! `hello` serves HTTP, `sensor` prints and stores a reading at each interval, `job` works for a moment and ends,
//! `check FILE` tells a probe whether a file is fresh. All settings come from the environment, as `leeward init`'s
//! manifests set it. It is built as a static binary and needs nothing else in its image.

mod hello;
mod job;
mod sensor;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Set once the pod is asked to end.
static ENDING: AtomicBool = AtomicBool::new(false);

#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a container speaks through its output"
)]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(err) = end_on_sigterm() {
        eprintln!("cannot watch for SIGTERM: {err}");
        return ExitCode::FAILURE;
    }
    let done = match args.as_slice() {
        ["hello"] => hello::run(),
        ["sensor"] => sensor::run(),
        ["job"] => job::run(),
        ["check", file] => sensor::check(file),
        ["version"] => {
            println!("{}", version());
            Ok(())
        }
        _ => Err("use hello, sensor, job, check FILE or version".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why}", args.first().unwrap_or(&"demo-app"));
            ExitCode::FAILURE
        }
    }
}

/// Process 1 of a container has no default action for signals: without this, each pod would wait out its grace.
fn end_on_sigterm() -> nix::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Blocked before any other thread starts, so that all of them leave the signals to this one.
    signals.thread_block()?;
    std::thread::spawn(move || {
        while signals.wait().is_err() {}
        ENDING.store(true, Ordering::Relaxed);
        // Requests and writes in progress end; whoever still waits then is cut off.
        std::thread::sleep(Duration::from_millis(300));
        std::process::exit(0);
    });
    Ok(())
}

fn ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

/// The image's version, from its environment.
fn version() -> String {
    env("VERSION", env!("CARGO_PKG_VERSION"))
}

fn env(name: &str, otherwise: &str) -> String {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| otherwise.to_owned())
}

fn seconds(name: &str, otherwise: u64) -> Result<u64, String> {
    let given = env(name, &otherwise.to_string());
    match given.parse() {
        Ok(0) | Err(_) => Err(format!("{name}={given:?} is no number of seconds above zero")),
        Ok(seconds) => Ok(seconds),
    }
}

/// Seconds since 1970, by the device's clock.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A text as a JSON string (RFC 8259).
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_become_json() {
        assert_eq!(super::json("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}
