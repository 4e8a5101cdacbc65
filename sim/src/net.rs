//! The network of a simulated fleet: a bridge that stands for the internet, a namespace per device, and links that
//! are cut and shaped by the kernel, not by pretending.

use crate::run::{feed, run};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::path::PathBuf;

const BRIDGE: &str = "lwdev0";
const TABLE: &str = "leeward_dev";
/// The internet's side: hub and Git server listen here.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);

/// The network namespace of a device.
pub fn namespace(device: &str) -> String {
    format!("lwdev-{device}")
}

/// Where the namespace can be opened.
pub fn namespace_path(device: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace(device))
}

/// Address of the `index`th device.
pub fn address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, 10 + index)
}

fn host_end(index: u8) -> String {
    format!("lwdevh{index}")
}

/// Whether a world's bridge is there: this one's, or that of another folder.
pub fn is_up() -> bool {
    run("ip", &["link", "show", BRIDGE]).is_ok()
}

/// Makes the bridge and the table of cut links.
pub fn up() -> Result<()> {
    if !is_up() {
        run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
    }
    run("ip", &["addr", "replace", &format!("{CLOUD}/24"), "dev", BRIDGE])?;
    run("ip", &["link", "set", BRIDGE, "up"])?;
    // Devices reach the cloud's address only; a cut link loses packets both ways, as a pulled cable does.
    feed(
        "nft",
        &["-f", "-"],
        &format!(
            "table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{
  set cut {{ type ipv4_addr; }}
  chain input {{ type filter hook input priority -10; ip saddr @cut drop; }}
  chain output {{ type filter hook output priority -10; ip daddr @cut drop; }}
  chain forward {{ type filter hook forward priority -10; ip saddr @cut drop; ip daddr @cut drop; }}
}}\n"
        ),
    )
}

/// Plugs a device in.
pub fn add_device(name: &str, index: u8) -> Result<()> {
    let (ns, host) = (namespace(name), host_end(index));
    if !namespace_path(name).exists() {
        run("ip", &["netns", "add", &ns])?;
    }
    if run("ip", &["link", "show", &host]).is_err() {
        run(
            "ip",
            &[
                "link", "add", &host, "type", "veth", "peer", "name", "eth0", "netns", &ns,
            ],
        )?;
    }
    run("ip", &["link", "set", &host, "master", BRIDGE, "up"])?;
    run(
        "ip",
        &[
            "-n",
            &ns,
            "addr",
            "replace",
            &format!("{}/24", address(index)),
            "dev",
            "eth0",
        ],
    )?;
    run("ip", &["-n", &ns, "link", "set", "lo", "up"])?;
    run("ip", &["-n", &ns, "link", "set", "eth0", "up"])?;
    Ok(())
}

/// Gives or takes the default route; without one a device must work all the same (F2).
pub fn default_route(name: &str, there: bool) -> Result<()> {
    let ns = namespace(name);
    let cloud = CLOUD.to_string();
    if there {
        run("ip", &["-n", &ns, "route", "replace", "default", "via", &cloud])?;
    } else {
        // Absent already is as good.
        let _ = run("ip", &["-n", &ns, "route", "del", "default"]);
    }
    Ok(())
}

/// Cuts a device's link.
pub fn cut(index: u8) -> Result<()> {
    nft_element("add", index)
}

/// Restores it.
pub fn restore(index: u8) -> Result<()> {
    if is_cut(index)? {
        nft_element("delete", index)
    } else {
        Ok(())
    }
}

/// Whether a device's link is cut.
pub fn is_cut(index: u8) -> Result<bool> {
    let set = run("nft", &["list", "set", "inet", TABLE, "cut"])?;
    let address = address(index).to_string();
    Ok(set.split([' ', ',', '\n', '{', '}']).any(|word| word == address))
}

fn nft_element(verb: &str, index: u8) -> Result<()> {
    feed(
        "nft",
        &["-f", "-"],
        &format!("{verb} element inet {TABLE} cut {{ {} }}\n", address(index)),
    )
}

/// Limits a device's link in both directions (token buckets on both ends of its cable), in kbit/s.
pub fn shape(name: &str, index: u8, kbit: Option<u32>) -> Result<()> {
    let (ns, host) = (namespace(name), host_end(index));
    let Some(kbit) = kbit else {
        // Nothing to remove is as good.
        let _ = run("tc", &["qdisc", "del", "dev", &host, "root"]);
        let _ = run("tc", &["-n", &ns, "qdisc", "del", "dev", "eth0", "root"]);
        return Ok(());
    };
    let rate = format!("{kbit}kbit");
    let bucket = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
    run("tc", &[&["qdisc", "replace", "dev", &host], &bucket[..]].concat())?;
    run(
        "tc",
        &[&["-n", &ns, "qdisc", "replace", "dev", "eth0"], &bucket[..]].concat(),
    )?;
    Ok(())
}

/// Removes a device's namespace with all that is in it.
pub fn remove_device(name: &str, index: u8) {
    // Each may be gone already; what is left over after this is removed by the next `up`.
    let _ = run("ip", &["link", "del", &host_end(index)]);
    let _ = run("ip", &["netns", "del", &namespace(name)]);
}

/// Removes the bridge and the table.
pub fn down() {
    let _ = run("ip", &["link", "del", BRIDGE]);
    let _ = run("nft", &["delete", "table", "inet", TABLE]);
}

/// Does something inside a device's network namespace, in a thread that ends there.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = namespace_path(name);
    let ns = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::setns(&ns, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the thread in {} panicked", path.display()))?
    })
}
