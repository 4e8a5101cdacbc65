//! One HTTP request from inside a device's network namespace, as a client beside the device would make it.

use crate::net;
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// `GET http://address:port/path`; the body of a 200.
pub fn get(device: &str, address: Ipv4Addr, port: u16, path: &str) -> Result<String> {
    let target = SocketAddr::from((address, port));
    net::inside(device, || request(target, path))?
}

fn request(target: SocketAddr, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&target, PATIENCE).with_context(|| format!("connect {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if !head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.0 200") {
        bail!("{target}{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
