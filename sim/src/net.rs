//! The network of a simulated fleet: a bridge that stands for the internet, a namespace per device, and links that
//! are cut and shaped by the kernel, not by pretending.

use crate::run::{feed, run};
use crate::shape::{Shape, tc};
use anyhow::{Context as _, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// The folder of the world whose bridge is there, where one is.
pub fn holder() -> Option<PathBuf> {
    let text = run("ip", &["-j", "link", "show", BRIDGE]).ok()?;
    let links: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(PathBuf::from(links[0]["ifalias"].as_str().unwrap_or_default()))
}

/// Makes the bridge, in the name of a world's folder, and the table of cut links.
pub fn up(world: &Path) -> Result<()> {
    match holder() {
        None => {
            run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
            // The kernel takes 255 bytes; the end tells folders apart.
            let name = world.to_string_lossy();
            let from = name.len().saturating_sub(255);
            run(
                "ip",
                &[
                    "link",
                    "set",
                    BRIDGE,
                    "alias",
                    name.get(from..).unwrap_or_default(),
                ],
            )?;
        }
        Some(holder) if world.ends_with(holder.strip_prefix("/").unwrap_or(&holder)) => {}
        Some(holder) => bail!(
            "another simulated world is up, in {0}, and two need the same addresses: remove it with \
             `leeward dev --dir {0} down`",
            holder.display()
        ),
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

/// What stands between a device's cable and the internet where a process disturbs it: its bridge, and the ends of the
/// process.
pub struct Detour {
    pub near: String,
    pub ends: [String; 2],
}

/// The names for the `index`th device.
pub fn detour(index: u8) -> Detour {
    Detour {
        near: format!("lwdevb{index}"),
        ends: [format!("lwdevx{index}"), format!("lwdevy{index}")],
    }
}

/// Bridges that the ends of a detour are on.
pub fn detour_bridges(index: u8) -> [String; 2] {
    [detour(index).near, BRIDGE.to_owned()]
}

/// Takes a device's link back to what it was: no limits, no detour.
pub fn unshape(name: &str, index: u8) -> Result<()> {
    let (ns, host) = (namespace(name), host_end(index));
    // Nothing to remove is as good.
    let _ = tc(None, &["del", "dev", &host, "root"]);
    let _ = tc(Some(&ns), &["del", "dev", "eth0", "root"]);
    run("ip", &["link", "set", &host, "master", BRIDGE])?;
    let _ = run("ip", &["link", "del", &detour(index).near]);
    Ok(())
}

/// Limits a device's link at both ends of its cable. Gives whether a process must disturb it besides, because the
/// kernel cannot; the detour is there then, and leads nowhere yet.
pub fn shape(name: &str, index: u8, shape: &Shape) -> Result<bool> {
    unshape(name, index)?;
    let (ns, host) = (namespace(name), host_end(index));
    if shape.disturbs() {
        let both = shape
            .emulate(None, &host)
            .and_then(|()| shape.emulate(Some(&ns), "eth0"));
        if both.is_ok() {
            return Ok(false);
        }
        unshape(name, index)?;
    }
    shape.limit(None, &host)?;
    shape.limit(Some(&ns), "eth0")?;
    if shape.disturbs() {
        let near = detour(index).near;
        run("ip", &["link", "add", &near, "type", "bridge"])?;
        run("ip", &["link", "set", &near, "up"])?;
        run("ip", &["link", "set", &host, "master", &near])?;
    }
    Ok(shape.disturbs())
}

/// Whether a detour leads on to the internet.
pub fn detour_leads_on(index: u8) -> bool {
    let far = &detour(index).ends[1];
    run("ip", &["link", "show", far, "master", BRIDGE]).is_ok_and(|text| text.contains(far.as_str()))
}

/// How long it takes a device to connect to a port of the cloud: one round trip.
pub fn round_trip(name: &str, port: u16) -> Result<Duration> {
    let cloud = SocketAddr::from((CLOUD, port));
    inside(name, || -> Result<Duration> {
        let start = Instant::now();
        TcpStream::connect_timeout(&cloud, Duration::from_secs(5))?;
        Ok(start.elapsed())
    })?
}

/// Removes a device's namespace with all that is in it.
pub fn remove_device(name: &str, index: u8) {
    // Each may be gone already; what is left over after this is removed by the next `up`.
    let _ = run("ip", &["link", "del", &host_end(index)]);
    let _ = run("ip", &["link", "del", &detour(index).near]);
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
