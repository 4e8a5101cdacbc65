//! Fetching from real servers: `git http-backend` over HTTP and HTTPS, `sshd`, and a repository on disk.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod artifacts;
mod disk;
mod history;
mod http;
mod odd;
mod ssh;
mod support;
